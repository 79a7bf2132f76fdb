"""How many records a batch may have: as many as the limit allows, fewer after a transaction that did not end in time.

A batch that does not fit through a slow line within `transaction.timeout.ms` would be tried again for ever, always with the same size. So
the next one is half as large; a transaction that ended quickly lets the one after it be twice as large again, up to the limit. One that
took longer changes nothing, so the size comes to rest where transactions take a part of their time-out. One that failed quickly changes
nothing either: a rebalance or a fence has nothing to do with its size.
"""

from __future__ import annotations

from collections.abc import Callable

QUICK_MS, SLOW_MS = 1_000, 4_000
"""An eighth and half of the time-out: what is quick fits twice as well, what fails after so long may have been too large."""
LEAST = 16
"""What is never gone below."""


class BatchSize:
    """The size of the next batch."""

    def __init__(self, largest: int, now_ms: Callable[[], int]) -> None:
        """`largest`: the limit in records."""
        self.records = self._largest = largest
        self._now_ms = now_ms
        self._begun_ms = 0

    def begin(self) -> None:
        """A transaction begins."""
        self._begun_ms = self._now_ms()

    def committed(self) -> None:
        """It was committed."""
        if self.records < self._largest and self._now_ms() - self._begun_ms <= QUICK_MS:
            self.records = min(2 * self.records, self._largest)

    def failed(self, records: int) -> None:
        """It was not, and it had so many records."""
        if self._now_ms() - self._begun_ms >= SLOW_MS:
            self.records = max(min(LEAST, self.records), min(self.records, records) // 2)
