"""How far event time has come in a partition, and which events are late.

The watermark of a partition is the largest event time it has shown so far; the *horizon* is watermark - lateness. An event older than the
horizon was late before it arrived: it changes nothing, the watermark included. One that is exactly `lateness` old is not late. Both are
functions of the partition's log alone, so they come out the same in any cut into batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.types import NO_WATERMARK_MS, Bools, Int32s, Int64s


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What a batch does to the watermarks: per event whether it was late and the horizon behind it; per partition the new watermark."""

    late: Bools
    horizons_ms: Int64s
    watermarks_ms: dict[int, int]


def advance(partitions: Int32s, event_times_ms: Int64s, before_ms: Mapping[int, int], lateness_ms: int) -> Advance:
    """Move the watermarks (`before_ms`, by partition number; unseen ones are missing) over the events of a batch, in row order."""
    after = np.empty(len(event_times_ms), dtype=np.int64)
    late = np.empty(len(event_times_ms), dtype=np.bool_)
    watermarks_ms: dict[int, int] = {}
    for number in np.unique(partitions).tolist():
        rows = np.flatnonzero(partitions == number)
        times = event_times_ms[rows]
        running = np.maximum.accumulate(np.concatenate(([before_ms.get(number, NO_WATERMARK_MS)], times)))
        late[rows] = times < running[:-1] - lateness_ms
        after[rows] = running[1:]
        watermarks_ms[number] = int(running[-1])
    return Advance(late=late, horizons_ms=after - lateness_ms, watermarks_ms=watermarks_ms)
