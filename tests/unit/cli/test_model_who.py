"""What `headrace model who` tells of an offset, by the facts of an app in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner, Result

from headrace.apps.model_desk import Desk
from headrace.cli import model
from headrace.errors import DefinitionError
from headrace.predict.roles import Roster, challenged
from headrace.switches import Switch, switch_fact
from headrace.types import TopicPartition
from tests.unit.apps.engineered import Office, app, payments

PLACE = TopicPartition(payments.topic, 1)
FIRST = Switch(pipeline="fraud", partition=PLACE, offset=0, epoch=3, roster=Roster(champion="1"), artifacts={"1": "a" * 64})
SECOND = Switch(
    pipeline="fraud",
    partition=PLACE,
    offset=40,
    epoch=9,
    roster=Roster(champion="1", challenger="2", share=0.5, shadows=("3",)),
    artifacts={"1": "a" * 64, "2": "b" * 64, "3": "c" * 64},
)


@pytest.fixture(autouse=True)
def office(monkeypatch: pytest.MonkeyPatch) -> Office:
    """An app that switched twice."""
    found = Office()
    for switch in (FIRST, SECOND):
        found.log.append(app.facts, 0, b"switch", switch_fact(switch))

    @contextmanager
    def opened(*_: object, by: str | None = None) -> Iterator[Desk]:
        yield found.open(by or "ann@desk")

    monkeypatch.setattr("headrace.cli.model.opened", opened)
    return found


def who(*arguments: str) -> Result:
    """Ask."""
    return CliRunner().invoke(model.app, ["who", *arguments, "--app", "anything:app"])


def test_each_stretch_has_its_versions() -> None:
    """The version before a switch and those behind it are told, with their roles and files, and since when."""
    before, behind = who("payments.v1", "1", "39").stdout, who("payments.v1", "1", "40").stdout
    assert "version 1            champion" in before
    assert "since offset 0" in before
    assert "challenger for 50% of the entities bbbbbbbbbbbbbbbb" in behind
    assert "since offset 40 of the partition, by the command before offset 9" in behind


def test_of_an_entity_the_one_who_answers_is_told() -> None:
    """With an entity key it is said whether the challenger answers for it, as JSON too."""
    drawn = {bool(challenged("fraud", "2", 0.5, [entity])[0]): entity for entity in map(str, range(20))}
    for its, entity in drawn.items():
        (told,) = json.loads(who("payments.v1", "1", "41", "--entity", entity, "--output", "json").stdout)
        roles = {one["version"]: one["role"] for one in told["versions"]}
        assert roles == ({"2": "challenger", "1": "shadow", "3": "shadow"} if its else {"1": "champion", "3": "shadow"})
        assert (told["since_offset"], told["epoch"]) == (40, 9)
    assert set(drawn) == {True, False}


def test_before_any_switch_nobody_is_named() -> None:
    """Of a partition without a switch it is said that nobody scored it."""
    assert "is scored by nobody: no version was live yet" in who("payments.v1", "0", "5").stdout


def test_a_topic_that_nothing_is_scored_on_is_refused() -> None:
    """The error names the topics that could have been meant."""
    done = who("payment.v1", "0", "5")
    assert isinstance(done.exception, DefinitionError)
    assert "say payments.v1" in str(done.exception)
