"""Corrected vectors and their scores -> corrections, those of a batch at a time. They are few, so their ids are made one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat, starmap
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from headrace.publish.encoder import HeaderPolicy, Heading, carry_trace, feature_struct
from headrace.publish.records import CORRECTION_TYPE, ModelVersion, Place
from headrace.types import Corrected, EventBatch, Float64s, OutRecords, Role


class CorrectionEncoder:
    """Writes the corrections of one model version for one pipeline. Not to be used from two threads at once."""

    def __init__(
        self,
        *,
        app: str,
        source_topic: str,
        pipeline: str,
        corrections: str,
        feature_names: Sequence[str],
        publish_features: bool,
        model_name: str,
        model_version: str,
        role: Role = "champion",
        fingerprint: str,
        headers: HeaderPolicy = HeaderPolicy.CLOUDEVENTS,
    ) -> None:
        """`corrections` is the topic written to."""
        self.topic = corrections
        self._source_topic, self._model_name = source_topic, model_name
        self._model = msgspec.Raw(msgspec.json.encode(ModelVersion(name=model_name, version=model_version, role=role)))
        self._features = feature_struct(feature_names) if publish_features else None
        self._correction = _struct(self._features)
        self._json = msgspec.json.Encoder()
        self._heading = Heading(
            kind=CORRECTION_TYPE, app=app, source_topic=source_topic, pipeline=pipeline, fingerprint=fingerprint, policy=headers
        )

    def encode(self, events: EventBatch, corrected: Corrected, scores: Float64s, scored_at_ms: int) -> OutRecords:
        """One record per correction, in their order: keyed as its event, with the timestamp and the trace of the record that caused it.

        Raises `ValueError` for a score that is not finite.
        """
        if not np.isfinite(scores).all():
            raise ValueError(f"{self.topic}: a score is not finite")
        records, rows = events.records, events.rows[corrected.causes]
        partitions, offsets = records.partitions[rows].tolist(), corrected.offsets.tolist()
        revisions, causes = corrected.revisions.tolist(), records.offsets[rows].tolist()
        originals = [
            f"{self._source_topic}-{number}-{offset}-{self._model_name}" for number, offset in zip(partitions, offsets, strict=True)
        ]
        ids = [f"{original}-r{revision}" for original, revision in zip(originals, revisions, strict=True)]
        entities = [events.entities[cause] for cause in corrected.causes.tolist()]
        columns: list[Any] = [ids, originals, revisions]
        columns += [self._places(partitions, offsets), self._places(partitions, causes)]
        columns += [entities, corrected.event_times_ms.tolist(), scores.tolist(), repeat(self._model)]
        joins = corrected.joins.tolist()
        columns.append([UNSET if join is None else join for join in joins] if joins else repeat(UNSET))
        if self._features is not None:
            columns.append(starmap(self._features, corrected.values.tolist()))
        headers = self._heading.of(ids, corrected.event_times_ms, partitions, offsets)
        carry_trace([records.headers[row] for row in rows.tolist()], headers)
        return OutRecords(
            topic=self.topic,
            keys=[records.keys[row] for row in rows.tolist()],
            values=list(map(self._json.encode, map(self._correction, *columns, repeat(scored_at_ms)))),
            headers=headers,
            timestamps_ms=records.timestamps_ms[rows].tolist(),
            rows=rows,
        )

    def _places(self, partitions: Sequence[int], offsets: Sequence[int]) -> list[Place]:
        numbers = zip(partitions, offsets, strict=True)
        return [Place(topic=self._source_topic, partition=number, offset=offset) for number, offset in numbers]


def _struct(features: type[msgspec.Struct] | None) -> type[msgspec.Struct]:
    """The struct that is written: `records.Correction` with the model as bytes and the features as a struct."""
    fields: list[tuple[str, Any]] = [("id", str), ("corrects", str), ("revision", int), ("source", Place), ("caused_by", Place)]
    fields += [("entity", str), ("event_time", int), ("score", float), ("model", msgspec.Raw), ("join", str | UnsetType)]
    if features is not None:
        fields.append(("features", features))
    return msgspec.defstruct("CorrectionOut", [*fields, ("scored_at", int)], gc=False)
