"""How far event time has come in a partition, and which events are late.

The watermark of a partition is the largest event time it has shown so far; the *horizon* is watermark - lateness. An event older than the
horizon was late before it arrived: it changes nothing, the watermark included. One that is exactly `lateness` old is not late. Both are
functions of the partition's log alone, so they come out the same in any cut into batches.

A partition of a hop is fed by several partitions. Each of its records says from which it came and where the watermark stood there; its own
watermark is the least of those, and minus infinity until each of them has shown something (as in the Dataflow model, Akidau et al., VLDB
2015). So a partition that lags makes nothing late. Limit: one that is silent holds the watermark of every hop behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.types import NO_WATERMARK_MS, Bools, Carried, HopWatermark, Int32s, Int64s

_CELLS = 1 << 20
"""How many running watermarks are in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What a batch does to the watermarks: per event whether it was late and the horizon behind it; per partition the new watermark."""

    late: Bools
    horizons_ms: Int64s
    watermarks_ms: dict[int, int]


def advance(partitions: Int32s, event_times_ms: Int64s, before_ms: Mapping[int, int], lateness_ms: int) -> Advance:
    """Move the watermarks (`before_ms`, by partition number; unseen ones are missing) over the events of a batch, in row order."""
    found_ms = np.empty(len(event_times_ms), dtype=np.int64)
    watermarks_ms: dict[int, int] = {}
    for number in np.unique(partitions).tolist():
        rows = np.flatnonzero(partitions == number)
        running = np.maximum.accumulate(np.concatenate(([before_ms.get(number, NO_WATERMARK_MS)], event_times_ms[rows])))
        found_ms[rows] = running[:-1]
        watermarks_ms[number] = int(running[-1])
    late, horizons_ms = judge(event_times_ms, found_ms, lateness_ms)
    return Advance(late=late, horizons_ms=horizons_ms, watermarks_ms=watermarks_ms)


def judge(event_times_ms: Int64s, found_ms: Int64s, lateness_ms: int) -> tuple[Bools, Int64s]:
    """Which events were late, and the horizon behind each; `found_ms`: the watermark of its partition that each of them found."""
    return event_times_ms < found_ms - lateness_ms, np.maximum(found_ms, event_times_ms) - lateness_ms


def advance_hop(partitions: Int32s, event_times_ms: Int64s, carried: Carried, before_ms: Mapping[int, int], lateness_ms: int) -> Advance:
    """The same for the events of a hop."""
    after = np.empty(len(event_times_ms), dtype=np.int64)
    late = np.empty(len(event_times_ms), dtype=np.bool_)
    watermarks_ms: dict[int, int] = {}
    for number in np.unique(partitions).tolist():
        rows = np.flatnonzero(partitions == number)
        before = before_ms.get(number, NO_WATERMARK_MS)
        parts = np.full(int(carried.of[rows].max()), NO_WATERMARK_MS, dtype=np.int64)
        if isinstance(before, HopWatermark):
            parts = np.concatenate((before.parts, parts[len(before.parts) :])).astype(np.int64)
        running = np.concatenate(([before], _least(carried.feeders[rows], carried.watermarks_ms[rows], parts)))
        late[rows] = event_times_ms[rows] < running[:-1] - lateness_ms
        after[rows] = running[1:]
        watermarks_ms[number] = HopWatermark(parts.tolist())
    return Advance(late=late, horizons_ms=after - lateness_ms, watermarks_ms=watermarks_ms)


def _least(feeders: Int64s, marks_ms: Int64s, parts: Int64s) -> Int64s:
    """The least of `parts` behind each mark of one of them; `parts` themselves are moved on."""
    seen, which = np.unique(feeders, return_inverse=True)
    others = int(np.delete(parts, seen).min(initial=np.iinfo(np.int64).max))
    least = np.empty(len(marks_ms), dtype=np.int64)
    step = max(1, _CELLS // len(seen))
    for begin in range(0, len(marks_ms), step):
        end = min(begin + step, len(marks_ms))
        running = np.full((end - begin, len(seen)), NO_WATERMARK_MS, dtype=np.int64)
        running[np.arange(end - begin), which[begin:end]] = marks_ms[begin:end]
        running[0] = np.maximum(running[0], parts[seen])
        np.maximum.accumulate(running, axis=0, out=running)
        parts[seen] = running[-1]
        least[begin:end] = np.minimum(running.min(axis=1), others)
    return least
