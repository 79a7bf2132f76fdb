"""The tables the kernel reads and writes: definitions flattened to arrays, and the arrays in which states live.

    plan     what to compute: views, lanes, newest cells and features of all views of one source, each table sorted by its owner
    rows     one row per entity: newest event times, newest cells, and per lane where its panes lie and what their closed part amounts to
    arena    the panes themselves: blocks of cells, one block per row and lane that has any, sorted by pane

    rows.lanes[row, lane]                    arena.cells
    +-------------------------------+        start         first           first + length      capacity
    | start first length size       | ------> | (expired)   | cell cell cell | (room to append)  |
    | closed: count sum squares ... |
    +-------------------------------+

A block's capacity is one of 2, 3, 4, 6, 8, 12, ...: a free block is used again for the same size. All arrays grow by doubling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.features.aggregation import KINDS, MOMENTS
from headrace.features.streams import Stream
from headrace.features.view import FeatureView
from headrace.types import NO_WATERMARK_MS, Float64s, Int64s

Records = NDArray[Any]
"""A structured array; its dtype is named beside it."""
Record = Any
"""One element of such an array: compiled code reads and writes its fields as attributes."""

VIEW = np.dtype([(name, np.int64) for name in ("lane_from", "moments_to", "lane_to", "cell_from", "cell_to", "feature_from", "feature_to")])
"""A view's stretches of the lanes (those of moments come first), of the newest cells, and of the features of newest cells."""
LANE = np.dtype(
    [
        *((name, np.int64) for name in ("kind", "stream", "pane_ms", "panes", "needs", "most", "origin", "feature_from", "feature_to")),
        ("scale", np.float64),
    ]
)
"""A lane: its kind, the most cells it can have, what its kind needs to know (`view.Lane`), and its stretch of the features of lanes."""
NEWEST = np.dtype([(name, np.int64) for name in ("stream", "window_ms", "keeps_value")])
"""A newest cell."""
FEATURE = np.dtype(
    [*((name, np.int64) for name in ("code", "cell", "window_ms", "column")), ("parameter", np.float64), ("empty", np.float64)]
)
"""A feature: how it is finished, from which newest cell (if so), its column in the output, and what its aggregation needs to know."""

CELL = np.dtype([("pane", np.int64), *((name, np.float64) for name in ("count", "sum", "squares", "low", "high"))])
"""One pane: its number and what the events in it amount to. `squares` is M2, the sum of squared distances from the mean. What the numbers
are in lanes of other kinds than moments stands in `sequence.py` and `sketch.py`.
"""
LANE_STATE = np.dtype(
    [
        *((name, np.int64) for name in ("start", "first", "length", "size")),
        *((name, np.int64) for name in ("closed_pane", "oldest")),
        *((name, np.float64) for name in ("count", "sum", "squares", "low", "high")),
    ]
)
"""A lane of an entity: its block, and the merge of its panes before `closed_pane` (the oldest of which is `oldest`)."""

SIZES = 64
"""How many block sizes there are."""


class Plan(NamedTuple):
    """What to compute; `reserve` is the most cells one event can ask for."""

    views: Records
    lanes: Records
    newest: Records
    lane_features: Records
    newest_features: Records
    reserve: int


class Rows(NamedTuple):
    """Entities as rows; NO_WATERMARK_MS in a time means none."""

    newest_ms: Int64s
    """[rows, views]: the newest event folded."""
    touched: NDArray[np.uint8]
    """[rows, views]: folded into since it was last packed."""
    cell_ms: Int64s
    """[rows, newest cells]"""
    cell_values: Float64s
    """[rows, newest cells]"""
    lanes: Records
    """[rows, lanes] of LANE_STATE"""


class Arena(NamedTuple):
    """Blocks of cells."""

    cells: Records
    free: Int64s
    """By size, the first free block of a chain; each names the next in its first cell."""
    top: Int64s
    """[0]: where the never used cells begin."""


class Events(NamedTuple):
    """A batch as the kernel reads it."""

    rows: Int64s
    times_ms: Int64s
    horizons_ms: Int64s
    takes: NDArray[np.bool_]
    """[events, views]: false for a late event, and for one the view holds already."""
    given: Float64s
    """[events, streams]: the number the event gives to a stream; NaN where it gives none."""


class Parsed(NamedTuple):
    """Some states of one view, read but not yet anywhere: the cells of all lanes of all states stand in `cells`, one after the other."""

    newest_ms: Int64s
    cell_ms: Int64s
    """[states, newest cells of the view]"""
    cell_values: Float64s
    lengths: Int64s
    """[states, lanes of the view]: how many cells each lane has."""
    cells: Records


def streams_of(views: Sequence[FeatureView]) -> list[Stream]:
    """The streams of all views, each once."""
    return list({stream.key(): stream for view in views for stream in view.streams}.values())


def plan_of(views: Sequence[FeatureView]) -> Plan:
    """The tables of views that are folded together; feature columns are in the order of the views."""
    numbers = {stream.key(): number for number, stream in enumerate(streams_of(views))}
    view_rows: list[tuple[int, ...]] = []
    lane_rows: list[tuple[float, ...]] = []
    newest_rows: list[tuple[int, ...]] = []
    lane_features: list[tuple[float, ...]] = []
    newest_features: list[tuple[float, ...]] = []
    column = 0
    for view in views:
        stream = [numbers[one.key()] for one in view.streams]
        lane_from, cell_from, feature_from = len(lane_rows), len(newest_rows), len(newest_features)
        columns = range(column, column + len(view.features))
        column += len(view.features)
        placed = list(zip(view.features, view.places, columns, strict=True))
        for place, lane in enumerate(view.lanes):
            begin = len(lane_features)
            lane_features += [
                (one.aggregation.code, 0, one.window_ms, at, one.parameter, one.empty)
                for one, where, at in placed
                if one.aggregation.of in KINDS and where == place
            ]
            shape = (lane.kind, stream[lane.stream], lane.pane_ms, lane.panes, lane.needs, lane.most, lane.origin)
            lane_rows.append((*shape, begin, len(lane_features), lane.scale))
        newest_rows += [(stream[cell.stream], cell.window_ms, int(cell.keeps_value)) for cell in view.newest_cells]
        newest_features += [
            (one.aggregation.code, cell_from + where, one.window_ms, at, one.parameter, one.empty)
            for one, where, at in placed
            if one.aggregation.of == "newest"
        ]
        moments_to = lane_from + sum(lane.kind == MOMENTS for lane in view.lanes)
        view_rows.append((lane_from, moments_to, len(lane_rows), cell_from, len(newest_rows), feature_from, len(newest_features)))
    return Plan(
        views=np.array(view_rows, dtype=VIEW),
        lanes=np.array(lane_rows, dtype=LANE),
        newest=np.array(newest_rows, dtype=NEWEST),
        lane_features=np.array(lane_features, dtype=FEATURE),
        newest_features=np.array(newest_features, dtype=FEATURE),
        # A block is grown when more than three quarters of it are cells inside the window; see `blocks.make_room`.
        reserve=sum(2 * lane.most + 4 for view in views for lane in view.lanes),
    )


def new_rows(count: int, plan: Plan) -> Rows:
    """Rows of entities nothing is known of."""
    lanes = np.zeros((count, len(plan.lanes)), dtype=LANE_STATE)
    lanes["size"] = -1
    lanes["closed_pane"] = NO_WATERMARK_MS
    return Rows(
        newest_ms=np.full((count, len(plan.views)), NO_WATERMARK_MS, dtype=np.int64),
        touched=np.zeros((count, len(plan.views)), dtype=np.uint8),
        cell_ms=np.full((count, len(plan.newest)), NO_WATERMARK_MS, dtype=np.int64),
        cell_values=np.zeros((count, len(plan.newest))),
        lanes=lanes,
    )


def more_rows(rows: Rows, count: int, plan: Plan) -> Rows:
    """The same rows and new ones, `count` in all."""
    added = new_rows(count - len(rows.newest_ms), plan)
    return Rows(
        newest_ms=np.concatenate((rows.newest_ms, added.newest_ms)),
        touched=np.concatenate((rows.touched, added.touched)),
        cell_ms=np.concatenate((rows.cell_ms, added.cell_ms)),
        cell_values=np.concatenate((rows.cell_values, added.cell_values)),
        lanes=np.concatenate((rows.lanes, added.lanes)),
    )


def new_arena(cells: int) -> Arena:
    """An empty arena."""
    return Arena(cells=np.empty(cells, dtype=CELL), free=np.full(SIZES, -1, dtype=np.int64), top=np.zeros(1, dtype=np.int64))
