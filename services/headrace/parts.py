"""What a loop is made of: its ports, its limits, and who is told what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.assignment import Assignment, Path
from headrace.batch_size import BatchSize
from headrace.consume.record_source import RecordSource
from headrace.executor import Executor
from headrace.features.applier import Applier
from headrace.line_up import Standing
from headrace.publish.fresh_sink import FreshSink
from headrace.publish.record_sink import CommitResult
from headrace.timeline import Timeline
from headrace.types import TopicPartition, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told what the loop does (metrics, health, the log), once a batch or less; none of them may raise."""

    tick: Callable[[Assignment], None]
    """The loop has come round once more."""
    committed: Callable[[Work, Timeline], None]
    """A batch is definite."""
    transaction: Callable[[CommitResult], None]
    """A transaction ended, in whatever way."""
    rebalanced: Callable[[str, Sequence[TopicPartition]], None]
    """Partitions were assigned, revoked or lost."""
    roles: Callable[[str, Standing], None]
    """Others score a pipeline from the next batch on."""
    say: Callable[..., None]
    """`say(event, **fields)`: one line of the log."""
    timeline: Callable[[], Timeline]
    """A new timeline for a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The numbers a worker works by."""

    max_batch: int = 16_384
    """Records one pass takes at most."""
    overlap_from: int = 2_048
    """A drain of that many records is a backlog: its commit stays in flight while the next batch is folded."""
    max_store_delay_ms: int = 1_000
    """How far the store may be behind the commit before the loop waits for it."""
    store_every_ms: int = 50
    """How often the store is written to while there is no backlog."""
    store_at_once: int = 16_384
    """States after which it is written to under a backlog; with fewer, half of the allowed delay is waited for more."""
    resident_entities: int = 200_000
    """Entities kept in memory per source."""
    refused_share: float = 0.5
    """The share of dead letters in a window above which the worker stops: then the fault is ours."""
    refused_window: int = 1_000
    """That window, in records."""
    registry_every_ms: int = 250
    """How often the control topic is looked at."""
    max_value_bytes: int = 1_048_576
    """Larger values are not parsed."""
    max_record_bytes: int = 1_000_000
    """Larger dead letters hold a pointer in place of the value: what the dead-letter topic takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a loop works with."""

    source: RecordSource
    sink: FreshSink
    applier: Applier
    assignment: Assignment
    path: Path
    commits: Executor
    """Where a commit waits while the next batch is folded."""
    limits: Limits
    batches: BatchSize
    taken_by: Callable[[], str | None]
    """Names who runs our slot, if not we."""
    watch: Watch
