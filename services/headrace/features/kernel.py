"""The one fold: events into states, one at a time and in offset order, and one feature vector out of each.

**The idea.** A window is a row of *panes*, aligned slices of event time (`window.py`). What the events in a pane amount to is kept as
(count, sum, M2, min, max). Event time moves on by opening panes at one end and forgetting panes at the other; in between, the window is
the merge of its panes. So its far edge moves in steps of a pane, and its length is a sawtooth between w and w + pane. The same shape is
used by Chronon (https://chronon.ai, "sawtooth windows") and is the "panes" of J. Li et al., "No Pane, No Gain", SIGMOD Record 34(1), 2005.

**Never subtract.** An event that leaves a window cannot be taken out of a float again: (a + b) - a is not b. Panes are forgotten, not
subtracted, and variance comes from M2, merged by the formula of T. F. Chan, G. H. Golub and R. J. LeVeque (1979), never from a difference
of squares.

**One order.** Floating-point addition is not associative, so equal answers need equal order. The order is: inside a pane, by offset;
between panes, from the oldest to the newest, empty ones left out. It depends on the log alone. It does not depend on how the log was cut
into batches, on which worker folded it, or on whether a state came from memory or from the store in between: the bits are the same.

**Why it is cheap.** The panes before the one in which we stand are *closed*: their merge changes only when a pane opens, expires, or
takes an event out of order. It is kept with the lane, together with the pane it reaches up to. As long as nothing expired, it is extended
by the panes that closed since, which is the same left-to-right merge as from scratch, bit for bit; otherwise it is made anew. A busy
entity pays one merge a lane and event; a quiet one has few panes.

**As-of.** A vector is computed as of T, the largest of the event's time, the newest event time folded for the entity, and the horizon
(watermark - lateness). T never goes back, so neither does a window.

**Resumable.** `fold` and `place` stop in front of the first row for which the arena might be too small and say which one it was; the
caller enlarges the arena and calls again from there. Nothing is half done.

Limits. A lane whose panes are all full and which takes one event a pane merges all of them each time (60 by default, about half a
microsecond). A sum that overflows gives NaN. numba's cache does not see changes in other files, so all code compiled here is here, and
the constants that come from elsewhere never change their meaning. No fast-math: contraction or reordering would change bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from headrace.features.aggregation import COUNT, LAST, MAX, MEAN, MIN, NEEDS_MAX, NEEDS_MIN, NEEDS_SQUARES, NEEDS_SUM, STD, SUM
from headrace.features.tables import Arena, Events, Parsed, Plan, Record, Records, Rows
from headrace.types import NO_WATERMARK_MS, Float64s, Int64s

_F = TypeVar("_F", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}


def entry(function: _F) -> _F:
    """Compile a function that Python calls, once for an installation: numba's cache keeps it, with everything it calls.

    Where the cache can be kept nowhere (everything is read-only and `NUMBA_CACHE_DIR` is not set) each process compiles for itself.
    """
    try:
        found: _F = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        found = numba.njit(**_OPTIONS)(function)
    return found


def inner(function: _F) -> _F:
    """Compile a function that only compiled code calls."""
    found: _F = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)  # type: ignore[call-overload]
    return found


NONE_MS = NO_WATERMARK_MS
"""The time of what has not happened."""
STALE = NO_WATERMARK_MS
"""In place of a closed pane: the closed merge must be made anew."""

Amount = tuple[float, float, float, float, float]
"""What some events amount to: count, sum, M2, min, max. Beyond the count only what the lane needs is right."""


# ------------------------------------------------------------------------------------------------- the algebra


@inner
def merge(older: Amount, newer: Amount, needs: int) -> Amount:
    """What two sets of events amount to together. Onto nothing, it is a copy: so -0.0 stays -0.0."""
    if older[0] == 0.0:
        return newer
    count = older[0] + newer[0]
    total, squares, low, high = older[1], older[2], older[3], older[4]
    if needs & NEEDS_SQUARES:
        apart = older[0] * newer[1] - newer[0] * total
        squares = squares + newer[2] + apart * apart / (older[0] * newer[0] * count)
    if needs & NEEDS_SUM:
        total = total + newer[1]
    if needs & NEEDS_MIN and newer[3] < low:
        low = newer[3]
    if needs & NEEDS_MAX and newer[4] > high:
        high = newer[4]
    return count, total, squares, low, high


@inner
def finish(code: int, amount: Amount, empty: float) -> float:
    """The feature that an aggregation makes of what a window amounts to."""
    count, total, squares, low, high = amount
    if count == 0.0:
        return empty
    if code == COUNT:
        found = count
    elif code == SUM:
        found = total
    elif code == MEAN:
        found = total / count
    elif code == STD:
        found = math.sqrt(squares / count)
    elif code == MIN:
        found = low
    elif code == MAX:
        found = high
    else:
        found = math.nan
    return found if math.isfinite(found) else math.nan


# ------------------------------------------------------------------------------------------------- blocks of cells


@inner
def capacity_of(size: int) -> int:
    """2, 3, 4, 6, 8, 12, 16, 24, ..."""
    return (2 + (size & 1)) << (size >> 1)


@inner
def take_block(arena: Arena, size: int) -> int:
    """A block of a size: a free one, else never used cells. The caller has seen to it that there are some."""
    start = arena.free[size]
    if start >= 0:
        arena.free[size] = arena.cells[start].pane
    else:
        start = arena.top[0]
        arena.top[0] = start + capacity_of(size)
    return int(start)


@inner
def free_block(arena: Arena, lane: Record) -> None:
    """Give the block of a lane back."""
    if lane.size >= 0:
        arena.cells[lane.start].pane = arena.free[lane.size]
        arena.free[lane.size] = lane.start
        lane.size = -1
    lane.first = 0
    lane.length = 0


@inner
def make_room(arena: Arena, lane: Record) -> None:
    """Let there be room behind a lane's last cell: its cells move to the front if that frees a quarter, else to a larger block."""
    cells = arena.cells
    if lane.size < 0:
        lane.start = take_block(arena, 0)
        lane.size = 0
        lane.first = 0
        return
    capacity = capacity_of(lane.size)
    if lane.first + lane.length < capacity:
        return
    source = lane.start + lane.first
    if 4 * lane.length <= 3 * capacity:
        for step in range(lane.length):
            cells[lane.start + step] = cells[source + step]
    else:
        size = lane.size + 1
        start = take_block(arena, size)
        length = lane.length
        for step in range(length):
            cells[start + step] = cells[source + step]
        free_block(arena, lane)
        lane.start = start
        lane.size = size
        lane.length = length
    lane.first = 0


@inner
def amount_in(cell: Record) -> Amount:
    """What a cell holds."""
    return cell.count, cell.sum, cell.squares, cell.low, cell.high


@inner
def put_amount(record: Record, amount: Amount) -> None:
    """Write an amount into a cell, or into a lane's closed merge."""
    record.count = amount[0]
    record.sum = amount[1]
    record.squares = amount[2]
    record.low = amount[3]
    record.high = amount[4]


# ------------------------------------------------------------------------------------------------- one event, one lane


@inner
def put(arena: Arena, lane: Record, needs: int, pane: int, oldest: int, number: float) -> None:
    """Take a number into its pane. `oldest` is the oldest pane the window can still see: what lies before is forgotten, the number too."""
    cells = arena.cells
    while lane.length > 0 and cells[lane.start + lane.first].pane < oldest:
        lane.first += 1
        lane.length -= 1
    if pane < oldest:
        return
    if pane < lane.closed_pane:
        lane.closed_pane = STALE
    after = lane.start + lane.first + lane.length
    place = after
    while place > lane.start + lane.first and cells[place - 1].pane > pane:
        place -= 1
    if place > lane.start + lane.first and cells[place - 1].pane == pane:
        cell = cells[place - 1]
        put_amount(cell, merge(amount_in(cell), (1.0, number, 0.0, number, number), needs))
        return
    behind = after - place
    make_room(arena, lane)
    after = lane.start + lane.first + lane.length
    for step in range(behind):
        cells[after - step] = cells[after - step - 1]
    cell = cells[after - behind]
    cell.pane = pane
    put_amount(cell, (1.0, number, 0.0, number, number))
    lane.length += 1


@inner
def window_amount(arena: Arena, lane: Record, needs: int, panes: int, head: int) -> Amount:
    """What the window [head - panes, head] amounts to; brings the closed merge up to `head`."""
    cells = arena.cells
    begin = lane.start + lane.first
    after = begin + lane.length
    if lane.closed_pane != head:
        amount = (lane.count, lane.sum, lane.squares, lane.low, lane.high)
        if lane.closed_pane == STALE or lane.closed_pane > head or (lane.count > 0.0 and lane.oldest < head - panes):
            amount = (0.0, 0.0, 0.0, 0.0, 0.0)
            place = begin
            while place < after and cells[place].pane < head - panes:
                place += 1
        else:
            place = after
            while place > begin and cells[place - 1].pane >= lane.closed_pane and cells[place - 1].pane >= head - panes:
                place -= 1
        while place < after and cells[place].pane < head:
            if amount[0] == 0.0:
                lane.oldest = cells[place].pane
            amount = merge(amount, amount_in(cells[place]), needs)
            place += 1
        put_amount(lane, amount)
        lane.closed_pane = head
    amount = (lane.count, lane.sum, lane.squares, lane.low, lane.high)
    if lane.length > 0 and cells[after - 1].pane == head:
        amount = merge(amount, amount_in(cells[after - 1]), needs)
    return amount


# ------------------------------------------------------------------------------------------------- entry points


@entry
def fold(plan: Plan, rows: Rows, arena: Arena, events: Events, begin: int, values: Float64s, as_of_ms: Int64s) -> int:
    """Fold events from number `begin` on, filling their rows of `values` and `as_of_ms`; gives the number it stopped in front of."""
    for event in range(begin, len(events.rows)):
        if arena.top[0] + plan.reserve > len(arena.cells):
            return event
        row = events.rows[event]
        time_ms = events.times_ms[event]
        latest_ms = NONE_MS
        for number in range(len(plan.views)):
            view = plan.views[number]
            takes = events.takes[event, number]
            newest_ms = rows.newest_ms[row, number]
            at_ms = max(time_ms, newest_ms, events.horizons_ms[event])
            latest_ms = max(latest_ms, at_ms)

            for place in range(view.feature_from, view.feature_to):
                feature = plan.newest_features[place]
                seen_ms = rows.cell_ms[row, feature.cell]
                found = feature.empty
                if seen_ms != NONE_MS and seen_ms > at_ms - feature.window_ms:
                    found = rows.cell_values[row, feature.cell] if feature.code == LAST else (at_ms - seen_ms) / 1000.0
                values[event, feature.column] = found

            if takes:
                newest_ms = max(newest_ms, time_ms)
                rows.newest_ms[row, number] = newest_ms
                rows.touched[row, number] = 1
                for place in range(view.cell_from, view.cell_to):
                    given = events.given[event, plan.newest[place].stream]
                    if not math.isnan(given) and time_ms >= rows.cell_ms[row, place]:
                        rows.cell_ms[row, place] = time_ms
                        rows.cell_values[row, place] = given

            for place in range(view.lane_from, view.lane_to):
                shape = plan.lanes[place]
                lane = rows.lanes[row, place]
                head = at_ms // shape.pane_ms
                if takes:
                    given = events.given[event, shape.stream]
                    if not math.isnan(given):
                        pane = head if time_ms == at_ms else time_ms // shape.pane_ms
                        oldest = (head if newest_ms == at_ms else newest_ms // shape.pane_ms) - shape.panes
                        put(arena, lane, shape.needs, pane, oldest, given)
                amount = window_amount(arena, lane, shape.needs, shape.panes, head)
                for each in range(shape.feature_from, shape.feature_to):
                    feature = plan.lane_features[each]
                    values[event, feature.column] = finish(feature.code, amount, feature.empty)
        as_of_ms[event] = latest_ms
    return len(events.rows)


@entry
def place(plan: Plan, rows: Rows, arena: Arena, number: int, into: Int64s, begin: int, parsed: Parsed) -> int:
    """Put parsed states of a view into new rows, from state `begin` on; gives the number of the state it stopped in front of."""
    view = plan.views[number]
    cells_from = 0
    for state in range(len(parsed.newest_ms)):
        taken = 0
        for each in range(view.lane_to - view.lane_from):
            taken += parsed.lengths[state, each]
        if state < begin:
            cells_from += taken
            continue
        if arena.top[0] + plan.reserve > len(arena.cells):
            return state
        row = into[state]
        rows.newest_ms[row, number] = parsed.newest_ms[state]
        for each in range(view.cell_to - view.cell_from):
            rows.cell_ms[row, view.cell_from + each] = parsed.cell_ms[state, each]
            rows.cell_values[row, view.cell_from + each] = parsed.cell_values[state, each]
        for each in range(view.lane_to - view.lane_from):
            lane = rows.lanes[row, view.lane_from + each]
            length = parsed.lengths[state, each]
            if length > 0:
                settle(arena, lane, parsed.cells, cells_from, length)
            cells_from += length
    return len(parsed.newest_ms)


@inner
def settle(arena: Arena, lane: Record, cells: Records, begin: int, length: int) -> None:
    """Copy cells into a new block of a lane, the smallest that holds them."""
    size = 0
    while capacity_of(size) < length:
        size += 1
    lane.start = take_block(arena, size)
    lane.size = size
    lane.first = 0
    lane.length = length
    for step in range(length):
        arena.cells[lane.start + step] = cells[begin + step]


@entry
def release(rows: Rows, arena: Arena, gone: Int64s) -> None:
    """Make rows as good as new."""
    for row in gone:
        for number in range(rows.newest_ms.shape[1]):
            rows.newest_ms[row, number] = NONE_MS
            rows.touched[row, number] = 0
        for each in range(rows.cell_ms.shape[1]):
            rows.cell_ms[row, each] = NONE_MS
        for each in range(rows.lanes.shape[1]):
            lane = rows.lanes[row, each]
            free_block(arena, lane)
            lane.closed_pane = STALE


@entry
def move(rows: Rows, old: Arena, new: Arena) -> None:
    """Copy every block to another, empty arena, each into the smallest block that holds it: what is between them is given up."""
    for row in range(len(rows.lanes)):
        for each in range(rows.lanes.shape[1]):
            lane = rows.lanes[row, each]
            if lane.length > 0:
                settle(new, lane, old.cells, lane.start + lane.first, lane.length)
            else:
                lane.size = -1
                lane.first = 0


@entry
def empty_rows(plan: Plan, rows: Rows, arena: Arena, horizons_ms: Int64s, asked: Int64s, found: Int64s) -> int:
    """Write those of the rows `asked` that hold nothing any window can see as of their horizon into `found`; gives their number.

    A row whose newest event is younger than the horizon stays: that time still decides as-of times.
    """
    count = 0
    for place in range(len(asked)):
        row = asked[place]
        horizon_ms = horizons_ms[place]
        empty = True
        for number in range(len(plan.views)):
            empty = empty and rows.newest_ms[row, number] <= horizon_ms
        if empty:
            for each in range(len(plan.newest)):
                seen_ms = rows.cell_ms[row, each]
                empty = empty and (seen_ms == NONE_MS or seen_ms <= horizon_ms - plan.newest[each].window_ms)
        if empty:
            for each in range(len(plan.lanes)):
                shape = plan.lanes[each]
                lane = rows.lanes[row, each]
                if lane.length > 0:
                    last = arena.cells[lane.start + lane.first + lane.length - 1].pane
                    empty = empty and last < horizon_ms // shape.pane_ms - shape.panes
        if empty:
            found[count] = row
            count += 1
    return count
