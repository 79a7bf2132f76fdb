"""The port through which tools read topics: without a group, from anywhere to anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from headrace.types import LogRange, RecordBatch, TopicPartition


class RecordFeed(Protocol):
    """The records of some partitions, each in order; the reader decides whose turn it is, but for those that are held."""

    left: set[TopicPartition]
    """Those that are not at their end."""

    def hold(self, partitions: AbstractSet[TopicPartition]) -> None:
        """Give nothing of these until told otherwise."""

    def take(self) -> list[RecordBatch]:
        """What has come, one topic a batch; nothing when nothing came in a moment."""

    def close(self) -> None:
        """Stop reading."""


class RecordReader(Protocol):
    """Reads topics as a `read_committed` reader sees them. One thread, and one `feed` or `batches` at a time.

    All methods raise `TransientError` while the log is away and `BrokerRefused` when it says no.
    """

    def exists(self, topic: str) -> bool:
        """Whether there is a topic of that name, as far as is known now."""

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic. Raises `BrokerRefused` when there is none of that name."""

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`; None where no record is that young."""

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> RecordFeed:
        """The records of some partitions from their start up to, not with, their end."""

    def batches(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None) -> Iterator[RecordBatch]:
        """The records of some partitions from their start up to, not with, their end, each partition in order; one topic a batch."""

    def close(self) -> None:
        """Close the connections."""
