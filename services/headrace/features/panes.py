"""Panes of a lane: the event goes into one, the window is the merge of all. Compiled.

What events amount to is five floats; what these mean and how two of them merge is the affair of the lane's kind: `kernel.py` has moments,
`sequence.py` the others. The rest is the same for all and stands here: `over_panes` gives the two functions for a way to merge.

The panes before the one in which we stand are *closed*: their merge changes only when a pane opens, expires, or takes an event out of
order. It is kept with the lane, together with the pane it reaches up to. As long as nothing expired, it is extended by the panes that
closed since, which is the same left-to-right merge as from scratch, bit for bit; otherwise it is made anew. A busy entity pays one merge a
lane and event; a quiet one has few panes.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.features.blocks import make_room
from headrace.features.compiled import inner
from headrace.features.tables import Arena, Record
from headrace.types import NO_WATERMARK_MS

STALE = NO_WATERMARK_MS
"""In place of a closed pane: the closed merge must be made anew."""

Amount = tuple[float, float, float, float, float]
"""What some events amount to. The first is always how many they are; what the others are depends on the kind of the lane."""

NOTHING: Amount = (0.0, 0.0, 0.0, 0.0, 0.0)

Merge = Callable[[Amount, Amount, Record], Amount]
"""What an older and a newer amount make together in a lane of a shape (a row of `Plan.lanes`)."""
Put = Callable[[Arena, Record, Record, int, int, Amount], None]
WindowAmount = Callable[[Arena, Record, Record, int], Amount]


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


def over_panes(merge: Merge) -> tuple[Put, WindowAmount]:
    """The functions that put an event into a lane's panes and tell what its window amounts to, compiled for a way to merge."""

    @inner
    def put(arena: Arena, lane: Record, shape: Record, pane: int, oldest: int, amount: Amount) -> None:
        """Take an event into its pane. `oldest` is the oldest pane the window can still see: all before it is forgotten, the event too."""
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
            put_amount(cell, merge(amount_in(cell), amount, shape))
            return
        behind = after - place
        make_room(arena, lane)
        after = lane.start + lane.first + lane.length
        for step in range(behind):
            cells[after - step] = cells[after - step - 1]
        cell = cells[after - behind]
        cell.pane = pane
        put_amount(cell, amount)
        lane.length += 1

    @inner
    def window_amount(arena: Arena, lane: Record, shape: Record, head: int) -> Amount:
        """What the window up to the pane `head` amounts to; brings the closed merge up to it."""
        cells = arena.cells
        panes = shape.panes
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
                amount = merge(amount, amount_in(cells[place]), shape)
                place += 1
            put_amount(lane, amount)
            lane.closed_pane = head
        amount = (lane.count, lane.sum, lane.squares, lane.low, lane.high)
        if lane.length > 0 and cells[after - 1].pane == head:
            amount = merge(amount, amount_in(cells[after - 1]), shape)
        return amount

    return put, window_amount
