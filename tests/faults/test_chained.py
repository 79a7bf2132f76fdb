"""Pipelines of two stages: each hop is exactly once, whoever dies."""

from __future__ import annotations

from contextlib import closing

import pytest

from headrace.consume.kafka_reader import KafkaReader
from headrace.types import Record
from tests.faults.harness import Figures, Make, Moment, Trial
from tests.faults.test_worker_kills import drawn_moments

DRAIN = ("-m", "headrace", "run", "worker", "--drain", "--app", "started:app", "--slot")


def killed(run: Trial, events: int, kills: dict[Moment, int], *, slots: int) -> Figures:
    """Kill workers at their work: so many events at once, then 200 a second until the last one is killed. Gives the verdict's figures."""
    run.prepare()
    loader = run.load(run.records(20 * events), pace=lambda sent: 0 if sent < events else 200)
    for slot in range(slots):
        run.start(slot)
    moments = drawn_moments(run, kills)
    for progress, moment in zip(sorted(run.rng.sample(range(200, events), len(moments))), moments, strict=True):
        run.wait_passed(progress)
        victim = run.wait_victim()
        run.kill(victim, moment)
        run.start(victim.slot)
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict()
    assert figures["kills"] == len(moments)
    assert figures["aborted_records"] > 0
    assert figures["catch_ups"] > 0
    return figures


@pytest.mark.stack
def test_both_stages_are_killed(trial: Make) -> None:
    """A stream of events through two stages, 2 workers, killed twice: one result each, features and states of both stages are right."""
    killed(trial(chained=True), 1_500, {Moment.IN_TRANSACTION: 1, Moment.BEFORE_STORE: 1}, slots=2)


@pytest.mark.stack
def test_what_is_on_the_hops_is_finished(trial: Make) -> None:
    """`--drain` after a death in the middle: it takes nothing from the source, scores all that is on the hop, and ends by itself."""
    run = trial(chained=True)
    run.prepare()
    run.load(run.records(6_000), wait=True)
    dying = run.start(0)
    run.wait_passed(2_000)
    run.kill(dying, Moment.IN_TRANSACTION)
    (hop,) = (reads.topic for reads in run.app.inputs if reads.topic != run.source)
    taken = run.topics.group_offsets(run.app.name, run.source_partitions)
    scored, waiting = (len(records_on(run, topic)) for topic in (run.app.pipelines[0].predictions, hop))
    drains = run.start(0, command=DRAIN)
    run.wait_death(drains, "the worker has drained the hop")
    assert drains.exit_code == 0, drains.last_words()
    assert run.topics.group_offsets(run.app.name, run.source_partitions) == taken
    assert scored < waiting == len(records_on(run, hop)) == len(records_on(run, run.app.pipelines[0].predictions))
    run.start(0)
    run.wait_drained(60)
    run.verdict()


def records_on(run: Trial, topic: str) -> list[Record]:
    """What is committed on a topic."""
    with closing(KafkaReader(run.properties)) as reader:
        return reader.records(topic)


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_both_stages_are_killed_again_and_again(trial: Make) -> None:
    """T61: 5,000 events and then a stream, 4 partitions a stage, 2 workers, batches of 50, 10 times kill -9 at a drawn progress."""
    killed(trial(chained=True), 5_000, {Moment.IN_TRANSACTION: 4, Moment.BEFORE_STORE: 3, Moment.ANY: 3}, slots=2)
