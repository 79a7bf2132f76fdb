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
from headrace.features.view import FeatureView
from headrace.features.words import count, decayed_count
from headrace.source import Event, EventTime, Source
from headrace.types import NO_WATERMARK_MS, EventBatch, RecordBatch, TopicPartition


class _Tick(Event):
    """The smallest event there is."""

    clock: str
    at_ms: EventTime


def warm_up(views: Iterable[FeatureView]) -> None:
    """Compile everything the fold of these views needs, or load it from the cache: seconds the first time, a fraction of one later."""
    source = Source("ticks", _Tick, key="clock", time="at_ms", lateness=0)
    features = [count(over="1m")]
    if any(lane.kind != MOMENTS for view in views for lane in view.lanes):
        features.append(decayed_count(half_life="1s"))
    view = FeatureView("ticks", entity="clock", source=source, features=features)
    partition = TopicPartition("ticks", 0)
    states = ResidentStates(views=[view], read=lambda _, keys: {view.fp: [None] * len(keys)}, capacity=1)
    states.start(partition, {view.fp: 0}, NO_WATERMARK_MS)
    for offset in (0, 1):
        states.fold(_tick(offset))
        (write,) = states.pack({partition: offset + 1})
        states.applied(partition, offset + 1)
        StateReader(view).features(write.views[0].chunks[0].buffer.tobytes(), as_of_ms=offset)
    states.tidy()


def _tick(offset: int) -> EventBatch:
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
        event_times_ms=np.array([offset]),
        columns={},
    )
