"""Notice of a change: announced, waited for, used once, and shown, on a registry in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import headrace as hr
from headrace.apps.model_desk import Desk
from headrace.audit.wanted import wanted_before
from headrace.changes import last_applied, starting_offsets
from headrace.cli import model, tail
from headrace.crashes import condemned_offsets
from headrace.errors import DefinitionError, RegistryRefused
from headrace.forgotten import erasures_in
from headrace.notices import notices_in
from headrace.predict.registry import Role
from headrace.publish.records import Notice
from headrace.switches import switches_in
from headrace.types import Record, TopicPartition
from tests.unit.apps.engineered import Office, moved, promoted, registered, spending

fraud = hr.Pipeline("fraud", views=[spending], event_features=["amount"], predictions="fraud.v1", notice="24h")
careful = hr.App("cards", pipelines=[fraud])
DAY_MS = 86_400_000


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Office:
    """Champion 2 after 1, shadow 3, of a pipeline that gives a day's notice."""
    found = Office(careful)
    desk = found.desk()
    for version in "12":
        promoted(desk, version)
    registered(desk, "3")
    moved(desk, "3", Role.SHADOW)

    @contextmanager
    def opened(*_: object, by: str | None = None) -> Iterator[Desk]:
        yield found.open(by or "ann@desk")

    monkeypatch.setattr("headrace.cli.model.opened", opened)
    return found


def invoked(*arguments: str) -> Result:
    """Give a command."""
    return CliRunner().invoke(model.app, [*arguments, "--app", "anything:app"])


def run(*arguments: str) -> str:
    """What a command prints that succeeds."""
    done = invoked(*arguments)
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done.stdout


def refused(*arguments: str) -> str:
    """The error with which a command ends."""
    done = invoked(*arguments)
    assert isinstance(done.exception, RegistryRefused), done.output
    return str(done.exception)


def given(office: Office) -> list[Notice]:
    """The notices on the facts topic."""
    return notices_in(office.open().facts())


def champion(office: Office) -> str | None:
    """Who answers."""
    return office.control().read().roster("fraud").champion


def test_a_promotion_waits_for_its_notice(office: Office) -> None:
    """Without one it is refused with the next command, before it is over with the time; then it is carried out."""
    assert "none stands of the champion of fraud: version 2 -> version 3" in refused("promote", "fraud", "3")
    assert refused("promote", "fraud", "3").endswith(": headrace model promote fraud 3 --announce")
    printed = run("promote", "fraud", "3", "--announce")
    (notice,) = given(office)
    assert (notice.what, notice.before, notice.to, notice.given, notice.by) == ("champion", "2", "3", "ahead", "ann@desk")
    assert notice.at_ms - notice.given_ms == DAY_MS
    assert "notice by ann@desk of the champion of fraud: version 2 -> version 3, not before 2023-11-15T" in printed
    assert printed.endswith(": headrace model promote fraud 3\n")
    office.clock.advance(DAY_MS - 60_000)
    assert "comes not before 2023-11-15T" in refused("promote", "fraud", "3")
    assert champion(office) == "2"
    office.clock.advance(60_000)
    run("promote", "fraud", "3")
    assert champion(office) == "3"


def test_a_notice_is_given_once_and_used_once(office: Office) -> None:
    """Announcing again writes nothing and tells the one that stands; after the change it is void."""
    first = run("promote", "fraud", "3", "--announce")
    assert run("promote", "fraud", "3", "--announce") == first
    assert len(given(office)) == 1
    office.clock.advance(DAY_MS)
    run("promote", "fraud", "3")
    run("rollback", "fraud", "--emergency", "--reason", "it drifts")
    run("shadow", "fraud", "3")
    assert "none stands of" in refused("promote", "fraud", "3")


def test_a_notice_is_good_for_exactly_its_change(office: Office) -> None:
    """One of another version, or of the same from another champion, is none."""
    registered(office.desk(), "4")
    moved(office.desk(), "4", Role.SHADOW)
    run("promote", "fraud", "3", "--announce")
    office.clock.advance(DAY_MS)
    assert "version 2 -> version 4" in refused("promote", "fraud", "4")
    run("promote", "fraud", "4", "--notice-given", "--reason", "by mail on Monday")
    assert "version 4 -> version 3" in refused("promote", "fraud", "3")


def test_an_emergency_does_not_wait_and_is_told_all_the_same(office: Office) -> None:
    """A rollback at once needs a reason, and leaves a notice that says so; without the flag it waits as others do."""
    assert "headrace model rollback fraud --announce" in refused("rollback", "fraud")
    assert "say why the champion of fraud: version 2 -> version 1 does not wait" in refused("rollback", "fraud", "--emergency")
    assert champion(office) == "2"
    run("rollback", "fraud", "--emergency", "--reason", "it drifts")
    assert champion(office) == "1"
    (notice,) = given(office)
    assert (notice.given, notice.before, notice.to, notice.reason) == ("emergency", "2", "1", "it drifts")
    assert notice.at_ms == notice.given_ms


def test_notice_that_was_given_elsewhere_is_recorded(office: Office) -> None:
    """--notice-given with its reason goes on at once, and downstream finds a record of it."""
    assert "say why" in refused("promote", "fraud", "3", "--notice-given")
    run("promote", "fraud", "3", "--notice-given", "--reason", "by mail on Monday")
    assert [(one.given, one.reason) for one in given(office)] == [("elsewhere", "by mail on Monday")]
    assert champion(office) == "3"


def test_a_challenger_is_announced_with_its_share(office: Office) -> None:
    """Another share is another change; taking the challenger back is none."""
    run("challenge", "fraud", "3", "--share", "5%", "--announce")
    office.clock.advance(DAY_MS)
    assert "challenge fraud 3 --share 10% --announce" in refused("challenge", "fraud", "3", "--share", "10%")
    run("challenge", "fraud", "3", "--share", "5%")
    assert [(one.what, one.before, one.to, one.share) for one in given(office)] == [("challenger", None, "3", 0.05)]
    run("shadow", "fraud", "3")
    assert "none stands of the challenger" in refused("challenge", "fraud", "3", "--share", "5%")


def test_leaving_nobody_to_answer_is_a_change_too(office: Office) -> None:
    """Retiring the champion waits, or is an emergency; retiring a shadow is nobody's business."""
    assert "version 2 -> nobody" in refused("retire", "fraud", "2", "--yes")
    run("retire", "fraud", "3")
    run("retire", "fraud", "2", "--yes", "--emergency", "--reason", "the law")
    assert [(one.before, one.to, one.given) for one in given(office)] == [("2", None, "emergency")]


def test_a_dry_run_says_that_it_would_wait(office: Office) -> None:
    """What is legal but comes too early is told as a warning, and nothing is written."""
    told: dict[str, Any] = json.loads(run("promote", "fraud", "3", "--dry-run", "--output", "json"))
    assert "none stands of" in told["warnings"][0]
    assert "  ! pipeline fraud gives notice 1d before" in run("promote", "fraud", "3", "--dry-run")
    assert given(office) == []


@pytest.mark.usefixtures("office")
@pytest.mark.parametrize(
    "flags", [["--announce", "--notice-given"], ["--announce", "--emergency"], ["--notice-given", "--emergency"]], ids=" ".join
)
def test_flags_that_say_two_things_are_refused(flags: list[str]) -> None:
    """A change is announced, or was, or cannot wait."""
    assert invoked("rollback", "fraud", *flags, "--reason", "x").exit_code == 2


def test_history_and_tail_show_notices(office: Office) -> None:
    """A notice stands before the change it is of, for people and for programs; `tail` says what a fact means."""
    run("promote", "fraud", "3", "--announce", "--reason", "better by 2%")
    office.clock.advance(DAY_MS)
    run("promote", "fraud", "3")
    lines = run("history", "fraud").splitlines()
    assert lines[-3].startswith("notice by ann@desk of the champion of fraud: version 2 -> version 3, not before 2023-11-15T")
    assert lines[-3].endswith(": better by 2%")
    assert "version 3: " in lines[-1]
    assert not any(line.startswith("notice") for line in run("history", "fraud", "1").splitlines())
    (told,) = (one for one in json.loads(run("history", "fraud", "3", "--output", "json")) if "notice" in one)
    assert (told["version"], told["notice"]["from"], told["notice"]["kind"]) == ("3", "2", "notice")
    (fact,) = office.log.read(TopicPartition(careful.facts, 0))
    assert isinstance(fact, Record)
    assert tail.text(fact).splitlines()[-1] == f"    = {lines[-3]}"


@pytest.mark.parametrize("read", [condemned_offsets, erasures_in, switches_in, last_applied, starting_offsets, None])
def test_other_readers_of_facts_pass_over_notices(office: Office, read: Callable[..., object] | None) -> None:
    """Whoever reads another kind of fact finds nothing in a notice; who reads notices passes over other facts, and junk."""
    run("promote", "fraud", "3", "--announce")
    facts = office.open().facts()
    assert not (wanted_before(facts, [spending]) if read is None else read(facts))
    assert len(notices_in([b'{"kind":"switch"}', None, b"junk", b'{"kind":"notice"}', *facts])) == 1


def test_a_pipeline_without_notice_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands are carried out at once, flags or not; announcing is refused with what to write."""
    office = Office()
    promoted(office.desk(), "1")
    promoted(office.desk(), "2")

    @contextmanager
    def opened(*_: object, by: str | None = None) -> Iterator[Desk]:
        yield office.open(by or "ann@desk")

    monkeypatch.setattr("headrace.cli.model.opened", opened)
    assert "its definition declares none: write notice='24h'" in refused("rollback", "fraud", "--announce")
    run("rollback", "fraud", "--emergency")
    assert (champion(office), given(office)) == ("1", [])


def test_notice_is_a_duration_of_a_pipeline_of_the_registry() -> None:
    """A pipeline that pins its model has nothing to give notice of; what is no duration is refused; features do not depend on it."""
    plain = hr.Pipeline("fraud", views=[spending], event_features=["amount"], predictions="fraud.v1")
    assert (fraud.notice_ms, plain.notice_ms, fraud.fingerprint) == (DAY_MS, None, plain.fingerprint)
    with pytest.raises(DefinitionError, match="this one's model never changes"):
        hr.Pipeline("fraud", views=[spending], predictions="fraud.v1", model="m.onnx", notice="1h")
    with pytest.raises(DefinitionError, match="notice is 'soon', which is no duration"):
        hr.Pipeline("fraud", views=[spending], predictions="fraud.v1", notice="soon")
