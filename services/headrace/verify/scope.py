"""From where to where a verification looks, taken in an order that workers at work cannot spoil."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from headrace.changes import starting_offsets
from headrace.consume.facts import Facts
from headrace.consume.record_reader import RecordReader
from headrace.crashes import condemned_offsets
from headrace.definition import App
from headrace.errors import FatalError, TransientError, UnstableOffsets
from headrace.forgotten import Erasure, erasures_in
from headrace.paths import span_ms
from headrace.source import Source
from headrace.types import Position, Record, TopicPartition
from headrace.verify.findings import Site
from headrace.verify.subject import Subject

LOOK_MS, PENDING_MS = 100, 20_000
"""How often to look again, and how long a transaction may hold an offset or an end: a dead worker's is aborted after its time-out."""


@dataclass(slots=True, kw_only=True)
class Scope:
    """The part of a deployment that is verified."""

    partitions: dict[str, list[TopicPartition]]
    """Of every topic of the app."""
    committed: dict[TopicPartition, Position]
    starts: dict[TopicPartition, int] = field(default_factory=dict)
    """Where the fold of a source partition begins."""
    firsts: dict[TopicPartition, int] = field(default_factory=dict)
    """From which offset on results are compared."""
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    """Up to which."""
    begins: dict[TopicPartition, int] = field(default_factory=dict)
    """Where result partitions are read from."""
    before: dict[TopicPartition, int] = field(default_factory=dict)
    """The stable ends of result partitions before the group's offsets were taken."""
    until: dict[TopicPartition, int] = field(default_factory=dict)
    """Their ends after that."""
    left_out: dict[TopicPartition, list[int]] = field(default_factory=dict)
    """Source records that were condemned (`crashes.py`): dead letters that no fold takes."""
    erased: dict[TopicPartition, list[Erasure]] = field(default_factory=dict)
    """Whose state was taken away, and where (`forgotten.py`)."""
    facts: Sequence[bytes | None] = ()
    """All facts of the app."""
    open: dict[TopicPartition, int] = field(default_factory=dict)
    """Result partitions in which a transaction stays open, and from where."""

    def results(self, topics: Sequence[str]) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Start and end of the partitions of result topics."""
        names = [name for topic in topics for name in self.partitions[topic]]
        return {name: self.begins[name] for name in names}, {name: self.until[name] for name in names}

    def counts(self, site: Site, record: Record) -> bool:
        """Whether a result without a source record in scope is one too many, and not one that came while we looked."""
        name = TopicPartition(site.topic, site.partition)
        if name not in self.ends or site.offset < self.ends[name]:
            return True
        return site.offset >= self.committed[name].offset and not self.newer(record)

    def newer(self, record: Record) -> bool:
        """Whether a result may have come while we looked."""
        return record.offset >= self.before[TopicPartition(record.topic, record.partition)]

    def instead(self, site: Site) -> str:
        """What is expected instead of a result that is one too many."""
        position = self.committed.get(TopicPartition(site.topic, site.partition))
        if position is not None and site.offset >= position.offset:
            return f"nothing at or above the committed offset {position.offset}"
        return "none: the log and the definitions give no such result"


def scope_of(app: App, subject: Subject, from_ms: int | None, to_ms: int | None, *, rest_ms: int) -> Scope:
    """Take the ends of result topics, the offsets, the ends again; `rest_ms`: how long to wait before for everything to be at rest.

    Raises `FatalError` for a group without offsets.
    """
    reader = subject.reader()
    try:
        inputs = [reads.topic for reads in app.inputs]
        topics = [app.dead_letters, *(hop.topic for hop in app.hops), *app.result_topics]
        partitions = {topic: reader.partitions(topic) for topic in dict.fromkeys((*inputs, *topics))}
        results = [name for topic in topics for name in partitions[topic]]
        read = [name for topic in inputs for name in partitions[topic]]
        _wait_for_rest(reader, subject, read, results, rest_ms)
        before = {name: reader.log_range(name).end for name in results}
        committed = {name: stable_position(app, subject, name) for name in read}
        until = {name: subject.written_end(name) for name in results}
        still_open = _wait_for_ends(reader, subject, until)
        scope = Scope(partitions=partitions, committed=committed, before=before, until={**until, **still_open}, open=still_open)
        scope.facts = facts = facts_of(app, subject)
        began, scope.left_out, scope.erased = starting_offsets(facts), condemned_offsets(facts), erasures_in(facts)
        for reads in app.inputs:
            span = span_ms(reads, app.views_of(reads))
            for name in partitions[reads.topic]:
                start, first, end = _bounds(reader, name, committed[name].offset, span, (from_ms, to_ms))
                scope.starts[name], scope.firsts[name], scope.ends[name] = start, max(first, began.get(name, 0)), end
        # Logs are not in the order of their timestamps, so the result of a record may stand before others that are older than it.
        spans = [span_ms(reads, app.views_of(reads)) for reads in app.inputs]
        since_ms = None if from_ms is None or None in spans else from_ms - max(span for span in spans if span is not None)
        for name in results:
            begin = reader.log_range(name).start if since_ms is None else reader.offset_at(name, since_ms)
            scope.begins[name] = scope.until[name] if begin is None else begin
        return scope
    finally:
        reader.close()


def state_scope(app: App, subject: Subject, wanted: Sequence[TopicPartition], *, rest_ms: int) -> Scope:
    """The same for the state of some source partitions: the topics of results are not looked at."""
    reader = subject.reader()
    try:
        _wait_for_rest(reader, subject, wanted, (), rest_ms)
        partitions = {reads.topic: [name for name in wanted if name.topic == reads.topic] for reads in app.inputs}
        scope = Scope(partitions=partitions, committed={})
        for reads in app.inputs:
            span = span_ms(reads, app.views_of(reads))
            for name in scope.partitions[reads.topic]:
                scope.committed[name] = stable_position(app, subject, name)
                bounds = _bounds(reader, name, scope.committed[name].offset, span, (None, None))
                scope.starts[name], scope.firsts[name], scope.ends[name] = bounds
        facts = facts_of(app, subject)
        scope.left_out, scope.erased = condemned_offsets(facts), erasures_in(facts)
        return scope
    finally:
        reader.close()


def whole_from(reader: RecordReader, app: App, reads: Source, name: TopicPartition, committed: int) -> int:
    """The offset of a source or hop from which on a fold from the log's start has whole windows."""
    _, first, _ = _bounds(reader, name, committed, span_ms(reads, app.views_of(reads)), (None, None))
    return first


def fold_start(reader: RecordReader, app: App, reads: Source, place: Record) -> tuple[int, bool]:
    """From which offset on a fold tells what a record met, and whether the log still holds all that its windows reach back to."""
    name = TopicPartition(place.topic, place.partition)
    start, first, _ = _bounds(reader, name, place.offset + 1, span_ms(reads, app.views_of(reads)), (place.timestamp_ms, None))
    return start, first <= place.offset


def _bounds(
    reader: RecordReader, name: TopicPartition, committed: int, span: int | None, times_ms: tuple[int | None, int | None]
) -> tuple[int, int, int]:
    """Where the fold of one partition begins, from where on its results are compared, and up to where; `times_ms`: as it was asked for."""
    from_ms, to_ms = times_ms
    log = reader.log_range(name)
    end = committed if to_ms is None else min(committed, _at(reader, name, to_ms, committed))
    start = first = log.start
    if from_ms is not None:
        first = max(first, _at(reader, name, from_ms, end))
        if span is not None:
            start = max(start, min(first, _at(reader, name, from_ms - span, end)))
    if log.start and start == log.start and first < end:
        oldest_ms = _first_time_ms(reader, name, log.start, end)
        whole = end if span is None or oldest_ms is None else _at(reader, name, oldest_ms + span, end)
        first = max(first, whole)
    start = min(start, end)
    return start, first, max(start, end)


def _at(reader: RecordReader, name: TopicPartition, time_ms: int, otherwise: int) -> int:
    found = reader.offset_at(name, time_ms)
    return otherwise if found is None else found


def _first_time_ms(reader: RecordReader, name: TopicPartition, start: int, end: int) -> int | None:
    """The timestamp of the oldest kept record."""
    for batch in reader.batches({name: start}, {name: end}):
        return int(batch.timestamps_ms[0])
    return None


def facts_of(app: App, subject: Subject) -> Sequence[bytes | None]:
    """The facts of the app: where it began, as `headrace apply` wrote it down, and what was condemned."""
    with closing(subject.reader()) as reader:
        if not reader.exists(app.facts):
            return []
    facts = Facts(app.facts, subject.reader, subject.written_end)
    deadline_ms = subject.now_ms() + PENDING_MS
    try:
        while True:
            try:
                return facts()
            except UnstableOffsets:
                if subject.now_ms() > deadline_ms:
                    raise
                subject.pause(LOOK_MS)
    finally:
        facts.close()


def stable_position(app: App, subject: Subject, name: TopicPartition) -> Position:
    """The group's stable offset, waited for while a transaction holds it. Raises `FatalError` where there is none."""
    deadline_ms = subject.now_ms() + PENDING_MS
    while True:
        try:
            found = subject.committed(name)
        except TransientError:
            if subject.now_ms() > deadline_ms:
                raise
            subject.pause(LOOK_MS)
            continue
        if found is None:
            raise FatalError(
                f"group {app.name} has no committed offset for {name.topic}-{name.partition}, so nothing was promised yet; "
                "`headrace apply` commits the starting offsets"
            )
        return found


def _wait_for_ends(reader: RecordReader, subject: Subject, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Wait until everything up to these ends is decided; gives those that are not, and how far they are."""
    deadline_ms = subject.now_ms() + PENDING_MS
    while True:
        found = {name: reader.log_range(name).end for name in ends}
        still = {name: found[name] for name, end in ends.items() if found[name] < end}
        if not still or subject.now_ms() > deadline_ms:
            return still
        subject.pause(LOOK_MS)


def _wait_for_rest(
    reader: RecordReader, subject: Subject, sources: Iterable[TopicPartition], results: Iterable[TopicPartition], rest_ms: int
) -> None:
    """Give the workers time to finish; whether they did is judged later."""
    names = list(sources)
    deadline_ms = subject.now_ms() + rest_ms
    while subject.now_ms() < deadline_ms:
        try:
            positions = [subject.committed(name) for name in names]
        except TransientError:
            positions = []
        ends = [reader.log_range(name).end for name in names]
        settled = len(positions) == len(ends) and all(
            position is not None and not lags(reader, name, position.offset, end)
            for name, position, end in zip(names, positions, ends, strict=True)
        )
        if settled and all(reader.log_range(name).end == subject.written_end(name) for name in results):
            return
        subject.pause(LOOK_MS)


def lags(reader: RecordReader, name: TopicPartition, offset: int, end: int) -> bool:
    """Whether a record stands at or behind an offset: in a hop what stands there may be the marker of a transaction."""
    return offset < end and any(True for _ in reader.batches({name: offset}, {name: end}))
