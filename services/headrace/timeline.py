"""The stages of a batch as consecutive intervals of one clock, waits included."""

from __future__ import annotations

from collections.abc import Callable


class Timeline:
    """Splits the time from its making on into named stages: `mark(stage)` gives the time since the last mark to `stage`."""

    __slots__ = ("_last_ns", "_now_ns", "stages_ns")

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._now_ns = monotonic_ns
        self._last_ns = monotonic_ns()
        self.stages_ns: dict[str, int] = {}

    def mark(self, stage: str) -> None:
        """End the current interval; it belongs to `stage`."""
        now_ns = self._now_ns()
        self.stages_ns[stage] = self.stages_ns.get(stage, 0) + now_ns - self._last_ns
        self._last_ns = now_ns
