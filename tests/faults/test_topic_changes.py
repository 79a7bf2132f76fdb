"""What an operator can do to group and topics of an app that has served: a clear word and the next command, and no event skipped."""

from __future__ import annotations

import signal

from confluent_kafka.admin import NewPartitions

from headrace.features.state_store import Ask
from headrace.publish.kafka_topics import TopicWish
from headrace.types import Position, TopicPartition
from tests.faults.harness import Make, Trial
from tests.faults.processes import LEAVING, WorkerProcess

KNOWS_SOON = '{"session.timeout.ms": 6000, "topic.metadata.refresh.interval.ms": 500}'
"""A worker's group and topics change while it runs, and it is to hear of that without minutes of waiting."""


def served(run: Trial, count: int) -> WorkerProcess:
    """A worker that has scored and stored so many records."""
    run.prepare()
    run.load(run.records(count), wait=True)
    worker = run.start(0, command=LEAVING, HEADRACE_KAFKA__CONSUMER_PROPERTIES=KNOWS_SOON)
    run.wait_drained()
    return worker


def leave(run: Trial, worker: WorkerProcess) -> None:
    """End a worker in order, and wait until its group is empty."""
    worker.signal(signal.SIGTERM)
    run.wait(lambda: worker.exit_code is not None, "the worker ends after SIGTERM", 30)
    run.wait_left()


def refusal(run: Trial, worker: WorkerProcess) -> str:
    """The last line of a worker that refuses to serve."""
    run.wait_death(worker, "the worker refuses to serve and ends")
    assert worker.exit_code == 1
    return worker.last_words().splitlines()[-1]


def test_committed_offsets_deleted(trial: Make) -> None:
    """T26: a group whose offsets were deleted after it had served is refused with the next command, and nothing more is published."""
    run = trial(partitions=1)
    leave(run, served(run, 300))
    seen = run.seen.count
    run._admin.delete_consumer_groups([run.app.name])[run.app.name].result()
    run.load(run.records(100), wait=True)
    line = refusal(run, run.start(0))
    assert "the group has no committed offset" in line
    assert "headrace apply" in line
    assert run.seen.count == seen


def test_topic_deleted_and_made_again(trial: Make) -> None:
    """T26: a worker whose topic is made again under its name stops; new starting offsets do not help, its state is the old topic's."""
    run = trial(partitions=1)
    worker = served(run, 300)
    (partition,) = run.source_partitions
    run._admin.delete_topics([run.source])[run.source].result()
    run.wait(lambda: run.topics.describe([run.source])[run.source] is None, "the topic is gone")
    run.topics.create([TopicWish(name=run.source, partitions=1, settings={"retention.ms": "-1"})])
    assert "headrace apply" in refusal(run, worker)
    run.wait_left()
    run.topics.start_group(run.app.name, {partition: Position(offset=0, watermark_ms=None)})
    run.load(run.records(100), wait=True)
    line = refusal(run, run.start(0, HEADRACE_KAFKA__CONSUMER_PROPERTIES=KNOWS_SOON))
    assert "the topic was deleted and created again under its name" in line
    assert "headrace apply" in line


def test_partitions_added(trial: Make) -> None:
    """T26: a partition that was added is given up with the next command while the others go on; with a starting offset it is served."""
    run = trial(partitions=2)
    worker = served(run, 300)
    added = TopicPartition(run.source, 2)
    run._admin.create_partitions([NewPartitions(run.source, 3)])[run.source].result()
    run.wait(lambda: bool(worker.said("partition given up")), "the new partition is given up")
    (line,) = worker.said("partition given up")
    assert line["partition"] == f"{added.topic}-{added.partition}"
    assert "headrace apply" in line["reason"]
    run.load(run.records(300), wait=True)
    run.wait(lambda: all(run.progress.offsets[name] == end for name, end in run.ends().items()), "the other partitions go on")
    leave(run, worker)
    run.source_partitions.append(added)
    assert added in run._stable.partitions(run.source)  # asked, so that it knows
    run.topics.start_group(run.app.name, {added: Position(offset=0, watermark_ms=None)})
    run.load(run.records(300), wait=True)
    run.start(0)
    run.wait_drained()
    assert run.ends()[added] > 0
    assert run._store.look([Ask(run.source, "any view", {})])[0].partitions == 3, "look-ups hear of it by themselves"
    run.stop_workers()
    # Keys have moved to the new partition, so that there is no order left between theirs; each source partition has its own.
    assert run.verified().violations == []
