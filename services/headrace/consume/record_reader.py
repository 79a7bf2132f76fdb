"""The port through which tools read topics: without a group, from anywhere to anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from headrace.types import LogRange, RecordBatch, TopicPartition


class RecordReader(Protocol):
    """Reads topics as a `read_committed` reader sees them. One thread, and one `batches` at a time.

    All methods raise `TransientError` while the log is away and `BrokerRefused` when it says no.
    """

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic. Raises `BrokerRefused` when there is none of that name."""

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`; None where no record is that young."""

    def batches(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None) -> Iterator[RecordBatch]:
        """The records of some partitions from their start up to, not with, their end, each partition in order; one topic a batch."""

    def close(self) -> None:
        """Close the connections."""
