"""The newest events of each entity, told again in the order of event time when one comes out of order.

A prediction is told as of its event, from what had come by then; as-of times never go back. An event that comes *out of order* (older than
one its entity has shown, and not late) would have changed the vectors of the events behind it, and its own is told as of a newer one. Both
are what a *correction* says: the vector as it is in the order of (event time, offset), from all events up to the one that caused it.

    state before them (ground) --fold--> event --> event --> event        the retained events, in the order of event time
                                                ^
                                                x     one out of order: its own vector, and those behind it that it changed, are corrected

Of each entity the events are kept that are newer than the horizon (watermark - lateness), the newest `most` of them; no event that is not
late comes before the horizon, so what is older is settled and goes into the ground, in that order. What a correction is compared with is
the same fold without the event that caused it, bit for bit: so nothing that was published need be remembered but how often each event was
corrected, and all of this is a function of the partition's log alone, whichever worker folds it and wherever it begins.

Work. An event that comes in order is appended to columns and nothing else. One out of order costs two folds of what its entity has
retained. Events go into the ground when states are packed; that costs a second fold of each, and the ground is packed beside it: a pipeline
with corrections keeps about twice the state. Limits: an event older than `most` newer ones corrects those but is not corrected itself, and
is then in the ground in the order in which it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from headrace.expression import Column
from headrace.features import kernel
from headrace.features.entries import Entries, Happened
from headrace.features.retained_bytes import Packed, pack, unpack
from headrace.features.retained_view import RetainedView
from headrace.features.rows import EntityRows
from headrace.features.tables import Events, more_rows
from headrace.types import NO_WATERMARK_MS, Bools, Corrected, EventBatch, Float64s, Int64s

_CELLS_AN_EVENT = 2
"""A retained event takes about as much memory as two panes."""


class RetainedEvents:
    """The retained events of all rows of a table of entities. Not for use by several threads."""

    def __init__(self, view: RetainedView) -> None:
        self.view = view
        self.touched = np.zeros(0, dtype=np.bool_)
        """Which rows took an event since they were last packed."""
        self._ground, self._again = EntityRows(view.views), EntityRows(view.views)
        self._streams = len(self._ground.streams)
        self._entries = Entries(self._streams + len(view.extras), joined=view.join is not None)
        self._newest_ms = np.empty(0, dtype=np.int64)
        self._horizons_ms = np.empty(0, dtype=np.int64)

    def follow(self, rows: int) -> None:
        """There are so many rows now."""
        more = rows - len(self.touched)
        if more <= 0:
            return
        self.touched = np.concatenate((self.touched, np.zeros(more, dtype=np.bool_)))
        nothing = np.full(more, NO_WATERMARK_MS, dtype=np.int64)
        self._newest_ms = np.concatenate((self._newest_ms, nothing))
        self._horizons_ms = np.concatenate((self._horizons_ms, nothing))
        self._entries.follow(rows)
        if len(self._ground) < rows:
            self._ground.rows = more_rows(self._ground.rows, rows, self._ground.plan)

    def release(self, rows: Int64s) -> None:
        """Forget rows."""
        self._entries.keep_only(rows, np.empty(0, dtype=np.int64))
        kernel.release(self._ground.rows, self._ground.arena, rows)
        self.touched[rows] = False
        self._newest_ms[rows] = self._horizons_ms[rows] = NO_WATERMARK_MS

    def cells(self) -> int:
        """How many panes the ground has in memory, and as many more as the retained events take."""
        return self._ground.cells() + _CELLS_AN_EVENT * len(self._entries)

    def tidy(self) -> None:
        """Give memory between the panes back; never needed, and not quick."""
        self._ground.tidy()

    # --------------------------------------------------------------------------------------------- fold

    def fold(self, events: EventBatch, rows: Int64s, horizons_ms: Int64s, takes: Bools) -> Corrected | None:
        """Take those events of a batch that `takes` names; gives what they correct, None where all came in order."""
        order = np.argsort(rows, kind="stable")
        order = order[takes[order]]
        if not len(order):
            return None
        arrived = self._arrived(events, rows, order)
        before_ms = self._newest_before(arrived)
        self._horizons_ms[arrived.rows] = horizons_ms[order]  # of several of one row the last counts
        self.touched[arrived.rows] = True
        self._entries.add(arrived)
        causes = np.flatnonzero(arrived.times_ms < before_ms)
        if not len(causes):
            return None
        found = [
            self._tell_again(arrived.select(some), horizons_ms[order[some]], order[some]) for some in _rounds(arrived.rows[causes], causes)
        ]
        return _joined([one for one in found if one is not None])

    def _arrived(self, events: EventBatch, rows: Int64s, order: Int64s) -> Happened:
        view, columns, count = self.view, events.columns, len(events)
        values = np.empty((len(order), self._streams + len(view.extras)))
        values[:, : self._streams] = self._ground.given(columns, count)[order]
        for place, (_, expression) in enumerate(view.extras, start=self._streams):
            values[:, place] = expression.evaluate(columns)[order]
        joins = np.empty(0, dtype=object) if view.join is None else texts_of(columns[view.join][order])
        return Happened(
            rows=rows[order],
            times_ms=events.event_times_ms[order],
            offsets=events.records.offsets[events.rows[order]],
            revisions=np.zeros(len(order), dtype=np.int64),
            values=values,
            joins=joins,
        )

    def _newest_before(self, arrived: Happened) -> Int64s:
        """The newest event time each event's row had shown before it; they stand row by row."""
        rows, times_ms = arrived.rows, arrived.times_ms
        first = np.concatenate(([True], rows[1:] != rows[:-1]))
        number = np.cumsum(first) - 1
        # Times of one row after another on one axis, far enough apart that the running maximum of a row never reaches into the next.
        lowest = int(times_ms.min())
        apart = int(max(times_ms.max(), self._newest_ms[rows].max())) - lowest + 2
        known = np.maximum(self._newest_ms[rows], lowest - 1)
        before = np.where(first, known, np.concatenate(([0], times_ms[:-1])))
        found: Int64s = np.maximum.accumulate(np.maximum(before, known) - lowest + 1 + number * apart) + lowest - 1 - number * apart
        self._newest_ms[rows] = np.maximum(found, times_ms)
        return found

    def _tell_again(self, causes: Happened, horizons_ms: Int64s, numbers: Int64s) -> Corrected | None:
        """What the events `causes`, of a row each and in the order of rows, correct; `numbers` are theirs in the batch."""
        rows = causes.rows
        places = self._entries.of(rows)
        kept = self._entries.at(places)
        group = np.searchsorted(rows, kept.rows)
        seen = kept.offsets < causes.offsets[group]  # the rest of the batch stands there already
        settled = seen & self._settled(kept, group, horizons_ms, seen)
        self._into_ground(kept.select(settled))
        stays = seen & ~settled
        behind = stays & (kept.times_ms > causes.times_ms[group])
        itself = kept.offsets == causes.offsets[group]
        # A ground that is newer than the event: it is older than all that is retained, and cannot be told as of its own time any more.
        crowded = causes.times_ms < self._ground.rows.newest_ms[rows, 0]
        vectors, without = self._vectors(rows, kept, group, stays, itself)
        told = behind.copy()
        told[behind] = (_bits(vectors[behind]) != _bits(without[behind])).any(axis=1)
        told |= itself & ~crowded[group]
        self._entries.corrected(places[told])
        alone = itself & crowded[group]
        self._into_ground(kept.select(alone))
        self._entries.keep_only(rows, places[~settled & ~alone])
        if not told.any():
            return None
        kept = self._entries.at(places[told])
        return Corrected(
            causes=numbers[group[told]],
            offsets=kept.offsets,
            event_times_ms=kept.times_ms,
            revisions=kept.revisions,
            values=np.hstack((vectors[told], kept.values[:, self._streams :])),
            joins=kept.joins,
        )

    def _vectors(self, rows: Int64s, kept: Happened, group: Int64s, stays: Bools, itself: Bools) -> tuple[Float64s, Float64s]:
        """The vectors of what is kept, in the order of event time, with the events `itself` and without them."""
        with_it = np.flatnonzero(stays | itself)
        without_it = np.flatnonzero(stays)
        numbers = np.array(self._again.take(2 * len(rows)), dtype=np.int64)
        both = np.concatenate((with_it, without_it))
        into = np.concatenate((numbers[group[with_it]], numbers[len(rows) + group[without_it]]))
        self._copy_ground(rows, numbers)
        values = self._fold(self._again, kept.select(both), into)
        self._again.release(numbers.tolist())
        found = np.empty((2, len(kept), values.shape[1]))
        found[0, with_it], found[1, without_it] = values[: len(with_it)], values[len(with_it) :]
        return found[0], found[1]

    def _copy_ground(self, rows: Int64s, numbers: Int64s) -> None:
        """Bring the ground of some rows into two rows each of the other table."""
        some = np.flatnonzero(self._ground.rows.newest_ms[rows, 0] != NO_WATERMARK_MS)
        if not len(some):
            return
        into = [*numbers[some].tolist(), *numbers[len(rows) + some].tolist()]
        for place in range(len(self.view.views)):
            buffer, bounds = self._ground.pack(place, rows[some])
            content, cuts = buffer.tobytes(), bounds.tolist()
            packed = [content[begin:end] for begin, end in pairwise(cuts)]
            self._again.load(place, into, packed + packed)

    def _settled(self, kept: Happened, group: Int64s, horizons_ms: Int64s, seen: Bools) -> Bools:
        """Which events go into the ground: those that nothing can come before, and all but the newest `most`."""
        newer: Int64s = np.cumsum(seen[::-1])[::-1] - seen  # behind it in all groups
        ends = np.concatenate((np.flatnonzero(np.diff(group)), [len(group) - 1])) if len(group) else np.empty(0, dtype=np.int64)
        last = np.zeros(len(horizons_ms), dtype=np.int64)
        last[group[ends]] = newer[ends]
        found: Bools = (kept.times_ms <= horizons_ms[group]) | (newer - last[group] >= self.view.most)
        return found

    def _into_ground(self, settled: Happened) -> None:
        if len(settled):
            self._fold(self._ground, settled, settled.rows)

    def _fold(self, table: EntityRows, some: Happened, rows: Int64s) -> Float64s:
        """Fold events, each as of its own time, in the order given; gives the vectors of the views."""
        count = len(some)
        values, _ = table.fold(
            Events(
                rows=rows,
                times_ms=some.times_ms,
                horizons_ms=np.full(count, NO_WATERMARK_MS, dtype=np.int64),
                takes=np.ones((count, len(self.view.views)), dtype=np.bool_),
                given=np.ascontiguousarray(some.values[:, : self._streams]),
            )
        )
        return values

    # --------------------------------------------------------------------------------------------- to the store and back

    def pack(self, rows: Int64s) -> Packed:
        """The packed states of some rows, which ascend; they are touched no more."""
        kept = self.settle(rows, self._horizons_ms[rows])
        self.touched[rows] = False
        return pack(self._ground, rows, self._newest_ms[rows], kept)

    def settle(self, rows: Int64s, horizons_ms: Int64s) -> Happened:
        """Let what nothing can come before go into the ground of some rows, which ascend; gives what is left of them."""
        places = self._entries.of(rows)
        kept = self._entries.at(places)
        group = np.searchsorted(rows, kept.rows)
        settled = self._settled(kept, group, horizons_ms, np.ones(len(kept), dtype=np.bool_))
        self._into_ground(kept.select(settled))
        self._entries.keep_only(rows, places[~settled])
        return kept.select(~settled)

    def load(self, packed: Sequence[tuple[int, bytes]]) -> None:
        """Put packed states into rows, each into its own. Raises `StoreRefused` for bytes that are none."""
        for row, state in packed:
            newest_ms, grounds, kept = unpack(self.view, state, row)
            self._newest_ms[row] = newest_ms
            for place, ground in enumerate(grounds):
                if ground:
                    self._ground.load(place, [row], [ground])
            self._entries.add(kept)

    def grounds(self, row: int) -> list[bytes | None]:
        """The packed ground of a row in each view; None where nothing has settled yet."""
        rows = np.array([row], dtype=np.int64)
        known = self._ground.rows.newest_ms[row] != NO_WATERMARK_MS
        return [self._ground.pack(place, rows)[0].tobytes() if known[place] else None for place in range(len(self.view.views))]


def _joined(found: Sequence[Corrected]) -> Corrected | None:
    """The corrections of all rounds, in the order of what caused them."""
    if not found:
        return None
    whole = Corrected(
        causes=np.concatenate([one.causes for one in found]),
        offsets=np.concatenate([one.offsets for one in found]),
        event_times_ms=np.concatenate([one.event_times_ms for one in found]),
        revisions=np.concatenate([one.revisions for one in found]),
        values=np.concatenate([one.values for one in found]),
        joins=np.concatenate([one.joins for one in found]),
    )
    return whole.select(np.lexsort((whole.offsets, whole.event_times_ms, whole.causes)))


def _rounds(rows: Int64s, causes: Int64s) -> list[Int64s]:
    """The causes, which stand row by row, cut so that each row comes once a round, in its order."""
    first = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
    place = np.arange(len(rows)) - np.repeat(first, np.diff(np.concatenate((first, [len(rows)]))))
    return [causes[place == number] for number in range(int(place.max()) + 1)]


def texts_of(column: Column) -> NDArray[np.object_]:
    """What outcomes are joined by, as text; a whole number as its digits, None where there is nothing."""
    if column.dtype == np.object_:
        return column.astype(object)
    return np.array([None if np.isnan(value) else str(int(value)) for value in column.tolist()], dtype=object)


def _bits(values: Float64s) -> Int64s:
    """Numbers as the bits they are, every NaN as the same one."""
    return np.where(np.isnan(values), np.nan, values).view(np.int64)
