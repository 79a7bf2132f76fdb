"""The port through which records come in: a member of a consumer group that reads committed records only.

One thread calls everything but `committed`, `log_range`, `written_end`, `offset_at` and `topic_id`, which may be called from another
thread at the same time. Listener methods run inside `poll` and `close`, nowhere else, on the calling thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from headrace.types import Drain, LogRange, Position, TopicPartition


class RebalanceListener(Protocol):
    """Who is told when partitions come and go. All lists are deltas and may be empty."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These are ours from now on; nothing of them flows until `start_at`."""

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These are taken in an orderly way: until this returns nobody else has them, so work in flight may be finished here."""

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These were ours and may be somebody else's already: write nothing more for them."""


class GroupMetadata(Protocol):
    """Opaque proof of membership, to be passed to `RecordSink.commit` and nowhere else."""


class RecordSource(Protocol):
    """Where records come from."""

    def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group. Returns at once; assignments arrive in later polls."""

    def poll(self, max_records: int, timeout_ms: int) -> Drain:
        """Wait up to `timeout_ms` for a first record, then take what is there, up to `max_records`, without waiting.

        In each partition records come in offset order without a hole, from the offset given to `start_at` on. Records of a partition
        that was revoked or lost during this very call may still be in the answer: the caller filters. A position that the log does not
        reach, and a topic that was made again under its name, are told in `Drain.broken`, never jumped over. Raises `TransientError`
        (broker away), `BrokerRefused`, `SlotTaken` (a newer member with our instance id), `PartitionGivenUp` never; then no record is
        lost: the next call goes on where the last answer ended.
        """

    def start_at(self, partition: TopicPartition, offset: int) -> None:
        """Let the records of an assigned partition flow, from `offset` on; also moves a flowing partition. Records already fetched are
        dropped. Inside a listener method it takes effect with the next poll, and what this one brought of the partition is dropped.

        Raises `ValueError` for a partition that is not ours.
        """

    def pause(self, partition: TopicPartition) -> None:
        """Stop the flow of a partition until the next `start_at`."""

    def waiting(self) -> Mapping[TopicPartition, int]:
        """How many records of each partition were read and wait here for something; partitions without any may be left out."""

    def group(self) -> GroupMetadata:
        """Proof of membership as of now. Raises `TransientError` while we are not a member with an assignment."""

    def committed(self, partition: TopicPartition) -> Position | None:
        """The group's *stable* committed position, with the watermark from its metadata; None when there is none.

        Raises `UnstableOffsets` while a pending transaction holds offsets of the partition (a broker may be waited for a moment first),
        `TransientError` while the broker is away.
        """

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable offset, asked of the broker now."""

    def written_end(self, partition: TopicPartition) -> int:
        """The end of a partition of any topic, pending transactions included."""

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset below the last stable one whose timestamp is at least `time_ms`; None when there is none.

        It may be that of a transaction marker, whose timestamp is the time of its commit, or of an aborted record: then the first such
        record lies behind it.
        """

    def topic_id(self, topic: str) -> str:
        """The broker's id of the topic: another one under the same name means it was recreated."""

    def partitions(self, topic: str) -> int:
        """How many partitions the topic had when its id was asked for last."""

    def close(self, *, leave: bool) -> None:
        """Stop polling and close; `revoked` is called for what we have. `leave` gives the partitions up at once; without it a static
        member is expected back. Needed: a source that is not closed may keep the process from ending.
        """
