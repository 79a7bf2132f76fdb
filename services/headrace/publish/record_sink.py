"""The port through which records go out, together with the offsets of what they were made from.

One thread at a time uses a sink; `commit` may run in another thread than `send`, never beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from headrace.consume.record_source import GroupMetadata
from headrace.types import OutRecords, Position, TopicPartition


class CommitResult(Enum):
    """How a commit ended."""

    COMMITTED = "committed"
    """Definite: everything sent since `begin` and the offsets are there; every reader sees them as soon as the markers reach it."""
    ABORTED = "aborted"
    """Definite: nothing is there and nothing is pending; `begin` may be called. (At least once: what was delivered is there.)"""
    FENCED = "fenced"
    """A newer sink with our id exists, or our transaction timed out; `open` again after asking who took the slot."""
    UNKNOWN = "unknown"
    """It may have happened or not: `open` again, then ask for the committed offsets. Never resend."""


class RecordSink(Protocol):
    """Where predictions and dead letters go."""

    def open(self) -> None:
        """Become the only sink with our id: fences every older one and aborts what it left pending. Raises `TransientError`,
        `BrokerRefused`.
        """

    def begin(self) -> None:
        """Begin a transaction. Nothing is sent yet. Raises `TransientError` when a new producer was needed for it and cannot be had."""

    def send(self, records: OutRecords) -> None:
        """Queue records of one topic, in order; the partition is murmur2 of the key. Waits while the queue is full.

        Raises `TransientError` when the transaction cannot go on (the caller calls `abort`), `BrokerRefused` when it never can (record too
        large, topic missing, ACL).
        """

    def commit(self, offsets: Mapping[TopicPartition, Position], group: GroupMetadata) -> CommitResult:
        """Commit what was sent and the source offsets, all or nothing. Refused by the broker (ABORTED) when the group has moved on since
        `group` was taken. Raises `BrokerRefused`, after aborting, when a record is refused for good: sent again it would be again.
        """

    def abort(self) -> CommitResult:
        """Abort what was sent since `begin`: ABORTED, FENCED or UNKNOWN (also when `begin` failed), after which `open` is due."""

    def close(self) -> None:
        """Close without finishing what is pending."""
