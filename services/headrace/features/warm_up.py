"""Compiling before it counts.

The compiled fold is kept in numba's cache beside the installed files (`NUMBA_CACHE_DIR` moves it, for an installation nobody may write to).
The first process on a machine compiles it, later ones load it. Either happens here, before a worker joins its group.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from headrace.features.aggregation import MOMENTS
from headrace.features.reader import StateReader
from headrace.features.resident import ResidentStates
from headrace.features.retained_view import RetainedView
from headrace.features.view import FeatureView
from headrace.features.words import count, decayed_count
from headrace.source import Event, EventTime, Source
from headrace.types import NO_WATERMARK_MS, EventBatch, RecordBatch, TopicPartition


class _Tick(Event):
    """The smallest event there is."""

    clock: str
    at_ms: EventTime


def warm_up(views: Iterable[FeatureView], *, corrections: bool = False) -> None:
    """Compile everything the fold of these views needs, or load it from the cache: seconds the first time, a fraction of one later.

    `corrections`: events are retained for them, too.
    """
    source = Source("ticks", _Tick, key="clock", time="at_ms", lateness=10)
    features = [count(over="1m")]
    if any(lane.kind != MOMENTS for view in views for lane in view.lanes):
        features.append(decayed_count(half_life="1s"))
    view = FeatureView("ticks", entity="clock", source=source, features=features)
    partition = TopicPartition("ticks", 0)
    retained = [RetainedView("ticks", [view], extras=[], join=None)] if corrections else []
    states = ResidentStates(
        views=[view], retained=retained, read=lambda _, keys: {one.fp: [None] * len(keys) for one in states.kept}, capacity=1
    )
    states.start(partition, {one.fp: 0 for one in states.kept}, NO_WATERMARK_MS)
    for offset in (0, 1):
        states.fold(_tick(offset))
        (write,) = states.pack({partition: offset + 1})
        states.applied(partition, offset + 1)
        StateReader(view).features(write.views[0].chunks[0].buffer.tobytes(), as_of_ms=offset)
    if corrections:
        states.fold(_tick(1, at_ms=0))
    states.tidy()


def _tick(offset: int, *, at_ms: int | None = None) -> EventBatch:
    return EventBatch(
        records=RecordBatch(
            topic="ticks",
            partitions=np.zeros(1, dtype=np.int32),
            offsets=np.array([offset]),
            timestamps_ms=np.array([offset]),
            keys=[b"clock"],
            values=[b"{}"],
            headers=[None],
        ),
        rows=np.zeros(1, dtype=np.int64),
        entities=[f"clock {offset}"],
        event_times_ms=np.array([offset if at_ms is None else at_ms]),
        columns={},
    )
