"""Commands to the registry: written, read back, and told what became of them, on a log in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace import control_log
from headrace.apps.model_commands import ModelCommands, share_of
from headrace.errors import ArtifactMissing, BrokerRefused, RegistryRefused, TransientError
from headrace.memory_log import Fate, Hook
from headrace.predict.registry import Registry, Role
from headrace.predict.roles import Roster
from tests.unit.apps.engineered import CONTROL, Office, app, moved, promoted, registered, signature


@pytest.fixture
def office() -> Office:
    """An empty control topic."""
    return Office()


@pytest.fixture
def ann(office: Office) -> ModelCommands:
    """The first desk."""
    return office.desk("ann@desk")


@pytest.fixture
def bob(office: Office) -> ModelCommands:
    """The second."""
    return office.desk("bob@desk")


def folded(office: Office) -> Registry:
    """What somebody who reads the topic from its start knows."""
    return office.control().read()


def fates(*fates: Fate) -> Hook:
    """These fates for the first writes, then none."""
    left: Iterator[Fate] = iter(fates)
    return lambda _: next(left, None)


def test_a_command_is_written_and_told(office: Office, ann: ModelCommands) -> None:
    """Register, shadow, promote: each is on the topic under the pipeline's name, and its author learns what is live."""
    done = promoted(ann, "1")
    assert done.outcome.said == "ann@desk promoted version 1 of fraud"
    assert (done.before, done.after) == (Roster(shadows=("1",)), Roster(champion="1"))
    assert done.version.role is Role.CHAMPION
    assert [record.key for record in office.log.read(CONTROL)] == [b"fraud"] * 3
    assert folded(office).roster("fraud") == done.after
    assert office.artifacts.get(done.version.sha256) == b"model 1"


def test_what_is_prepared_is_not_done(office: Office, ann: ModelCommands) -> None:
    """A dry run says what would change, and writes neither record nor artifact."""
    prepared = ann.register(b"model 1", signature("1"))
    assert prepared.said == "ann@desk registered version 1 of fraud"
    assert prepared.version.role is Role.REGISTERED
    assert (office.kept(), office.artifacts.kept) == (0, {})


def test_what_is_not_legal_is_refused_before_it_is_written(office: Office, ann: ModelCommands) -> None:
    """An illegal move, a version that is not there, a rollback to nobody: told at once, in the words of the registry."""
    registered(ann, "1")
    before = office.kept()
    moved(ann, "1", Role.SHADOW)
    with pytest.raises(RegistryRefused, match="fraud has no champion that 1 could challenge"):
        moved(ann, "1", Role.CHALLENGER, share=0.1)
    with pytest.raises(RegistryRefused, match=r"fraud has no version 11.*did you mean 1"):
        ann.move("fraud", "11", Role.SHADOW)
    with pytest.raises(RegistryRefused, match="had none"):
        ann.rollback("fraud")
    assert office.kept() == before + 1


def test_of_two_operators_one_wins_and_the_other_is_told(office: Office, ann: ModelCommands, bob: ModelCommands) -> None:
    """Both saw the same and decided: the second learns by whom and with what he was overtaken, and what he wanted does not happen."""
    promoted(ann, "1")
    for version in "23":
        registered(ann, version)
        moved(ann, version, Role.SHADOW)
    hers, his = ann.move("fraud", "2", Role.CHAMPION), bob.move("fraud", "3", Role.CHAMPION)
    assert ann.carry_out(hers).after.champion == "2"
    with pytest.raises(RegistryRefused, match=r"ann@desk was first: promoted version 2 of fraud, .*Z; look what is live now"):
        bob.carry_out(his)
    assert folded(office).roster("fraud") == Roster(champion="2", shadows=("3",))
    assert bob.carry_out(bob.move("fraud", "3", Role.CHAMPION)).after.champion == "3"


def test_two_who_register_do_not_hinder_each_other(ann: ModelCommands, bob: ModelCommands) -> None:
    """A registration that was overtaken is written again; one of the same version is refused with the other's name."""
    hers, his = ann.register(b"model 1", signature("1")), bob.register(b"model 2", signature("2"))
    same = bob.register(b"model 1, too", signature("1"))
    ann.carry_out(hers)
    assert bob.carry_out(his).version.version == "2"
    with pytest.raises(RegistryRefused, match="version 1 of fraud is taken: ann@desk registered other bytes as that"):
        bob.carry_out(same)


@pytest.mark.parametrize("fate", [Fate.LOST_REQUEST, Fate.LOST_REPLY])
def test_a_write_whose_answer_is_lost_is_done_once(office: Office, fate: Fate) -> None:
    """Written again under the same id, whether it had arrived or not, it counts once."""
    done = registered(office.desk(pause=fates(fate)), "1")
    assert done.outcome.taken
    assert len(folded(office).version("fraud", "1").history) == 1
    assert office.kept() == (1 if fate is Fate.LOST_REQUEST else 2)


def test_an_answer_that_never_comes_is_asked_from_the_log(office: Office) -> None:
    """All answers are lost and the first request was not: the log says that it was taken."""
    desk = office.desk(pause=fates(Fate.LOST_REPLY, Fate.LOST_REQUEST, Fate.LOST_REQUEST))
    assert registered(desk, "1").outcome.taken


def test_what_cannot_be_known_is_said(office: Office) -> None:
    """Nothing arrives: it is said that nobody knows, and where to look; nothing is claimed."""
    desk = office.desk(pause=lambda step: Fate.LOST_REQUEST if step == "control" else None)
    with pytest.raises(TransientError, match=r"not known whether the command was written to cards\.control\.v1.*headrace model list fraud"):
        registered(desk, "1")
    assert office.kept() == 0


def test_pipelines_that_pin_a_model_have_no_registry(ann: ModelCommands) -> None:
    """Commands for them are refused with what to change; so are pipelines that are not there, with the nearest name."""
    with pytest.raises(RegistryRefused, match=r"pipeline limits pins its model \(model='models/limits.onnx'"):
        ann.move("limits", "1", Role.SHADOW)
    with pytest.raises(RegistryRefused, match=r"app cards has no pipeline 'frawd' \(did you mean fraud\?\); it has fraud, limits"):
        ann.rollback("frawd")


def test_names_of_versions_are_checked_before_anything_is_written(ann: ModelCommands) -> None:
    """A version that could not be a name is refused with what one is."""
    with pytest.raises(RegistryRefused, match=r"version 'one two' is no name: .*; stamp the model again with another version="):
        ann.register(b"model", signature("one two"))


def test_an_artifact_is_safe_before_its_version_is_known(office: Office) -> None:
    """Where the store is away nothing is registered."""

    class Away:
        """A store that is away."""

        def put(self, content: bytes) -> str:
            raise TransientError(f"no room for {len(content)} bytes")

        def get(self, sha256: str) -> bytes:
            raise ArtifactMissing(sha256)

        def has(self, sha256: str) -> bool:
            return not sha256

        def close(self) -> None:
            """Nothing is open."""

    desk = office.desk()
    desk.artifacts = Away()
    with pytest.raises(TransientError, match="no room"):
        registered(desk, "1")
    assert office.kept() == 0


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.5%", 0.005), ("0.25", 0.25), ("100%", 1.0), ("1", 1.0)])
def test_shares_are_read_as_people_write_them(text: str, share: float) -> None:
    """Per cent, or a part of one."""
    assert share_of(text) == share


@pytest.mark.parametrize("text", ["", "%", "5 of 100", "0", "-1%", "101%", "5", "nan"])
def test_what_is_no_share_is_refused(text: str) -> None:
    """Nothing, more than all, and 5, which is meant as per cent and is not."""
    with pytest.raises(RegistryRefused, match="is no share of the entities: write for example 5%"):
        share_of(text)


# ------------------------------------------------------------------------------------------------------------------- cutting


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many records may stand behind a snapshot, here."""
    monkeypatch.setattr(control_log, "MOST_RECORDS", 6)
    return 6


def shuffled(desk: ModelCommands, times: int) -> None:
    """Move version 1 to and fro."""
    for number in range(times):
        moved(desk, "1", Role.REGISTERED if number % 2 else Role.SHADOW)


def test_the_log_does_not_grow_for_ever(office: Office, ann: ModelCommands, few: int) -> None:
    """However many commands come, the topic holds a snapshot and a few more; who reads it from its start knows as much as who read all."""
    registered(ann, "1")
    for _ in range(20):
        shuffled(ann, 2)
        assert office.kept() <= few + 2
    assert office.log.log_range(CONTROL).start > 30
    fresh, known = folded(office), ann.registry()
    assert fresh.snapshot() == known.snapshot()
    assert len(fresh.version("fraud", "1").history) == 41


def test_who_was_behind_when_the_log_was_cut_comes_up(office: Office, ann: ModelCommands, bob: ModelCommands, few: int) -> None:
    """A reader in the middle of the log finds its next records gone, and takes the snapshot over."""
    registered(ann, "1")
    shuffled(ann, 2)
    behind = bob.registry().end
    shuffled(ann, 2 * few)
    assert office.log.log_range(CONTROL).start > behind
    assert bob.registry().snapshot() == ann.registry().snapshot()
    assert moved(bob, "1", Role.SHADOW).outcome.taken


def test_a_command_is_told_even_where_it_was_cut_away(office: Office, ann: ModelCommands, few: int) -> None:
    """Between his writing and his reading others wrote, and cut: the snapshot still says what became of his command."""
    registered(ann, "1")
    his = office.desk("bob@desk")
    write = his._log.write

    def write_and_wait(key: bytes | None, value: bytes) -> None:
        write(key, value)
        shuffled(ann, 2 * few)

    his._log.write = write_and_wait  # type: ignore[method-assign]
    prepared = his.move("fraud", "1", Role.RETIRED)
    assert his.carry_out(prepared).outcome.said == "bob@desk retired version 1 of fraud"
    assert office.log.log_range(CONTROL).start > prepared.command.expects


def test_a_snapshot_that_was_overtaken_deletes_nothing(office: Office, ann: ModelCommands, bob: ModelCommands, few: int) -> None:
    """Somebody writes between the reading and the writing of a snapshot: it holds nothing, so nothing is cut, and the next one does it."""
    registered(ann, "1")
    shuffled(ann, few - 1)
    hasty = office.desk("cat@desk")
    write = hasty._log.write

    def late(key: bytes | None, value: bytes) -> None:
        if key is None:
            office.log.append(app.control, 0, None, b"somebody's junk")
        write(key, value)

    hasty._log.write = late  # type: ignore[method-assign]
    moved(hasty, "1", Role.REGISTERED)
    assert office.log.log_range(CONTROL).start == 0
    assert folded(office).snapshot_at is None
    moved(bob, "1", Role.SHADOW)
    assert office.log.log_range(CONTROL).start > 0
    assert folded(office).snapshot() == ann.registry().snapshot()


def test_who_may_not_delete_is_warned_and_goes_on(office: Office, few: int) -> None:
    """Without the right the command is done all the same; whoever has the right cuts the next time."""
    desk = office.desk()

    def refuse(offset: int) -> None:
        raise BrokerRefused(f"no right below {offset}")

    desk._log.delete_before = refuse  # type: ignore[method-assign]
    registered(desk, "1")
    shuffled(desk, few - 1)
    (warning,) = moved(desk, "1", Role.REGISTERED).warnings
    assert "cards.control.v1 cannot be cut before offset 7 (no right below 7)" in warning
    assert office.log.log_range(CONTROL).start == 0
    assert moved(office.desk(), "1", Role.SHADOW).warnings == ()
    assert office.log.log_range(CONTROL).start == 7


@pytest.mark.parametrize("kept", [0, 1])
def test_a_log_without_its_beginning_is_refused(office: Office, ann: ModelCommands, kept: int) -> None:
    """Records were deleted and no snapshot stands there: nobody may take half a registry for the whole."""
    registered(ann, "1")
    moved(ann, "1", Role.SHADOW)
    office.log.delete_before(CONTROL, 2 - kept)
    control = office.control()
    for _ in range(2):
        with pytest.raises(RegistryRefused, match=rf"begins at offset {2 - kept}, and no snapshot stands there.*retention.ms=-1"):
            control.read()
