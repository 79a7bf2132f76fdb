"""One pipeline of a source: feature vectors in the order of its signature, scores of its model, predictions and dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from headrace.definition import Pipeline
from headrace.features.looked_up import LooksUp
from headrace.predict.scores import Model
from headrace.publish.correction_encoder import CorrectionEncoder
from headrace.publish.encoder import Encoder
from headrace.timeline import Timeline
from headrace.types import Corrected, DeadLetter, EventBatch, FeatureVectors, Float64s, Int64s, LookedUp, OutRecords, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """One pipeline and the model that answers for it; `columns` picks the pipeline's features out of those of its last stage."""

    pipeline: Pipeline
    model: Model
    encoder: Encoder
    columns: Sequence[int] | None
    """None: all of them, in order."""
    look_ups: LooksUp | None = None
    """What it reads from the store."""
    corrections: CorrectionEncoder | None = None
    """What writes its corrections."""

    def vectors(self, events: EventBatch, vectors: FeatureVectors, looked_up: LookedUp | None) -> Float64s:
        """The pipeline's feature vectors, in the order of its signature: view features, those looked up, then event features."""
        of_views = vectors.values if self.columns is None else vectors.values[:, self.columns]
        if looked_up is not None:
            of_views = np.concatenate((of_views, looked_up.values), axis=1)
        if not self.pipeline.event_features:
            return of_views
        values = np.empty((len(events), of_views.shape[1] + len(self.pipeline.event_features)))
        values[:, : of_views.shape[1]] = of_views
        for column, (_, expression) in enumerate(self.pipeline.event_features, start=of_views.shape[1]):
            values[:, column] = expression.evaluate(events.columns)
        return values

    def score(
        self, events: EventBatch, vectors: FeatureVectors, scored_at_ms: int, timeline: Timeline
    ) -> tuple[OutRecords, list[DeadLetter], dict[tuple[str, str], int]]:
        """Predictions of every event the model has an answer for, dead letters of the others, and how what was looked up is marked.

        Raises `TransientError` while the store is away that something is looked up in.
        """
        looked_up = None
        if self.look_ups is not None:
            looked_up = self.look_ups.look(events)
            timeline.mark("look_up")
        values = self.vectors(events, vectors, looked_up)
        answer = self.model.score(values)
        timeline.mark("predict")
        rows, entities, times, late, scores = events.rows, events.entities, events.event_times_ms, vectors.late, answer.scores
        # What a prediction is about stands where the source's record stood; its key is the one of the record that was scored.
        about = events.records if events.carried is None else replace(events.sent, keys=events.records.keys)
        joins = self._joins(events)
        refused = [
            DeadLetter(
                row=int(rows[event]),
                reason=Reason.MODEL_OUTPUT,
                stage="predict",
                error=error,
                model=self.model.name,
                looked_up=None if looked_up is None else looked_up.places[event],
            )
            for event, error in answer.refused
        ]
        if refused:
            kept = np.delete(np.arange(len(events)), [event for event, _ in answer.refused])
            rows, times, late, scores, values = rows[kept], times[kept], late[kept], scores[kept], values[kept]
            entities = [entities[event] for event in kept]
            joins = None if joins is None else [joins[event] for event in kept]
            looked_up = None if looked_up is None else looked_up.select(kept)
        predictions = self.encoder.encode(about, rows, entities, times, late, scores, values, scored_at_ms, joins, looked_up)
        timeline.mark("encode")
        return predictions, refused, {} if looked_up is None else looked_up.marks()

    def correct(self, events: EventBatch, corrected: Corrected, scored_at_ms: int) -> tuple[OutRecords, Int64s]:
        """The corrections these events caused, and the row of the cause of each. What the model has no answer for is left out: of each
        event there is a prediction or a dead letter already.
        """
        if self.corrections is None:
            raise ValueError(f"{self.pipeline!r} corrects nothing")
        answer = self.model.score(corrected.values)
        scores = answer.scores
        if answer.refused:
            kept = np.delete(np.arange(len(corrected)), [place for place, _ in answer.refused])
            corrected, scores = corrected.select(kept), scores[kept]
        return self.corrections.encode(events, corrected, scores, scored_at_ms), events.rows[corrected.causes]

    def _joins(self, events: EventBatch) -> list[str | None] | None:
        """What each event's outcome will be joined by, where outcomes are declared; a whole number as its digits."""
        if self.pipeline.outcomes is None:
            return None
        column = events.columns[self.pipeline.outcomes.join]
        if column.dtype == np.object_:
            return cast("list[str | None]", column.tolist())
        return [None if np.isnan(value) else str(int(value)) for value in column.tolist()]
