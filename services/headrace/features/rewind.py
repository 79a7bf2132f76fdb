"""States as they were at an earlier instant, as far as they can tell: what happened later is left out. Compiled.

A look-up at the time of an event may find a state that has seen newer events already, and a feature must not know what was not known yet.
What carries its own time (newest cells, recent events) goes if it is later than the instant; panes go if they are later than the pane of
the instant. Limits: events of that last pane cannot be told apart, so up to one pane of the future stays; what left the window of the
newest event before the instant was asked for is not brought back; a sketch of distinct values remembers of each only its newest pane.
"""

from __future__ import annotations

from headrace.features.aggregation import RECENT
from headrace.features.compiled import entry, inner
from headrace.features.panes import STALE
from headrace.features.tables import Arena, Plan, Record, Rows
from headrace.types import NO_WATERMARK_MS, Int64s

NONE_MS = NO_WATERMARK_MS


@entry
def rewind(plan: Plan, rows: Rows, arena: Arena, asked: Int64s, at_ms: Int64s) -> None:
    """Let the rows `asked` forget what is later than their instant."""
    for place in range(len(asked)):
        row = asked[place]
        until_ms = at_ms[place]
        for number in range(len(plan.views)):
            if rows.newest_ms[row, number] <= until_ms:
                continue
            view = plan.views[number]
            rows.newest_ms[row, number] = until_ms
            for each in range(view.cell_from, view.cell_to):
                if rows.cell_ms[row, each] > until_ms:
                    rows.cell_ms[row, each] = NONE_MS
            for each in range(view.lane_from, view.lane_to):
                shape = plan.lanes[each]
                last = until_ms if shape.kind == RECENT else until_ms // shape.pane_ms
                forget_after(arena, rows.lanes[row, each], last)


@inner
def forget_after(arena: Arena, lane: Record, last: int) -> None:
    """Drop the cells of a lane that are later than the pane `last`; the others stay in their order."""
    cells = arena.cells
    kept = lane.start + lane.first
    for each in range(kept, kept + lane.length):
        if cells[each].pane <= last:
            cells[kept] = cells[each]
            kept += 1
    lane.length = kept - lane.start - lane.first
    lane.closed_pane = STALE
