"""What was served beside what a frame has for the same events: the skew of look-ups.

Features of the scored source itself are the same, bit for bit. Those looked up in another source depend on how far the store had come at
that moment, which no frame knows; so they are compared here, row by row, by the place of the event in its topic.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass

import numpy as np

from headrace.definition import Pipeline
from headrace.publish.records import decode_prediction
from headrace.training.frame import TrainingFrame
from headrace.training.history import Topics
from headrace.training.skew import TOLERANCE
from headrace.types import Bools, Float64s
from headrace.verify.compare import is_of_these_definitions


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedSkew:
    """How far the frame of a pipeline and its predictions agree."""

    rows: int
    """Rows whose prediction carries features of these definitions."""
    differing: int
    """Those in which a feature is further apart than a billionth."""
    stale: int
    """Of those that differ, the ones that were marked stale when they were served,"""
    ahead: int
    """and the ones for which the store was ahead."""
    foreign: int
    """Records on the topic that are no predictions of this pipeline: tombstones, and what somebody else wrote."""
    by_feature: dict[str, int]
    """In how many rows each differs; only those that do."""

    def counts(self) -> dict[str, object]:
        """As plain JSON."""
        return asdict(self)


def served_skew(pipeline: Pipeline, topics: Topics, frame: TrainingFrame) -> ServedSkew:
    """Compare a frame with a row an event with what was published. Raises `TransientError` while a server is away."""
    places = zip(frame.table["_partition"].to_pylist(), frame.table["_offset"].to_pylist(), strict=True)
    row_of = {place: row for row, place in enumerate(places)}
    prefix = f"{pipeline.source.topic}-"
    counts: Counter[str] = Counter()
    values, names = frame.values, set(frame.names)
    by_feature = np.zeros(len(frame.names), dtype=np.int64)
    with closing(topics.subject.reader()) as reader:
        ranges = {name: reader.log_range(name) for name in reader.partitions(pipeline.predictions)}
        starts, ends = {name: found.start for name, found in ranges.items()}, {name: found.end for name, found in ranges.items()}
        for batch in reader.batches(starts, ends):
            for record in batch.records():
                try:
                    prediction = decode_prediction(record.value or b"")
                    partition, offset, _ = prediction.id.removeprefix(prefix).split("-", 2)
                    row = row_of.get((int(partition), int(offset)))
                except ValueError:
                    counts["foreign"] += 1
                    continue
                if row is None or not isinstance(prediction.features, dict) or not is_of_these_definitions(record, pipeline.fingerprint):
                    continue
                if not prediction.features.keys() >= names:
                    counts["foreign"] += 1
                    continue
                apart = _apart(np.array([prediction.features[name] for name in frame.names], dtype=np.float64), values[row])
                by_feature += apart
                marks = {"rows": True, "differing": True, "stale": bool(prediction.stale), "ahead": bool(prediction.ahead)}
                counts.update(name for name, holds in marks.items() if holds and (name == "rows" or apart.any()))
    return ServedSkew(
        rows=counts["rows"],
        differing=counts["differing"],
        stale=counts["stale"],
        ahead=counts["ahead"],
        foreign=counts["foreign"],
        by_feature={name: count for name, count in zip(frame.names, by_feature.tolist(), strict=True) if count},
    )


def _apart(one: Float64s, other: Float64s) -> Bools:
    with np.errstate(invalid="ignore"):
        close = np.abs(one - other) <= TOLERANCE * np.maximum(np.abs(one), np.abs(other))
    return ~(close | (np.isnan(one) & np.isnan(other)))
