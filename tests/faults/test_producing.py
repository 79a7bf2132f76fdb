"""Results that cannot be sent: a full queue is waited out, anything else ends the worker with a word, and no event is lost.

The same at the port, without a worker, is in tests/contract/log; a missing ACL is in tests/e2e/test_secured_servers.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from headrace.publish.kafka_topics import TopicWish
from headrace.types import Position
from tests.faults.harness import Make, Trial
from tests.faults.processes import WorkerProcess

BEGINNING = Position(offset=0, watermark_ms=None)
SMALL = {"max.message.bytes": "200"}
"""Less than a prediction and its headers take."""


def refusal(run: Trial, worker: WorkerProcess) -> str:
    """The line with which a worker ends that cannot publish."""
    run.wait_death(worker, "the worker gives up and ends")
    assert worker.exit_code == 1
    (line,) = [line["text"] for line in worker.lines() if "text" in line]
    assert isinstance(line, str)
    return line


def topic(run: Trial, name: str) -> TopicWish:
    """A topic as `headrace apply` makes it."""
    return TopicWish(name=name, partitions=run.partitions, settings={"retention.ms": "-1"})


def alter(run: Trial, topic: str, settings: Mapping[str, str]) -> None:
    """Change settings of a topic."""
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    run._admin.incremental_alter_configs([resource])[resource].result()


def test_full_producer_queue_is_waited_out(trial: Make) -> None:
    """T28: with room for ten records in its producer a worker waits in the middle of each batch, and loses nothing."""
    run = trial(max_batch=500)
    run.prepare()
    run.load(run.records(2_000), wait=True)
    run.start(0, HEADRACE_KAFKA__PRODUCER_PROPERTIES='{"queue.buffering.max.messages": 10, "linger.ms": 0}')
    run.wait_drained(120)
    run.verdict()


def test_prediction_too_large_for_its_topic(trial: Make) -> None:
    """T28: a prediction the broker refuses for its size ends the worker, which names the topic; with more room everything is published."""
    run = trial()
    run.prepare()
    predictions = run.app.pipelines[0].predictions
    alter(run, predictions, SMALL)
    run.load(run.records(500), wait=True)
    line = refusal(run, run.start(0))
    assert predictions in line
    assert "MSG_SIZE_TOO_LARGE" in line
    assert run.progress.total == run.seen.count == 0
    alter(run, predictions, {"max.message.bytes": "1048588"})
    run.start(0)
    run.wait_drained()
    run.verdict()


def test_missing_prediction_topic(trial: Make) -> None:
    """T28: without its prediction topic a worker ends, names topic and command, and commits nothing; with the topic nothing is missing."""
    run = trial()
    predictions = run.app.pipelines[0].predictions
    run.topics.create([topic(run, name) for name in (run.source, run.app.dead_letters)])
    run.topics.start_group(run.app.name, dict.fromkeys(run.source_partitions, BEGINNING))
    run.load(run.records(500), wait=True)
    line = refusal(run, run.start(0))
    assert predictions in line
    assert "headrace apply" in line
    committed = run.topics.group_offsets(run.app.name, run.source_partitions)
    assert set(committed.values()) == {BEGINNING}
    run.topics.create([topic(run, predictions)])
    run.watch()
    run.start(0)
    run.wait_drained()
    run.verdict()
