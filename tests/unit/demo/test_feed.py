"""Departures and planted records on a topic in memory."""

from __future__ import annotations

from headrace.clock import ManualClock
from headrace.demo.feed import PLANTED, Feed
from headrace.demo.planted import plant
from headrace.memory_log import MemoryLog
from headrace.partitioner import partition_of
from headrace.types import TopicPartition
from tests.unit.demo.small_year import small_year


def test_every_departure_and_planted_record_stands_where_the_feed_says() -> None:
    """Row by row: the record at each offset is that departure, or the planted one of that kind, in the partition of its key."""
    departures = small_year()
    planted = plant(departures, 28)
    log = MemoryLog(ManualClock())
    log.create_topic("t", 3)
    feed = Feed(log, "t", departures, planted, partitions=3)
    seen = []
    for number in range(3):
        records = log.read(TopicPartition("t", number))
        assert len(records) == len(feed.rows[number])
        for record, row in zip(records, feed.rows[number], strict=True):
            if row == PLANTED:
                assert (number, record.offset) in feed.kinds
                continue
            seen.append(row)
            assert (record.key, record.value, record.timestamp_ms) == (
                departures.keys[row],
                departures.values[row],
                departures.departed_ms[row],
            )
            assert number == partition_of(record.key or b"", 3)
    assert sorted(seen) == list(range(len(departures)))
    assert len(feed.kinds) == 28
    assert feed.written == len(departures) + 28


def test_each_partition_keeps_the_order_of_the_year() -> None:
    """Rows ascend within a partition."""
    departures = small_year()
    log = MemoryLog(ManualClock())
    log.create_topic("t", 2)
    for rows in Feed(log, "t", departures, {}, partitions=2).rows:
        assert rows == sorted(rows)
