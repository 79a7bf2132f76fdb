"""The fold of all lanes but those of moments: the second pass over a batch, for views that have such lanes. Compiled.

It follows `kernel.fold` over the same events and is told by it as of when each vector is. Like that one it stops in front of the first
event for which the arena might be too small.
"""

from __future__ import annotations

import math

from headrace.features.aggregation import BINS, DECAY, HASHES, RECENT, RUN
from headrace.features.compiled import entry, inner
from headrace.features.sequence import finish, finish_recent, one_event, put, put_recent, window_amount
from headrace.features.sketch import distinct, finish_bins, put_bin, put_hash
from headrace.features.tables import Arena, Events, Plan, Record, Rows
from headrace.types import Float64s, Int64s


@entry
def fold(plan: Plan, rows: Rows, arena: Arena, events: Events, begin: int, end: int, seen: Int64s, values: Float64s) -> int:
    """Fold the events from number `begin` to `end`, filling their columns of `values`; gives the number it stopped in front of."""
    for event in range(begin, end):
        if arena.top[0] + plan.reserve > len(arena.cells):
            return event
        row = events.rows[event]
        time_ms = events.times_ms[event]
        for number in range(len(plan.views)):
            view = plan.views[number]
            at_ms = seen[event, 2 * number]
            newest_ms = seen[event, 2 * number + 1]
            for place in range(view.moments_to, view.lane_to):
                shape = plan.lanes[place]
                lane = rows.lanes[row, place]
                given = events.given[event, shape.stream]
                if events.takes[event, number] and not math.isnan(given):
                    take(arena, lane, shape, time_ms, newest_ms, given)
                tell(plan, arena, lane, shape, at_ms, values[event])
    return end


@inner
def take(arena: Arena, lane: Record, shape: Record, time_ms: int, newest_ms: int, given: float) -> None:
    """Take an event into a lane. What follows the order of offsets ignores one that is older than the newest."""
    pane = time_ms // shape.pane_ms
    oldest = newest_ms // shape.pane_ms - shape.panes
    if shape.kind == BINS:
        put_bin(arena, lane, pane, oldest, given)
    elif shape.kind == HASHES:
        put_hash(arena, lane, shape, pane, oldest, given)
    elif shape.kind == RECENT:
        if time_ms == newest_ms:
            put_recent(arena, lane, shape, time_ms, given)
    elif shape.kind != RUN or time_ms == newest_ms:
        put(arena, lane, shape, pane, oldest, one_event(shape, time_ms, pane, given))


@inner
def tell(plan: Plan, arena: Arena, lane: Record, shape: Record, at_ms: int, values: Float64s) -> None:
    """Fill the features of a lane as of an instant."""
    head = at_ms // shape.pane_ms
    amount = (0.0, 0.0, 0.0, 0.0, 0.0)
    if shape.kind <= DECAY:
        amount = window_amount(arena, lane, shape, head)
    for each in range(shape.feature_from, shape.feature_to):
        feature = plan.lane_features[each]
        if shape.kind <= DECAY:
            found = finish(feature, shape, amount, at_ms)
        elif shape.kind == RECENT:
            found = finish_recent(arena, lane, shape, feature, at_ms)
        elif shape.kind == BINS:
            found = finish_bins(arena, lane, shape, feature, head)
        else:
            found = distinct(arena, lane, shape, feature, head)
        values[feature.column] = found
