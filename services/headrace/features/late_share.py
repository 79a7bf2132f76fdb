"""How many of a source's events come too late, and when to say so (pure).

A late event is scored but not folded, so a source that is late as a rule makes wrong features without an error. One line says so
when the share rises above the limit, and is said again only after it has been below half of it.
"""

from __future__ import annotations

from collections import deque

from headrace.duration import duration_text


class LateShare:
    """The share of late events in a sliding window of at least `window` events of one source."""

    def __init__(self, topic: str, lateness_ms: int, *, limit: float = 0.05, window: int = 10_000) -> None:
        self._topic = topic
        self._lateness_ms = lateness_ms
        self._limit = limit
        self._window = window
        self._batches: deque[tuple[int, int]] = deque()
        self._events = 0
        self._late = 0
        self._said = False

    @property
    def share(self) -> float:
        """The share in the window; 0 while it is empty."""
        return self._late / self._events if self._events else 0.0

    def observe(self, *, events: int, late: int) -> str | None:
        """Take a batch; the answer is a line for the log when the share of a full window has just risen above the limit."""
        self._batches.append((events, late))
        self._events += events
        self._late += late
        while self._events - self._batches[0][0] >= self._window:
            old_events, old_late = self._batches.popleft()
            self._events -= old_events
            self._late -= old_late
        if self.share < self._limit / 2:
            self._said = False
        if self._said or self._events < self._window or self.share <= self._limit:
            return None
        self._said = True
        return (
            f"{self.share:.1%} of the last {self._events} events of {self._topic} are late: older than its watermark by more than "
            f"lateness={duration_text(self._lateness_ms)}; they are scored but not folded, so features miss them. One producer may be "
            "behind the others or its clock may be wrong; if such delay is normal, give the source a larger lateness"
        )
