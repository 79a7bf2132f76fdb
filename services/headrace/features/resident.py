"""The states of recently seen entities in memory, and the fold over them.

An entity has one row, shared by all views of its source. A row comes from the store (or from nothing, for a new entity) the first time an
event asks for it, and stays until it is among the least recently used of more than `capacity`, or until its windows are all empty. What was
folded but is not yet in the store is never given up: a row may go only when everything packed from it has been applied.

    missing --read--> resident --fold--> touched --pack--> packed --applied--> resident --evicted--> missing
                                                             |
                                                             `--swept (all windows empty): deleted from the store--> missing

Sweeping is amortised: each pack looks at a few rows more than it packs; `sweep` does the same for what is not in memory. A deletion and a
later state of the same entity never stand in one write of ours; whoever merges writes lets a later chunk cancel an earlier deletion (the
store applies chunks first, then deletions). Until a deletion is applied, a read may still give the old state: no window sees any of it,
so folding on from it gives the same bytes.

Limit: a hot set larger than memory costs reads, never answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.features import watermark
from headrace.features.retained import RetainedEvents
from headrace.features.retained_view import Kept, RetainedView
from headrace.features.rows import EntityRows
from headrace.features.sweep import Scan, StoreSweep, nothing_there
from headrace.features.tables import Events
from headrace.features.view import FeatureView
from headrace.types import (
    Bools,
    Corrected,
    EventBatch,
    FeatureVectors,
    Float64s,
    Int32s,
    Int64s,
    PartitionWrite,
    StateChunk,
    TopicPartition,
    ViewWrite,
)

Read = Callable[[TopicPartition, Sequence[bytes]], Mapping[str, Sequence[bytes | None]]]
"""Packed states of entities per view (`FeatureView.fp`), in the order of the keys; None for an entity the store does not hold."""

_MOST_CELLS = 2_000_000
"""Panes in memory beyond which rows are given up, too: about 100 MB."""
_MOST_RECENT = 256
_NEVER = -1


class _RowOf(dict[str, int]):
    """Entity -> row; looking up one that is missing gives -1, so that a batch is looked up without a step in Python per event."""

    def __missing__(self, _: str) -> int:
        return _NEVER


@dataclass(slots=True, kw_only=True, eq=False)
class _Partition:
    """A partition of ours: where each view started and how far it is packed, and the rows of its entities."""

    slot: int
    starts: Int64s
    ends: dict[str, int]
    watermark_ms: int
    whole: bool
    """Nothing was left in the store or given up to it: who is not among the rows is nowhere, and need not be asked for."""
    applied: int = _NEVER
    rows: _RowOf = field(default_factory=_RowOf)


class ResidentStates:
    """States of recently seen entities in all views of one source.

    `read` fetches packed states, already checked for owner and offset; `scan` pages through the store, for entities not in memory. What
    they raise (`TransientError`, `PartitionMoved`) leaves everything as it was before the call that needed it. Not for use by several
    threads.
    """

    def __init__(
        self,
        *,
        views: Sequence[FeatureView],
        retained: Sequence[RetainedView] = (),
        read: Read,
        scan: Scan = nothing_there,
        capacity: int = 200_000,
        lateness_ms: int | None = None,
    ) -> None:
        """Without views there is nothing but watermarks, and `lateness_ms` must be given. `retained`: of pipelines with corrections."""
        self.views = tuple(views)
        self.kept: tuple[Kept, ...] = (*views, *retained)
        """Whatever the store keeps."""
        self.names = tuple(f"{view.name}.{feature}" for view in self.views for feature in view.feature_names)
        self._lateness_ms = self.kept[0].source.lateness_ms if lateness_ms is None else lateness_ms
        self._read = read
        self._capacity = capacity
        self._table = EntityRows(self.views)
        self._retained = [RetainedEvents(one) for one in retained]
        self._sweep = StoreSweep(self.kept, scan)
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._left_out: dict[TopicPartition, Callable[[str], int]] = {}
        self._slots: list[TopicPartition | None] = []
        self._batch = 0
        self._cursor = 0
        self._crowded_at = _MOST_CELLS
        self._recent: list[Int64s] = []
        size = len(self._table)
        self._keys: NDArray[np.object_] = np.full(size, b"", dtype=object)
        self._mark = np.zeros(size, dtype=np.int64)
        self._slot_of = np.full(size, _NEVER, dtype=np.int64)
        self._used = np.zeros(size, dtype=np.int64)
        self._packed_to = np.full(size, _NEVER, dtype=np.int64)
        self._stored = np.zeros((size, len(self.kept)), dtype=np.bool_)
        for one in self._retained:
            one.follow(size)

    # --------------------------------------------------------------------------------------------- partitions

    def start(self, partition: TopicPartition, starts: Mapping[str, int], watermark_ms: int, *, empty: bool = False) -> None:
        """Begin with a partition whose views (by `FeatureView.fp`) stand at `starts` in the store: events below are not theirs to take.

        `empty`: the store holds no state of it yet, so nothing is read until something was given up.
        """
        self.drop(partition)
        slot = self._slots.index(None) if None in self._slots else len(self._slots)
        self._slots[slot : slot + 1] = [partition]
        self._sweep.start(partition)
        self._partitions[partition] = _Partition(
            slot=slot,
            starts=np.array([starts[view.fp] for view in self.kept], dtype=np.int64),
            ends={view.fp: starts[view.fp] for view in self.kept},
            watermark_ms=watermark_ms,
            whole=empty,
        )

    def drop(self, partition: TopicPartition) -> None:
        """Forget everything of a partition, whether it is stored or not."""
        found = self._partitions.pop(partition, None)
        self._left_out.pop(partition, None)
        self._sweep.drop(partition)
        if found is not None:
            self._forget(found, list(found.rows.values()))
            self._slots[found.slot] = None

    def leave_out(self, partition: TopicPartition, below: Callable[[str], int] | None) -> None:
        """From now on an entity's events below `below(entity)` move the watermark and are in no state of it; None: all are again."""
        self._left_out.pop(partition, None)
        if below is not None:
            self._left_out[partition] = below

    def set_watermark(self, partition: TopicPartition, watermark_ms: int) -> None:
        """Put the watermark of a partition somewhere else."""
        self._partitions[partition].watermark_ms = watermark_ms

    def watermark_ms(self, partition: TopicPartition) -> int:
        """The watermark of a partition, behind everything folded."""
        return self._partitions[partition].watermark_ms

    def entities(self) -> int:
        """How many entities are in memory."""
        return sum(len(found.rows) for found in self._partitions.values())

    def touched(self) -> int:
        """How many entities were folded into since they were last packed."""
        return len(self._touched())

    def tidy(self) -> None:
        """Give memory between the panes back; never needed, and not quick."""
        self._table.tidy()
        for one in self._retained:
            one.tidy()

    def _cells(self) -> int:
        """How many panes are in memory, or what takes as much."""
        return self._table.cells() + sum(one.cells() for one in self._retained)

    # --------------------------------------------------------------------------------------------- fold

    def fold(self, events: EventBatch) -> FeatureVectors:
        """Fold events strictly in row order; gives the feature vectors of all views, concatenated, each as of its event.

        Missing states are read first, one read a partition. A view whose start lies above an event's offset holds that event already and
        does not take it. Late events are given the state as it is and change nothing.
        """
        count = len(events)
        if not count:
            nothing = np.empty(0, dtype=np.int64)
            values = np.empty((0, len(self.names)))
            return FeatureVectors(names=self.names, values=values, late=nothing.astype(np.bool_), as_of_ms=nothing, watermarks_ms=nothing)
        numbers = events.records.partitions[events.rows]
        ours = {int(number): self._partitions[TopicPartition(events.records.topic, int(number))] for number in np.unique(numbers)}
        before_ms = {number: found.watermark_ms for number, found in ours.items()}
        times_ms, carried = events.event_times_ms, events.carried
        if carried is None:
            advance = watermark.advance(numbers, times_ms, before_ms, self._lateness_ms)
        else:
            advance = watermark.advance_hop(numbers, times_ms, carried, before_ms, self._lateness_ms)
        values, as_of_ms = np.empty((count, 0)), np.maximum(times_ms, advance.horizons_ms)
        corrected: dict[str, Corrected] = {}
        if self.kept:
            values, as_of_ms, corrected = self._fold_views(events, numbers, ours, advance)
        for number, watermark_ms in advance.watermarks_ms.items():
            ours[number].watermark_ms = watermark_ms
        late = advance.late if carried is None else advance.late | carried.late
        behind_ms = advance.horizons_ms + self._lateness_ms
        return FeatureVectors(names=self.names, values=values, late=late, as_of_ms=as_of_ms, watermarks_ms=behind_ms, corrected=corrected)

    def _fold_views(
        self, events: EventBatch, numbers: Int32s, ours: Mapping[int, _Partition], advance: watermark.Advance
    ) -> tuple[Float64s, Int64s, dict[str, Corrected]]:
        """Fold; nothing is changed when this raises."""
        self._look_into_the_store(events.records.topic, numbers, ours)
        rows = self._rows_of(events, numbers, ours)
        takes = _takes(numbers, events.records.offsets[events.rows], advance.late, ours)
        if self._left_out:
            self._leave_out(takes, events, numbers)
        values, as_of_ms = self._table.fold(
            Events(
                rows=rows,
                times_ms=np.array(events.event_times_ms, dtype=np.int64),
                horizons_ms=advance.horizons_ms,
                takes=np.ascontiguousarray(takes[:, : len(self.views)]) if self._retained else takes,
                given=self._table.given(events.columns, len(events)),
            )
        )
        corrected = {}
        for place, one in enumerate(self._retained, start=len(self.views)):
            found = one.fold(events, rows, advance.horizons_ms, takes[:, place])
            if found is not None:
                corrected[one.view.pipeline] = found
        return values, as_of_ms, corrected

    def _leave_out(self, takes: Bools, events: EventBatch, numbers: Int32s) -> None:
        """Take nothing of those who were forgotten behind it."""
        offsets = events.records.offsets[events.rows]
        for number in np.unique(numbers).tolist():
            below = self._left_out.get(TopicPartition(events.records.topic, number))
            if below is not None:
                mine = np.flatnonzero(numbers == number)
                until = np.array([below(events.entities[place]) for place in mine.tolist()], dtype=np.int64)
                takes[mine[offsets[mine] < until]] = False

    def _look_into_the_store(self, topic: str, numbers: Int32s, ours: Mapping[int, _Partition]) -> None:
        """Sweep what is not in memory, where anything is."""
        for number, found in ours.items():
            if not found.whole:
                events, horizon_ms = int(np.count_nonzero(numbers == number)), found.watermark_ms - self._lateness_ms
                self._sweep.folded(TopicPartition(topic, number), events, horizon_ms, found.rows)

    def _rows_of(self, events: EventBatch, numbers: Int32s, ours: Mapping[int, _Partition]) -> Int64s:
        """The row of each event's entity; those that are missing are read from the store."""
        rows = self._known(events.entities, numbers, ours)
        missing = np.flatnonzero(rows == _NEVER)
        self._batch += 1
        if len(missing):
            wanted: dict[int, dict[str, None]] = {number: {} for number in ours}
            for row in missing.tolist():
                wanted[int(numbers[row])][events.entities[row]] = None
            self._used[rows[rows != _NEVER]] = self._batch
            self._bring(events.records.topic, {number: list(names) for number, names in wanted.items() if names}, ours)
            rows = self._known(events.entities, numbers, ours)
        self._used[rows] = self._batch
        if len(self._recent) >= _MOST_RECENT:
            self._touched()  # before these rows join: not folded yet, they do not look touched and would be forgotten
        self._recent.append(rows)
        return rows

    def _known(self, entities: list[str], numbers: Int32s, ours: Mapping[int, _Partition]) -> Int64s:
        if len(ours) == 1:
            (only,) = ours.values()
            return np.fromiter(_each(entities, only.rows), dtype=np.int64, count=len(entities))
        # A drain holds a few stretches of each partition, one for each time the client fetched; one that was aligned holds many.
        begins = np.concatenate(([0], np.flatnonzero(np.diff(numbers)) + 1))
        if len(begins) > len(entities) // 8:
            rows = np.empty(len(entities), dtype=np.int64)
            for number, found in ours.items():
                mine = np.flatnonzero(numbers == number)
                rows[mine] = _each([entities[place] for place in mine.tolist()], found.rows) if len(mine) else ()
            return rows
        found_rows: list[int] = []
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(entities)], strict=True):
            found_rows += _each(entities[begin:end], ours[int(numbers[begin])].rows)
        return np.array(found_rows, dtype=np.int64)

    def _bring(self, topic: str, wanted: Mapping[int, list[str]], ours: Mapping[int, _Partition]) -> None:
        """Give rows to entities that have none. All reads come first: if one fails, nothing has changed."""
        keys = {number: [name.encode() for name in names] for number, names in wanted.items()}
        answers = {
            number: self._nothing(keys[number]) if ours[number].whole else self._read(TopicPartition(topic, number), keys[number])
            for number in wanted
        }
        self._evict(sum(len(names) for names in wanted.values()))
        for number, names in wanted.items():
            rows = self._table.take(len(names))
            self._follow()
            for place, view in enumerate(self.views):
                held = [(row, packed) for row, packed in zip(rows, answers[number][view.fp], strict=True) if packed is not None]
                self._table.load(place, [row for row, _ in held], [packed for _, packed in held])
                self._stored[rows, place] = [packed is not None for packed in answers[number][view.fp]]
            for place, one in enumerate(self._retained, start=len(self.views)):
                packed_of = answers[number][one.view.fp]
                self._stored[rows, place] = [packed is not None for packed in packed_of]
                one.load([(row, packed) for row, packed in zip(rows, packed_of, strict=True) if packed is not None])
            self._slot_of[rows] = ours[number].slot
            self._used[rows] = self._batch
            self._packed_to[rows] = _NEVER
            self._keys[rows] = keys[number]
            self._sweep.came_back(TopicPartition(topic, number), keys[number])
            ours[number].rows.update(zip(names, rows, strict=True))

    def _nothing(self, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        return {view.fp: [None] * len(keys) for view in self.kept}

    # --------------------------------------------------------------------------------------------- to the store

    def pack(self, ends: Mapping[TopicPartition, int]) -> list[PartitionWrite]:
        """The states touched since the last pack, per partition, as of the offsets `ends`; views that stand there already are left out."""
        touched = self._touched()
        slots = self._slot_of[touched]
        looked_at = self._next_to_sweep(64 + 2 * len(touched))
        writes = []
        for partition, end in ends.items():
            found = self._partitions[partition]
            moving = [place for place, view in enumerate(self.kept) if found.ends[view.fp] < end]
            if not moving:
                continue
            rows = touched[slots == found.slot]
            swept: list[int] = []
            if len(moving) == len(self.kept) and self.views:
                mine = looked_at[self._slot_of[looked_at] == found.slot]
                horizon_ms = found.watermark_ms - self._lateness_ms
                swept = self._table.empty(mine, np.full(len(mine), horizon_ms, dtype=np.int64))
                rows = rows[~np.isin(rows, swept)] if swept else rows
            views = [self._view_write(partition, place, rows, swept, end) for place in moving]
            self._packed_to[rows] = end
            self._forget(found, swept)
            writes.append(PartitionWrite(partition=partition, watermark_ms=found.watermark_ms, views=views))
        return writes

    def _touched(self) -> Int64s:
        """The rows folded into since they were last packed, each once."""
        rows: Int64s = np.concatenate([np.empty(0, dtype=np.int64), *self._recent])
        if len(rows) > len(self._table):
            rows = np.arange(self._table.taken)
        order = np.arange(len(rows))
        self._mark[rows] = order
        self._recent = [rows[(self._mark[rows] == order) & self._is_touched(rows)]]
        return self._recent[0]

    def _is_touched(self, rows: Int64s | slice) -> Bools:
        """Which of these rows were folded into since they were last packed."""
        of_views: Bools = np.asarray(self._table.rows.touched[rows].any(axis=1))
        return np.logical_or.reduce([of_views, *(one.touched[rows] for one in self._retained)]) if self._retained else of_views

    def _next_to_sweep(self, count: int) -> Int64s:
        """So many rows, or all: pack after pack this goes round."""
        taken = self._table.taken
        rows = np.arange(self._cursor, self._cursor + min(count, taken))
        rows[rows >= taken] -= taken
        self._cursor = int(rows[-1]) + 1 if len(rows) else 0
        return rows

    def applied(self, partition: TopicPartition, offset: int) -> None:
        """Everything packed up to this offset is in the store: rows that were not touched since may be given up."""
        if partition in self._partitions:
            self._partitions[partition].applied = max(self._partitions[partition].applied, offset)

    def _view_write(self, partition: TopicPartition, place: int, rows: Int64s, swept: list[int], end: int) -> ViewWrite:
        view, found = self.kept[place], self._partitions[partition]
        one = self._retained[place - len(self.views)] if place >= len(self.views) else None
        mine = rows[self._table.rows.touched[rows, place] != 0] if one is None else np.sort(rows[one.touched[rows]])
        chunks = []
        if len(mine):
            buffer, bounds = self._table.pack(place, mine) if one is None else one.pack(mine)
            chunks.append(StateChunk(keys=self._keys[mine].tolist(), buffer=buffer, bounds=bounds))
            self._stored[mine, place] = True
        deletions = [self._keys[row] for row in swept if self._stored[row, place]] + self._sweep.take(partition, place)
        start, found.ends[view.fp] = found.ends[view.fp], end
        return ViewWrite(view=view.fp, start=start, end=end, chunks=chunks, deletions=deletions)

    # --------------------------------------------------------------------------------------------- room

    def _evict(self, coming: int) -> None:
        """Let there be room for `coming` entities: give up the least recently used rows, if the store has them."""
        crowded = self._cells() > self._crowded_at
        excess = self.entities() + coming - self._capacity
        if excess <= 0 and not crowded:
            return
        applied = np.array([self._partitions[one].applied if one else _NEVER for one in self._slots], dtype=np.int64)
        idle = (self._slot_of != _NEVER) & (self._used < self._batch) & ~self._is_touched(slice(None))
        idle &= self._packed_to <= applied[self._slot_of]
        rows = np.flatnonzero(idle)
        # A few more than must be, so that this is not done again for the next batch.
        count = max(excess + self._capacity // 16, len(rows) // 4 if crowded else 0)
        rows = rows[np.argsort(self._used[rows], kind="stable")[:count]]
        for slot in np.unique(self._slot_of[rows]).tolist():
            partition = self._slots[slot]
            if partition is not None:
                self._partitions[partition].whole = False
                self._forget(self._partitions[partition], rows[self._slot_of[rows] == slot].tolist())
        if crowded:
            self.tidy()
            # What is left is in use: wait until it is a quarter more before trying again.
            self._crowded_at = max(_MOST_CELLS, self._cells() * 5 // 4)

    def _forget(self, found: _Partition, rows: list[int]) -> None:
        for row in rows:
            del found.rows[self._keys[row].decode()]
        self._slot_of[rows] = _NEVER
        self._table.release(rows)
        for one in self._retained:
            one.release(np.array(rows, dtype=np.int64))

    def _follow(self) -> None:
        """Let our columns be as long as the table."""
        more = len(self._table) - len(self._keys)
        if more:
            self._keys = np.concatenate((self._keys, np.full(more, b"", dtype=object)))
            self._mark = np.zeros(len(self._table), dtype=np.int64)
            self._slot_of = np.concatenate((self._slot_of, np.full(more, _NEVER, dtype=np.int64)))
            self._used = np.concatenate((self._used, np.zeros(more, dtype=np.int64)))
            self._packed_to = np.concatenate((self._packed_to, np.full(more, _NEVER, dtype=np.int64)))
            self._stored = np.concatenate((self._stored, np.zeros((more, len(self.kept)), dtype=np.bool_)))
            for one in self._retained:
                one.follow(len(self._table))


def _each(keys: Sequence[Any], table: Any) -> tuple[Any, ...]:  # noqa: ANN401 - whatever has keys
    """table[key] of each key, in one step of Python."""
    return itemgetter(*keys)(table) if len(keys) > 1 else tuple(table[key] for key in keys)


def _takes(numbers: Int32s, offsets: Int64s, late: Bools, ours: Mapping[int, _Partition]) -> Bools:
    """[events, views]: whether the view takes the event."""
    starts = np.stack([ours[number].starts for number in sorted(ours)])
    return ~late[:, None] & (offsets[:, None] >= starts[np.searchsorted(sorted(ours), numbers)])
