r"""Where a partition goes on after an assignment: applied against committed offset, as a table.

    found                                               then
    ------------------------------------------------    ---------------------------------------------------------------------
    no committed offset                                 give up: `headrace apply` commits the starting offsets
    the topic was recreated under its name              give up
    committed offset outside of the log                 give up: events are gone, skipping them would be a lie
    applied == committed                                go on
    applied <  committed, the log still holds applied   catch up: fold applied..committed without scoring or publishing
    no state, or applied is below the log's start       rebuild: drop the state and fold from far enough back
    ... and the log no longer reaches back far enough   give up
    applied >  committed, exactly once                  give up: the state is ahead of what was published
    applied >  committed, at least once                 go on at applied: its predictions were delivered before

Life of a partition in a worker (`MOVES` holds the same picture as a table):

    assigned -> CLAIMING -> CATCHING_UP -> LIVE
                 |  ^  \__________________^ |
                 |  |__________|____________|     anything not definite: claim again
                 v
              GIVEN_UP                            the other partitions go on

Far enough back is the first record whose timestamp is at least watermark - lateness - longest window - one pane - max_ahead: an
event older than that lies outside of every window. A historical source has no such bound and is rebuilt from offset 0.
Limit: without a watermark in the commit metadata (a new app, or offsets set by hand) a rebuild folds the log as it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from headrace.errors import FatalError, PartitionGivenUp
from headrace.types import NO_WATERMARK_MS, Delivery, LogRange, Position, TopicPartition, ViewHead


class Phase(Enum):
    """How far a partition is in this worker."""

    CLAIMING = "claiming"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    GIVEN_UP = "given_up"


MOVES: Mapping[Phase, frozenset[Phase]] = {
    Phase.CLAIMING: frozenset({Phase.CLAIMING, Phase.CATCHING_UP, Phase.LIVE, Phase.GIVEN_UP}),
    Phase.CATCHING_UP: frozenset({Phase.CLAIMING, Phase.LIVE}),
    Phase.LIVE: frozenset({Phase.CLAIMING}),
    Phase.GIVEN_UP: frozenset(),
}


def move(old: Phase, new: Phase) -> Phase:
    """The new phase; raises `FatalError` for a move that is not in `MOVES`."""
    if new not in MOVES[old]:
        raise FatalError(f"a partition cannot go from {old.value} to {new.value}")
    return new


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an assigned partition looks like from outside."""

    partition: TopicPartition
    heads: Mapping[str, ViewHead]
    state_topic_id: str | None
    topic_id: str
    partitions: int
    """How many the topic has."""
    committed: Position | None
    log: LogRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Read from `start`; fold only, up to `live_from`; score from there. `starts`: where each view's state stands once `resets` are
    dropped.
    """

    start: int
    live_from: int
    starts: Mapping[str, int]
    resets: Mapping[str, int]
    watermark_ms: int
    live_watermark_ms: int | None
    partitions: int
    """How many the topic has."""
    epochs: Mapping[str, str]
    """The marks of what scored it up to `live_from` (`line_up.Standing`)."""


def must_rebuild(found: Found) -> list[str]:
    """The views without a usable state."""
    return [view for view, head in found.heads.items() if head.offset is None or head.offset < found.log.start]


def rebuild_time_ms(found: Found, span_ms: int | None) -> int | None:
    """The record time from which a rebuild must read; None = from the log's start. `span_ms`: how far below the watermark an event can
    matter (None: historical).
    """
    if span_ms is None or found.committed is None or found.committed.watermark_ms is None:
        return None
    return found.committed.watermark_ms - span_ms


def decide(found: Found, delivery: Delivery, *, rebuild_ms: int | None, rebuild_offset: int | None) -> Plan:
    """The plan for an assigned partition, by the table above.

    `rebuild_ms` is what `rebuild_time_ms` answered and `rebuild_offset` the first offset at that time (None: no record that young).
    Raises `PartitionGivenUp`, which says why and what to do.
    """
    committed, log = found.committed, found.log
    if committed is None:
        raise _given_up(
            found,
            "the group has no committed offset",
            "a new app starts with `headrace apply`; if this one is not new, its offsets expired: restore them, then start again",
        )
    if found.state_topic_id not in (None, found.topic_id):
        raise _given_up(
            found,
            "the topic was deleted and created again under its name",
            "give the app a new name, or drop its state, and run `headrace apply`",
        )
    live_from = committed.offset
    if not log.start <= live_from <= log.end:
        raise _given_up(
            found,
            f"the committed offset {live_from} is outside of the log ({log.start} to {log.end})",
            "events were deleted before they were scored; decide where to go on, and set the group's offset with Kafka's "
            "kafka-consumer-groups tool",
        )
    resets: dict[str, int] = {}
    starts: dict[str, int] = {}
    rebuilt = set(must_rebuild(found))
    for view, head in found.heads.items():
        if view in rebuilt:
            resets[view] = starts[view] = _rebuild_start(found, live_from, rebuild_ms, rebuild_offset)
        elif head.offset is not None:
            starts[view] = head.offset
    ahead = max(starts.values(), default=live_from)
    if ahead > live_from:
        if delivery is Delivery.EXACTLY_ONCE:
            raise _given_up(
                found,
                f"the store holds state up to offset {ahead}, beyond the committed offset {live_from}",
                "the group's offsets were set back by hand, or the store belongs to another cluster; put the offsets back, or have the "
                "state rebuilt with `headrace state rebuild`, and restart the worker",
            )
        live_from = ahead
    start = min(starts.values(), default=live_from)
    watermarks = [head.watermark_ms for view, head in found.heads.items() if view not in resets and head.offset == start]
    known = [watermark for watermark in watermarks if watermark is not None]
    return Plan(
        start=start,
        live_from=live_from,
        starts=starts,
        resets=resets,
        watermark_ms=max(known, default=NO_WATERMARK_MS),
        live_watermark_ms=committed.watermark_ms if live_from == committed.offset else None,
        partitions=found.partitions,
        # At least once what was scored behind the offset may be out already, by others than the offset says: it is told again who scores.
        epochs=committed.epochs if delivery is Delivery.EXACTLY_ONCE else {},
    )


def _rebuild_start(found: Found, live_from: int, rebuild_ms: int | None, rebuild_offset: int | None) -> int:
    """The offset a rebuild begins at."""
    log = found.log
    if rebuild_ms is not None:
        first = live_from if rebuild_offset is None else min(rebuild_offset, live_from)
        if first > log.start or log.start == 0:
            return first
    elif log.start == 0 or found.committed is None or found.committed.watermark_ms is None:
        return log.start
    raise _given_up(
        found,
        f"its state must be rebuilt, but the log begins at offset {log.start} and no longer holds all events of the longest window",
        "restore a snapshot of the store, or lengthen the topic's retention and start the app under a new name",
    )


def _given_up(found: Found, why: str, then: str) -> PartitionGivenUp:
    return PartitionGivenUp(f"{found.partition.topic}-{found.partition.partition}: {why}; {then}")
