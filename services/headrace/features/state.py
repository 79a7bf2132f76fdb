"""Packed state: what the online store keeps of one entity in one view.

    state   := version newest cell* lane*
    version := byte                             STATE_LAYOUT_VERSION
    newest  := varint                           the newest event time folded, in ms, zigzag (0, -1, 1, -2, ...)
    cell    := 0                                one per newest cell of the view: it has seen nothing its window can still see, or
             | varint(1 + newest - time) float?                         how much older its event is; its value, if kept
    lane    := varint(panes) pane*              one per lane of moments: its panes that are not empty, the oldest first
             | ...                              those of other kinds follow, as `other_bytes.py` draws them
    pane    := varint(2 * gap) float?           a pane of one event: its value; nothing where the lane only counts
             | varint(2 * gap + 1) varint(count) sum? M2? min? max?     of several: what the lane needs, each a float

    varint, float                               as `varint.py` draws them
    gap     := the pane's number minus that of the pane before it; for the first, minus the oldest its window sees (newest // p - n)

Panes and cells outside of their windows as of `newest` are left out, so equal logs give equal bytes, however long a state was in memory.
A pane of one event costs one float: most entities are quiet, and the store pays by the byte. Limits: nothing is compressed beyond that;
a change of layout is a change of version, hence of fingerprint, hence a rebuild beside the old state.

All of it is compiled: packing runs for every entity a batch touched, parsing for every one it misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.errors import StoreRefused
from headrace.features.aggregation import MOMENTS, NEEDS_MAX, NEEDS_MIN, NEEDS_SQUARES, NEEDS_SUM
from headrace.features.compiled import entry, inner
from headrace.features.other_bytes import kept_in, pack_other, parse_other
from headrace.features.tables import CELL, Arena, Parsed, Plan, Record, Records, Rows, plan_of
from headrace.features.varint import LOW_BITS, WORD, Bytes, get_float, get_varint, put_float, put_varint
from headrace.features.view import STATE_LAYOUT_VERSION, FeatureView
from headrace.types import NO_WATERMARK_MS, Int64s

_NONE_MS = NO_WATERMARK_MS
_FRAME_BYTES, _CELL_BYTES, _LENGTH_BYTES, _PANE_BYTES = 1 + 10, 10 + 8, 10, 10 + 10 + 4 * 8
_STAGED_CELLS = 16_384
_OTHER_LAYOUT, _DAMAGED = -1, -2


# ------------------------------------------------------------------------------------------------- pack


@entry
def pack(plan: Plan, rows: Rows, arena: Arena, number: int, asked: Int64s, begin: int, buffer: Bytes, bounds: Int64s) -> int:
    """Pack the states of the rows `asked` in view `number`, from place `begin` on; fills `bounds` (the first is the caller's).

    Gives the place it stopped in front of, because `buffer` might be too small for it. The rows' `touched` marks are cleared.
    """
    view = plan.views[number]
    for place in range(begin, len(asked)):
        row = asked[place]
        most = _FRAME_BYTES + _CELL_BYTES * (view.cell_to - view.cell_from)
        for each in range(view.lane_from, view.lane_to):
            most += _LENGTH_BYTES + _PANE_BYTES * rows.lanes[row, each].length
        at = bounds[place]
        if at + most > len(buffer):
            return place
        newest_ms = rows.newest_ms[row, number]
        buffer[at] = STATE_LAYOUT_VERSION
        at = put_varint(buffer, at + 1, 2 * newest_ms if newest_ms >= 0 else -2 * newest_ms - 1)
        for each in range(view.cell_from, view.cell_to):
            shape = plan.newest[each]
            seen_ms = rows.cell_ms[row, each]
            if seen_ms == _NONE_MS or seen_ms <= newest_ms - shape.window_ms:
                at = put_varint(buffer, at, 0)
            else:
                at = put_varint(buffer, at, 1 + newest_ms - seen_ms)
                if shape.keeps_value:
                    at = put_float(buffer, at, rows.cell_values[row, each])
        for each in range(view.lane_from, view.lane_to):
            if plan.lanes[each].kind == MOMENTS:
                at = pack_lane(arena, rows.lanes[row, each], plan.lanes[each], newest_ms, buffer, at)
            else:
                at = pack_other(arena, rows.lanes[row, each], plan.lanes[each], newest_ms, buffer, at)
        bounds[place + 1] = at
        rows.touched[row, number] = 0
    return len(asked)


@inner
def pack_lane(arena: Arena, lane: Record, shape: Record, newest_ms: int, buffer: Bytes, at: int) -> int:
    """Pack the panes of a lane that its window can see as of `newest_ms`; gives the place behind them."""
    cells = arena.cells
    before = newest_ms // shape.pane_ms - shape.panes
    begin = lane.start + lane.first
    end = begin + lane.length
    while begin < end and cells[begin].pane < before:
        begin += 1
    at = put_varint(buffer, at, end - begin)
    for each in range(begin, end):
        cell = cells[each]
        gap = cell.pane - before
        before = cell.pane
        if cell.count == 1.0:
            at = put_varint(buffer, at, 2 * gap)
            if shape.needs:
                at = put_float(buffer, at, cell.sum)
            continue
        at = put_varint(buffer, at, 2 * gap + 1)
        at = put_varint(buffer, at, int(cell.count))
        if shape.needs & NEEDS_SUM:
            at = put_float(buffer, at, cell.sum)
        if shape.needs & NEEDS_SQUARES:
            at = put_float(buffer, at, cell.squares)
        if shape.needs & NEEDS_MIN:
            at = put_float(buffer, at, cell.low)
        if shape.needs & NEEDS_MAX:
            at = put_float(buffer, at, cell.high)
    return at


# ------------------------------------------------------------------------------------------------- parse


@entry
def parse(plan: Plan, number: int, buffer: Bytes, bounds: Int64s, begin: int, parsed: Parsed) -> int:
    """Read packed states of view `number`, from state `begin` on, until `parsed` is full or the states are at an end.

    Gives how many it read, those in front of a bad one if there is one; when the very first is bad, `_OTHER_LAYOUT` or `_DAMAGED`.
    """
    view = plan.views[number]
    most = 0
    for each in range(view.lane_from, view.lane_to):
        most += plan.lanes[each].most
    filled = 0
    count = min(len(bounds) - 1 - begin, len(parsed.newest_ms))
    for state in range(count):
        if filled + most > len(parsed.cells):
            return state
        at, end = bounds[begin + state], bounds[begin + state + 1]
        if end <= at or buffer[at] != STATE_LAYOUT_VERSION:
            return _OTHER_LAYOUT if state == 0 else state
        coded, at = get_varint(buffer, at + 1, end)
        newest_ms = (coded >> 1) ^ -(coded & 1)
        parsed.newest_ms[state] = newest_ms
        for each in range(view.cell_to - view.cell_from):
            age_ms, at = get_varint(buffer, at, end)
            parsed.cell_ms[state, each] = newest_ms + 1 - age_ms if age_ms > 0 else _NONE_MS
            parsed.cell_values[state, each] = 1.0
            if age_ms > 0 and plan.newest[view.cell_from + each].keeps_value:
                parsed.cell_values[state, each], at = get_float(buffer, at, end)
        for each in range(view.lane_to - view.lane_from):
            shape = plan.lanes[view.lane_from + each]
            if shape.kind == MOMENTS:
                length, at = parse_lane(shape, newest_ms, buffer, at, end, parsed.cells[filled:])
            else:
                length, at = parse_other(shape, newest_ms, buffer, at, end, parsed.cells[filled:])
            parsed.lengths[state, each] = length
            filled += length
        if at != end:
            return _DAMAGED if state == 0 else state
    return count


@inner
def parse_lane(shape: Record, newest_ms: int, buffer: Bytes, at: int, end: int, cells: Records) -> tuple[int, int]:
    """Read the panes of a lane into cells; gives how many and the place behind them, beyond `end` when the bytes are damaged."""
    length, at = get_varint(buffer, at, end)
    if length > shape.panes + 1:
        return 0, end + 1
    head = newest_ms // shape.pane_ms
    before = head - shape.panes
    for place in range(length):
        at, pane = parse_pane(buffer, at, end, before, shape.needs, cells[place])
        if pane > head or (pane == before and place > 0):
            return 0, end + 1
        before = pane
    return length, at


@inner
def parse_pane(buffer: Bytes, at: int, end: int, before: int, needs: int, cell: Record) -> tuple[int, int]:
    """Read a pane into a cell; gives the place behind it and the pane's number."""
    coded, at = get_varint(buffer, at, end)
    pane = before + (coded >> 1)
    cell.pane = pane
    if not coded & 1:
        number = 1.0
        if needs:
            number, at = get_float(buffer, at, end)
        cell.count = 1.0
        cell.sum = number
        cell.squares = 0.0
        cell.low = number
        cell.high = number
        return at, pane
    count, at = get_varint(buffer, at, end)
    cell.count = float(count)
    cell.sum = cell.count
    cell.squares = 0.0
    cell.low = 0.0
    cell.high = 0.0
    if needs & NEEDS_SUM:
        cell.sum, at = get_float(buffer, at, end)
    if needs & NEEDS_SQUARES:
        cell.squares, at = get_float(buffer, at, end)
    if needs & NEEDS_MIN:
        cell.low, at = get_float(buffer, at, end)
    if needs & NEEDS_MAX:
        cell.high, at = get_float(buffer, at, end)
    return at, pane


# ------------------------------------------------------------------------------------------------- around the compiled code


def joined(packed: Sequence[bytes]) -> tuple[Bytes, Int64s]:
    """Packed states as one buffer and its bounds."""
    bounds = np.zeros(len(packed) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in packed], out=bounds[1:])
    return np.frombuffer(b"".join(packed), dtype=np.uint8), bounds


def newest_times_ms(packed: Sequence[bytes]) -> Int64s:
    """The newest event time each packed state begins with; the largest number for bytes that are no state of this layout."""
    buffer, bounds = joined(packed)
    begins, lengths = bounds[:-1], np.diff(bounds)
    known = lengths > 1
    known[known] = buffer[begins[known]] == STATE_LAYOUT_VERSION
    zigzag, more, at = np.zeros(len(packed), dtype=np.int64), known.copy(), 1
    while more.any():
        known &= ~more | (at < lengths)  # cut off in the middle of the number
        more &= known
        read = buffer[begins[more] + at].astype(np.int64)
        zigzag[more] |= (read & LOW_BITS) << (7 * (at - 1))
        more[more] = (read > LOW_BITS) & (7 * at < WORD)
        at += 1
    return np.where(known, zigzag >> 1 ^ -(zigzag & 1), np.iinfo(np.int64).max)


def parse_some(plan: Plan, number: int, buffer: Bytes, bounds: Int64s, begin: int) -> Parsed:
    """The states of view `number` from state `begin` on: at least one, as many as fit. Raises `StoreRefused` for bytes that are none."""
    view = plan.views[number]
    states = len(bounds) - 1 - begin
    shapes = plan.lanes[view["lane_from"] : view["lane_to"]]
    at_least = int(shapes["most"].sum())
    parsed = Parsed(
        newest_ms=np.empty(states, dtype=np.int64),
        cell_ms=np.empty((states, view["cell_to"] - view["cell_from"]), dtype=np.int64),
        cell_values=np.empty((states, view["cell_to"] - view["cell_from"])),
        lengths=np.empty((states, len(shapes)), dtype=np.int64),
        cells=np.empty(at_least + min(_STAGED_CELLS, int(bounds[-1] - bounds[begin])), dtype=CELL),
    )
    count = parse(plan, number, buffer, bounds, begin, parsed)
    if count < 0:
        first = int(buffer[bounds[begin]]) if bounds[begin + 1] > bounds[begin] else None
        wrong = f"has layout version {first}, this program reads {STATE_LAYOUT_VERSION}" if count == _OTHER_LAYOUT else "is damaged"
        raise StoreRefused(f"a stored state {wrong}; reset its view, which is filled again from the log")
    return Parsed(
        newest_ms=parsed.newest_ms[:count],
        cell_ms=parsed.cell_ms[:count],
        cell_values=parsed.cell_values[:count],
        lengths=parsed.lengths[:count],
        cells=parsed.cells,
    )


def most_bytes(plan: Plan, panes: int) -> int:
    """The most bytes an entity with so many panes can take, in any view of the plan."""
    return _FRAME_BYTES + _CELL_BYTES * len(plan.newest) + _LENGTH_BYTES * len(plan.lanes) + _PANE_BYTES * panes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pane:
    """A pane in readable form; what its lane does not keep is left out."""

    number: int
    count: int
    kept: tuple[float, ...]
    """Sum, M2, min, max: those the lane keeps, in this order; in a lane of another kind what `other_bytes.py` says it packs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A packed state in readable form, in the order of `FeatureView.newest_cells` and `FeatureView.lanes`."""

    newest_ms: int
    newest: tuple[tuple[int, float] | None, ...]
    lanes: tuple[tuple[Pane, ...], ...]


def unpack_state(view: FeatureView, packed: bytes) -> State:
    """What the bytes say. Raises `StoreRefused` for bytes of another layout, or that are no state."""
    parsed = parse_some(plan_of([view]), 0, *joined([packed]), 0)
    lanes: list[tuple[Pane, ...]] = []
    begin = 0
    for lane, length in zip(view.lanes, parsed.lengths[0].tolist(), strict=True):
        kept = [name for need, name in _KEPT if lane.needs & need] if lane.kind == MOMENTS else kept_in(lane.kind, lane.needs)
        lanes.append(
            tuple(
                Pane(number=int(cell["pane"]), count=int(cell["count"]), kept=tuple(float(cell[name]) for name in kept))
                for cell in parsed.cells[begin : begin + length]
            )
        )
        begin += length
    seen = zip(parsed.cell_ms[0].tolist(), parsed.cell_values[0].tolist(), strict=True)
    return State(
        newest_ms=int(parsed.newest_ms[0]),
        newest=tuple((time_ms, value) if time_ms != _NONE_MS else None for time_ms, value in seen),
        lanes=tuple(lanes),
    )


def same_state(view: FeatureView, one: bytes | None, other: bytes | None, as_of_ms: int) -> bool:
    """Whether two states (None: no state) are equal but for what lies outside of all windows as of an instant, bit for bit."""
    return _visible(view, one, as_of_ms) == _visible(view, other, as_of_ms)


def _visible(view: FeatureView, packed: bytes | None, as_of_ms: int) -> State | None:
    """The state without what no window can see as of an instant; None when nothing is left that decides anything."""
    if packed is None:
        return None
    state = unpack_state(view, packed)
    as_of_ms = max(as_of_ms, state.newest_ms)
    newest = tuple(
        cell if cell is not None and cell[0] > as_of_ms - shape.window_ms else None
        for shape, cell in zip(view.newest_cells, state.newest, strict=True)
    )
    lanes = tuple(
        tuple(pane for pane in panes if pane.number >= as_of_ms // lane.pane_ms - lane.panes)
        for lane, panes in zip(view.lanes, state.lanes, strict=True)
    )
    if state.newest_ms <= as_of_ms and not any(newest) and not any(lanes):
        return None
    return State(newest_ms=state.newest_ms, newest=newest, lanes=lanes)


_KEPT = ((NEEDS_SUM, "sum"), (NEEDS_SQUARES, "squares"), (NEEDS_MIN, "low"), (NEEDS_MAX, "high"))
