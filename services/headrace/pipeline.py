"""The path of an event on one screen: decode, features, predict, encode.

A batch of records goes in, in offset order; what comes out is nothing but values: records to publish, dead letters, packed states.
Nothing here talks to the outside world, save that states missing in memory are read from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.decode.decoder import Decoder
from headrace.definition import Pipeline
from headrace.features.resident import ResidentStates
from headrace.predict.scores import Model
from headrace.publish.dead_letter import DeadLetters, RefusedShare
from headrace.publish.encoder import Encoder
from headrace.recovery import Plan
from headrace.source import Source
from headrace.timeline import Timeline
from headrace.types import (
    DeadLetter,
    EventBatch,
    FeatureVectors,
    Float64s,
    Int64s,
    OutRecords,
    Position,
    Reason,
    RecordBatch,
    Tally,
    TopicPartition,
    Work,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """One pipeline of a source and the model that answers for it; `columns` picks the pipeline's features out of the source's."""

    pipeline: Pipeline
    model: Model
    encoder: Encoder
    columns: Sequence[int]

    def vectors(self, events: EventBatch, vectors: FeatureVectors) -> Float64s:
        """The pipeline's feature vectors, in the order of its signature: view features, then event features."""
        values = np.empty((len(events), len(self.columns) + len(self.pipeline.event_features)))
        values[:, : len(self.columns)] = vectors.values if len(self.columns) == vectors.values.shape[1] else vectors.values[:, self.columns]
        for column, (_, expression) in enumerate(self.pipeline.event_features, start=len(self.columns)):
            values[:, column] = expression.evaluate(events.columns)
        return values

    def score(self, events: EventBatch, vectors: FeatureVectors, scored_at_ms: int) -> tuple[OutRecords, list[DeadLetter]]:
        """Predictions of every event the model has an answer for, and dead letters of the others."""
        values = self.vectors(events, vectors)
        answer = self.model.score(values)
        rows, entities, times, late, scores = events.rows, events.entities, events.event_times_ms, vectors.late, answer.scores
        refused = [
            DeadLetter(row=int(rows[event]), reason=Reason.MODEL_OUTPUT, stage="predict", error=error, model=self.model.name)
            for event, error in answer.refused
        ]
        if refused:
            kept = np.delete(np.arange(len(events)), [event for event, _ in answer.refused])
            rows, entities, times, late, scores, values = (
                rows[kept],
                [entities[event] for event in kept],
                times[kept],
                late[kept],
                scores[kept],
                values[kept],
            )
        joins = self._joins(events, rows)
        return self.encoder.encode(events.records, rows, entities, times, late, scores, values, scored_at_ms, joins), refused

    def _joins(self, events: EventBatch, rows: Int64s) -> list[str | None] | None:
        """What each event's outcome will be joined by, where outcomes are declared."""
        if self.pipeline.outcomes is None:
            return None
        column = events.columns[self.pipeline.outcomes.join]
        return list(column if rows is events.rows else column[np.searchsorted(events.rows, rows)])


class SourcePath:
    """Everything that happens to the records of one source topic."""

    def __init__(
        self,
        *,
        source: Source,
        decoder: Decoder,
        states: ResidentStates,
        scorers: Sequence[Scorer],
        dead_letters: DeadLetters,
        share: RefusedShare,
        now_ms: Callable[[], int],
    ) -> None:
        self.source, self.states, self.scorers = source, states, scorers
        self._decoder, self._dead_letters, self._share, self._now_ms = decoder, dead_letters, share, now_ms

    def replay(self, batch: RecordBatch, timeline: Timeline) -> None:
        """Fold records whose predictions are already committed."""
        self.states.fold(self._decoder.decode(batch).events)
        timeline.mark("replay")

    def score(self, batch: RecordBatch, timeline: Timeline) -> tuple[list[OutRecords], Tally]:
        """Exactly one prediction or dead letter per record and model."""
        decoded = self._decoder.decode(batch)
        timeline.mark("decode")
        vectors = self.states.fold(decoded.events)
        timeline.mark("features")
        tally = Tally(
            topic=batch.topic,
            timestamps_ms=batch.timestamps_ms,
            events=len(decoded.events),
            late=int(vectors.late.sum()),
            unknown_fields=decoded.unknown_fields,
        )
        tally.refused.extend(decoded.refused)
        outputs: list[OutRecords] = []
        for scorer in self.scorers if len(decoded.events) else ():
            predictions, refused = scorer.score(decoded.events, vectors, self._now_ms())
            tally.scored[scorer.model.name] = len(predictions)
            tally.refused.extend(refused)
            outputs.append(predictions)
            timeline.mark("predict")
        if tally.refused:
            outputs.append(self._dead_letters.encode(batch, tally.refused))
        self._share.observe(len(batch), tally.refused)
        return outputs, tally


class Paths:
    """The paths of all source topics of an app: what the loop sees (`assignment.Path`)."""

    def __init__(self, paths: Mapping[str, SourcePath]) -> None:
        self._paths = paths

    def views(self, topic: str) -> Sequence[str]:
        """The fingerprints of the views filled from a topic."""
        return [view.fp for view in self._paths[topic].states.views]

    def span_ms(self, topic: str) -> int | None:
        """How far below the watermark an event can still matter; None for a historical source."""
        source, views = self._paths[topic].source, self._paths[topic].states.views
        if source.historical:
            return None
        return source.lateness_ms + source.max_ahead_ms + max((view.longest_window_ms + view.longest_pane_ms for view in views), default=0)

    def start(self, partition: TopicPartition, plan: Plan) -> None:
        """Begin with a partition whose state stands as the plan says."""
        self._paths[partition.topic].states.start(partition, plan.starts, plan.watermark_ms)

    def go_live(self, partition: TopicPartition, watermark_ms: int | None) -> None:
        """Scoring begins; the committed watermark, where known, is the watermark."""
        if watermark_ms is not None:
            self._paths[partition.topic].states.set_watermark(partition, watermark_ms)

    def drop(self, partition: TopicPartition) -> None:
        """Forget everything about a partition."""
        self._paths[partition.topic].states.drop(partition)

    def applied(self, partition: TopicPartition, offset: int) -> None:
        """The store holds everything below offset."""
        self._paths[partition.topic].states.applied(partition, offset)

    def replay(self, batch: RecordBatch, timeline: Timeline) -> None:
        """Fold records whose predictions are already committed."""
        self._paths[batch.topic].replay(batch, timeline)

    def score(self, batches: Sequence[RecordBatch], ends: Mapping[TopicPartition, int], timeline: Timeline) -> Work:
        """Fold and score; states are packed here, before any later event can be folded into them."""
        work = Work(outputs=[], positions={}, writes=[], tallies=[])
        for batch in batches:
            outputs, tally = self._paths[batch.topic].score(batch, timeline)
            work.outputs.extend(outputs)
            work.tallies.append(tally)
            for number in np.unique(batch.partitions).tolist():
                name = TopicPartition(batch.topic, number)
                work.positions[name] = Position(offset=ends[name], watermark_ms=self._paths[batch.topic].states.watermark_ms(name))
        timeline.mark("encode")
        for topic in {name.topic for name in ends}:
            work.writes.extend(self._paths[topic].states.pack({name: end for name, end in ends.items() if name.topic == topic}))
        timeline.mark("pack")
        return work
