"""Rows of entities: the tables of some views, and the loops around the compiled code that enlarge what is too small.

The compiled code never allocates: it stops in front of the row it has no room for. Here is where room is made. Rows and arena start small,
so a worker starts quickly, and grow by doubling. Limit: enlarging an arena copies it, so for a moment both are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.expression import Column
from headrace.features import kernel, other_lanes, state
from headrace.features.aggregation import MOMENTS
from headrace.features.derived import derived_columns
from headrace.features.tables import Events, more_rows, new_arena, new_rows, plan_of, streams_of
from headrace.features.view import FeatureView
from headrace.types import Float64s, Int64s

_FIRST_ROWS, _FIRST_CELLS = 1_024, 4_096
_BYTES_A_STATE = 256


class EntityRows:
    """The states of entities in some views of one source, each in a row of its own."""

    def __init__(self, views: Sequence[FeatureView]) -> None:
        self.views = tuple(views)
        self.plan = plan_of(views)
        self.streams = streams_of(views)
        self.features = sum(len(view.features) for view in views)
        self._has_other_lanes = any(lane.kind != MOMENTS for view in views for lane in view.lanes)
        self._derived = derived_columns(views)
        self.rows = new_rows(_FIRST_ROWS, self.plan)
        self.arena = new_arena(_FIRST_CELLS + self.plan.reserve)
        self.taken = 0
        """Rows from this number on were never in use."""
        self._free = list(range(_FIRST_ROWS - 1, -1, -1))

    def __len__(self) -> int:
        """How many rows there are, in use or free."""
        return len(self.rows.newest_ms)

    def take(self, count: int) -> list[int]:
        """The numbers of `count` free rows, new ones if need be."""
        while len(self._free) < count:
            had = len(self)
            self.rows = more_rows(self.rows, 2 * had, self.plan)
            self._free.extend(range(2 * had - 1, had - 1, -1))
        numbers = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        self.taken = max(self.taken, 1 + max(numbers, default=-1))
        return numbers

    def release(self, gone: Sequence[int]) -> None:
        """Forget rows; their numbers are free again."""
        kernel.release(self.rows, self.arena, np.array(gone, dtype=np.int64))
        self._free.extend(gone)

    def given(self, columns: Mapping[str, Column], count: int) -> Float64s:
        """What `count` events give to each stream: [events, streams], NaN where nothing."""
        given = np.empty((count, len(self.streams)))
        for number, stream in enumerate(self.streams):
            given[:, number] = stream.given(columns, count)
        return given

    def fold(self, events: Events) -> tuple[Float64s, Int64s]:
        """Fold events; gives the feature vectors of all views [events, features] and their as-of times."""
        count, begin = len(events.rows), 0
        values, as_of_ms = np.empty((count, self.features)), np.empty(count, dtype=np.int64)
        seen = np.empty((count if self._has_other_lanes else 0, 2 * len(self.views)), dtype=np.int64)
        while begin < count:
            end = kernel.fold(self.plan, self.rows, self.arena, events, begin, values, as_of_ms, seen)
            if self._has_other_lanes:
                self._fold_other_lanes(events, begin, end, seen, values)
            if end < count:
                self._enlarge()
            begin = end
        for feature, column in self._derived:
            values[:, column] = feature.of(values)
        return values, as_of_ms

    def _fold_other_lanes(self, events: Events, begin: int, end: int, seen: Int64s, values: Float64s) -> None:
        while (begin := other_lanes.fold(self.plan, self.rows, self.arena, events, begin, end, seen, values)) < end:
            self._enlarge()

    def load(self, number: int, into: Sequence[int], packed: Sequence[bytes]) -> None:
        """Put packed states of view `number` into rows. Raises `StoreRefused` for bytes of another layout, or that are no state."""
        buffer, bounds = state.joined(packed)
        rows = np.array(into, dtype=np.int64)
        begin = 0
        while begin < len(packed):
            parsed = state.parse_some(self.plan, number, buffer, bounds, begin)
            count = len(parsed.newest_ms)
            placed = kernel.place(self.plan, self.rows, self.arena, number, rows[begin : begin + count], 0, parsed)
            while placed < count:
                self._enlarge()
                placed = kernel.place(self.plan, self.rows, self.arena, number, rows[begin : begin + count], placed, parsed)
            begin += count

    def pack(self, number: int, asked: Int64s) -> tuple[NDArray[np.uint8], Int64s]:
        """The packed states of rows in view `number`, as one buffer and its bounds; marks the rows as not touched."""
        bounds = np.zeros(len(asked) + 1, dtype=np.int64)
        buffer = np.empty(_BYTES_A_STATE * len(asked), dtype=np.uint8)
        done = 0
        while (done := state.pack(self.plan, self.rows, self.arena, number, asked, done, buffer, bounds)) < len(asked):
            lanes = self.rows.lanes[asked[done]]
            least = state.most_bytes(self.plan, int(lanes["length"].sum()))
            buffer = np.concatenate((buffer, np.empty(len(buffer) + least, dtype=np.uint8)))
        return buffer[: bounds[-1]], bounds

    def empty(self, asked: Int64s, horizons_ms: Int64s) -> list[int]:
        """Those of the rows `asked` in which no window of any view can see anything as of their horizons."""
        found = np.empty(len(asked), dtype=np.int64)
        count = kernel.empty_rows(self.plan, self.rows, self.arena, horizons_ms, asked, found)
        return [int(row) for row in found[:count]]

    def cells(self) -> int:
        """How many cells of the arena are in use, or lie in blocks that were given back."""
        return int(self.arena.top[0])

    def tidy(self) -> None:
        """Move all panes to a new arena that fits them."""
        self._enlarge()

    def _enlarge(self) -> None:
        held = int(self.rows.lanes["length"].sum())
        arena = new_arena(2 * held + 2 * self.plan.reserve + _FIRST_CELLS)
        kernel.move(self.rows, self.arena, arena)
        self.arena = arena
