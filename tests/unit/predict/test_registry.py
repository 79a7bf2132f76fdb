"""The fold of the control topic: legal moves, who was first, what became of a command, snapshots."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import RegistryRefused
from headrace.predict import moves
from headrace.predict.commands import Move, Rollback, command_bytes, parsed
from headrace.predict.outcomes import MOST_KEPT
from headrace.predict.registry import MOST_CHANGES, MOVES, Only, Refused, Registry, Role
from headrace.predict.roles import Roster
from tests.unit.predict.registering import PIPELINE, Topic, register

CHAMPION, CHALLENGER, SHADOW, REGISTERED, RETIRED = Role.CHAMPION, Role.CHALLENGER, Role.SHADOW, Role.REGISTERED, Role.RETIRED

WAYS: dict[Role, list[Role]] = {
    REGISTERED: [],
    SHADOW: [SHADOW],
    CHALLENGER: [SHADOW, CHALLENGER],
    CHAMPION: [SHADOW, CHAMPION],
    RETIRED: [RETIRED],
}
"""By role the moves that lead there."""


@pytest.fixture
def topic() -> Topic:
    """An empty control topic."""
    return Topic()


@pytest.fixture
def live(topic: Topic) -> Topic:
    """Champion 1, challenger 2 for a tenth, shadow 3, and 4 registered."""
    for version in "1234":
        assert topic.register(version).taken
    for version, role in (("1", CHAMPION), ("2", SHADOW), ("2", CHALLENGER), ("3", SHADOW)):
        assert topic.move(version, role).taken
    return topic


# --------------------------------------------------------------------------------------------------------------- the table


def test_the_table_is_the_one_that_is_drawn() -> None:
    """The rows in the docstring of `moves` are the mapping, cell by cell."""
    lines = (moves.__doc__ or "").splitlines()
    head = next(number for number, line in enumerate(lines) if "now | next" in line)
    columns = [Role(word) for word in lines[head].split("next")[1].split()]
    drawn = {Role(row.split()[0]): dict(zip(columns, row.split()[1:], strict=True)) for row in lines[head + 1 : head + 1 + len(Role)]}
    assert {role: {to: word for to, word in row.items() if word != "-"} for role, row in drawn.items()} == {
        role: {to: only.value for to, only in row.items()} for role, row in MOVES.items()
    }


@pytest.mark.parametrize(("now", "to"), list(itertools.product(Role, Role)))
@pytest.mark.parametrize("champion", [False, True])
@pytest.mark.parametrize("challenger", [False, True])
def test_every_move_is_legal_as_the_table_says(topic: Topic, now: Role, to: Role, *, champion: bool, challenger: bool) -> None:
    """Each pair of roles, with and without a champion and a challenger beside it: taken where the table says so, else nothing changes."""
    for version in ("a", "b", "x"):
        topic.register(version)
    if (champion or challenger) and now is not CHAMPION:
        topic.move("a", CHAMPION)
    for role in WAYS[now]:
        topic.move("x", role)
    if now is CHALLENGER and not champion:
        topic.move("a", CHAMPION)
        topic.move("x", CHALLENGER)
    if challenger and now is not CHALLENGER:
        topic.move("b", SHADOW)
        topic.move("b", CHALLENGER)
    assert topic.role("x") is now
    roster = topic.registry.roster(PIPELINE)
    is_met = {
        Only.ALWAYS: True,
        Only.NO_CHAMPION: roster.champion is None,
        Only.LONE_CHALLENGER: roster.champion is not None and roster.challenger in {None, "x"},
        Only.NO_CHALLENGER: roster.challenger is None,
    }
    only = MOVES[now].get(to)
    outcome = topic.move("x", to, share=0.3 if to is CHALLENGER else None)
    assert outcome.taken == (only is not None and is_met[only]), outcome.text
    if outcome.taken:
        assert topic.role("x") is to
    else:
        assert outcome.refused is Refused.ILLEGAL_MOVE
        assert outcome.fix
        assert topic.registry.roster(PIPELINE) == roster


def test_promotion_retires_the_champion_of_before(live: Topic) -> None:
    """The old champion is retired by the same command, and told why; the challenger goes on."""
    assert live.move("3", CHAMPION, by="bob@desk").taken
    assert live.registry.roster(PIPELINE) == Roster(champion="3", challenger="2", share=0.1)
    (*_, change) = live.registry.version(PIPELINE, "1").history
    assert (change.role, change.by, change.reason) == (RETIRED, "bob@desk", "version 3 was promoted")


def test_there_is_never_more_than_one_champion_and_challenger(live: Topic) -> None:
    """A second challenger is refused by name; promoting the challenger frees its place."""
    live.move("4", SHADOW)
    refused = live.move("4", CHALLENGER)
    assert refused.text == (
        "version 2 of delay is the challenger already, and there is one at a time; end that first: headrace model shadow delay 2"
    )
    live.move("2", CHAMPION)
    assert live.move("4", CHALLENGER, share=0.25).taken
    assert live.registry.roster(PIPELINE) == Roster(champion="2", challenger="4", share=0.25, shadows=("3",))


def test_share_of_a_challenger_can_be_changed(live: Topic) -> None:
    """Another share is a move of its own; the same share again is refused, as nothing would happen."""
    assert live.move("2", CHALLENGER, share=0.5).taken
    assert live.registry.roster(PIPELINE).share == 0.5
    assert "challenger for 50% of the entities already" in live.move("2", CHALLENGER, share=0.5).said


# ---------------------------------------------------------------------------------------------------------------- rollback


def test_rollback_goes_back_one_promotion_after_the_other(topic: Topic) -> None:
    """Three promotions, two rollbacks: the champions come back in turn; a third is refused."""
    for version in "123":
        topic.register(version)
        topic.move(version, SHADOW)
        topic.move(version, CHAMPION)
    assert topic.rollback().said == "ann@desk rolled back from version 3 to version 2 of delay"
    assert (topic.role("2"), topic.role("3")) == (CHAMPION, RETIRED)
    assert topic.rollback().taken
    assert topic.registry.roster(PIPELINE) == Roster(champion="1")
    refused = topic.rollback()
    assert refused.refused is Refused.NOTHING_BEFORE
    assert "version 1 is the first champion of delay" in refused.said


def test_rollback_takes_the_champion_of_before_from_whatever_it_is_now(live: Topic) -> None:
    """The champion of before runs as a shadow meanwhile: it answers again, and is a shadow no more."""
    live.move("2", CHAMPION)
    live.move("1", SHADOW)
    assert live.rollback().taken
    assert live.registry.roster(PIPELINE) == Roster(champion="1", shadows=("3",))


def test_a_champion_that_was_retired_by_hand_is_no_champion_of_before(topic: Topic) -> None:
    """Who retires the champion ends it: a rollback brings the one before it, not that one."""
    for version in "12":
        topic.register(version)
        topic.move(version, SHADOW)
        topic.move(version, CHAMPION)
    assert topic.move("2", RETIRED).taken
    assert topic.registry.roster(PIPELINE) == Roster()
    assert topic.registry.before(PIPELINE) == "1"
    assert topic.rollback().said == "ann@desk rolled back to version 1 of delay"
    assert topic.move("1", RETIRED).taken
    assert topic.rollback().refused is Refused.NOTHING_BEFORE


def test_rollback_of_nothing_is_refused() -> None:
    """A pipeline without versions, and one that never had a champion, have nothing to go back to."""
    topic = Topic()
    assert topic.rollback().refused is Refused.NOTHING_BEFORE
    topic.register("1")
    assert topic.rollback().refused is Refused.NOTHING_BEFORE


# ------------------------------------------------------------------------------------------------------------ who was first


def test_of_two_operators_who_saw_the_same_the_first_one_wins(live: Topic) -> None:
    """The second is told by whom, what and when, and nothing of his happens."""
    seen = live.registry.end
    assert live.move("2", CHAMPION, expects=seen, by="ann@desk").taken
    lost = live.move("3", CHAMPION, expects=seen, by="bob@desk")
    assert lost.refused is Refused.OVERTAKEN
    assert lost.text == (
        "ann@desk was first: promoted version 2 of delay, 1970-01-01T00:00:09Z; "
        "look what is live now (headrace model list delay), then decide again"
    )
    assert live.registry.roster(PIPELINE).champion == "2"
    assert live.move("3", CHAMPION, by="bob@desk").taken


def test_what_was_refused_or_is_of_another_pipeline_is_nobody_who_was_first(live: Topic) -> None:
    """Behind what an author has seen there may be refused commands, and commands of other pipelines: his is taken."""
    seen = live.registry.end
    live.move("4", CHALLENGER)
    live.command(register("1", live.registry.end, number=900, pipeline="fraud"))
    live.write(b"no command")
    assert live.move("4", SHADOW, expects=seen).taken


def test_a_command_written_twice_is_taken_once(live: Topic) -> None:
    """A producer that tries again writes the same id twice; the first one counts, whatever became of it."""
    move = Move(id="a" * 32, at_ms=1, by="ann@desk", pipeline=PIPELINE, version="4", to=SHADOW, expects=live.registry.end)
    assert live.command(move).taken
    first = live.registry.outcome("a" * 32)
    assert live.command(move).refused is Refused.REPEATED
    assert live.registry.outcome("a" * 32) is first
    assert len(live.registry.version(PIPELINE, "4").history) == 2


def test_only_so_many_outcomes_are_remembered(topic: Topic) -> None:
    """The newest 1,000 commands can be asked for, refused ones too; the oldest are forgotten."""
    for number in range(MOST_KEPT + 1):
        topic.command(Rollback(id=f"{number:032x}", at_ms=1, by="ann@desk", pipeline=PIPELINE, expects=0))
    assert topic.registry.outcome(f"{0:032x}") is None
    assert topic.registry.outcome(f"{1:032x}") is not None
    assert topic.registry.outcome(f"{MOST_KEPT:032x}") is not None


# -------------------------------------------------------------------------------------------------------------- registering


def test_a_version_is_registered_once(topic: Topic) -> None:
    """The same bytes again, and other bytes under the same name, are refused in different words."""
    assert topic.register("1").taken
    again = topic.register("1")
    assert (again.refused, "with the same bytes" in again.said) == (Refused.REGISTERED_ALREADY, True)
    other = topic.register("1", content="other bytes")
    assert (other.refused, "another version=" in other.fix) == (Refused.REGISTERED_ALREADY, True)
    assert [one.version for one in topic.registry.versions()] == ["1"]


def test_a_version_keeps_what_it_was_registered_with(topic: Topic) -> None:
    """Signature, hash, card, author and time stand in the version, its moves in its history."""
    topic.register("1")
    topic.move("1", SHADOW, reason="to be looked at")
    found = topic.registry.version(PIPELINE, "1")
    wanted = register("1", 0, number=1)
    assert (found.signature, found.sha256, found.bytes, found.card) == (wanted.signature, wanted.sha256, 123, {"owner": "ann"})
    assert (found.by, found.registered_ms, found.role) == ("ann@desk", 1_000, SHADOW)
    assert [(one.offset, one.role, one.reason) for one in found.history] == [(0, REGISTERED, None), (1, SHADOW, "to be looked at")]


def test_of_many_moves_the_newest_are_told(topic: Topic) -> None:
    """A version that is moved without end does not make a snapshot grow without end."""
    topic.register("1")
    for role in [SHADOW, REGISTERED] * MOST_CHANGES:
        assert topic.move("1", role).taken
    history = topic.registry.version(PIPELINE, "1").history
    assert len(history) == MOST_CHANGES
    assert history[-1].offset == 2 * MOST_CHANGES


def test_versions_that_are_not_there_are_named_with_the_nearest(live: Topic) -> None:
    """Asking for an unknown version or pipeline says which was perhaps meant; a command for one is refused in the same way."""
    live.register("2024-01")
    with pytest.raises(RegistryRefused, match=r"delay has no version 2024-02 \(did you mean 2024-01\?\); .*headrace model list delay"):
        live.registry.version(PIPELINE, "2024-02")
    with pytest.raises(RegistryRefused, match=r"no version of pipeline 'dely' is registered \(did you mean delay\?\)"):
        live.registry.version("dely", "1")
    assert live.move("2024-02", SHADOW).refused is Refused.UNKNOWN_VERSION
    assert live.registry.pipelines() == [PIPELINE]


# -------------------------------------------------------------------------------------------------------------------- epoch


def test_epoch_moves_with_who_scores_and_with_nothing_else(topic: Topic) -> None:
    """Registering, refused commands and retiring what does not score leave it; each change of a roster puts it behind its command."""
    assert topic.registry.epoch == 0
    topic.register("1")
    topic.register("2")
    assert topic.registry.epoch == 0
    topic.move("1", CHAMPION)
    assert (topic.registry.epoch, topic.registry.end) == (3, 3)
    topic.move("2", RETIRED)
    topic.move("1", SHADOW)
    topic.write(b"{}")
    assert (topic.registry.epoch, topic.registry.end) == (3, 6)
    topic.move("2", SHADOW)
    assert topic.registry.epoch == 7


# ------------------------------------------------------------------------------------------------------------- what is none

GOOD = json.loads(command_bytes(register("7", 0, number=7)))
MOVE = json.loads(command_bytes(Move(id="b" * 32, at_ms=1, by="ann", pipeline=PIPELINE, version="1", to=CHALLENGER, share=0.1, expects=0)))
DEEP = json.loads("[" * 200 + "]" * 200)

BAD: list[bytes | None] = [
    None,
    b"",
    b"\xff",
    b"[]",
    b"nonsense",
    b"{" * 100_000,
    json.dumps({**GOOD, "v": 2}).encode(),
    json.dumps({**GOOD, "kind": "sing"}).encode(),
    json.dumps({**GOOD, "id": "7"}).encode(),
    json.dumps({**GOOD, "at_ms": -1}).encode(),
    json.dumps({**GOOD, "at_ms": True}).encode(),
    json.dumps({**GOOD, "by": ""}).encode(),
    json.dumps({**GOOD, "by": "two\nlines"}).encode(),
    json.dumps({**GOOD, "version": "a b"}).encode(),
    json.dumps({**GOOD, "version": "8"}).encode(),
    json.dumps({**GOOD, "pipeline": "fraud"}).encode(),
    json.dumps({**GOOD, "sha256": "F" * 64}).encode(),
    json.dumps({**GOOD, "signature": {"format": 1}}).encode(),
    json.dumps({**GOOD, "signature": None}).encode(),
    json.dumps({**GOOD, "card": "a text"}).encode(),
    json.dumps({**GOOD, "card": {"auc": float("nan")}}).encode(),
    json.dumps({**GOOD, "card": {"deep": DEEP}}).encode(),
    json.dumps({**GOOD, "lineage": 1}).encode(),
    json.dumps({key: value for key, value in GOOD.items() if key != "expects"}).encode(),
    json.dumps({**MOVE, "to": "king"}).encode(),
    json.dumps({**MOVE, "share": 0}).encode(),
    json.dumps({**MOVE, "share": 1.01}).encode(),
    json.dumps({**MOVE, "share": "5%"}).encode(),
    json.dumps({**MOVE, "to": "shadow"}).encode(),
    json.dumps({**MOVE, "reason": ["why"]}).encode(),
    b'{"v":1,"kind":"snapshot","at_ms":1,"state":{}}',
    b'{"v":1,"kind":"snapshot","at_ms":1,"state":{"pipelines":[],"outcomes":[],"epoch":0,"end":0}}',
    b'{"v":1,"kind":"snapshot","at_ms":1,"state":{"pipelines":{"p":{"last":{}}},"outcomes":[],"epoch":0,"end":0}}',
    b'{"v":1,"kind":"snapshot","at_ms":1,"state":{"pipelines":{},"outcomes":[[1,2,3,4,5]],"epoch":0,"end":0}}',
]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_command_is_refused_and_changes_nothing(bad: bytes | None) -> None:
    """Damage of any kind in a record is an outcome, not an exception, on an empty topic and on a used one."""
    topic = Topic()
    assert topic.registry.take(0, bad).refused is Refused.UNREADABLE
    topic.records.append((0, bad or b""))
    topic.register("1")
    before = json.loads(topic.registry.snapshot())["state"]
    assert topic.registry.take(2, bad).refused is Refused.UNREADABLE
    after = json.loads(topic.registry.snapshot())["state"]
    assert after == {**before, "end": 3}


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    ).map(lambda x: json.dumps(x).encode())
)
def test_nothing_that_a_record_may_hold_raises(value: bytes) -> None:
    """Any bytes, and any JSON, are folded into an outcome."""
    registry = Registry()
    registry.take(3, value)
    assert registry.end == 4


def places(told: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where something stands in a JSON value."""
    inside = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    return [place for key, one in inside for place in [(*path, key), *places(one, (*path, key))]]


def damaged(told: Any, place: tuple[str | int, ...], by: object) -> Any:
    """The same with something else at a place; `...` takes it away."""
    if not place:
        return by
    key, *rest = place
    copy: Any = dict(told) if isinstance(told, dict) else list(told)
    if not rest and by is ...:
        del copy[key]
    else:
        copy[key] = damaged(told[key], tuple(rest), by)
    return copy


LEAVES: st.SearchStrategy[object] = st.sampled_from(
    [None, True, -1, 0, 1 << 70, 0.5, "", "x", "champion", "challenger", "1", [], {}, [[]], [{}], {"x": []}, ...]
)


@given(st.integers(0, 10_000), LEAVES)
def test_a_damaged_snapshot_is_refused_or_harmless(number: int, by: object) -> None:
    """One thing changed or missing anywhere in a snapshot: it is folded without an exception, and so is whatever comes behind it."""
    topic = Topic()
    for version in "1234":
        topic.register(version)
    for version, role in (("1", CHAMPION), ("2", SHADOW), ("2", CHALLENGER), ("3", SHADOW), ("3", CHAMPION)):
        topic.move(version, role)
    topic.move("4", CHALLENGER)
    told = json.loads(topic.registry.snapshot())
    there = places(told)
    late = Topic(registry=Registry(), records=list(topic.records))
    late.write(json.dumps(damaged(told, there[number % len(there)], by)).encode())
    for step in ("rollback", "register", *Role):
        for version in "12345":
            play(late, [(step, version, 0, 0.5)])
    late.registry.tried(b"{}")
    for known in late.registry.versions():
        assert late.registry.version(known.pipeline, known.version) == known
    assert late.registry.end == len(late.records)


def test_a_record_that_was_taken_is_not_taken_again(live: Topic) -> None:
    """A reader that hands the same offset over twice changes nothing."""
    before = live.registry.snapshot()
    assert live.registry.take(*live.records[2]).refused is Refused.REPEATED
    assert live.registry.snapshot() == before


# ---------------------------------------------------------------------------------------------------------------- snapshots


def same(one: Registry, other: Registry) -> bool:
    """Whether two registries know the same."""
    return (one.snapshot(), one.epoch, one.end) == (other.snapshot(), other.epoch, other.end)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "rollback", "junk", *Role]),
        st.sampled_from("1234"),
        st.sampled_from([0, 0, 0, 0, 1, 3]),  # how many records the author has not seen
        st.sampled_from([0.1, 0.5]),
    ),
    max_size=40,
)


def play(topic: Topic, steps: list[tuple[str, str, int, float]]) -> None:
    """Write what the steps say."""
    for step, version, unseen, share in steps:
        expects = max(0, topic.registry.end - unseen)
        match step:
            case "register":
                topic.register(version, expects=expects)
            case "rollback":
                topic.rollback(expects=expects)
            case "junk":
                topic.write(b"junk")
            case role:
                topic.move(version, Role(role), share=share if role == CHALLENGER else None, expects=expects)


@given(STEPS, STEPS, st.integers(0, 2))
def test_a_snapshot_and_the_rest_are_the_whole_log(
    before: list[tuple[str, str, int, float]], rest: list[tuple[str, str, int, float]], gap: int
) -> None:
    """Whoever begins at a snapshot knows all that a reader of the whole log knows, outcomes and epoch included, then and ever after."""
    topic = Topic(gap=gap)
    play(topic, before)
    assert topic.write(topic.registry.snapshot(at_ms=5)).taken
    start = len(topic.records) - 1
    play(topic, rest)
    late = Registry()
    for offset, value in topic.records[start:]:
        late.take(offset, value)
    assert same(late, topic.registry)
    again = Registry()
    for offset, value in topic.records:
        again.take(offset, value)
    assert same(again, topic.registry)
    for version in late.versions():
        assert version == topic.registry.version(version.pipeline, version.version)
    assert late.roster(PIPELINE) == topic.registry.roster(PIPELINE)


@given(STEPS)
def test_roles_stay_consistent_whatever_is_commanded(steps: list[tuple[str, str, int, float]]) -> None:
    """At most one champion and one challenger, no challenger without a champion, and the champion is the last one that was promoted."""
    topic = Topic()
    for step in steps:
        play(topic, [step])
        roles = [one.role for one in topic.registry.versions()]
        assert roles.count(CHAMPION) <= 1
        assert roles.count(CHALLENGER) <= roles.count(CHAMPION)
        roster = topic.registry.roster(PIPELINE)
        assert roster.champion is None or topic.registry.before(PIPELINE) is None or roster.champion in roster.versions
        for version in topic.registry.versions():
            assert (version.share is not None) == (version.role is CHALLENGER)
            assert version.history[-1].role is version.role


def test_a_snapshot_whose_writer_was_not_up_to_date_counts_for_nothing(live: Topic) -> None:
    """A command came between reading and writing: nobody takes that snapshot, so nothing before it may be deleted."""
    stale = live.registry.snapshot()
    live.move("4", SHADOW)
    assert live.write(stale).refused is Refused.STALE_SNAPSHOT
    assert live.role("4") is SHADOW


def test_a_snapshot_of_the_future_is_refused() -> None:
    """A state that claims to know more than stands before it is damage."""
    topic = Topic()
    for version in "123":
        topic.register(version)
    assert Registry().take(1, topic.registry.snapshot()).refused is Refused.STALE_SNAPSHOT


def test_the_checker_of_sameness_sees_a_difference(live: Topic) -> None:
    """The comparison that the property rests on tells two registries apart that differ in one share."""
    other = Registry()
    for offset, value in live.records:
        told = json.loads(value)
        other.take(offset, json.dumps({**told, "share": 0.2}).encode() if "share" in told else value)
    assert not same(other, live.registry)


def test_commands_are_read_as_they_were_written() -> None:
    """A command that goes through its JSON is the same, with and without what may be absent."""
    for command in (
        register("1", 3, number=1),
        replace(register("1", 3, number=1), card=None, lineage={"frame": "ab"}),
        Move(id="b" * 32, at_ms=1, by="ann", pipeline=PIPELINE, version="1", to=CHALLENGER, share=0.1, expects=0),
        Move(id="b" * 32, at_ms=1, by="ann", pipeline=PIPELINE, version="1", to=RETIRED, reason="too slow", expects=2),
        Rollback(id="c" * 32, at_ms=1, by="ann", pipeline=PIPELINE, reason="drift", expects=2),
    ):
        assert parsed(command_bytes(command)) == command
