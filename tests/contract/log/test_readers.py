"""What reading without a group promises: tools, verification and tests rest on it."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.consume.kafka_reader import KafkaReader
from headrace.consume.record_reader import RecordFeed, RecordReader
from headrace.memory_log import MemoryReader
from headrace.types import RecordBatch, TopicPartition
from tests.contract.log.kits import DEADLINE_S, NO_GROUP, KafkaKit, Kit, MemoryKit, out, wait_for
from tests.contract.log.test_records import numbered


def reader_of(kit: Kit) -> RecordReader:
    """A reader on either log."""
    if isinstance(kit, MemoryKit):
        return MemoryReader(kit.log)
    assert isinstance(kit, KafkaKit)
    return KafkaReader(kit.properties, ahead_kbytes=64)


def offsets(batches: list[RecordBatch], partition: int) -> list[int]:
    """The offsets that came of one partition, in the order in which they came."""
    return [int(offset) for batch in batches for offset in batch.offsets[batch.partitions == partition]]


def take_until(feed: RecordFeed, batches: list[RecordBatch], condition: Callable[[], bool]) -> None:
    """Take what comes until the condition holds."""
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until
        batches.extend(feed.take())


def test_a_feed_gives_everything_between_start_and_end_once(kit: Kit) -> None:
    """From the start up to, not with, the end, each partition in order; the end of the log need not be the end of the feed."""
    topic = kit.topic(2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    kit.append(first, numbered(3_000))
    kit.append(second, numbered(500))
    reader = reader_of(kit)
    batches = list(reader.batches({first: 10, second: 0}, {first: 2_500, second: 500}))
    assert (offsets(batches, 0), offsets(batches, 1)) == (list(range(10, 2_500)), list(range(500)))
    assert list(reader.batches({first: 3_000, second: 0}, {first: 3_000, second: 0})) == []
    assert sum(map(len, reader.batches({first: 0, second: 0}))) == 3_500
    reader.close()


def test_what_is_held_waits_and_loses_nothing(kit: Kit) -> None:
    """A held partition gives nothing while the other goes on; let go it gives the rest, each record once and in order."""
    topic = kit.topic(2)
    held, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for partition in (held, other):
        kit.append(partition, numbered(20_000))
    reader = reader_of(kit)
    feed = reader.feed({held: 0, other: 0}, {held: 20_000, other: 20_000})
    batches: list[RecordBatch] = []
    take_until(feed, batches, lambda: bool(offsets(batches, 0) and offsets(batches, 1)))
    feed.hold({held})
    before = len(offsets(batches, 0))
    take_until(feed, batches, lambda: other not in feed.left)
    assert (len(offsets(batches, 0)), held in feed.left) == (before, True)
    feed.hold(frozenset())
    take_until(feed, batches, lambda: not feed.left)
    assert offsets(batches, 0) == offsets(batches, 1) == list(range(20_000))
    feed.close()
    reader.close()


def test_a_feed_ends_behind_markers_and_aborted_records(kit: Kit) -> None:
    """The last offsets of a partition may be markers and records of an aborted transaction: the feed ends all the same."""
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    sink = kit.opened()
    for _ in range(2):
        sink.begin()
        sink.send(out(topic, numbered(3)))
        sink.commit({}, NO_GROUP)
    sink.begin()
    sink.send(out(topic, numbered(4)))
    wait_for("the records to arrive", lambda: len(kit.read_uncommitted(topic)) == 10)
    sink.abort()
    reader = reader_of(kit)
    wait_for("the markers", lambda: reader.log_range(partition).end == 13)
    assert offsets(list(reader.batches({partition: 0})), 0) == [0, 1, 2, 4, 5, 6]
    reader.close()


def test_what_a_reader_knows_of_topics(kit: Kit) -> None:
    """Whether there is one, its partitions, how far it reaches, and where a time is."""
    topic = kit.topic(3)
    partition = TopicPartition(topic, 1)
    kit.append(partition, numbered(5), times_ms=[1_000, 3_000, 2_000, 4_000, 5_000])
    reader = reader_of(kit)
    assert (reader.exists(topic), reader.exists("no-such-topic")) == (True, False)
    assert reader.partitions(topic) == [TopicPartition(topic, number) for number in range(3)]
    assert (reader.log_range(partition).start, reader.log_range(partition).end) == (0, 5)
    assert [reader.offset_at(partition, time_ms) for time_ms in (0, 2_000, 4_500, 9_000)] == [0, 1, 4, None]
    reader.close()
