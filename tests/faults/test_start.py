"""Starting where something is missing: a clear word, no skipped event, and service as soon as it is there."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from headrace.local_stack import KafkaServer, Stack, free_port
from headrace.types import Position, TopicPartition
from tests.faults.door import Door
from tests.faults.harness import Make, Trial
from tests.faults.processes import LEAVING, WorkerProcess

MakeStack = Callable[..., Stack]

SHORT = '{"session.timeout.ms": 6000}'
"""The least a broker allows: how long a static member that ended still counts."""


def refusal(run: Trial, worker: WorkerProcess) -> str:
    """The last line of a worker that refuses to serve."""
    run.wait_death(worker, "the worker refuses to serve and ends")
    assert worker.exit_code == 1
    return worker.last_words().splitlines()[-1]


def readiness(worker: WorkerProcess) -> tuple[int, list[str]]:
    """What /readyz says: the status and the reasons."""
    status, text = worker.ask("/readyz")
    return status, json.loads(text)["reasons"]


def test_redis_away_at_start(trial: Make, own_stack: MakeStack) -> None:
    """Without Redis a worker says so in one line, is not ready, and serves everything as soon as Redis is there."""
    redis = own_stack(brokers=0).redis
    redis.kill()
    run = trial(redis=redis)
    run.prepare()
    run.load(run.records(1_000), wait=True)
    worker = run.start(0)
    run.wait(lambda: bool(worker.said("redis away")), "the worker says that Redis is away")
    status, reasons = readiness(worker)
    assert status == 503
    assert any("Redis" in reason for reason in reasons)
    redis.start()
    redis.wait_ready()
    run.wait_drained()
    run.wait(lambda: readiness(worker) == (200, []), "the worker is ready")
    assert not [line for line in worker.lines() if "text" in line]
    run.verdict()


def test_kafka_away_at_start(trial: Make, kafka: KafkaServer) -> None:
    """Without Kafka a worker says so, is not ready, and serves everything as soon as Kafka is there."""
    run = trial()
    run.prepare()
    run.load(run.records(1_000), wait=True)
    port = free_port()
    worker = run.start(0, HEADRACE_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    run.wait(lambda: bool(worker.said("kafka away")), "the worker says that Kafka is away")
    assert f"127.0.0.1:{port}" in worker.said("kafka away")[0]["reason"]
    status, reasons = readiness(worker)
    assert status == 503
    assert any("Kafka" in reason for reason in reasons)
    with Door(port, kafka.port):
        run.wait_drained()
        run.wait(lambda: readiness(worker) == (200, []), "the worker is ready")
        run.verdict()


def test_no_committed_offsets(trial: Make) -> None:
    """T26: a group without committed offsets is refused with the command that makes them, and nothing is published."""
    run = trial()
    run.make_topics()
    run.watch()
    run.load(run.records(200), wait=True)
    line = refusal(run, run.start(0))
    assert line.startswith("headrace: ")
    assert "headrace apply" in line
    assert run.progress.total == 0


def test_offsets_set_back_and_put_right(trial: Make) -> None:
    """T26: a group that was set back by hand is refused, for its predictions are out; with the right offsets it goes on."""
    run = trial(partitions=1)
    run.prepare()
    run.load(run.records(600), wait=True)
    first = run.start(0, command=LEAVING)
    run.wait_drained()
    first.signal(signal.SIGTERM)
    run.wait(lambda: first.exit_code is not None, "the worker ends after SIGTERM", 30)
    (partition,) = run.source_partitions
    right = run.topics.group_offsets(run.app.name, [partition])[partition]
    assert right is not None
    run.wait_left()
    run.topics.start_group(run.app.name, {partition: Position(offset=100, watermark_ms=None)})
    assert "beyond the committed offset 100" in refusal(run, run.start(0, HEADRACE_KAFKA__CONSUMER_PROPERTIES=SHORT))
    run.wait_left()
    run.topics.start_group(run.app.name, {partition: right})
    run.load(run.records(400), wait=True)
    run.start(0)
    run.wait_drained()
    run.verdict()


def test_events_gone_before_they_were_scored(trial: Make) -> None:
    """T26: where retention has passed the committed offset a worker refuses, and skips nothing."""
    run = trial(partitions=1)
    run.prepare()
    run.load(run.records(300), wait=True)
    admin = AdminClient(dict(run.properties))
    for gone in admin.delete_records([KafkaPartition(run.source, 0, 100)]).values():
        gone.result()
    line = refusal(run, run.start(0))
    assert "the committed offset 0 is outside of the log (100 to 300)" in line
    assert run.topics.group_offsets(run.app.name, [TopicPartition(run.source, 0)]) == {
        TopicPartition(run.source, 0): Position(offset=0, watermark_ms=None)
    }
