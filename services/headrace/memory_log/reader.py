"""`RecordReader` on the log in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from headrace.memory_log.log import MemoryLog
from headrace.types import LogRange, Record, RecordBatch, TopicPartition

_AT_ONCE = 1_000


class MemoryReader:
    """Reads what is committed."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def exists(self, topic: str) -> bool:
        """Whether there is a topic of that name."""
        return topic in self._log.topics()

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic."""
        return [TopicPartition(topic, number) for number in range(self._log.topics().get(topic, 0))]

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""
        return self._log.log_range(partition)

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`."""
        return self._log.offset_at(partition, time_ms)

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> MemoryFeed:
        """The records of some partitions."""
        return MemoryFeed(self._log, starts, ends)

    def batches(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None) -> Iterator[RecordBatch]:
        """The same, one batch after another."""
        feed = self.feed(starts, {name: self._log.log_range(name).end for name in starts} if ends is None else ends)
        while feed.left:
            yield from feed.take()

    def close(self) -> None:
        """Nothing is open."""


class MemoryFeed:
    """Each partition gives some records, in turn."""

    def __init__(self, log: MemoryLog, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        self.left = {name for name, end in ends.items() if starts[name] < end}
        self._held: AbstractSet[TopicPartition] = frozenset()
        self._records = {
            name: deque(record for record in log.read(name, starts[name]) if record.offset < ends[name]) for name in sorted(self.left)
        }
        self._turn = 0

    def hold(self, partitions: AbstractSet[TopicPartition]) -> None:
        """Give nothing of these until told otherwise."""
        self._held = frozenset(partitions)

    def take(self) -> list[RecordBatch]:
        """Some records of the next partition."""
        ready = sorted(self.left - self._held)
        if not ready:
            return []
        self._turn += 1
        name = ready[self._turn % len(ready)]
        records = [self._records[name].popleft() for _ in range(min(_AT_ONCE, len(self._records[name])))]
        if not self._records[name]:
            self.left.discard(name)
        return [_batch(name, records)] if records else []

    def close(self) -> None:
        """Nothing is open."""


def _batch(name: TopicPartition, records: list[Record]) -> RecordBatch:
    return RecordBatch(
        topic=name.topic,
        partitions=np.full(len(records), name.partition, dtype=np.int32),
        offsets=np.array([record.offset for record in records], dtype=np.int64),
        timestamps_ms=np.array([record.timestamp_ms for record in records], dtype=np.int64),
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=[record.headers or None for record in records],
    )
