"""What `headrace state forget` asks, prints and refuses, on a deployment in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from headrace.cli import state
from headrace.cli.state import Desk
from headrace.cli.state_forget import WHAT_STAYS
from headrace.forgotten import erasures_in
from headrace.partitioner import partition_of
from headrace.publish.kafka_topics import FoundTopic
from headrace.types import TopicPartition
from tests.unit.apps.operated import NAMES, SOURCE, Run, spending

CARD = "card-7"
NAME = TopicPartition(SOURCE, partition_of(CARD.encode(), 2))
SETTINGS = {SOURCE: {"cleanup.policy": "delete", "retention.ms": "604800000"}, "fraud.v1": {"cleanup.policy": "compact"}}


class Topics:
    """What an administrator would see of the topics in memory, and of a group with these members."""

    members_now: Sequence[str] = ()

    def __init__(self, _: object) -> None:
        """Whatever the properties."""

    def members(self, _: str) -> Sequence[str]:
        return self.members_now

    def describe(self, names: Sequence[str]) -> dict[str, FoundTopic | None]:
        return {
            name: FoundTopic(name=name, topic_id="1", partitions=2, replication=1, settings=SETTINGS.get(name, {"retention.ms": "-1"}))
            for name in names
        }


@pytest.fixture
def run(seed: int, monkeypatch: pytest.MonkeyPatch) -> Run:
    """An app that has scored payments, which the command finds instead of a cluster."""
    found = Run(seed)
    found.send(200)
    for _ in range(3):
        found.pay(CARD)
    found.driver.run()

    @contextmanager
    def opened(*_: object) -> Iterator[Desk]:
        store: Any = found.store
        partitions = {state.text(name): name for name in NAMES}
        yield Desk(app=found.app, properties={}, subject=found.subject, store=store, partitions=partitions)

    def remember(_: object, key: bytes, value: bytes) -> None:
        found.driver.log.append(found.app.facts, 0, key, value)

    monkeypatch.setattr("headrace.cli.state.opened", opened)
    monkeypatch.setattr("headrace.publish.kafka_topics.KafkaTopics", Topics)
    monkeypatch.setattr("headrace.apps.cluster.Cluster.__init__", lambda *_: None)
    monkeypatch.setattr("headrace.apps.cluster.Cluster.remember", remember)
    monkeypatch.setattr(Topics, "members_now", ())
    return found


def forget(*arguments: str, answer: str = "") -> Result:
    """Run the command."""
    return CliRunner().invoke(state.app, ["forget", *arguments, "--app", "anything:app"], input=answer)


def records(run: Run, topic: str) -> int:
    """How many records with the card's key a topic holds."""
    return sum(record.key == CARD.encode() for number in range(2) for record in run.driver.log.read(TopicPartition(topic, number)))


def test_it_says_what_is_gone_and_what_is_not(run: Run) -> None:
    """The views and where; then each topic with how many records of the key it holds and what removes them; then what else remembers."""
    done = forget(CARD, "--yes")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"forgot card-7 in {state.text(NAME)}, at offset ")
    assert "spending (" in lines[0]
    assert "habits (" in lines[0]
    assert f"  {SOURCE}: {records(run, SOURCE)} records with its key; each is removed after about 7d" in lines
    text = "the newest of each key stays until a tombstone is compacted"
    assert f"  fraud.v1: {records(run, 'fraud.v1')} records with its key; {text}" in lines
    assert "  cards.dead-letters.v1: 0 records with its key; kept for ever (retention.ms is -1)" in lines
    assert WHAT_STAYS in done.stdout
    assert CARD.encode() not in run.store.states(NAME, spending.fp)
    assert list(erasures_in([record.value for record in run.driver.log.read(TopicPartition(run.app.facts, 0))])) == [NAME]


def test_programs_get_json(run: Run) -> None:
    """One object: what was forgotten, by partition, offset and bytes of each view; what remains, by topic."""
    told = json.loads(forget(CARD, "--yes", "--output", "json", "--scan", "10").stdout)
    (one,) = told["forgotten"]
    assert (one["topic"], one["partition"]) == NAME
    assert one["states"].keys() == {"spending", "habits"}
    source = next(found for found in told["remains"] if found["topic"] == SOURCE)
    assert (source["whole"], source["scanned"]) == (False, 10)
    assert 3 <= source["records"] <= records(run, SOURCE)


def test_it_asks_first(run: Run) -> None:
    """Without --yes it names what will be forgotten; whoever does not say yes changes nothing."""
    refused = forget(CARD, answer="n\n")
    assert refused.exit_code == 1
    assert "Forget 'card-7' in spending, habits of app cards? This cannot be undone" in refused.output
    assert CARD.encode() in run.store.states(NAME, spending.fp)
    assert forget(CARD, answer="y\n").exit_code == 0
    assert CARD.encode() not in run.store.states(NAME, spending.fp)


def test_who_is_at_work_is_named_before_anything_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that lives: nothing is asked, nothing is done, and what to do is said."""
    monkeypatch.setattr(Topics, "members_now", ["0 on 10.0.0.7"])
    refused = forget(CARD, "--wait", "0")
    assert refused.exit_code == 1
    assert "1 workers are members of group cards (0 on 10.0.0.7)" in str(refused.exception)
    assert "Forget" not in refused.output
    assert CARD.encode() in run.store.states(NAME, spending.fp)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("arguments", "text"), [([CARD, "--view", "nothing"], "nothing is none of"), (["", "--yes"], "a key has 1 to 256 bytes")]
)
def test_what_is_not_there_is_refused(arguments: Sequence[str], text: str) -> None:
    """A view that the app has not, and what is no key."""
    refused = forget(*arguments)
    assert refused.exit_code == 2
    assert text in refused.output


def test_a_view_names_where_it_is_kept(run: Run) -> None:
    """--view chooses the entity; the views that are kept of it beside the named one go with it."""
    assert forget(CARD, "--view", "habits", "--yes").exit_code == 0
    assert CARD.encode() not in run.store.states(NAME, spending.fp)


def test_the_worker_that_starts_afterwards_goes_on(run: Run) -> None:
    """What comes is scored and kept, and the state is the one of the log."""
    assert forget(CARD, "--yes").exit_code == 0
    run.driver.crash()
    run.pay(CARD)
    run.driver.run()
    assert run.verified().sound()
