"""Where "now" comes from. Only `apps` make a `SystemClock`; everything else is handed a clock, or the time itself."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time: `now_ms` for people and records, `monotonic_ns` for durations."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC. May jump when the machine's clock is set."""

    def monotonic_ns(self) -> int:
        """Nanoseconds from some beginning; never goes back."""


class SystemClock:
    """The clock of the machine."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC. May jump when the machine's clock is set."""
        return time.time_ns() // 1_000_000

    def monotonic_ns(self) -> int:
        """Nanoseconds from some beginning; never goes back."""
        return time.monotonic_ns()


class ManualClock:
    """A clock that stands still until it is told to go on: for tests, the simulation and `headrace.testing`."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_ns = 0

    def now_ms(self) -> int:
        """The time it was set to."""
        return self._now_ms

    def monotonic_ns(self) -> int:
        """The time it has been moved forward by in all."""
        return self._monotonic_ns

    def advance(self, by_ms: int) -> None:
        """Let time pass; raises `ValueError` for a negative step."""
        if by_ms < 0:
            raise ValueError(f"time does not go back by {-by_ms} ms; use set_now for a machine whose clock was set")
        self._now_ms += by_ms
        self._monotonic_ns += by_ms * 1_000_000

    def set_now(self, now_ms: int) -> None:
        """Set the clock on the wall, forwards or back; durations do not notice."""
        self._now_ms = now_ms
