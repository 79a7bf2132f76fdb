"""Events in columns, the newest behind the others, with a chain through those of each row. Compiled where it walks.

Appending costs a copy of the columns; nothing is done to an entry that nobody asks for. An entry that is dropped stays where it is until
half of them are: then those that are left move together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.features.compiled import entry
from headrace.types import Bools, Float64s, Int64s

NONE = -1
_FIRST = 1_024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Happened:
    """Some events as they are kept: of which row, when, where they stand, how often they were corrected, and what they give: first to the
    streams of the views, then to the pipeline's own features. `joins` is empty where no outcome is joined.
    """

    rows: Int64s
    times_ms: Int64s
    offsets: Int64s
    revisions: Int64s
    values: Float64s
    joins: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, which: Int64s | Bools) -> Happened:
        """Some of them."""
        joins = self.joins[which] if len(self.joins) else self.joins
        return Happened(
            rows=self.rows[which],
            times_ms=self.times_ms[which],
            offsets=self.offsets[which],
            revisions=self.revisions[which],
            values=self.values[which],
            joins=joins,
        )

    def in_order(self) -> Int64s:
        """Their order by row, event time and offset."""
        return np.lexsort((self.offsets, self.times_ms, self.rows))


class Entries:
    """The kept events of all rows."""

    def __init__(self, width: int, *, joined: bool) -> None:
        self._joined = joined
        self._all = _room(_FIRST, width, joined)
        self._before = np.empty(_FIRST, dtype=np.int64)
        self._newest = np.empty(0, dtype=np.int64)
        self._count = self._live = 0

    def __len__(self) -> int:
        """How many are kept."""
        return self._live

    def follow(self, rows: int) -> None:
        """There are so many rows now."""
        self._newest = np.concatenate((self._newest, np.full(rows - len(self._newest), NONE, dtype=np.int64)))

    def add(self, some: Happened) -> None:
        """Append events; those of one row must stand together."""
        count = len(some)
        if not count:
            return
        self._make_room(count)
        places = np.arange(self._count, self._count + count)
        for column, added in zip(_columns(self._all), _columns(some), strict=True):
            column[places[0] : places[0] + count] = added
        if self._joined:
            self._all.joins[places[0] : places[0] + count] = some.joins
        first = np.concatenate(([True], some.rows[1:] != some.rows[:-1]))
        self._before[places] = np.where(first, self._newest[some.rows], places - 1)
        self._newest[some.rows] = places  # of several places for one row the last counts
        self._count += count
        self._live += count

    def of(self, rows: Int64s) -> Int64s:
        """The places of everything kept of some rows, which are all different, by row, event time and offset."""
        places = np.empty(self._live, dtype=np.int64)
        places = places[: walk(self._newest, self._before, rows, places)]
        return places[self.at(places).in_order()]

    def at(self, places: Int64s) -> Happened:
        """What stands there."""
        return self._all.select(places)

    def corrected(self, places: Int64s) -> None:
        """One correction more of each of these."""
        self._all.revisions[places] += 1

    def keep_only(self, rows: Int64s, places: Int64s) -> None:
        """Of some rows, keep what stands in these places, which come row by row, and nothing else."""
        there = np.empty(self._live, dtype=np.int64)
        self._live += len(places) - walk(self._newest, self._before, rows, there)
        self._newest[rows] = NONE
        mine = self._all.rows[places]
        first = np.concatenate(([True], mine[1:] != mine[:-1])) if len(places) else np.empty(0, dtype=np.bool_)
        self._before[places] = np.where(first, NONE, np.concatenate(([NONE], places[:-1])) if len(places) else places)
        self._newest[mine] = places

    def _make_room(self, count: int) -> None:
        if self._count + count <= len(self._before):
            return
        places = self.of(np.flatnonzero(self._newest != NONE))
        kept = self.at(places)
        size = max(_FIRST, 2 * (len(places) + count))
        self._all, self._before = _room(size, kept.values.shape[1], self._joined), np.empty(size, dtype=np.int64)
        self._newest[:] = NONE
        self._count = self._live = 0
        self.add(kept)


def _room(size: int, width: int, joined: bool) -> Happened:  # noqa: FBT001 - a column that is there or not
    numbers: list[Any] = [np.empty(size, dtype=np.int64) for _ in range(4)]
    rows, times_ms, offsets, revisions = numbers
    joins = np.full(size if joined else 0, None, dtype=object)
    return Happened(rows=rows, times_ms=times_ms, offsets=offsets, revisions=revisions, values=np.empty((size, width)), joins=joins)


def _columns(some: Happened) -> tuple[NDArray[Any], ...]:
    return some.rows, some.times_ms, some.offsets, some.revisions, some.values


@entry
def walk(newest: Int64s, before: Int64s, rows: Int64s, places: Int64s) -> int:
    """Write the places of all entries of some rows; gives how many they are."""
    count = 0
    for row in rows:
        place = newest[row]
        while place != NONE:
            places[count] = place
            count += 1
            place = before[place]
    return count
