"""One pipeline of a source: feature vectors in the order of its signature, scores of its models, predictions and dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TypeVar, cast

import numpy as np

from headrace.definition import Pipeline
from headrace.features.looked_up import LooksUp
from headrace.predict.casting import Casting, Part
from headrace.predict.scores import Model, explainer_of
from headrace.publish.correction_encoder import CorrectionEncoder
from headrace.publish.encoder import Encoder
from headrace.timeline import Timeline
from headrace.types import Bools, Corrected, DeadLetter, EventBatch, FeatureVectors, Float64s, Int64s, LookedUp, OutRecords, Reason, Role

_T = TypeVar("_T")


@dataclass(slots=True, kw_only=True, eq=False)
class Scored:
    """What the models of a pipeline made of a batch."""

    published: list[OutRecords] = field(default_factory=list)
    """Exactly one result for each event that is not refused; empty or one."""
    shadowed: list[OutRecords] = field(default_factory=list)
    refused: list[DeadLetter] = field(default_factory=list)
    looked_up: dict[tuple[str, str], int] = field(default_factory=dict)
    """How what was looked up is marked."""
    answered: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By version, how many vectors it was asked about, and for how many of them it had no score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """One pipeline and the models that answer for it; `columns` picks the pipeline's features out of those of its last stage."""

    pipeline: Pipeline
    casting: Casting
    encoder: Callable[[Model, Role], Encoder]
    """What writes the predictions of a version in a role."""
    columns: Sequence[int] | None
    """None: all of them, in order."""
    look_ups: LooksUp | None = None
    """What it reads from the store."""
    corrections: Callable[[Model, Role], CorrectionEncoder] | None = None
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

    def score(self, events: EventBatch, vectors: FeatureVectors, scored_at_ms: int, timeline: Timeline) -> Scored:
        """A prediction of every event that the model which answers for it has a score for, a dead letter of the others, and the scores of
        shadows.

        Raises `TransientError` while the store is away that something is looked up in.
        """
        looked_up = None
        if self.look_ups is not None:
            looked_up = self.look_ups.look(events)
            timeline.mark("look_up")
        values, found, joins = self.vectors(events, vectors, looked_up), Scored(), self._joins(events)
        # What a prediction is about stands where the source's record stood; its key is the one of the record that was scored.
        about = events.records if events.carried is None else replace(events.sent, keys=events.records.keys)
        for part in self._parts(events, np.arange(len(events))):
            answer = part.model.score(values if part.events is None else values[part.events])
            timeline.mark("predict")
            which, scores = part.events, answer.scores
            asked, none = found.answered.get(part.model.version, (0, 0))
            found.answered[part.model.version] = asked + len(scores), none + len(answer.refused)
            if answer.refused:
                found.refused += self._letters(part, answer.refused, events, looked_up)
                kept = np.delete(np.arange(len(scores)), [place for place, _ in answer.refused])
                which, scores = kept if which is None else which[kept], scores[kept]
            scored = values if which is None else values[which]
            explainer = explainer_of(part.model) if self.pipeline.contributions and part.role != "shadow" else None
            contributions = None
            if explainer is not None:
                contributions = explainer.contributions(scored)
                timeline.mark("explain")
            predictions = self.encoder(part.model, part.role).encode(
                about,
                *_of((events.rows, events.entities, events.event_times_ms, vectors.late), which),
                scores,
                scored,
                scored_at_ms,
                joins if joins is None or which is None else [joins[event] for event in which.tolist()],
                looked_up if looked_up is None or which is None else looked_up.select(which),
                contributions,
            )
            (found.shadowed if part.role == "shadow" else found.published).append(predictions)
            timeline.mark("encode")
        found.published, found.shadowed = merged(found.published), merged(found.shadowed)
        if looked_up is not None:
            found.looked_up = looked_up.marks()
        return found

    def correct(self, events: EventBatch, corrected: Corrected, scored_at_ms: int) -> list[OutRecords]:
        """The corrections these events caused. What the model has no answer for is left out: of each event there is a prediction or a dead
        letter already.
        """
        if self.corrections is None:
            raise ValueError(f"{self.pipeline!r} corrects nothing")
        found = []
        for part in self._parts(events, corrected.causes):
            if part.role == "shadow":
                continue
            some = corrected if part.events is None else corrected.select(part.events)
            answer = part.model.score(some.values)
            scores = answer.scores
            if answer.refused:
                kept = np.delete(np.arange(len(some)), [place for place, _ in answer.refused])
                some, scores = some.select(kept), scores[kept]
            found.append(self.corrections(part.model, part.role).encode(events, some, scores, scored_at_ms))
        return merged(found)

    def _parts(self, events: EventBatch, of: Int64s) -> list[Part]:
        """Who scores what: of vectors that belong to these events, one entry a vector."""
        rows = events.rows[of]
        parts = []
        for answering, which in self.casting.casts(self.pipeline.name, events.records.partitions[rows], events.records.offsets[rows]):
            whose = of if which is None else of[which]
            for part in answering.parts(self.pipeline.name, partial(_entities, events, whose)):
                among = part.events if which is None else which if part.events is None else which[part.events]
                if among is None or len(among):
                    parts.append(replace(part, events=among))
        return parts

    def _letters(self, part: Part, refused: Sequence[tuple[int, str]], events: EventBatch, looked_up: LookedUp | None) -> list[DeadLetter]:
        """The dead letters of what a model refused."""
        letters = []
        for place, error in refused:
            event = place if part.events is None else int(part.events[place])
            letters.append(
                DeadLetter(
                    row=int(events.rows[event]),
                    reason=Reason.MODEL_OUTPUT,
                    stage="predict",
                    error=error,
                    model=f"{part.model.name}@{part.model.version}" if part.role == "shadow" else part.model.name,
                    role=part.role,
                    looked_up=None if looked_up is None else looked_up.places[event],
                )
            )
        return letters

    def _joins(self, events: EventBatch) -> list[str | None] | None:
        """What each event's outcome will be joined by, where outcomes are declared; a whole number as its digits."""
        if self.pipeline.outcomes is None:
            return None
        column = events.columns[self.pipeline.outcomes.join]
        if column.dtype == np.object_:
            return cast("list[str | None]", column.tolist())
        return [None if np.isnan(value) else str(int(value)) for value in column.tolist()]


def _entities(events: EventBatch, which: Int64s) -> list[str]:
    return [events.entities[event] for event in which.tolist()]


def _of(columns: tuple[Int64s, Sequence[str], Int64s, Bools], which: Int64s | None) -> tuple[Int64s, Sequence[str], Int64s, Bools]:
    """Rows, entities, times and late marks of some events; None: of all."""
    if which is None:
        return columns
    rows, entities, times_ms, late = columns
    return rows[which], [entities[event] for event in which.tolist()], times_ms[which], late[which]


def merged(parts: Sequence[OutRecords]) -> list[OutRecords]:
    """The same records in the order of the batch, as one; nothing where there are none. Readers see a partition's results in its order."""
    if not parts[1:]:
        return list(parts)
    rows = np.concatenate([part.rows for part in parts if part.rows is not None])
    order = np.argsort(rows, kind="stable")
    places = order.tolist()

    def column(of: Callable[[OutRecords], Sequence[_T]]) -> list[_T]:
        joined = list(chain.from_iterable(map(of, parts)))
        return [joined[place] for place in places]

    return [
        OutRecords(
            topic=parts[0].topic,
            keys=column(lambda part: part.keys),
            values=column(lambda part: part.values),
            headers=column(lambda part: part.headers),
            timestamps_ms=column(lambda part: part.timestamps_ms),
            rows=rows[order],
        )
    ]
