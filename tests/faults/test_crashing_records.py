"""Records that end the process in native code."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from headrace.kafka_client import Coordinator
from headrace.local_stack import Stack
from tests.contract.store.subjects import ask
from tests.faults.app import Sent
from tests.faults.crashing_worker import POISON
from tests.faults.harness import Make, Trial

CRASHING = ("-m", "tests.faults.crashing_worker", "-")
AT = (150, 151, 600)


def poisoned(record: Sent) -> Sent:
    """The record, good or bad, as one that ends the process."""
    return dataclasses.replace(record, value=b'{"amount": 1, ' + POISON + b"}")


def come_to(run: Trial, stable: Coordinator) -> list[int]:
    """How far the group is. A commit shows a moment after the worker knew of it, so what is pending is waited for; only for a second, for
    the last transaction of the dead may never end.
    """
    asked = [KafkaPartition(*name) for name in run.source_partitions]
    with suppress(KafkaException):
        found = stable.committed(asked, 1.0)
        if all(one.error is None for one in found):
            return [max(one.offset, 0) for one in found]
    known = run.topics.group_offsets(run.app.name, run.source_partitions)
    return [0 if (position := known[name]) is None else position.offset for name in run.source_partitions]


def live_through(run: Trial) -> int:
    """Start one worker after another in the same slot until everything is drained; how many died without having committed anything.

    Of the others there may be any number: a batch that is cut anew can end before the record.
    """
    stable = Coordinator(run.properties, run.app.name, stable=True)
    deaths, before = 0, come_to(run, stable)
    while True:
        worker = run.start(0, command=CRASHING)
        worker.ending = True
        run.wait(lambda: worker.exit_code is not None or run.drained(), "the worker dies or has done everything")  # noqa: B023 - waited for at once
        if worker.exit_code is None:
            return deaths
        assert worker.exit_code == -signal.SIGSEGV, worker.last_words()
        worker.gone()
        committed = come_to(run, stable)
        deaths, before = deaths + (committed == before), committed


@pytest.mark.timeout(300)
def test_records_that_end_the_process(trial: Make, own_stack: Callable[..., Stack]) -> None:
    """T18: each of three records is a dead letter after three deaths of its own, everything else has its prediction; and when Redis is
    emptied the rebuild neither dies of them nor folds them.
    """
    redis = own_stack(brokers=0).redis
    run = trial(redis=redis, partitions=2)
    run.prepare()
    sent = run.records(1_000)
    for number in AT:
        sent[number] = poisoned(sent[number])
    run.load(sent, wait=True)
    deaths = live_through(run)
    # Three of its own each; before them one in a batch of many, and another where the catch-up of that one had moved the store.
    assert 2 * len(AT) <= deaths <= 5 * len(AT)
    run.stop_workers()
    run.journal.note("FLUSHALL")
    ask(redis, "FLUSHALL")
    assert live_through(run) == 0
    assert run.verdict()["condemned"] == len(AT)
