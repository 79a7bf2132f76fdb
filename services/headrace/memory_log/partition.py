"""One partition of the log in memory: append-only columns, one entry an offset.

    offset        0      1      2       3      4      5
    key, value   k,v    k,v   (marker)  k,v    k,v  ...
    visibility    0      0      1       2      3          SEEN, MARKER, ABORTED, PENDING

A reader of committed records sees the SEEN below the last stable offset, which is the first PENDING one, or the end. The offset of a
record is its index: nothing is freed, retention only moves `start`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.types import Headers, Int64s

SEEN, MARKER, ABORTED, PENDING = 0, 1, 2, 3

Slice = tuple[Int64s, Int64s, list[bytes | None], list[bytes | None], list[Headers | None]]
"""Offsets, timestamps, keys, values, headers of some records of one partition."""


class MemoryPartition:
    """The records of one partition."""

    __slots__ = ("_times", "_visibility", "end", "headers", "keys", "open_from", "start", "values")

    def __init__(self) -> None:
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers | None] = []
        self._times: Int64s = np.empty(256, np.int64)
        self._visibility: NDArray[np.uint8] = np.zeros(256, np.uint8)
        self.start = 0
        self.end = 0
        self.open_from: dict[int, int] = {}
        """Pending transaction -> its first offset here."""

    def append(
        self,
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[Headers | None],
        timestamps_ms: Int64s,
        visibility: int = SEEN,
    ) -> int:
        """Put records at the end; returns the offset of the first."""
        first, end = self.end, self.end + len(values)
        self._reserve(end)
        self.keys += keys
        self.values += values
        self.headers += headers
        self._times[first:end] = timestamps_ms
        self._visibility[first:end] = visibility
        self.end = end
        return first

    def settle(self, transaction: int, ranges: list[tuple[int, int]], visibility: int, now_ms: int) -> None:
        """Write the marker that ends a transaction here: its records become SEEN or ABORTED."""
        for first, end in ranges:
            self._visibility[first:end] = visibility
        self.open_from.pop(transaction, None)
        self.append([None], [None], [None], np.array([now_ms], np.int64), MARKER)

    def stable_end(self) -> int:
        """The last stable offset: nothing below it will still change."""
        return min(self.open_from.values(), default=self.end)

    def fetch(self, position: int, limit: int) -> tuple[Slice, int]:
        """Up to `limit` committed records from `position` on, and the position behind them.

        When nothing visible is left below the last stable offset, that is the position: behind markers and aborted records too.
        """
        stable = self.stable_end()
        end = min(stable, position + limit)
        if not self._visibility[position:end].any():
            return self._slice(position, end), max(end, position)
        rows: list[Int64s] = []
        found, at = 0, position
        while found < limit and at < stable:
            end = min(stable, at + 4 * limit)
            seen = np.flatnonzero(self._visibility[at:end] == SEEN)[: limit - found] + at
            rows.append(seen)
            found += len(seen)
            at = int(seen[-1]) + 1 if found == limit else end
        return self._rows(np.concatenate(rows)), at

    def rows(self, first: int, end: int, wanted: tuple[int, ...]) -> Int64s:
        """The offsets of [first, end) whose visibility is one of those wanted."""
        return np.flatnonzero(np.isin(self._visibility[first:end], wanted)) + first

    def timestamp_ms(self, offset: int) -> int:
        """The timestamp of one record."""
        return int(self._times[offset])

    def first_at(self, time_ms: int) -> int | None:
        """The first kept offset below the last stable one whose timestamp is at least `time_ms`."""
        hits = np.flatnonzero(self._times[self.start : self.stable_end()] >= time_ms)
        return int(hits[0]) + self.start if len(hits) else None

    def _slice(self, first: int, end: int) -> Slice:
        return (
            np.arange(first, end, dtype=np.int64),
            self._times[first:end].copy(),
            self.keys[first:end],
            self.values[first:end],
            self.headers[first:end],
        )

    def _rows(self, rows: Int64s) -> Slice:
        wanted = rows.tolist()
        return (
            rows,
            self._times[rows],
            [self.keys[row] for row in wanted],
            [self.values[row] for row in wanted],
            [self.headers[row] for row in wanted],
        )

    def _reserve(self, size: int) -> None:
        if size > len(self._times):
            more = max(size, 2 * len(self._times)) - len(self._times)
            self._times = np.concatenate([self._times, np.empty(more, np.int64)])
            self._visibility = np.concatenate([self._visibility, np.zeros(more, np.uint8)])
