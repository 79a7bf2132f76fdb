"""Lanes that know which event came first, or how long ago: the oldest event, runs, decay, and the most recent events. Compiled.

    oldest   per pane the value and time of its oldest event              count  value        -        time
    run      per pane how many events, and how many at its end hold       count  run          -        -
    decay    per pane the weights 2**(age / half-life), and weighted sum  count  weighted sum weights  pane
    recent   the last events themselves; the time stands for the pane     1      value        -        -

The first three are panes whose amounts merge from the oldest to the newest (`panes.py`). A weight is counted from the begin of its pane, so
it never changes; when two panes merge, the older one's sums are brought to the newer one's begin, and the feature brings them to its
instant. So the result depends on the log alone, and what is older than the horizon is absent exactly, as elsewhere.

Powers of two are made of multiplications and additions only, so their bits do not depend on a C library.
"""

from __future__ import annotations

import math

from headrace.features.aggregation import CHANGE, DECAYED_COUNT, DECAYED_SUM, FIRST, LAG, OLDEST, RUN, STREAK
from headrace.features.blocks import make_room
from headrace.features.compiled import inner
from headrace.features.panes import Amount, over_panes, put_amount
from headrace.features.tables import Arena, Record

_LN2 = 0.6931471805599453
_TERMS = 13


@inner
def power_of_two(exponent: float) -> float:
    """2**exponent by the series of exp, within 2 units in the last place; 0 far below, infinite far above."""
    if exponent < -1_100.0:
        return 0.0
    if exponent > 1_100.0:
        return math.inf
    whole = math.floor(exponent + 0.5)
    x = (exponent - whole) * _LN2
    found = 1.0
    for term in range(_TERMS, 0, -1):
        found = 1.0 + found * x / term
    return math.ldexp(found, int(whole))


@inner
def merge(older: Amount, newer: Amount, shape: Record) -> Amount:
    """What two amounts make together, by the kind of the lane."""
    if older[0] == 0.0:
        return newer
    count = older[0] + newer[0]
    if shape.kind == OLDEST:
        if newer[3] < older[3]:
            return count, newer[1], 0.0, newer[3], 0.0
        return count, older[1], 0.0, older[3], 0.0
    if shape.kind == RUN:
        run = older[1] + newer[1] if newer[1] == newer[0] else newer[1]
        return count, run, 0.0, 0.0, 0.0
    kept = power_of_two((older[3] - newer[3]) * shape.pane_ms / shape.scale)
    return count, older[1] * kept + newer[1], older[2] * kept + newer[2], newer[3], 0.0


@inner
def one_event(shape: Record, time_ms: int, pane: int, number: float) -> Amount:
    """What a single event amounts to."""
    if shape.kind == OLDEST:
        return 1.0, number, 0.0, float(time_ms), 0.0
    if shape.kind == RUN:
        return 1.0, number, 0.0, 0.0, 0.0
    weight = power_of_two((time_ms - pane * shape.pane_ms) / shape.scale)
    return 1.0, number * weight, weight, float(pane), 0.0


@inner
def finish(feature: Record, shape: Record, amount: Amount, at_ms: int) -> float:
    """The feature that an aggregation makes of what a window amounts to, as of an instant."""
    count, total, weights, pane, _ = amount
    if count == 0.0:
        return float(feature.empty)
    if feature.code == FIRST or feature.code == STREAK:
        return float(total)
    kept = power_of_two((pane * shape.pane_ms - at_ms) / shape.scale)
    if feature.code == DECAYED_COUNT:
        found = weights * kept
    elif feature.code == DECAYED_SUM:
        found = total * kept
    else:
        found = total / weights
    return found if math.isfinite(found) else math.nan


put, window_amount = over_panes(merge)


@inner
def put_recent(arena: Arena, lane: Record, shape: Record, time_ms: int, number: float) -> None:
    """Take the newest event; of those before it, the last ones stay that the window still sees."""
    cells = arena.cells
    while lane.length > 0 and (lane.length >= shape.most or cells[lane.start + lane.first].pane < time_ms - shape.panes):
        lane.first += 1
        lane.length -= 1
    make_room(arena, lane)
    cell = cells[lane.start + lane.first + lane.length]
    cell.pane = time_ms
    put_amount(cell, (1.0, number, 0.0, 0.0, 0.0))
    lane.length += 1


@inner
def finish_recent(arena: Arena, lane: Record, shape: Record, feature: Record, at_ms: int) -> float:
    """The value n events back, or the difference of the newest two, if the window sees them."""
    back = int(feature.parameter) if feature.code == LAG else 1
    place = lane.start + lane.first + lane.length - 1
    if back >= lane.length or arena.cells[place - back].pane < at_ms - shape.panes:
        return float(feature.empty)
    found = float(arena.cells[place - back].sum)
    if feature.code == CHANGE:
        found = arena.cells[place].sum - found
    return found if math.isfinite(found) else math.nan
