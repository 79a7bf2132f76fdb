"""Lanes that count how often something occurs: bins for quantiles and frequent values, hashes for distinct values. Compiled.

**Bins.** A cell is a bin in a pane, `sum` its number (`streams.BinForm`, or a place in a vocabulary), `count` how many events fell into it;
cells are sorted by bin, then pane. Counts are whole numbers and each event adds one, so any order of events gives the same cells.

**Hashes.** Of the values in a window the K smallest hashes tell how many there are: U, the K-th smallest as a share of all hashes, is about
K / n, and (K - 1) / U estimates n (Z. Bar-Yossef et al., RANDOM 2002; unbiased, with a standard error of about 1 / sqrt(K - 2)). For a
window that slides, a value is kept with the newest pane it was seen in, as long as fewer than K values have a smaller hash and a pane as
new: the others can never be among the K smallest again. So kept is a function of the set of (hash, newest pane), not of the order in which
events came. The number of those with a smaller hash and a pane as new is kept with the value (`count`). When fewer than K are in the
window, none was given up, and their number is exact.

Cells that no window sees any more are dropped when room is needed, and are not packed.
"""

from __future__ import annotations

import math

from headrace.features.aggregation import QUANTILE
from headrace.features.blocks import capacity_of, make_room
from headrace.features.compiled import inner
from headrace.features.panes import put_amount
from headrace.features.tables import Arena, Record

_HASHES = 2.0**53


@inner
def find(arena: Arena, lane: Record, number: float, pane: int) -> int:
    """The place of the first cell that is not before (number, pane)."""
    low = lane.start + lane.first
    high = low + lane.length
    while low < high:
        middle = (low + high) // 2
        cell = arena.cells[middle]
        if cell.sum < number or (cell.sum == number and cell.pane < pane):
            low = middle + 1
        else:
            high = middle
    return int(low)


@inner
def insert(arena: Arena, lane: Record, oldest: int, number: float, pane: int) -> int:
    """A new cell in its place, which is given; where there is no room, cells older than `oldest` are dropped first."""
    cells = arena.cells
    if lane.size >= 0 and lane.first + lane.length >= capacity_of(lane.size):
        begin = lane.start + lane.first
        kept = lane.start
        for each in range(begin, begin + lane.length):
            if cells[each].pane >= oldest:
                cells[kept] = cells[each]
                kept += 1
        lane.first = 0
        lane.length = kept - lane.start
    make_room(arena, lane)
    place = find(arena, lane, number, pane)
    after = lane.start + lane.first + lane.length
    for step in range(after - place):
        cells[after - step] = cells[after - step - 1]
    cells[place].pane = pane
    put_amount(cells[place], (0.0, number, 0.0, 0.0, 0.0))
    lane.length += 1
    return int(place)


# ------------------------------------------------------------------------------------------------- bins


@inner
def put_bin(arena: Arena, lane: Record, pane: int, oldest: int, number: float) -> None:
    """Count an event in its bin."""
    if pane < oldest:
        return
    place = find(arena, lane, number, pane)
    if place >= lane.start + lane.first + lane.length or arena.cells[place].sum != number or arena.cells[place].pane != pane:
        place = insert(arena, lane, oldest, number, pane)
    arena.cells[place].count += 1.0


@inner
def finish_bins(arena: Arena, lane: Record, shape: Record, feature: Record, head: int) -> float:
    """A quantile, or the value that is number so and so by frequency."""
    if feature.code == QUANTILE:
        return quantile(arena, lane, shape, feature, head - shape.panes)
    return frequent(arena, lane, feature, head - shape.panes)


@inner
def quantile(arena: Arena, lane: Record, shape: Record, feature: Record, oldest: int) -> float:
    """The middle of the bin that holds the value at rank floor(q * (n - 1))."""
    begin = lane.start + lane.first
    count = 0.0
    for each in range(begin, begin + lane.length):
        if arena.cells[each].pane >= oldest:
            count += arena.cells[each].count
    if count == 0.0:
        return float(feature.empty)
    rank = math.floor(feature.parameter * (count - 1.0))
    number = 0.0
    for each in range(begin, begin + lane.length):
        if arena.cells[each].pane >= oldest:
            number = arena.cells[each].sum
            rank -= arena.cells[each].count
            if rank < 0.0:
                break
    if number == 0.0:
        return 0.0
    parts = int(shape.scale)
    place = int(abs(number)) - 1
    low = 1.0 + (place % parts) / parts
    high = 1.0 + (place % parts + 1) / parts
    middle = math.ldexp(2.0 * low * high / (low + high), shape.origin + place // parts)
    return math.copysign(middle, number)


@inner
def frequent(arena: Arena, lane: Record, feature: Record, oldest: int) -> float:
    """The bin that is number `feature.parameter` by its count; of equal counts the lower bin comes first."""
    begin = lane.start + lane.first
    end = begin + lane.length
    above, before = math.inf, -1.0
    for _ in range(int(feature.parameter)):
        best, which = 0.0, -1.0
        each = begin
        while each < end:
            number = arena.cells[each].sum
            count = 0.0
            while each < end and arena.cells[each].sum == number:
                if arena.cells[each].pane >= oldest:
                    count += arena.cells[each].count
                each += 1
            if count > best and (count < above or (count == above and number > before)):
                best = count
                which = number
        if best == 0.0:
            return float(feature.empty)
        above = best
        before = which
    return before


# ------------------------------------------------------------------------------------------------- hashes


@inner
def put_hash(arena: Arena, lane: Record, shape: Record, pane: int, oldest: int, number: float) -> None:
    """Take a value; those that are beaten by K others now are given up."""
    if pane < oldest:
        return
    cells = arena.cells
    most = shape.scale
    place = find(arena, lane, number, -(2**62))
    known = place < lane.start + lane.first + lane.length and cells[place].sum == number
    before = -(2**62)
    if known:
        before = cells[place].pane
        if before >= pane:
            return
    beaten = 0.0
    for each in range(lane.start + lane.first, place):
        if cells[each].pane >= pane:
            beaten += 1.0
    if beaten >= most:
        return
    if not known:
        place = insert(arena, lane, oldest, number, pane)
    cells[place].pane = pane
    cells[place].count = beaten
    kept = place + 1
    end = lane.start + lane.first + lane.length
    for each in range(place + 1, end):
        if before < cells[each].pane <= pane:
            cells[each].count += 1.0
        if cells[each].count < most:
            if kept < each:
                cells[kept] = cells[each]
            kept += 1
    lane.length -= end - kept


@inner
def distinct(arena: Arena, lane: Record, shape: Record, feature: Record, head: int) -> float:
    """How many different values there are."""
    begin = lane.start + lane.first
    count = 0.0
    for each in range(begin, begin + lane.length):
        if arena.cells[each].pane >= head - shape.panes:
            count += 1.0
            if count == shape.scale:
                return float((count - 1.0) * _HASHES / (arena.cells[each].sum + 1.0))
    return count if count > 0.0 else float(feature.empty)
