"""One audit of an app: source topics and predictions read side by side, the vectors of a sample of entities compared.

    source log --decoder--> History (events of the sample) --naive twins--> what should have been served --+
                                                                                                           +-- Findings
    predictions that carry features -----------------------------------------------------------------------+

The kernel takes no part in it, nor does the state in the store. What is shared with the worker is the decoder. Both sides are read as
streams, and a partition that is far ahead of the other side waits, so memory is that of the sample.

What is looked up in views of other sources is compared behind that (`look_ups.py`).

An audit may be asked again (`more`): it goes on where it stood.

Limits: predictions of other definitions (another fingerprint), and of events whose windows reach below the log's beginning, are counted
and not compared. Whether every event has its prediction is checked by `verify`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from headrace.audit.diagnosis import Cases, Diagnosis
from headrace.audit.findings import MOST_SHOWN, Difference, Findings, PipelineFindings
from headrace.audit.history import History, Life, Occurrence, Served, in_sample, same, told, vector
from headrace.audit.look_ups import LookUpAudit, of_stage
from headrace.audit.wanted import Wanted, wanted_at, wanted_before
from headrace.consume.record_reader import RecordFeed
from headrace.crashes import rows_at
from headrace.definition import App, Pipeline
from headrace.errors import DefinitionError
from headrace.paths import decoder_of
from headrace.publish.records import Prediction, decode_prediction
from headrace.source import Hop, Source
from headrace.types import EventBatch, Record, RecordBatch, TopicPartition
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
    where: Place


@dataclass(slots=True, kw_only=True)
class _Join:
    """Events of one stage of a pipeline and its predictions that wait for one another."""

    pipeline: Pipeline
    name: str
    """Of the pipeline; of a stage that is not its last with the entity behind it."""
    reads: Source
    last: bool
    """Whether predictions are keyed by its entity, so that those of the sample are known by their key."""
    wanted: list[Wanted]
    findings: PipelineFindings
    waiting: dict[Place, _Met] = field(default_factory=dict)
    early: dict[Place, tuple[Served | None, int]] = field(default_factory=dict)
    """What was served (None: nothing to compare), and the partition it was read from."""
    passed: set[Place] = field(default_factory=set)
    """Events of others than the sample whose predictions are still to come: only where those are not known by their key."""
    waited: set[Place] = field(default_factory=set)
    """Events that waited already when the last round ended."""
    waiting_of: Counter[int] = field(default_factory=Counter)
    """By partition of what the stage reads."""
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
        self._joins: list[_Join] = []
        self._look_ups: list[LookUpAudit] = []
        for stage in app.stages:
            pipeline, last = stage.pipeline, stage.scores
            if not pipeline.publish_features:
                self.findings.not_audited[pipeline.name] = "its predictions carry no features (publish_features=False)"
                continue
            self._look_ups += of_stage(app, subject, stage, share)
            if not stage.keeps_only and (stage.views or last):
                name = pipeline.name if last else f"{pipeline.name} by {stage.reads.key}"
                wanted = wanted_at(stage.views, pipeline if last else None)
                found = self.findings.pipelines[name] = PipelineFindings(features=[one.name for one in wanted])
                self._joins.append(_Join(pipeline=pipeline, name=name, reads=stage.reads, last=last, wanted=wanted, findings=found))
        self.findings.pipelines |= {look_ups.name: look_ups.findings for look_ups in self._look_ups}
        if not self._joins:
            raise DefinitionError(f"{app!r}: no pipeline publishes its features, so there is nothing to audit; set publish_features=True")
        sources = {join.reads.topic: join.reads for join in self._joins}
        self._decoders = {topic: decoder_of(app, reads, fields=self._fields(reads)) for topic, reads in sources.items()}
        self._histories = {topic: self._history(reads) for topic, reads in sources.items()}
        self._sources = sources
        self._firsts: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        """How far source and result partitions were read."""

    def _fields(self, reads: Source) -> frozenset[str]:
        of_views = (view.fields for view in self._app.views_of(reads))
        own = (form.fields() for pipeline in self._app.pipelines_of(reads) for _, form in pipeline.event_features)
        return frozenset().union(*of_views, *own)

    def _history(self, reads: Source) -> History:
        joins = [join for join in self._joins if join.reads.topic == reads.topic]
        # A pane more than the windows see, for the mistake of a window that is a pane too long.
        spans = [view.longest_window_ms + 2 * view.longest_pane_ms for view in self._app.views_of(reads)]
        return History(
            share=self._share, lateness_ms=reads.lateness_ms, span_ms=max(spans, default=0), pipelines=[join.name for join in joins]
        )

    # ------------------------------------------------------------------------------------------------- reading

    def more(self, from_ms: int | None = None, to_ms: int | None = None) -> Findings:
        """Audit what is committed by now and was not audited yet; records with timestamps from `from_ms` up to `to_ms`.

        Raises `TransientError` while a server is away (ask again: it goes on where it stood), `BrokerRefused` where something is missing.
        """
        scope = scope_of(self._app, self._subject, from_ms, to_ms, rest_ms=0)
        for topic, history in self._histories.items():
            history.heed(topic, scope.erased)
        starts = {name: start for name, start in scope.starts.items() if name.topic in self._sources}
        self._firsts = {name: scope.firsts[name] for name in starts} | self._firsts
        starts = {name: self._positions.get(name, start) for name, start in starts.items()}
        ends = {name: max(scope.ends[name], starts[name]) for name in starts}
        begins, until = scope.results(list(dict.fromkeys(join.pipeline.predictions for join in self._joins)))
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
                waiting = sum(len(join.waiting) + len(join.early) for join in self._joins)
                wrong = sum(join.findings.wrong for join in self._joins)
                self._told(Progress(events=done, of=todo, waiting=waiting, wrong=wrong))
        finally:
            for reader in readers:
                reader.close()
        for join in self._joins:
            self._without_source(join, scope)
            if not join.last:
                self._give_up_what_waited(join)
        for look_ups in self._look_ups:
            look_ups.more(scope)
            self.findings.differences += look_ups.differences
            look_ups.differences.clear()
        self._explain()
        for history in self._histories.values():
            history.sweep()
        return self.findings

    def _hold(self, source: RecordFeed, found: RecordFeed) -> None:
        """Let those wait that are far ahead of the other side; nobody, where that would be everybody who has something left."""
        ahead, early = set(), set()
        for join in self._joins:
            ahead |= {TopicPartition(join.reads.topic, number) for number, count in join.waiting_of.items() if count > APART}
            early |= {TopicPartition(join.pipeline.predictions, number) for number, count in join.early_of.items() if count > APART}
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
        joins = [join for join in self._joins if join.reads.topic == batch.topic]
        sampled = set()
        for life, place in self._histories[batch.topic].take(events):
            occurrence = life.occurrences[place]
            self.findings.sampled += 1
            where = (occurrence.partition, occurrence.offset)
            sampled.add(where)
            for join in joins:
                join.cases.follow(life, occurrence)
                if occurrence.read_at[1] < self._firsts[TopicPartition(batch.topic, occurrence.read_at[0])]:
                    life.settled[join.name] = place + 1
                    continue
                served = join.early.pop(where, None)
                if served is None:
                    join.waiting[where] = _Met(life, where)
                    join.waiting_of[occurrence.read_at[0]] += 1
                else:
                    join.early_of[served[1]] -= 1
                    self._compare(join, _Met(life, where), served[0])
        for join in joins:
            if not join.last:
                self._pass(join, events, sampled)

    def _pass(self, join: _Join, events: EventBatch, sampled: set[Place]) -> None:
        """Predictions of these events that are not of the sample have nothing to wait for."""
        sent = events.sent
        for where in zip(sent.partitions[events.rows].tolist(), sent.offsets[events.rows].tolist(), strict=True):
            if where in sampled:
                continue
            early = join.early.pop(where, None)
            if early is None:
                join.passed.add(where)
            else:
                join.early_of[early[1]] -= 1

    def _meet(self, batch: RecordBatch) -> None:
        """Predictions: those of the sample are compared, or wait for their event."""
        self._read(batch)
        joins = [join for join in self._joins if join.pipeline.predictions == batch.topic]
        prefix = f"{joins[0].pipeline.source.topic}-"
        chosen = {key: key is not None and in_sample(key.decode(errors="replace"), self._share) for key in set(batch.keys)}
        for row, key in enumerate(batch.keys):
            wanted_by = [join for join in joins if chosen[key] or not join.last]
            if not wanted_by:
                continue
            record = one(batch, row)
            try:
                prediction = decode_prediction(record.value or b"")
                partition, offset, _ = prediction.id.removeprefix(prefix).split("-", 2)
                where = (int(partition), int(offset))
            except ValueError:
                for join in wanted_by:
                    join.findings.not_compared["what is no prediction of this pipeline"] += 1
                continue
            for join in wanted_by:
                self._met(join, record, prediction, where)

    def _met(self, join: _Join, record: Record, prediction: Prediction, where: Place) -> None:
        """One prediction, for one stage of its pipeline."""
        if where in join.passed:
            join.passed.remove(where)
            return
        if not isinstance(join.reads, Hop) and where[1] < self._firsts.get(TopicPartition(join.reads.topic, where[0]), 0):
            return
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
            self._no_longer_waits(join, met)
            self._compare(join, met, served)
            self._histories[join.reads.topic].forget(met.life)

    def _no_longer_waits(self, join: _Join, met: _Met) -> None:
        occurrence = next(one for one in reversed(met.life.occurrences) if (one.partition, one.offset) == met.where)
        join.waiting_of[occurrence.read_at[0]] -= 1

    def _without_source(self, join: _Join, scope: Scope) -> None:
        """Predictions below the end whose event never came; those above it belong to later events."""
        topic = join.reads.topic
        for where in list(join.early):
            by_hop = isinstance(join.reads, Hop)
            if not by_hop and where[1] >= scope.ends.get(TopicPartition(topic, where[0]), 0):
                continue
            if by_hop and any(self._firsts.get(name, 0) for name in self._firsts if name.topic == topic):
                join.early_of[join.early.pop(where)[1]] -= 1  # it may belong to what lies before the part that is looked at
                continue
            if by_hop and where[1] >= scope.ends.get(TopicPartition(join.pipeline.source.topic, where[0]), 0):
                continue
            _, number = join.early.pop(where)
            join.early_of[number] -= 1
            join.findings.not_compared["predictions without their event, or one more for it"] += 1

    # ------------------------------------------------------------------------------------------------- comparing

    def _compare(self, join: _Join, met: _Met, served: Served | None) -> None:
        """Compare one vector, if there is one; events of the entity before it that still wait were not scored."""
        name, life = join.name, met.life
        places = range(len(life.occurrences) - 1, -1, -1)
        place = next(one for one in places if (life.occurrences[one].partition, life.occurrences[one].offset) == met.where)
        if join.last:
            for earlier in life.occurrences[life.settled[name] : place]:
                self._give_up(join, earlier)
            life.settled[name] = max(place + 1, life.settled[name])
        else:  # behind a hop the predictions of an entity come in any order
            self._settle(join, life)
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

    def _give_up(self, join: _Join, event: Occurrence) -> None:
        """Wait no longer for the prediction of an event."""
        if join.waiting.pop((event.partition, event.offset), None) is not None:
            join.waiting_of[event.read_at[0]] -= 1
            join.findings.not_compared["events without a prediction"] += 1

    def _settle(self, join: _Join, life: Life) -> None:
        """Count the first events of a life for which nothing is waited for any more."""
        settled = life.settled[join.name]
        while settled < len(life.occurrences):
            event = life.occurrences[settled]
            if (event.partition, event.offset) in join.waiting:
                break
            settled += 1
        life.settled[join.name] = settled

    def _give_up_what_waited(self, join: _Join) -> None:
        """What waited through a whole round is waited for no longer: it was refused by the model, or is lost, which `verify` tells."""
        for where in [where for where in join.waiting if where in join.waited]:
            life = join.waiting[where].life
            self._give_up(join, next(one for one in life.occurrences if (one.partition, one.offset) == where))
            self._settle(join, life)
        join.waited = set(join.waiting)

    def _explain(self) -> None:
        """Name the mistakes that give what was served; what was is forgotten after a round in which nothing is wrong any more."""
        for join in self._joins:
            found = join.findings
            vectors, wrong = (now - then for now, then in zip((found.vectors, found.wrong), join.before, strict=True))
            join.before = (found.vectors, found.wrong)
            if vectors and not wrong:
                join.cases, found.explanations = Cases(), []
            if wrong:
                earlier = wanted_before(facts_of(self._app, self._subject), join.pipeline.views)
                cases = list(join.cases.cases.values())
                found.explanations = Diagnosis(join.reads, join.name, join.wanted, earlier, cases).explanations()
