"""`RecordReader` on the log in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from headrace.memory_log.log import MemoryLog
from headrace.types import LogRange, RecordBatch, TopicPartition

_AT_ONCE = 10_000


class MemoryReader:
    """Reads what is committed."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic."""
        return [TopicPartition(topic, number) for number in range(self._log.topics().get(topic, 0))]

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""
        return self._log.log_range(partition)

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`."""
        return self._log.offset_at(partition, time_ms)

    def batches(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None) -> Iterator[RecordBatch]:
        """Partition by partition."""
        for partition, start in starts.items():
            end = self._log.log_range(partition).end if ends is None else ends[partition]
            records = [record for record in self._log.read(partition, start) if record.offset < end]
            for begin in range(0, len(records), _AT_ONCE):
                some = records[begin : begin + _AT_ONCE]
                yield RecordBatch(
                    topic=partition.topic,
                    partitions=np.full(len(some), partition.partition, dtype=np.int32),
                    offsets=np.array([record.offset for record in some], dtype=np.int64),
                    timestamps_ms=np.array([record.timestamp_ms for record in some], dtype=np.int64),
                    keys=[record.key for record in some],
                    values=[record.value for record in some],
                    headers=[record.headers or None for record in some],
                )

    def close(self) -> None:
        """Nothing is open."""
