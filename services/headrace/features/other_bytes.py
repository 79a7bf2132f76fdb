"""Packed lanes of other kinds than moments; `state.py` has the frame they stand in. Compiled.

    lane    := varint(cells) cell*              the cells its window can see as of the newest event, in the order in which they are kept
    oldest  := varint(gap) varint(time - begin of the pane) value            one for each pane; a float
    run     := varint(gap) varint(count) varint(run)
    decay   := varint(gap) sum? weights                                      the sum where a feature needs it
    recent  := varint(gap) value                                             the gap in ms
    bins    := varint(bin - bin before, zigzag) varint(pane - oldest) varint(count)
    hashes  := varint(hash - hash before) varint(pane - oldest) varint(by how many it is beaten)

`gap` is as in `state.py`; `oldest` is the oldest pane the window sees as of the newest event.
"""

from __future__ import annotations

from headrace.features.aggregation import BINS, DECAY, HASHES, NEEDS_SUM, OLDEST, RECENT, RUN
from headrace.features.compiled import inner
from headrace.features.tables import Arena, Record, Records
from headrace.features.varint import Bytes, get_float, get_varint, put_float, put_varint

_MOST_HASH = 2**53


def kept_in(kind: int, needs: int) -> list[str]:
    """The fields of a cell that are packed beside its pane and count, for people."""
    if kind == OLDEST:
        return ["sum", "low"]
    if kind == DECAY:
        return ["sum", "squares"] if needs & NEEDS_SUM else ["squares"]
    return ["sum"]


@inner
def pack_other(arena: Arena, lane: Record, shape: Record, newest_ms: int, buffer: Bytes, at: int) -> int:
    """Pack the cells of a lane that its window can see as of `newest_ms`; gives the place behind them."""
    oldest = newest_ms // shape.pane_ms - shape.panes
    begin = lane.start + lane.first
    end = begin + lane.length
    count = 0
    for each in range(begin, end):
        if arena.cells[each].pane >= oldest:
            count += 1
    at = put_varint(buffer, at, count)
    before = oldest
    number = 0
    for each in range(begin, end):
        cell = arena.cells[each]
        if cell.pane < oldest:
            continue
        if shape.kind == BINS or shape.kind == HASHES:
            apart = int(cell.sum) - number
            number = int(cell.sum)
            at = put_varint(buffer, at, apart if shape.kind == HASHES else (2 * apart if apart >= 0 else -2 * apart - 1))
            at = put_varint(buffer, at, cell.pane - oldest)
            at = put_varint(buffer, at, int(cell.count))
            continue
        at = put_varint(buffer, at, cell.pane - before)
        before = cell.pane
        if shape.kind == OLDEST:
            at = put_varint(buffer, at, int(cell.low) - cell.pane * shape.pane_ms)
            at = put_float(buffer, at, cell.sum)
        elif shape.kind == RUN:
            at = put_varint(buffer, at, int(cell.count))
            at = put_varint(buffer, at, int(cell.sum))
        elif shape.kind == DECAY:
            if shape.needs & NEEDS_SUM:
                at = put_float(buffer, at, cell.sum)
            at = put_float(buffer, at, cell.squares)
        else:
            at = put_float(buffer, at, cell.sum)
    return at


@inner
def parse_other(shape: Record, newest_ms: int, buffer: Bytes, at: int, end: int, cells: Records) -> tuple[int, int]:
    """Read the cells of a lane; gives how many and the place behind them, beyond `end` when the bytes are damaged."""
    length, at = get_varint(buffer, at, end)
    if length > shape.most:
        return 0, end + 1
    head = newest_ms // shape.pane_ms
    oldest = head - shape.panes
    for place in range(length):
        cell = cells[place]
        cell.count = 1.0
        cell.squares = 0.0
        cell.low = 0.0
        cell.high = 0.0
        if shape.kind == BINS or shape.kind == HASHES:
            at = parse_counted(shape, buffer, at, end, oldest, cells, place)
        else:
            at = parse_in_order(shape, buffer, at, end, oldest, cells, place)
        if at > end or cell.pane > head or cell.pane < oldest:
            return 0, end + 1
    return length, at


@inner
def parse_counted(shape: Record, buffer: Bytes, at: int, end: int, oldest: int, cells: Records, place: int) -> int:
    """Read a cell of bins or hashes; they are sorted by number, then pane."""
    cell = cells[place]
    apart, at = get_varint(buffer, at, end)
    pane, at = get_varint(buffer, at, end)
    count, at = get_varint(buffer, at, end)
    if shape.kind == BINS:
        apart = (apart >> 1) ^ -(apart & 1)
    before = int(cells[place - 1].sum) if place > 0 else 0
    cell.sum = float(before + apart)
    cell.pane = oldest + pane
    cell.count = float(count)
    wrong = place > 0 and (apart < 0 or (apart == 0 and (shape.kind == HASHES or cell.pane <= cells[place - 1].pane)))
    if shape.kind == HASHES:
        wrong = wrong or cell.sum >= _MOST_HASH or cell.count >= shape.scale
    else:
        wrong = wrong or count == 0 or abs(cell.sum) > shape.most
    return end + 1 if wrong else at


@inner
def parse_in_order(shape: Record, buffer: Bytes, at: int, end: int, oldest: int, cells: Records, place: int) -> int:
    """Read a cell of a lane whose panes, or times, are in order."""
    cell = cells[place]
    gap, at = get_varint(buffer, at, end)
    before = cells[place - 1].pane if place > 0 else oldest
    cell.pane = before + gap
    wrong = place > 0 and gap == 0 and shape.kind != RECENT
    if shape.kind == OLDEST:
        after_ms, at = get_varint(buffer, at, end)
        wrong = wrong or after_ms >= shape.pane_ms
        cell.low = float(cell.pane * shape.pane_ms + after_ms)
        cell.sum, at = get_float(buffer, at, end)
    elif shape.kind == RUN:
        count, at = get_varint(buffer, at, end)
        run, at = get_varint(buffer, at, end)
        wrong = wrong or count == 0 or run > count
        cell.count = float(count)
        cell.sum = float(run)
    elif shape.kind == DECAY:
        cell.sum = 0.0
        cell.low = float(cell.pane)
        if shape.needs & NEEDS_SUM:
            cell.sum, at = get_float(buffer, at, end)
        cell.squares, at = get_float(buffer, at, end)
    else:
        cell.sum, at = get_float(buffer, at, end)
    return end + 1 if wrong else at
