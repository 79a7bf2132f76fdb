from __future__ import annotations

import pytest

from headrace.clock import Clock, ManualClock, SystemClock


def test_the_system_clock_tells_milliseconds_since_1970() -> None:
    """The system clock is in the range of this century and its durations do not go back."""
    clock: Clock = SystemClock()
    assert 1_600_000_000_000 < clock.now_ms() < 4_102_444_800_000
    assert clock.monotonic_ns() <= clock.monotonic_ns()


def test_a_manual_clock_stands_still_until_told() -> None:
    """A manual clock moves by exactly what it is advanced by, in both of its times."""
    clock = ManualClock(1_000)
    assert (clock.now_ms(), clock.monotonic_ns()) == (1_000, 0)
    clock.advance(25)
    assert (clock.now_ms(), clock.monotonic_ns()) == (1_025, 25_000_000)


def test_setting_the_wall_clock_moves_no_duration() -> None:
    """A wall clock may be set back; durations go on and refuse to."""
    clock = ManualClock(1_000)
    clock.set_now(10)
    assert (clock.now_ms(), clock.monotonic_ns()) == (10, 0)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
