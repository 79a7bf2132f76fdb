"""Where events come from: topics of a cluster (or of the log in memory, or of an archive), or a table.

Either way a history is a run of accepted events, partitions in offset order, and an account of what was left out. From topics it is
what the workers fold: the same records, decoded by the same decoder, without those that were condemned (`crashes.py`). A table has no
offsets: its rows are taken in the order of event time, rows of equal time in their own order, as one partition whose offsets are the
numbers of the rows.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pyarrow as pa

from headrace.consume.record_reader import RecordReader
from headrace.crashes import condemned_offsets, rows_at
from headrace.decode.decoder import Decoder
from headrace.decode.table_rows import records_of
from headrace.definition import App
from headrace.errors import DefinitionError
from headrace.features.view import FeatureView
from headrace.partitioner import partition_of
from headrace.paths import decoder_of, span_ms
from headrace.source import Hop, Source
from headrace.training.archive import Archive, ArchiveReader
from headrace.training.tables import Tabular, arrow_table, column, contract_columns, instants_ms
from headrace.types import Carried, EventBatch, Int64s, Position, Reason, RecordBatch, TopicPartition
from headrace.verify.scope import facts_of
from headrace.verify.subject import Subject

if TYPE_CHECKING:
    from headrace.kafka_client import Properties
    from headrace.memory_log import MemoryLog

AT_ONCE = 16_384
Told = Callable[[int, int], None]
"""Hears how many records were taken, of how many."""


@dataclass(slots=True, kw_only=True)
class Account:
    """What became of the records of a history."""

    records: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By reason, those that are no events, and those that were condemned."""
    incomplete: int = 0
    """Events that were folded but give no row, as the log does not hold all that their windows reach back to."""
    offsets: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """By topic and partition: from where up to, not with, where the log was read."""

    def add(self, other: Account) -> None:
        """That of another log was read beside."""
        self.records += other.records
        self.refused.update(other.refused)
        self.offsets |= other.offsets


class History(Protocol):
    """Accepted events in the order in which they are folded."""

    account: Account
    """Complete when the events were taken."""

    def events(self, fields: Collection[str]) -> Iterator[tuple[EventBatch, int]]:
        """The events with the columns `fields`, once; with each batch how many at its beginning are incomplete."""

    def partition_of(self, entity: str) -> int:
        """The partition an entity is in."""

    def whole_from_ms(self, partition: int) -> float:
        """From which event time on all windows are whole, as far as was read; minus infinity where the history has its beginning."""


class Topics:
    """The topics of an app, to be read as a `read_committed` reader sees them: `hr.Topics.on({"bootstrap.servers": "..."})`."""

    def __init__(self, subject: Subject, archive: Archive | None = None) -> None:
        self.subject = subject
        self.archive = archive
        """The files that they are read from, where they are: what Spark needs to know."""

    @classmethod
    def on(cls, properties: Properties) -> Self:
        """On a Kafka cluster, by librdkafka's properties."""
        from headrace.consume.kafka_reader import Isolation, KafkaReader  # noqa: PLC0415 - tables need no Kafka client

        def written_end(partition: TopicPartition) -> int:
            with closing(KafkaReader(properties, isolation=Isolation.UNCOMMITTED)) as reader:
                return reader.log_range(partition).end

        return cls(_subject(lambda: KafkaReader(properties), written_end))

    @classmethod
    def of(cls, log: MemoryLog) -> Self:
        """On the log in memory, for example that of `headrace.testing.Driver`."""
        from headrace.memory_log import MemoryReader  # noqa: PLC0415 - a cluster needs no log in memory

        return cls(_subject(lambda: MemoryReader(log), log.end_offset))

    @classmethod
    def archived(cls, given: str | Path | Mapping[str, str | Path]) -> Self:
        """In Parquet files (`archive.py` says which columns): a path, folder or glob with a column `topic`, or such a place by topic.

        Facts that are in there are heeded: what workers had to leave out is left out.
        """
        archive = Archive(given)
        reader = ArchiveReader(archive)
        return cls(_subject(lambda: reader, lambda partition: reader.log_range(partition).end), archive)


def _subject(reader: Callable[[], RecordReader], written_end: Callable[[TopicPartition], int]) -> Subject:
    def committed(_: TopicPartition) -> Position | None:
        return None

    return Subject(
        reader=reader,
        written_end=written_end,
        committed=committed,
        topic_id=lambda _: "",
        store=None,
        now_ms=lambda: time.monotonic_ns() // 1_000_000,
        pause=lambda ms: time.sleep(ms / 1_000),
    )


@dataclass(slots=True)
class TopicHistory:
    """A source topic, from the oldest record that is kept to the last stable one."""

    app: App
    source: Source
    topics: Topics
    told: Told = lambda _, __: None
    account: Account = field(default_factory=Account)
    _partitions: int = 0
    _cut: frozenset[int] = frozenset()
    """The partitions whose logs have lost their beginning."""
    _whole_from_ms: dict[int, int] = field(default_factory=dict)
    """From which record time on these are whole."""
    _whole: set[int] = field(default_factory=set)
    """Those that have come so far."""

    def events(self, fields: Collection[str]) -> Iterator[tuple[EventBatch, int]]:
        """As `History` says."""
        left_out = condemned_offsets(facts_of(self.app, self.topics.subject))
        decoder = decoder_of(self.app, self.source, fields=fields)
        with closing(self.topics.subject.reader()) as reader:
            ranges = {partition: reader.log_range(partition) for partition in reader.partitions(self.source.topic)}
            self._partitions = len(ranges)
            self._cut = frozenset(name.partition for name, found in ranges.items() if found.start)
            self.account.offsets[self.source.topic] = {name.partition: (found.start, found.end) for name, found in sorted(ranges.items())}
            of = sum(found.end - found.start for found in ranges.values())
            starts, ends = {name: found.start for name, found in ranges.items()}, {name: found.end for name, found in ranges.items()}
            for batch in reader.batches(starts, ends):
                self.account.records += len(batch)
                condemned = rows_at(batch, left_out)
                self.account.refused[Reason.CRASH_LOOP] += int(condemned.sum())
                decoded = decoder.decode(batch.select(np.flatnonzero(~condemned)) if condemned.any() else batch)
                self.account.refused.update(letter.reason for letter in (*decoded.refused, *decoded.unreadable))
                self._insist_on_our_definitions(decoded.events)
                yield from self._marked(decoded.events)
                self.told(self.account.records, of)

    def _insist_on_our_definitions(self, events: EventBatch) -> None:
        if events.carried is not None and not events.carried.ours.all():
            raise DefinitionError(
                f"{self.source!r} holds features that other definitions made; make the frame from the events in files, or of an app with "
                "those definitions"
            )

    def partition_of(self, entity: str) -> int:
        """By murmur2, as look-ups find it."""
        return partition_of(entity.encode(), self._partitions or self._count())

    def _count(self) -> int:
        with closing(self.topics.subject.reader()) as reader:
            self._partitions = len(reader.partitions(self.source.topic))
        return self._partitions

    def whole_from_ms(self, partition: int) -> float:
        """By the rule of a rebuild: what lies a lateness, a window and a pane behind the oldest record cannot be seen any more."""
        if partition not in self._cut:
            return -math.inf
        ahead_ms = 0 if self.source.historical else self.source.max_ahead_ms
        return self._whole_from_ms.get(partition, math.inf) + ahead_ms

    def _marked(self, events: EventBatch) -> Iterator[tuple[EventBatch, int]]:
        """The events, and how many of them are incomplete."""
        if self._cut <= self._whole:
            yield events, 0
            return
        # One partition after another, so that what is incomplete is a stretch at the beginning.
        numbers = events.records.partitions[events.rows]
        for number in np.unique(numbers).tolist():
            mine = np.flatnonzero(numbers == number)
            count = self._incomplete(events, mine, number) if number in self._cut - self._whole else 0
            self.account.incomplete += count
            yield _events_at(events, mine), count

    def _incomplete(self, events: EventBatch, mine: Int64s, number: int) -> int:
        """How many of the next events of a partition come before all windows are whole."""
        clock_ms = clock_of(self.source, events)[mine]
        whole_ms = self._whole_from_ms.setdefault(number, int(clock_ms[0]) + reach_ms(self.source, self.app.views_of(self.source)))
        complete = clock_ms >= whole_ms
        if not complete.any():
            return len(mine)
        self._whole.add(number)
        return int(np.argmax(complete))


def clock_of(source: Source, events: EventBatch) -> Int64s:
    """The time by which it is judged how far back a log goes: that of the records; of a historical source, that of the events."""
    return events.event_times_ms if source.historical else events.records.timestamps_ms[events.rows]


def reach_ms(source: Source, views: Sequence[FeatureView]) -> int:
    """How far behind a log's beginning, on that clock, its events still miss what came before."""
    if source.historical:
        return source.lateness_ms + max(view.longest_window_ms + view.longest_pane_ms for view in views)
    return span_ms(source, views) or 0


def _events_at(events: EventBatch, places: Int64s) -> EventBatch:
    return EventBatch(
        records=events.records,
        rows=events.rows[places],
        entities=[events.entities[place] for place in places.tolist()],
        event_times_ms=events.event_times_ms[places],
        columns={name: values[places] for name, values in events.columns.items()},
        carried=None if events.carried is None else _carried_at(events.carried, places),
    )


def _carried_at(carried: Carried, places: Int64s) -> Carried:
    return Carried(
        sent=carried.sent,
        feeders=carried.feeders[places],
        offsets=carried.offsets[places],
        watermarks_ms=carried.watermarks_ms[places],
        of=carried.of[places],
        late=carried.late[places],
        values=carried.values[places],
        ours=carried.ours[places],
    )


class TableHistory:
    """The rows of a table, in the order of event time."""

    def __init__(
        self,
        source: Source,
        given: Tabular,
        *,
        told: Told = lambda _, __: None,
        more: Collection[str] = (),
        keys_to_be: Collection[str] = (),
    ) -> None:
        """`more`: columns that are wanted beside those of the contract; `keys_to_be`: the fields that later stages are keyed by."""
        of = f"events of {source!r}"
        self.account = Account()
        self.table: pa.Table = arrow_table(given, source.contract, of=of, only={field.name for field in source.contract} | set(more))
        self._source, self._told, self._keys_to_be = source, told, keys_to_be
        self._columns = contract_columns(self.table, source.contract, of=of)
        times_ms, known = instants_ms(column(self.table, source.time), of=f"{of}: column {source.time!r}")
        # Rows without a time are refused anyway.
        self._order = np.argsort(np.where(known, times_ms, 0), kind="stable")

    def events(self, fields: Collection[str]) -> Iterator[tuple[EventBatch, int]]:
        """As `History` says; offsets are the numbers of the rows in the table, from 0 on."""
        decoder = Decoder(self._source, fields=fields, keys_to_be=self._keys_to_be)
        count = len(self._order)
        self.account.offsets["rows"] = {0: (0, count)}
        for begin in range(0, count, AT_ONCE):
            batch = self._records(begin)
            decoded = decoder.decode(batch)
            self.account.records += len(batch)
            self.account.refused.update(letter.reason for letter in decoded.refused)
            yield decoded.events, 0
            self._told(self.account.records, count)

    def partition_of(self, _: str) -> int:
        """There is one."""
        return 0

    def whole_from_ms(self, _: int) -> float:
        """A table is all there is."""
        return -math.inf

    def _records(self, begin: int) -> RecordBatch:
        places = self._order[begin : begin + AT_ONCE]
        numbers = places.tolist()
        columns = {name: [values[number] for number in numbers] for name, values in self._columns.items()}
        return records_of(self._source, columns, np.zeros(len(places), dtype=np.int32), places)


def history_of(
    app: App | None,
    reads: Source,
    events: object,
    *,
    told: Told = lambda _, __: None,
    more: Collection[str] = (),
    keys_to_be: Collection[str] = (),
) -> TopicHistory | TableHistory:
    """The history that was given of a source or hop; a table holds the events of the source. Raises `DefinitionError`."""
    if isinstance(events, Topics):
        if app is None:
            raise DefinitionError("training_frame(pipeline, events=topics): give the app; its facts say which records no fold takes")
        return TopicHistory(app, reads, events, told)
    source = reads.source if isinstance(reads, Hop) else reads
    return TableHistory(source, events, told=told, more=more, keys_to_be=keys_to_be)
