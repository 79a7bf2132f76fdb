"""What the promise says must be in topics and store, computed from the source log alone and compared with what is there.

check         what it finds
duplicate     a source offset with two results            lost        an offset below the committed one without any
features      a vector that the sequential fold does not give, in any bit
score         a score that the model does not give for that vector (1e-6)
order         predictions of one key not in source-offset order
dead letter   a refusal where there should be a prediction, the other way round, or the wrong reason
diverged      state in the store that is not the fold's, or another watermark
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isnan

import numpy as np

from headrace.decode.decoder import Decoder
from headrace.definition import App
from headrace.features.resident import ResidentStates
from headrace.features.state import same_state
from headrace.predict.scores import Model
from headrace.types import NO_WATERMARK_MS, PartitionWrite, Record, RecordBatch, TopicPartition, ViewHead

Place = tuple[str, int, int]
"""Topic, partition and offset of a source record."""

SCORE_TOLERANCE = 1e-6
"""Kernels of the runtime differ in the last bits between batches of one and of many."""


def batch_of(records: Sequence[Record]) -> RecordBatch:
    """Records of one topic as a batch."""
    return RecordBatch(
        topic=records[0].topic,
        partitions=np.array([record.partition for record in records], np.int32),
        offsets=np.array([record.offset for record in records], np.int64),
        timestamps_ms=np.array([record.timestamp_ms for record in records], np.int64),
        keys=[record.key for record in records],
        values=[record.value for record in records],
        headers=[record.headers or None for record in records],
    )


def _portions(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    rest = iter(records)
    while portion := list(islice(rest, size)):
        yield portion


@dataclass
class Expected:
    """What each source offset leads to: features by name (None: absent), or the reason of a dead letter."""

    features: dict[Place, dict[str, float | None]] = field(default_factory=dict)
    refused: dict[Place, str] = field(default_factory=dict)
    states: dict[tuple[TopicPartition, str], dict[bytes, bytes]] = field(default_factory=dict)
    watermarks: dict[TopicPartition, int] = field(default_factory=dict)


class Audit:
    """The sequential fold of an app's source logs. `models`, by pipeline name, are those whose scores are compared; features always are."""

    def __init__(
        self, app: App, models: Mapping[str, Model] | None = None, left_out: Mapping[TopicPartition, Sequence[int]] | None = None
    ) -> None:
        """`left_out`: the records that were condemned, which no fold takes."""
        self.left_out = left_out or {}
        self.app = app
        self.models = models or {}
        self.expected = Expected()

    def fold(self, partition: TopicPartition, records: Iterable[Record], *, portion: int = 1) -> None:
        """Fold a source partition up to and with its last record: one at a time, or in portions, which is quicker and changes no bit."""
        source = next(source for source in self.app.sources if source.topic == partition.topic)
        views = self.app.views_of(source)
        decoder = Decoder(source)
        states = ResidentStates(views=views, read=lambda _, keys: {view.fp: [None] * len(keys) for view in views}, capacity=10_000_000)
        states.start(partition, {view.fp: 0 for view in views}, NO_WATERMARK_MS)
        pipelines = self.app.pipelines_of(source)
        names = [f"{view.name}.{feature}" for view in views for feature in view.feature_names]
        names += [name for pipeline in pipelines for name, _ in pipeline.event_features]
        own = [pair for pipeline in pipelines for pair in pipeline.event_features]
        end = 0
        out = frozenset(self.left_out.get(partition, ()))
        kept = (record for record in records if record.offset not in out)
        self.expected.refused |= {(partition.topic, partition.partition, offset): "CRASH_LOOP" for offset in out}
        for batch in map(batch_of, _portions(kept, portion)):
            decoded = decoder.decode(batch)
            places = [(partition.topic, partition.partition, offset) for offset in batch.offsets.tolist()]
            end = places[-1][2] + 1
            self.expected.refused |= {places[letter.row]: letter.reason.value for letter in decoded.refused}
            events = decoded.events
            columns = [states.fold(events).values, *(expression.evaluate(events.columns).reshape(-1, 1) for _, expression in own)]
            for row, vector in zip(events.rows.tolist(), np.hstack(columns).tolist(), strict=True):
                self.expected.features[places[row]] = {
                    name: None if isnan(value) else value for name, value in zip(names, vector, strict=True)
                }
        self.expected.watermarks[partition] = states.watermark_ms(partition)
        for view in views:
            self.expected.states[partition, view.fp] = {}
        for write in states.pack({partition: end}):
            self._keep(write)

    def _keep(self, write: PartitionWrite) -> None:
        for view in write.views:
            states = self.expected.states[write.partition, view.view]
            for chunk in view.chunks:
                for index, key in enumerate(chunk.keys):
                    states[key] = chunk.buffer[chunk.bounds[index] : chunk.bounds[index + 1]].tobytes()
            for key in view.deletions:
                states.pop(key, None)

    def compare_results(self, predictions: Mapping[str, Sequence[Record]], dead_letters: Sequence[Record]) -> list[str]:
        """Everything wrong with what a `read_committed` reader sees; `predictions` by pipeline name, each partition in offset order."""
        found: list[str] = []
        refused = [place_of(record) for record in dead_letters]
        for record, place in zip(dead_letters, refused, strict=True):
            reason = header(record, "headrace-reason")
            if reason != "MODEL_OUTPUT" and self.expected.refused.get(place) != reason:
                found.append(f"dead letter: {place} was refused for {reason}, expected {self.expected.refused.get(place, 'a prediction')}")
        whole = {place for record, place in zip(dead_letters, refused, strict=True) if header(record, "headrace-model") is None}
        for pipeline in self.app.pipelines:
            results = list(whole) + [place for record, place in zip(dead_letters, refused, strict=True) if place not in whole]
            results += self._compare_vectors(pipeline.name, predictions[pipeline.name], found)
            seen: dict[Place, int] = {}
            for place in results:
                seen[place] = seen.get(place, 0) + 1
            places = [place for place in (*self.expected.features, *self.expected.refused) if place[0] == pipeline.source.topic]
            found += [f"duplicate: {place} has {times} results" for place, times in seen.items() if times > 1]
            found += [f"lost: {place} has no result" for place in places if place not in seen]
            found += [f"made up: {place} is not in the log" for place in seen.keys() - set(places)]
        if len(refused) != len(set(refused)):
            found.append("duplicate: a dead letter came twice")
        return found

    def _compare_vectors(self, pipeline: str, records: Sequence[Record], found: list[str]) -> list[Place]:
        results: list[Place] = []
        scores: list[float] = []
        last: dict[str, tuple[int, int]] = {}
        names = next(one.feature_names for one in self.app.pipelines if one.name == pipeline)
        for record in records:
            value = json.loads(record.value or b"")
            topic, partition, offset, _ = value["id"].rsplit("-", 3)
            place = (topic, int(partition), int(offset))
            results.append(place)
            scores.append(value["score"])
            expected = self.expected.features.get(place, {})
            if value["features"] != {name: expected.get(name) for name in names}:
                wrong = [name for name in names if value["features"].get(name) != expected.get(name)]
                found.append(f"features: {place}: {[(name, value['features'].get(name), expected.get(name)) for name in wrong]}")
            if last.get(value["entity"], (record.partition, -1)) > (record.partition, place[2]):
                found.append(f"order: {place} after {last[value['entity']]}")
            last[value["entity"]] = (record.partition, place[2])
        if pipeline in self.models:
            self._compare_scores(self.models[pipeline], names, dict(zip(results, scores, strict=True)), found)
        return results

    def _compare_scores(self, model: Model, names: Sequence[str], scores: Mapping[Place, float], found: list[str]) -> None:
        places = [place for place in scores if place in self.expected.features]
        vectors = [[self.expected.features[place][name] for name in names] for place in places]
        again = model.score(np.array(vectors, dtype=np.float64).reshape(len(places), len(names))).scores
        for place, score in zip(places, again.tolist(), strict=True):
            if not abs(scores[place] - score) <= SCORE_TOLERANCE:
                found.append(f"score: {place} was given {scores[place]}, expected {score}")

    def compare_states(self, partition: TopicPartition, view_fp: str, stored: Mapping[bytes, bytes], head: ViewHead) -> list[str]:
        """Everything wrong with one view of a partition in the store."""
        source = next(source for source in self.app.sources if source.topic == partition.topic)
        view = next(view for view in self.app.views_of(source) if view.fp == view_fp)
        expected = self.expected.states[partition, view_fp]
        watermark_ms = self.expected.watermarks[partition]
        found = (
            []
            if head.watermark_ms == watermark_ms
            else [f"diverged: watermark of {partition} is {head.watermark_ms}, expected {watermark_ms}"]
        )
        as_of_ms = watermark_ms - source.lateness_ms
        return found + [
            f"diverged: {view.name} of {key.decode()} in {partition}"
            for key in expected.keys() | stored.keys()
            if not same_state(view, stored.get(key), expected.get(key), as_of_ms)
        ]


def header(record: Record, name: str) -> str | None:
    """One header as text."""
    return next((None if value is None else value.decode() for key, value in record.headers if key == name), None)


def place_of(dead_letter: Record) -> Place:
    """The source coordinates of a dead letter."""
    return (
        header(dead_letter, "__streams.errors.topic") or "",
        int(header(dead_letter, "__streams.errors.partition") or -1),
        int(header(dead_letter, "__streams.errors.offset") or -1),
    )
