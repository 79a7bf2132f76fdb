"""The audit of what pipelines look up: naive twins of the state that was read, where each prediction says that it read.

    what is scored --> whom each event of the sample asks about, as of when
    predictions    --> at which offset of the other log each has read, and what was served
    the other log  --> the lives of the sample; at each of those offsets the twins tell what the features were

Limits: what had to be left out of a state that was ahead of its event (`rewind`) is counted and not compared here, `verify` does that bit
for bit; the other log is read no further than predictions have read it, so what reads further back than that in a later round is counted,
too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from headrace.audit.findings import MOST_SHOWN, Difference, PipelineFindings
from headrace.audit.history import History, Occurrence, Served, given, in_sample, same, told_of, vector
from headrace.audit.twin import Given
from headrace.audit.wanted import wanted_at
from headrace.consume.record_reader import RecordReader
from headrace.crashes import rows_at
from headrace.definition import App, Stage
from headrace.features.looked_up import keys_of, places_of
from headrace.features.view import FeatureView
from headrace.paths import decoder_of
from headrace.publish.records import LOOKED_UP, decode_prediction
from headrace.types import NO_WATERMARK_MS, Record, RecordBatch, TopicPartition
from headrace.verify.compare import is_of_these_definitions, text_of
from headrace.verify.look_ups import up_to_each
from headrace.verify.scope import Scope, whole_from
from headrace.verify.subject import Subject

Place = tuple[int, int]
"""Partition and offset of a source record."""


class _Asked(NamedTuple):
    """Whom an event asks about, as of when."""

    entity: str
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What a prediction has read: where, and what came of it."""

    place: Place
    asked: _Asked
    partition: int
    offset: int
    served: Served


class LookUpAudit:
    """Audits one view that one pipeline looks up; `more` goes on where it stood."""

    def __init__(self, app: App, subject: Subject, stage: Stage, view: FeatureView, *, share: float) -> None:
        """`stage` is the one that scores."""
        self.name = f"{stage.pipeline.name} looking up {view.name}"
        self._app, self._subject, self._stage, self._view, self._share = app, subject, stage, view, share
        self._wanted = wanted_at([view], None)
        self.findings = PipelineFindings(features=[one.name for one in self._wanted])
        self.differences: list[Difference] = []
        self._kept_at = app.kept_at(view.name)
        self._asking = decoder_of(app, stage.reads, fields={view.entity})
        self._kept = decoder_of(app, self._kept_at, fields=view.fields)
        span_ms = view.longest_window_ms + 2 * view.longest_pane_ms
        self._history = History(share=share, lateness_ms=view.source.lateness_ms, span_ms=span_ms, pipelines=[self.name])
        self._asked: dict[Place, _Asked] = {}
        self._waited: set[Place] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._shown: Counter[str] = Counter()

    def more(self, scope: Scope) -> None:
        """Audit what is in this scope and was not audited yet. Raises `TransientError` while a server is away."""
        with closing(self._subject.reader()) as reader:
            mine = scope.partitions[self._stage.reads.topic]
            for batch in self._unread(reader, {name: scope.starts[name] for name in mine}, {name: scope.ends[name] for name in mine}):
                self._ask(batch, scope)
            reads: list[_Read] = []
            for batch in self._unread(reader, *scope.results([self._stage.pipeline.predictions])):
                reads += filter(None, map(self._read, batch.records()))
            for number in sorted({one.partition for one in reads}):
                due = sorted((one for one in reads if one.partition == number), key=lambda one: one.offset)
                self._follow(reader, TopicPartition(self._kept_at.topic, number), due, scope)
        for place in self._waited & self._asked.keys():
            del self._asked[place]
            self.findings.not_compared["events without a prediction"] += 1
        self._waited = set(self._asked)

    def _unread(
        self, reader: RecordReader, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> Iterator[RecordBatch]:
        begins = {name: self._positions.get(name, start) for name, start in starts.items()}
        for batch in reader.batches(begins, {name: max(end, begins[name]) for name, end in ends.items()}):
            yield batch
            for number in np.unique(batch.partitions).tolist():
                name = TopicPartition(batch.topic, number)
                self._positions[name] = int(batch.offsets[batch.partitions == number][-1]) + 1

    def _ask(self, batch: RecordBatch, scope: Scope) -> None:
        """Remember the events that ask about somebody in the sample."""
        kept = np.flatnonzero(~rows_at(batch, scope.left_out))
        events = self._asking.decode(batch.select(kept)).events
        sent = events.sent
        places = zip(sent.partitions[events.rows].tolist(), sent.offsets[events.rows].tolist(), strict=True)
        entities = events.columns[self._view.entity].tolist()
        usable = keys_of(events.columns[self._view.entity])
        for place, entity, key, time_ms in zip(places, entities, usable, events.event_times_ms.tolist(), strict=True):
            if key is not None and in_sample(entity, self._share):
                self._asked[place] = _Asked(entity, time_ms)

    def _read(self, record: Record) -> _Read | None:
        """What a prediction of one of these events says."""
        try:
            prediction = decode_prediction(record.value or b"")
            partition, offset, _ = prediction.id.removeprefix(f"{self._stage.pipeline.source.topic}-").split("-", 2)
            place = (int(partition), int(offset))
            seen = places_of((text_of(record.headers, LOOKED_UP) or "").encode())
        except ValueError:
            self.findings.not_compared["what is no prediction of this pipeline"] += 1
            return None
        asked = self._asked.pop(place, None)
        if asked is None:
            return None
        ahead = prediction.ahead if isinstance(prediction.ahead, list) else []
        why = ""
        if not is_of_these_definitions(record, self._stage.pipeline.fingerprint):
            why = "predictions of other definitions"
        elif not isinstance(prediction.features, dict):
            why = "predictions without features"
        elif self._view.name not in seen:
            why = "look-ups before anything was kept"
        elif self._view.name in ahead:
            why = "look-ups of a state that was ahead of the event"
        elif isinstance(prediction.features, dict):
            number, at = seen[self._view.name]
            return _Read(place=place, asked=asked, partition=number, offset=at, served=prediction.features)
        self.findings.not_compared[why] += 1
        return None

    def _follow(self, reader: RecordReader, name: TopicPartition, due: list[_Read], scope: Scope) -> None:
        """Read the other log up to each offset that was read, and compare there."""
        self._history.heed(name.topic, scope.erased)
        log = reader.log_range(name)
        whole = whole_from(reader, self._app, self._kept_at, name, scope.committed[name].offset) if log.start else 0
        position = self._positions.setdefault(name, log.start)
        by_offset = {
            offset: list(some)
            for offset, some in groupby((one for one in due if one.offset >= max(position, whole)), key=lambda one: one.offset)
        }
        further_back = len(due) - sum(map(len, by_offset.values()))
        if further_back:
            self.findings.not_compared["look-ups further back than the log was read, or reaches"] += further_back
        for come in up_to_each(reader, name, position, list(by_offset)):
            if isinstance(come, RecordBatch):
                kept = np.flatnonzero(~rows_at(come, scope.left_out))
                for life, place in self._history.take(self._kept.decode(come.select(kept)).events):
                    life.settled[self.name] = place + 1
                continue
            self._positions[name] = come
            for one in by_offset[come]:
                self._compare(one)

    def _compare(self, read: _Read) -> None:
        life = self._history.lives.get((read.partition, read.asked.entity))
        erased_at = self._history.erased_at(read.partition, read.asked.entity, read.offset)
        before = [] if life is None else [one for one in life.occurrences if one.read_at[1] >= erased_at]
        asks = Occurrence(
            partition=read.place[0],
            offset=read.place[1],
            read_at=(read.partition, read.offset),
            time_ms=read.asked.time_ms,
            horizon_ms=NO_WATERMARK_MS,
            late=False,
            row={},
        )
        answers = vector(
            self._wanted,
            told_of(before, asks, takes=False),
            give=lambda wanted, event: Given(event.time_ms, None) if event is asks else given(wanted, event),
        )
        wrong = [one.name for one in self._wanted if not same(read.served.get(one.name), answers[one.name])]
        self.findings.vectors += 1
        self.findings.unjudged.update(one.name for one in self._wanted if math.isinf(answers[one.name].off))
        self.findings.wrong += bool(wrong)
        self.findings.mismatches.update(wrong)
        for feature in wrong:
            self._shown[feature] += 1
            if self._shown[feature] <= MOST_SHOWN:
                answer = answers[feature]
                self.differences.append(
                    Difference(
                        pipeline=self.name,
                        feature=feature,
                        topic=self._stage.pipeline.source.topic,
                        partition=read.place[0],
                        offset=read.place[1],
                        entity=read.asked.entity,
                        expected=None if math.isnan(answer.value) else answer.value,
                        off=answer.off,
                        served=read.served.get(feature),
                    )
                )


def of_stage(app: App, subject: Subject, stage: Stage, share: float) -> list[LookUpAudit]:
    """An audit for each view that a stage looks up."""
    if not stage.scores or stage.pipeline.look_up is None:
        return []
    return [LookUpAudit(app, subject, stage, view, share=share) for view in stage.pipeline.look_up.views]
