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

**Why it is cheap.** The merge of the closed panes is kept (`panes.py`): a busy entity pays one merge a lane and event; a quiet one has few
panes. And
the memory that an event needs is asked for some events before (`prefetch.py`): of many entities most are in no cache.

**Other lanes.** Here are the lanes of moments, which most features need. What cannot be told from moments has lanes of other kinds; they
are folded by an entry point of their own (`other_lanes.py`), from what this one tells of each event in `seen`: as of when its vector is,
and how new the newest event of its entity is. So nobody compiles, or runs past, what no view of his has.

**As-of.** A vector is computed as of T, the largest of the event's time, the newest event time folded for the entity, and the horizon
(watermark - lateness). T never goes back, so neither does a window.

**Resumable.** `fold` and `place` stop in front of the first row for which the arena might be too small and say which one it was; the
caller enlarges the arena and calls again from there. Nothing is half done.

Limits. A lane whose panes are all full and which takes one event a pane merges all of them each time (60 by default, about half a
microsecond). A sum that overflows gives NaN.
"""

from __future__ import annotations

import math

from headrace.features.aggregation import (
    COUNT,
    LAST,
    MAX,
    MEAN,
    MIN,
    NEEDS_MAX,
    NEEDS_MIN,
    NEEDS_SQUARES,
    NEEDS_SUM,
    RATE,
    STD,
    SUM,
    VAR,
    Z_SCORE,
)
from headrace.features.blocks import free_block, settle
from headrace.features.compiled import entry, inner
from headrace.features.panes import STALE, Amount, over_panes
from headrace.features.prefetch import LINE_BYTES, prefetch
from headrace.features.tables import CELL, LANE_STATE, Arena, Events, Parsed, Plan, Record, Rows
from headrace.types import NO_WATERMARK_MS, Float64s, Int64s

ROWS_AHEAD, CELLS_AHEAD = 12, 5
"""How many events ahead memory is asked for: by when it comes, and so that not too much is under way at once. Chosen by measurement."""
LANE_BYTES, CELL_BYTES = LANE_STATE.itemsize, CELL.itemsize

NONE_MS = NO_WATERMARK_MS
"""The time of what has not happened."""


# ------------------------------------------------------------------------------------------------- the algebra


@inner
def merge(older: Amount, newer: Amount, shape: Record) -> Amount:
    """What two sets of events amount to together. Onto nothing, it is a copy: so -0.0 stays -0.0."""
    if older[0] == 0.0:
        return newer
    needs = shape.needs
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
def finish(code: int, amount: Amount, parameter: float, number: float, empty: float) -> float:
    """The feature that an aggregation makes of what a window amounts to, and of the number the scored event gives (NaN for none)."""
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
    elif code == VAR:
        found = squares / count
    elif code == RATE:
        found = count / parameter
    elif code == Z_SCORE:
        if math.isnan(number) or squares <= 0.0:
            return empty
        found = (number - total / count) / math.sqrt(squares / count)
    else:
        found = math.nan
    return found if math.isfinite(found) else math.nan


put, window_amount = over_panes(merge)


# ------------------------------------------------------------------------------------------------- memory


@inner
def bring(rows: Rows, arena: Arena, events: Events, event: int) -> None:
    """Ask for what later events will need: their rows first, and when those are there, the newest and the oldest cells of each lane."""
    last = len(events.rows) - 1
    row = events.rows[min(event + ROWS_AHEAD, last)]
    for at in range(0, rows.lanes.shape[1] * LANE_BYTES, LINE_BYTES):
        prefetch(rows.lanes, row, at)
    prefetch(rows.newest_ms, row, 0)
    row = events.rows[min(event + CELLS_AHEAD, last)]
    for each in range(rows.lanes.shape[1]):
        lane = rows.lanes[row, each]
        oldest = lane.start + lane.first
        newest = oldest + lane.length - 1
        prefetch(arena.cells, oldest, 0)
        prefetch(arena.cells, newest, 0)
        prefetch(arena.cells, newest, CELL_BYTES - 1)


# ------------------------------------------------------------------------------------------------- entry points


@entry
def fold(plan: Plan, rows: Rows, arena: Arena, events: Events, begin: int, values: Float64s, as_of_ms: Int64s, seen: Int64s) -> int:
    """Fold events from number `begin` on, filling their rows of `values` and `as_of_ms`; gives the number it stopped in front of.

    `seen`, [events, 2 * views], takes for each view as of when the vector is and the newest event folded; with no rows it is left out.
    """
    tells = len(seen) > 0
    for event in range(begin, len(events.rows)):
        bring(rows, arena, events, event)
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

            if tells:
                seen[event, 2 * number] = at_ms
                seen[event, 2 * number + 1] = newest_ms

            for place in range(view.lane_from, view.moments_to):
                shape = plan.lanes[place]
                lane = rows.lanes[row, place]
                head = at_ms // shape.pane_ms
                given = events.given[event, shape.stream]
                if takes and not math.isnan(given):
                    pane = head if time_ms == at_ms else time_ms // shape.pane_ms
                    oldest = (head if newest_ms == at_ms else newest_ms // shape.pane_ms) - shape.panes
                    put(arena, lane, shape, pane, oldest, (1.0, given, 0.0, given, given))
                amount = window_amount(arena, lane, shape, head)
                for each in range(shape.feature_from, shape.feature_to):
                    feature = plan.lane_features[each]
                    values[event, feature.column] = finish(feature.code, amount, feature.parameter, given, feature.empty)
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
                oldest = horizon_ms // shape.pane_ms - shape.panes
                step = lane.length
                while empty and step > 0:  # the newest is the last one but in sketches
                    step -= 1
                    empty = arena.cells[lane.start + lane.first + step].pane < oldest
        if empty:
            found[count] = row
            count += 1
    return count
