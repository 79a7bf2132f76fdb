"""What the promise says must be in topics and store, computed from the source log alone, one record at a time, and compared with what is there.

check         what it finds
duplicate     a source offset with two results            lost        an offset below the committed one without any
features      a vector that the sequential fold does not give, in any bit
order         predictions of one key not in source-offset order
dead letter   a refusal where there should be a prediction, the other way round, or the wrong reason
diverged      state in the store that is not the fold's, or another watermark
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.decode.decoder import Decoder
from headrace.definition import App
from headrace.features.resident import ResidentStates
from headrace.features.state import same_state
from headrace.types import NO_WATERMARK_MS, PartitionWrite, Record, RecordBatch, TopicPartition, ViewHead


def one_record(record: Record) -> RecordBatch:
    """A batch of one."""
    return RecordBatch(
        topic=record.topic,
        partitions=np.array([record.partition], np.int32),
        offsets=np.array([record.offset], np.int64),
        timestamps_ms=np.array([record.timestamp_ms], np.int64),
        keys=[record.key],
        values=[record.value],
        headers=[record.headers or None],
    )


@dataclass
class Expected:
    """What each source offset leads to: features by name (None: absent), or the reason of a dead letter."""

    features: dict[tuple[str, int, int], dict[str, float | None]] = field(default_factory=dict)
    refused: dict[tuple[str, int, int], str] = field(default_factory=dict)
    states: dict[tuple[TopicPartition, str], dict[bytes, bytes]] = field(default_factory=dict)
    watermarks: dict[TopicPartition, int] = field(default_factory=dict)


class Audit:
    """The sequential fold of an app's source logs. Limit: every pipeline scores with whatever model; scores are not compared, features are."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.expected = Expected()

    def fold(self, partition: TopicPartition, records: Iterable[Record]) -> None:
        """Fold a source partition up to and with its last record."""
        source = next(source for source in self.app.sources if source.topic == partition.topic)
        views = self.app.views_of(source)
        decoder = Decoder(source)
        states = ResidentStates(views=views, read=lambda _, keys: {view.fp: [None] * len(keys) for view in views}, capacity=10_000_000)
        states.start(partition, {view.fp: 0 for view in views}, NO_WATERMARK_MS)
        pipelines = self.app.pipelines_of(source)
        names = [f"{view.name}.{feature}" for view in views for feature in view.feature_names]
        end = 0
        for record in records:
            decoded = decoder.decode(one_record(record))
            place = (record.topic, record.partition, record.offset)
            end = record.offset + 1
            if decoded.refused:
                self.expected.refused[place] = decoded.refused[0].reason.value
                continue
            vector = dict(zip(names, states.fold(decoded.events).values[0].tolist(), strict=True))
            for pipeline in pipelines:
                vector |= {name: float(expression.evaluate(decoded.events.columns)[0]) for name, expression in pipeline.event_features}
            self.expected.features[place] = {name: None if np.isnan(value) else value for name, value in vector.items()}
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
        """Everything wrong with the results of a `read_committed` reader; `predictions` by pipeline name, each partition in offset order."""
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
            seen: dict[tuple[str, int, int], int] = {}
            for place in results:
                seen[place] = seen.get(place, 0) + 1
            places = [place for place in (*self.expected.features, *self.expected.refused) if place[0] == pipeline.source.topic]
            found += [f"duplicate: {place} has {times} results" for place, times in seen.items() if times > 1]
            found += [f"lost: {place} has no result" for place in places if place not in seen]
            found += [f"made up: {place} is not in the log" for place in seen.keys() - set(places)]
        if len(refused) != len(set(refused)):
            found.append("duplicate: a dead letter came twice")
        return found

    def _compare_vectors(self, pipeline: str, records: Sequence[Record], found: list[str]) -> list[tuple[str, int, int]]:
        results: list[tuple[str, int, int]] = []
        last: dict[str, tuple[int, int]] = {}
        names = next(one.feature_names for one in self.app.pipelines if one.name == pipeline)
        for record in records:
            value = json.loads(record.value or b"")
            topic, partition, offset, _ = value["id"].rsplit("-", 3)
            place = (topic, int(partition), int(offset))
            results.append(place)
            expected = self.expected.features.get(place, {})
            if value["features"] != {name: expected.get(name) for name in names}:
                wrong = [name for name in names if value["features"].get(name) != expected.get(name)]
                found.append(f"features: {place}: {[(name, value['features'].get(name), expected.get(name)) for name in wrong]}")
            if last.get(value["entity"], (record.partition, -1)) > (record.partition, place[2]):
                found.append(f"order: {place} after {last[value['entity']]}")
            last[value["entity"]] = (record.partition, place[2])
        return results

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
        for key in expected.keys() | stored.keys():
            if not same_state(view, stored.get(key), expected.get(key), watermark_ms - source.lateness_ms):
                found.append(f"diverged: {view.name} of {key.decode()} in {partition}")
        return found


def header(record: Record, name: str) -> str | None:
    """One header as text."""
    return next((None if value is None else value.decode() for key, value in record.headers if key == name), None)


def place_of(dead_letter: Record) -> tuple[str, int, int]:
    """The source coordinates of a dead letter."""
    return (
        header(dead_letter, "__streams.errors.topic") or "",
        int(header(dead_letter, "__streams.errors.partition") or -1),
        int(header(dead_letter, "__streams.errors.offset") or -1),
    )
