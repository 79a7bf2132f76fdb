"""One audit of an app: source topics and predictions read side by side, the vectors of a sample of entities compared.

    source log --decoder--> History (events of the sample) --naive twins--> what should have been served --+
                                                                                                           +-- Findings
    predictions that carry features -----------------------------------------------------------------------+

The kernel takes no part in it, nor does the state in the store. What is shared with the worker is the decoder. Both sides are read as
streams, and a partition that is far ahead of the other side waits, so memory is that of the sample.

An audit may be asked again (`more`): it goes on where it stood.

Limits: predictions of other definitions (another fingerprint), and of events whose windows reach below the log's beginning, are counted
and not compared. Whether every event has its prediction is checked by `verify`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from headrace.audit.diagnosis import Cases, Diagnosis
from headrace.audit.findings import MOST_SHOWN, Difference, Findings, PipelineFindings
from headrace.audit.history import History, Life, Served, in_sample, same, told, vector
from headrace.audit.wanted import Wanted, wanted_before, wanted_of
from headrace.consume.record_reader import RecordFeed
from headrace.crashes import rows_at
from headrace.decode.decoder import Decoder
from headrace.definition import App, Pipeline
from headrace.errors import DefinitionError
from headrace.publish.records import decode_prediction
from headrace.source import Source
from headrace.types import RecordBatch, TopicPartition
from headrace.verify.compare import is_of_these_definitions
from headrace.verify.ledger import one
from headrace.verify.scope import Scope, facts_of, scope_of
from headrace.verify.subject import Subject

APART = 4_000
"""So many events, or predictions, of the sample may wait for the other side, of one partition."""

Place = tuple[int, int]
"""Partition and offset of a source record."""


class Progress(NamedTuple):
    """How far an audit is: records of the sources, events and predictions that wait for one another, wrong vectors."""

    events: int
    of: int
    waiting: int
    wrong: int


class _Met(NamedTuple):
    """An event of the sample, where it stands in its entity's life."""

    life: Life
    offset: int


@dataclass(slots=True, kw_only=True)
class _Join:
    """Events and predictions of one pipeline that wait for one another."""

    pipeline: Pipeline
    wanted: list[Wanted]
    findings: PipelineFindings
    waiting: dict[Place, _Met] = field(default_factory=dict)
    early: dict[Place, tuple[Served | None, int]] = field(default_factory=dict)
    """What was served (None: nothing to compare), and the partition it was read from."""
    waiting_of: Counter[int] = field(default_factory=Counter)
    early_of: Counter[int] = field(default_factory=Counter)
    cases: Cases = field(default_factory=Cases)
    before: tuple[int, int] = (0, 0)
    """Vectors and wrong ones when the last round ended."""
    shown: Counter[str] = field(default_factory=Counter)


class Audit:
    """Audits an app. `told` hears how far it is, after every batch."""

    def __init__(self, app: App, subject: Subject, *, share: float, told: Callable[[Progress], None] = lambda _: None) -> None:
        """Raises `DefinitionError` where no pipeline publishes its features."""
        self._app, self._subject, self._share, self._told = app, subject, share, told
        self.findings = Findings(share=share)
        self._joins: dict[str, _Join] = {}
        for pipeline in app.pipelines:
            if pipeline.publish_features:
                found = self.findings.pipelines[pipeline.name] = PipelineFindings()
                self._joins[pipeline.predictions] = _Join(pipeline=pipeline, wanted=wanted_of(pipeline), findings=found)
            else:
                self.findings.not_audited[pipeline.name] = "its predictions carry no features (publish_features=False)"
        if not self._joins:
            raise DefinitionError(f"{app!r}: no pipeline publishes its features, so there is nothing to audit; set publish_features=True")
        sources = {join.pipeline.source.topic: join.pipeline.source for join in self._joins.values()}
        self._decoders = {topic: Decoder(source, fields=self._fields(source)) for topic, source in sources.items()}
        self._histories = {topic: self._history(source) for topic, source in sources.items()}
        self._sources = sources
        self._firsts: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        """How far source and result partitions were read."""

    def _fields(self, source: Source) -> frozenset[str]:
        pipelines = [join.pipeline for join in self._joins.values() if join.pipeline.source.topic == source.topic]
        of_views = (view.fields for pipeline in pipelines for view in pipeline.views)
        own = (form.fields() for pipeline in pipelines for _, form in pipeline.event_features)
        return frozenset().union(*of_views, *own)

    def _history(self, source: Source) -> History:
        pipelines = [join.pipeline for join in self._joins.values() if join.pipeline.source.topic == source.topic]
        # A pane more than the windows see, for the mistake of a window that is a pane too long.
        span_ms = max(view.longest_window_ms + 2 * view.longest_pane_ms for pipeline in pipelines for view in pipeline.views)
        return History(share=self._share, lateness_ms=source.lateness_ms, span_ms=span_ms, pipelines=[one.name for one in pipelines])

    # ------------------------------------------------------------------------------------------------- reading

    def more(self, from_ms: int | None = None, to_ms: int | None = None) -> Findings:
        """Audit what is committed by now and was not audited yet; records with timestamps from `from_ms` up to `to_ms`.

        Raises `TransientError` while a server is away (ask again: it goes on where it stood), `BrokerRefused` where something is missing.
        """
        scope = scope_of(self._app, self._subject, from_ms, to_ms, rest_ms=0)
        starts = {name: start for name, start in scope.starts.items() if name.topic in self._sources}
        self._firsts = {name: scope.firsts[name] for name in starts} | self._firsts
        starts = {name: self._positions.get(name, start) for name, start in starts.items()}
        ends = {name: max(scope.ends[name], starts[name]) for name in starts}
        begins, until = scope.results([*self._joins])
        begins = {name: self._positions.get(name, begin) for name, begin in begins.items()}
        until = {name: max(end, begins[name]) for name, end in until.items()}
        readers = [self._subject.reader() for _ in range(2)]
        try:
            source, found = readers[0].feed(starts, ends), readers[1].feed(begins, until)
            todo = sum(ends[name] - start for name, start in starts.items())
            done = 0
            while source.left or found.left:
                self._hold(source, found)
                for batch in source.take() if source.left else ():
                    self._take(batch, scope)
                    done += len(batch)
                for batch in found.take() if found.left else ():
                    self._meet(batch)
                waiting = sum(len(join.waiting) + len(join.early) for join in self._joins.values())
                wrong = sum(join.findings.wrong for join in self._joins.values())
                self._told(Progress(events=done, of=todo, waiting=waiting, wrong=wrong))
        finally:
            for reader in readers:
                reader.close()
        for join in self._joins.values():
            self._without_source(join, ends)
        self._explain()
        for history in self._histories.values():
            history.sweep()
        return self.findings

    def _hold(self, source: RecordFeed, found: RecordFeed) -> None:
        """Let those wait that are far ahead of the other side; nobody, where that would be everybody who has something left."""
        ahead, early = set(), set()
        for topic, join in self._joins.items():
            ahead |= {TopicPartition(join.pipeline.source.topic, number) for number, count in join.waiting_of.items() if count > APART}
            early |= {TopicPartition(topic, number) for number, count in join.early_of.items() if count > APART}
        stuck = source.left <= ahead and found.left <= early
        source.hold(frozenset() if stuck or not found.left else ahead)
        found.hold(frozenset() if stuck or not source.left else early)

    def _read(self, batch: RecordBatch) -> None:
        for number in np.unique(batch.partitions).tolist():
            self._positions[TopicPartition(batch.topic, number)] = int(batch.offsets[batch.partitions == number][-1]) + 1

    # ------------------------------------------------------------------------------------------------- joining

    def _take(self, batch: RecordBatch, scope: Scope) -> None:
        """Records of a source: what was condemned is left out, what is refused as well."""
        self._read(batch)
        self.findings.events += len(batch)
        kept = np.flatnonzero(~rows_at(batch, scope.left_out))
        events = self._decoders[batch.topic].decode(batch if len(kept) == len(batch) else batch.select(kept)).events
        joins = [join for join in self._joins.values() if join.pipeline.source.topic == batch.topic]
        for life, place in self._histories[batch.topic].take(events):
            occurrence = life.occurrences[place]
            self.findings.sampled += 1
            where = (occurrence.partition, occurrence.offset)
            for join in joins:
                join.cases.follow(life, occurrence)
                if occurrence.offset < self._firsts[TopicPartition(batch.topic, occurrence.partition)]:
                    life.settled[join.pipeline.name] = place + 1
                    continue
                served = join.early.pop(where, None)
                if served is None:
                    join.waiting[where] = _Met(life, occurrence.offset)
                    join.waiting_of[occurrence.partition] += 1
                else:
                    join.early_of[served[1]] -= 1
                    self._compare(join, _Met(life, occurrence.offset), served[0])

    def _meet(self, batch: RecordBatch) -> None:
        """Predictions: those of the sample are compared, or wait for their event."""
        self._read(batch)
        join = self._joins[batch.topic]
        prefix = f"{join.pipeline.source.topic}-"
        chosen = {key: key is not None and in_sample(key.decode(errors="replace"), self._share) for key in set(batch.keys)}
        for row, key in enumerate(batch.keys):
            if not chosen[key]:
                continue
            record = one(batch, row)
            try:
                prediction = decode_prediction(record.value or b"")
                partition, offset, _ = prediction.id.removeprefix(prefix).split("-", 2)
                where = (int(partition), int(offset))
            except ValueError:
                join.findings.not_compared["what is no prediction of this pipeline"] += 1
                continue
            if where[1] < self._firsts.get(TopicPartition(join.pipeline.source.topic, where[0]), 0):
                continue
            served: Served | None = prediction.features if isinstance(prediction.features, dict) else None
            if not is_of_these_definitions(record, join.pipeline.fingerprint):
                join.findings.not_compared["predictions of other definitions"] += 1
                served = None
            elif served is None:
                join.findings.not_compared["predictions without features"] += 1
            met = join.waiting.pop(where, None)
            if met is None:
                join.early[where] = (served, record.partition)
                join.early_of[record.partition] += 1
            else:
                join.waiting_of[where[0]] -= 1
                self._compare(join, met, served)
                self._histories[join.pipeline.source.topic].forget(met.life)

    def _without_source(self, join: _Join, ends: Mapping[TopicPartition, int]) -> None:
        """Predictions below the end whose event never came; those above it belong to later events."""
        topic = join.pipeline.source.topic
        for where in [where for where in join.early if where[1] < ends.get(TopicPartition(topic, where[0]), 0)]:
            _, number = join.early.pop(where)
            join.early_of[number] -= 1
            join.findings.not_compared["predictions without their event, or one more for it"] += 1

    # ------------------------------------------------------------------------------------------------- comparing

    def _compare(self, join: _Join, met: _Met, served: Served | None) -> None:
        """Compare one vector, if there is one; events of the entity before it that still wait were not scored."""
        name, life = join.pipeline.name, met.life
        place = next(number for number in range(len(life.occurrences) - 1, -1, -1) if life.occurrences[number].offset == met.offset)
        for earlier in life.occurrences[life.settled[name] : place]:
            if join.waiting.pop((earlier.partition, earlier.offset), None) is not None:
                join.waiting_of[earlier.partition] -= 1
                join.findings.not_compared["events without a prediction"] += 1
        life.settled[name] = max(place + 1, life.settled[name])
        if served is None:
            return
        occurrence = life.occurrences[place]
        occurrence.served[name] = served
        answers = vector(join.wanted, told(life.occurrences, place))
        join.findings.vectors += 1
        wrong = [one.name for one in join.wanted if not same(served.get(one.name), answers[one.name])]
        join.findings.unjudged.update(one.name for one in join.wanted if math.isinf(answers[one.name].off))
        if not wrong:
            return
        join.findings.wrong += 1
        join.findings.mismatches.update(wrong)
        join.cases.add(life, place, wrong)
        for feature in wrong:
            join.shown[feature] += 1
            if join.shown[feature] <= MOST_SHOWN:
                answer = answers[feature]
                self.findings.differences.append(
                    Difference(
                        pipeline=name,
                        feature=feature,
                        topic=join.pipeline.source.topic,
                        partition=occurrence.partition,
                        offset=occurrence.offset,
                        entity=life.entity,
                        expected=None if math.isnan(answer.value) else answer.value,
                        off=answer.off,
                        served=served.get(feature),
                    )
                )

    def _explain(self) -> None:
        """Name the mistakes that give what was served; what was is forgotten after a round in which nothing is wrong any more."""
        for join in self._joins.values():
            found = join.findings
            vectors, wrong = (now - then for now, then in zip((found.vectors, found.wrong), join.before, strict=True))
            join.before = (found.vectors, found.wrong)
            if vectors and not wrong:
                join.cases, found.explanations = Cases(), []
            if wrong:
                pipeline = join.pipeline
                earlier = wanted_before(facts_of(self._app, self._subject), pipeline.views)
                cases = list(join.cases.cases.values())
                found.explanations = Diagnosis(pipeline.source, pipeline.name, join.wanted, earlier, cases).explanations()
