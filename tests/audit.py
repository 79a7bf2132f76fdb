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
from itertools import islice, repeat
from math import isnan

import numpy as np

from headrace import hop_record
from headrace.decode.hop_decoder import HopDecoder
from headrace.definition import App, Pipeline
from headrace.features.looked_up import places_of
from headrace.features.reader import StateReader
from headrace.features.resident import ResidentStates
from headrace.features.same import same_kept
from headrace.features.view import FeatureView
from headrace.partitioner import partition_of
from headrace.paths import decoder_of
from headrace.predict.scores import Model
from headrace.source import Hop
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
    order: dict[Place, tuple[int, int]] = field(default_factory=dict)
    """Where each record was read last: in its source, or in the last hop."""
    taken: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    """By topic that is read, the partitions and offsets of all its events."""


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
        self.problems: list[str] = []
        self.came: dict[str, set[tuple[int, int]]] = {}
        """By hop, the places in what feeds it of the records that came."""
        self.logs: dict[TopicPartition, list[Record]] = {}
        """What was folded, for look-ups."""
        self.scored: dict[Place, tuple[int, dict[str, str | None]]] = {}
        """Of each event that looks something up its time, and whom it asks about, by view."""
        self._read: dict[tuple[TopicPartition, str, int], tuple[dict[bytes, bytes], int]] = {}

    def fold(self, partition: TopicPartition, records: Iterable[Record], *, portion: int = 1) -> None:
        """Fold a partition of a source or hop up to and with its last record: one at a time, or in portions, which is quicker and changes
        no bit. What feeds a hop must be folded before it.
        """
        reads = next(one for one in self.app.inputs if one.topic == partition.topic)
        views = self.app.views_of(reads)
        decoder = decoder_of(self.app, reads)
        states = self._states(partition)
        records = self.logs[partition] = list(records)
        pipelines = self.app.pipelines_of(reads)
        names = [f"{view.name}.{feature}" for view in views for feature in view.feature_names]
        names += [name for pipeline in pipelines for name, _ in pipeline.event_features]
        own = [pair for pipeline in pipelines for pair in pipeline.event_features]
        end = 0
        out = frozenset(self.left_out.get(partition, ()))
        for batch in map(batch_of, _portions(records, portion)):
            sent = decoder.sent(batch)[0] if isinstance(decoder, HopDecoder) else batch
            if isinstance(reads, Hop):
                self._look_at_what_came(reads, sent, batch)
            places = list(zip(repeat(sent.topic), sent.partitions.tolist(), sent.offsets.tolist(), strict=False))
            end = int(batch.offsets[-1]) + 1
            self.expected.order |= dict(zip(places, zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True), strict=True))
            kept = np.flatnonzero(~np.isin(batch.offsets, list(out)))
            self.expected.refused |= {places[row]: "CRASH_LOOP" for row in set(range(len(batch))) - set(kept.tolist())}
            decoded = decoder.decode(batch.select(kept))
            self.expected.refused |= {places[kept[letter.row]]: letter.reason.value for letter in decoded.refused}
            events = decoded.events
            columns = [states.fold(events).values, *(expression.evaluate(events.columns).reshape(-1, 1) for _, expression in own)]
            for row, vector in zip(events.rows.tolist(), np.hstack(columns).tolist(), strict=True):
                place = places[kept[row]]
                features = {name: None if isnan(value) else value for name, value in zip(names, vector, strict=True)}
                self.expected.features.setdefault(place, {}).update(features)
                self.expected.taken.setdefault(reads.topic, set()).add((batch.partitions[kept[row]], batch.offsets[kept[row]]))
            for view in (view for pipeline in pipelines if pipeline.look_up is not None for view in pipeline.look_up.views):
                asked = zip(events.rows.tolist(), events.event_times_ms.tolist(), events.columns[view.entity].tolist(), strict=True)
                for row, time_ms, entity in asked:
                    self.scored.setdefault(places[kept[row]], (time_ms, {}))[1][view.name] = entity
        self.expected.watermarks[partition] = states.watermark_ms(partition)
        for one in states.kept:
            self.expected.states[partition, one.fp] = {}
        for write in states.pack({partition: end}):
            self._keep(write)

    def _states(self, partition: TopicPartition) -> ResidentStates:
        """Nothing of a partition yet."""
        reads = next(one for one in self.app.inputs if one.topic == partition.topic)
        views = self.app.views_of(reads)
        states = ResidentStates(
            views=views,
            retained=self.app.retained_of(reads),
            read=lambda _, keys: {view.fp: [None] * len(keys) for view in self.app.kept_of(reads)},
            capacity=10_000_000,
            lateness_ms=reads.lateness_ms,
        )
        states.start(partition, {view.fp: 0 for view in states.kept}, NO_WATERMARK_MS)
        return states

    def looked_up(self, place: Place, record: Record, pipeline: Pipeline, problems: list[str]) -> dict[str, float | None]:
        """The features that an event should have found where its prediction says that it has read; what was not there is empty."""
        told = places_of((header(record, "headrace-looked-up") or "").encode())
        time_ms, asked = self.scored[place]
        found: dict[str, float | None] = {}
        for view in pipeline.look_up.views if pipeline.look_up is not None else ():
            topic, entity = self.app.kept_at(view.name).topic, (asked[view.name] or "").encode()
            states: dict[bytes, bytes] = {}
            watermark_ms = NO_WATERMARK_MS
            if view.name in told:
                number, offset = told[view.name]
                if number != partition_of(entity, len({name for name in self.logs if name.topic == topic})):
                    problems.append(f"look-up: {place} has read {view.name} in partition {number}, where {entity!r} is not")
                states, watermark_ms = self._state_at(TopicPartition(topic, number), view, offset)
            horizon_ms = watermark_ms - view.source.lateness_ms
            values, _ = StateReader(view).vectors_at([states.get(entity)], np.array([time_ms]), np.array([horizon_ms]))
            named = zip(view.feature_names, values[0].tolist(), strict=True)
            found |= {f"{view.name}.{name}": None if isnan(value) else value for name, value in named}
        return found

    def _state_at(self, partition: TopicPartition, view: FeatureView, end: int) -> tuple[dict[bytes, bytes], int]:
        """The states of a view, and the watermark, behind all records of a log below an offset."""
        key = (partition, view.fp, end)
        if key not in self._read:
            reads = next(one for one in self.app.inputs if one.topic == partition.topic)
            states, out = self._states(partition), set(self.left_out.get(partition, ()))
            records = [record for record in self.logs[partition] if record.offset < end and record.offset not in out]
            if records:
                states.fold(decoder_of(self.app, reads).decode(batch_of(records)).events)
            writes = [one for write in states.pack({partition: max(end, 1)}) for one in write.views if one.view == view.fp]
            found = {
                name: chunk.buffer[chunk.bounds[index] : chunk.bounds[index + 1]].tobytes()
                for write in writes
                for chunk in write.chunks
                for index, name in enumerate(chunk.keys)
            }
            self._read[key] = found, int(states.watermark_ms(partition))
        return self._read[key]

    def _look_at_what_came(self, hop: Hop, sent: RecordBatch, batch: RecordBatch) -> None:
        """The features that came with each event are those of the stages before, and it came once."""
        found = hop_record.opened(batch.values)
        rows = np.arange(len(batch))
        came = self.came.setdefault(hop.topic, set())
        for row, vector in zip(rows.tolist(), found.features(rows, batch.values, len(hop.carried)).tolist(), strict=True):
            place = (sent.topic, int(sent.partitions[row]), int(sent.offsets[row]))
            expected = [self.expected.features.get(place, {}).get(name) for name in hop.carried]
            if [None if isnan(value) else value for value in vector] != expected:
                self.problems.append(f"features: {place} came to {hop.topic} with {vector}, expected {expected}")
            feeder = (int(found.heads["feeder"][row]), int(found.heads["feeder_offset"][row]))
            if feeder in came:
                self.problems.append(f"duplicate: {place} came to {hop.topic} twice")
            came.add(feeder)

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
        found = list(self.problems)
        for hop in self.app.hops:
            taken, came = self.expected.taken.get(hop.feeds.topic, set()), self.came.get(hop.topic, set())
            found += [f"lost: {place} of {hop.feeds.topic} did not come to {hop.topic}" for place in taken - came]
            found += [f"made up: {place} of {hop.feeds.topic} came to {hop.topic}" for place in came - taken]
        refused = [place_of(record) for record in dead_letters]
        for record, place in zip(dead_letters, refused, strict=True):
            reason = header(record, "headrace-reason")
            if reason != "MODEL_OUTPUT" and self.expected.refused.get(place) != reason:
                found.append(f"dead letter: {place} was refused for {reason}, expected {self.expected.refused.get(place, 'a prediction')}")
        whole = {place for record, place in zip(dead_letters, refused, strict=True) if header(record, "headrace-model") is None}
        for pipeline in self.app.pipelines:
            results = [place for place in whole if place[0] == pipeline.source.topic]
            results += [place for place in refused if place not in whole and place[0] == pipeline.source.topic]
            results += self._compare_vectors(pipeline.name, predictions[pipeline.name], found)
            seen: dict[Place, int] = {}
            for place in results:
                seen[place] = seen.get(place, 0) + 1
            places = [place for place in (*self.expected.features, *self.expected.refused) if place[0] == pipeline.source.topic]
            found += [f"duplicate: {place} has {times} results" for place, times in seen.items() if times > 1]
            found += [f"lost: {place} has no result" for place in places if place not in seen]
            found += [f"made up: {place} is not in the log" for place in seen.keys() - set(places)]
        scored = {pipeline.source.topic for pipeline in self.app.pipelines}
        found += [f"lost: {place} has no dead letter" for place in self.expected.refused.keys() - whole if place[0] not in scored]
        if len(refused) != len(set(refused)):
            found.append("duplicate: a dead letter came twice")
        return found

    def _compare_vectors(self, pipeline: str, records: Sequence[Record], found: list[str]) -> list[Place]:
        results: list[Place] = []
        scores: list[float] = []
        last: dict[str, tuple[int, int]] = {}
        declared = next(one for one in self.app.pipelines if one.name == pipeline)
        names = declared.feature_names
        for record in records:
            value = json.loads(record.value or b"")
            topic, partition, offset, _ = value["id"].rsplit("-", 3)
            place = (topic, int(partition), int(offset))
            results.append(place)
            scores.append(value["score"])
            expected = self.expected.features.get(place, {})
            if declared.look_up is not None and place in self.scored:
                expected = expected | self.looked_up(place, record, declared, found)
            if value["features"] != {name: expected.get(name) for name in names}:
                wrong = [name for name in names if value["features"].get(name) != expected.get(name)]
                found.append(f"features: {place}: {[(name, value['features'].get(name), expected.get(name)) for name in wrong]}")
            step = (record.partition, self.expected.order.get(place, (0, place[2]))[1])
            if last.get(value["entity"], (record.partition, -1)) > step:
                found.append(f"order: {place} after {last[value['entity']]}")
            last[value["entity"]] = step
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
        source = next(reads for reads in self.app.inputs if reads.topic == partition.topic)
        view = next(view for view in self.app.kept_of(source) if view.fp == view_fp)
        expected = self.expected.states[partition, view_fp]
        watermark_ms = self.expected.watermarks[partition]
        found = (
            []
            if (NO_WATERMARK_MS if head.watermark_ms is None else head.watermark_ms) == watermark_ms
            else [f"diverged: watermark of {partition} is {head.watermark_ms}, expected {watermark_ms}"]
        )
        as_of_ms = watermark_ms - source.lateness_ms
        return found + [
            f"diverged: {view.name} of {key.decode()} in {partition}"
            for key in expected.keys() | stored.keys()
            if not same_kept(view, stored.get(key), expected.get(key), as_of_ms)
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
