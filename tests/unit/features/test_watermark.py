from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.watermark import advance
from headrace.types import NO_WATERMARK_MS


def test_exactly_lateness_old_is_not_late() -> None:
    """Behind the watermark by lateness - 1, + 0, + 1 ms: only the last is late, and it moves nothing."""
    found = advance(np.zeros(4, dtype=np.int32), np.array([50_000, 40_001, 40_000, 39_999]), {}, 10_000)
    assert found.late.tolist() == [False, False, False, True]
    assert found.horizons_ms.tolist() == [40_000] * 4
    assert found.watermarks_ms == {0: 50_000}


def test_first_event_is_never_late() -> None:
    """A partition that has shown nothing yet makes nothing late, however long ago."""
    found = advance(np.array([3], dtype=np.int32), np.array([-5]), {7: 1_000_000}, 0)
    assert found.late.tolist() == [False]
    assert found.watermarks_ms == {3: -5}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1_000, 1_000))), st.integers(0, 500), st.integers(0, 20))
def test_partitions_and_cuts(events: list[tuple[int, int]], lateness_ms: int, cut: int) -> None:
    """Each partition has a watermark of its own, event by event, in any cut into batches."""
    watermarks: dict[int, int] = {}
    expected = []
    for partition, time_ms in events:
        before = watermarks.get(partition, NO_WATERMARK_MS)
        watermarks[partition] = max(before, time_ms)
        expected.append((time_ms < before - lateness_ms, watermarks[partition] - lateness_ms))
    found: list[tuple[bool, int]] = []
    before_ms: dict[int, int] = {}
    for part in (events[:cut], events[cut:]):
        numbers = np.array([partition for partition, _ in part], dtype=np.int32)
        times_ms = np.array([time_ms for _, time_ms in part], dtype=np.int64)
        moved = advance(numbers, times_ms, before_ms, lateness_ms)
        before_ms |= moved.watermarks_ms
        found += zip(moved.late.tolist(), moved.horizons_ms.tolist(), strict=True)
    assert found == expected
    assert before_ms == watermarks
