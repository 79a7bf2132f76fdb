"""The scores that were served for the events of a span, beside those that the declared model gives for the same vectors now.

That comes before any scenario: where they differ, what is compared with is not what was acted on. Another version may have served then (so
versions are counted apart), or what was looked up differs (`served.py`). Corrections are not looked at: what was served first counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.definition import Pipeline
from headrace.publish.records import decode_prediction
from headrace.training.history import Told, Topics
from headrace.training.replaying import places_of
from headrace.types import Float64s, Int64s, RecordBatch
from headrace.verify.compare import SCORE_TOLERANCE, text_of

_FINGERPRINT = "headrace-fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBy:
    """The predictions of one version in one role."""

    version: str
    role: str
    rows: int
    differing: int
    """Those whose score is further than a millionth from the one before."""
    largest: float
    """The largest difference; NaN where none could be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedScores:
    """What was served for the events of a span."""

    events: int
    rows: int
    """Events that have a prediction of these definitions."""
    other_definitions: int
    """Predictions of other definitions, which are not compared."""
    foreign: int
    """Records that are no predictions of this pipeline."""
    by: tuple[ServedBy, ...]
    """The most frequent first."""

    @property
    def differing(self) -> int:
        """Events whose served score is another than the one before."""
        return sum(one.differing for one in self.by)


def served_scores(
    pipeline: Pipeline, topics: Topics, places: Int64s, before: Float64s, *, from_ms: int, told: Told = lambda _, __: None
) -> ServedScores | None:
    """Compare with what was published of some events, given by `places_of` in ascending order; None where there is no topic of predictions.

    `from_ms`: none of their records has an earlier timestamp; predictions have that of their record. Raises `TransientError` while a server
    is away.
    """
    gathered = _Gathered(pipeline)
    with closing(topics.subject.reader()) as reader:
        if not reader.exists(pipeline.predictions):
            return None
        names = reader.partitions(pipeline.predictions)
        ends = {name: reader.log_range(name).end for name in names}
        begins = {name: reader.offset_at(name, from_ms) for name in names}
        starts = {name: ends[name] if begin is None else begin for name, begin in begins.items()}
        seen, of = 0, sum(ends[name] - start for name, start in starts.items())
        for batch in reader.batches(starts, ends):
            gathered.take(batch)
            seen += len(batch)
            told(seen, of)
    found_places, scores, by = gathered.columns()
    at = np.minimum(np.searchsorted(places, found_places), max(len(places) - 1, 0))
    meant = places[at] == found_places if len(places) else np.zeros(len(found_places), dtype=np.bool_)
    at, scores, by = at[meant], scores[meant], by[meant]
    apart = np.abs(scores - before[at])
    return ServedScores(
        events=len(places),
        rows=len(np.unique(at)),
        other_definitions=gathered.other_definitions,
        foreign=gathered.foreign,
        by=tuple(sorted(_summed(gathered.who, by, apart), key=lambda one: (-one.rows, one.version, one.role))),
    )


def _summed(who: dict[tuple[str, str], int], by: NDArray[np.int32], apart: Float64s) -> Iterator[ServedBy]:
    for (version, role), number in who.items():
        mine = apart[by == number]
        known = mine[np.isfinite(mine)]
        if len(mine):
            # What is not comparable, because the version gives no score now, differs.
            differing = int((~(mine <= SCORE_TOLERANCE)).sum())
            largest = float(known.max()) if len(known) else float("nan")
            yield ServedBy(version=version, role=role, rows=len(mine), differing=differing, largest=largest)


class _Gathered:
    """Predictions as columns."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.who: dict[tuple[str, str], int] = {}
        self.other_definitions, self.foreign = 0, 0
        self._prefix = f"{pipeline.source.topic}-"
        self._fingerprint = pipeline.fingerprint
        self._places, self._scores, self._by = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0, np.int32)]

    def take(self, batch: RecordBatch) -> None:
        """The next records of the topic."""
        partitions, offsets, scores, by = list[int](), list[int](), list[float](), list[int]()
        for value, headers in zip(batch.values, batch.headers, strict=True):
            try:
                prediction = decode_prediction(value or b"")
                partition, offset = self._place(prediction.id)
            except ValueError:
                self.foreign += 1
                continue
            if text_of(headers or [], _FINGERPRINT) not in {None, self._fingerprint}:
                self.other_definitions += 1
                continue
            partitions.append(partition)
            offsets.append(offset)
            scores.append(prediction.score)
            by.append(self.who.setdefault((prediction.model.version, prediction.model.role), len(self.who)))
        self._places.append(places_of(np.array(partitions, dtype=np.int32), np.array(offsets, dtype=np.int64)))
        self._scores.append(np.array(scores, dtype=np.float64))
        self._by.append(np.array(by, dtype=np.int32))

    def columns(self) -> tuple[Int64s, Float64s, NDArray[np.int32]]:
        """Place of the event, score, and the number of who gave it."""
        return np.concatenate(self._places), np.concatenate(self._scores), np.concatenate(self._by)

    def _place(self, name: str) -> tuple[int, int]:
        """Partition and offset of the event; raises `ValueError` for the id of anything else."""
        if not name.startswith(self._prefix):
            raise ValueError(name)
        # The model may have a name of its own, with dashes in it.
        partition, offset, _ = name.removeprefix(self._prefix).split("-", 2)
        return int(partition), int(offset)
