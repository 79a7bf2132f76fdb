"""Point-in-time training frames: the same fold over history.

A training set made any other way than the live features disagrees with them sooner or later. So this is `ResidentStates` itself, fed with a
log from its start and with no store behind it, where every entity begins with nothing: row i of the frame is, bit for bit, the vector that
was or would have been served for event i. Limits: the log must reach back to its start, or the first windows are incomplete; the states
of all entities are held in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.expression import Expression
from headrace.features.resident import Read, ResidentStates
from headrace.features.view import FeatureView
from headrace.types import NO_WATERMARK_MS, Bools, EventBatch, Float64s, Int32s, Int64s, TopicPartition


class Vectored(Protocol):
    """What a pipeline says about its feature vector (`definition.Pipeline`)."""

    @property
    def views(self) -> tuple[FeatureView, ...]:
        """Its views, in order."""

    @property
    def event_features(self) -> tuple[tuple[str, Expression], ...]:
        """What follows the views' features."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingFrame:
    """One row an event, in the order of the log: its feature vector, and where it comes from."""

    names: tuple[str, ...]
    values: Float64s
    """[events, names]; absent is NaN."""
    entities: list[str]
    event_times_ms: Int64s
    partitions: Int32s
    offsets: Int64s
    late: Bools

    def __len__(self) -> int:
        return len(self.entities)


def training_frame(pipeline: Vectored, batches: Iterable[EventBatch]) -> TrainingFrame:
    """The feature vectors of all events of a log. `batches` are its accepted events from the start, cut anywhere, partitions in order."""
    states = ResidentStates(views=pipeline.views, read=_nothing(pipeline.views), capacity=sys.maxsize)
    started: set[TopicPartition] = set()
    values = [np.empty((0, len(pipeline.feature_names)))]
    times_ms, offsets = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    partitions, late = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.bool_)]
    entities: list[str] = []
    for events in batches:
        numbers = events.records.partitions[events.rows]
        for partition in {TopicPartition(events.records.topic, int(number)) for number in np.unique(numbers)} - started:
            states.start(partition, {view.fp: 0 for view in pipeline.views}, NO_WATERMARK_MS)
            started.add(partition)
        vectors = states.fold(events)
        own = [expression.evaluate(events.columns) for _, expression in pipeline.event_features]
        values.append(np.column_stack((vectors.values, *own)))
        entities.extend(events.entities)
        times_ms.append(events.event_times_ms)
        partitions.append(numbers)
        offsets.append(events.records.offsets[events.rows])
        late.append(vectors.late)
    return TrainingFrame(
        names=pipeline.feature_names,
        values=np.concatenate(values),
        entities=entities,
        event_times_ms=np.concatenate(times_ms),
        partitions=np.concatenate(partitions),
        offsets=np.concatenate(offsets),
        late=np.concatenate(late),
    )


def _nothing(views: Sequence[FeatureView]) -> Read:
    def read(_: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        return {view.fp: [None] * len(keys) for view in views}

    return read
