"""Who is told what the loop does: metrics, health and the log, once a batch or less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.assignment import Assignment
from headrace.publish.record_sink import CommitResult
from headrace.timeline import Timeline
from headrace.types import TopicPartition, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The callables the loop tells; none of them may raise."""

    tick: Callable[[Assignment], None]
    """The loop has come round once more."""
    committed: Callable[[Work, Timeline], None]
    """A batch is definite."""
    transaction: Callable[[CommitResult], None]
    """A transaction ended, in whatever way."""
    rebalanced: Callable[[str, Sequence[TopicPartition]], None]
    """Partitions were assigned, revoked or lost."""
    say: Callable[..., None]
    """`say(event, **fields)`: one line of the log."""
    timeline: Callable[[], Timeline]
    """A new timeline for a batch."""
