"""What predictions have looked up, computed again from the log.

Each prediction says of which partition, at which applied offset, it has read each view of another source. A fold of that partition up to
just that offset gives the state that was read, and so the values, bit for bit. Three passes, before anything is compared:

    predictions, dead letters   --> where each result of a model has read
    what was scored             --> of which entity, as of which time
    what the views are kept of  --> folded once; at each offset that somebody read, everybody who read there is answered

The answers stand in for the store when the results are computed that are expected (`LooksUp`); nothing else is special about them. All of
it lies in a file, so memory does not grow with the log. Limits: where the log no longer reaches back far enough for whole windows, what was
looked up there is counted, and of such a result everything else is compared; whether it should have been a prediction or a refusal is
believed. That a view was not there at all is believed, too, and counted: a store that was lost, or is being rebuilt, tells nothing, and
leaves no trace of that in any log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from headrace.consume.record_reader import RecordReader
from headrace.definition import App, Pipeline, Stage
from headrace.features.finder import Place as StorePlace
from headrace.features.looked_up import horizon_ms, keys_of, place_text, places_of
from headrace.features.reader import StateReader
from headrace.features.view import FeatureView
from headrace.forgotten import token_of
from headrace.partitioner import Partitioner
from headrace.paths import decoder_of
from headrace.predict.casting import Casting
from headrace.publish.records import LOOKED_UP
from headrace.source import Source
from headrace.types import NO_WATERMARK_MS, EventBatch, LookedUp, Reason, Record, RecordBatch, TopicPartition, ViewHead
from headrace.verify.compare import LetterPlace, PredictionPlaces, is_of_these_definitions, letter_place, text_of
from headrace.verify.fold import SourceFold
from headrace.verify.ledger import Place
from headrace.verify.scope import Scope, whole_from
from headrace.verify.shelf import Shelf
from headrace.verify.state import state_fold
from headrace.verify.subject import Subject

AT_ONCE = 10_000
"""So many answers are worked out at once."""

_Noted = tuple[int, int, int, int | None, int]
"""A pair of pipeline and view, the place of a source record, the offset that was read (None: nothing was found), and what came of it."""

_Asked = tuple[bytes, int, int, int]
"""Of a read: entity, as-of time, and where the event that asked stands."""
_OPEN, _ANSWERED, _UNTOLD = range(3)
"""Of a read: nothing is known (yet); what it gave; the log no longer tells."""

PREDICTED, REFUSED = 1, 2
"""What came of an event that looked something up, as bits."""


class _Reads(NamedTuple):
    """A view that a pipeline looks up; `number` names the two in the file."""

    number: int
    view: FeatureView
    kept_at: Source
    stale_after_ms: int


class LookUpAnswers:
    """The answers for all pipelines of an app. `casting` knows how models are named."""

    def __init__(self, app: App, subject: Subject, scope: Scope, casting: Casting, told: Callable[[int], None] = lambda _: None) -> None:
        """`told` hears how many more records were read."""
        self._app, self._subject, self._scope, self._casting, self._told = app, subject, scope, casting, told
        self._partitioner = Partitioner()
        looking_up = [(pipeline, pipeline.look_up) for pipeline in app.pipelines if pipeline.look_up is not None]
        pairs = [(pipeline.name, view, wanted.stale_after_ms) for pipeline, wanted in looking_up for view in wanted.views]
        self._reads: dict[str, list[_Reads]] = {pipeline.name: [] for pipeline, _ in looking_up}
        for number, (pipeline, view, stale_after_ms) in enumerate(pairs):
            self._reads[pipeline].append(_Reads(number, view, app.kept_at(view.name), stale_after_ms))
        self._by_model = {(one.source.topic, casting.model_name(one.name)): one for one, _ in looking_up}
        self._folder = TemporaryDirectory(prefix="headrace-verify-")
        self._file = sqlite3.connect(Path(self._folder.name) / "look-ups", isolation_level=None)
        for line in ("journal_mode = off", "synchronous = off", "locking_mode = exclusive"):
            self._file.execute(f"PRAGMA {line}")
        self._file.execute(
            "CREATE TABLE reads (reads INTEGER, source INTEGER, at INTEGER, seen INTEGER, number INTEGER, entity BLOB, time_ms INTEGER,"
            " told INTEGER, came INTEGER,"
            " answer BLOB, stale INTEGER, ahead INTEGER, place BLOB, PRIMARY KEY (reads, source, at)) WITHOUT ROWID"
        )

    def gather(self) -> None:
        """Work everything out. Raises `TransientError` while a server is away."""
        if not self._reads:
            return
        with closing(self._subject.reader()) as reader:
            stages = [stage for stage in self._app.stages if stage.scores and stage.pipeline.name in self._reads]
            for stage in stages:
                self._note_predictions(reader, stage.pipeline)
            self._note_refusals(reader)
            for stage in stages:
                self._note_events(reader, stage)
            self._file.execute("CREATE INDEX by_state ON reads (number, seen) WHERE entity IS NOT NULL")
            for kept_at in {one.kept_at.topic: one.kept_at for some in self._reads.values() for one in some}.values():
                self._answer_all(reader, kept_at)

    def of(self, pipeline: Pipeline) -> Recorded | None:
        """What stands in for the store; None where nothing is looked up."""
        reads = self._reads.get(pipeline.name)
        return None if reads is None else Recorded(self._file, reads)

    def untold(self, pipeline: Pipeline, place: Place) -> dict[str, int]:
        """The views of which the log no longer tells what the result of a source record has looked up in them; with each what came of that
        record: `PREDICTED`, `REFUSED` or both.
        """
        question = f"SELECT came FROM reads WHERE reads = ? AND source = ? AND at = ? AND told = {_UNTOLD}"  # noqa: S608
        found = {one.view.name: self._file.execute(question, (one.number, *place)).fetchone() for one in self._reads.get(pipeline.name, [])}
        return {view: came for view, (came,) in ((view, row) for view, row in found.items() if row is not None)}

    def excuse(self, pipeline: Pipeline, place: Place, came: int) -> bool:
        """Whether the model may have predicted, or refused, because of what the log no longer tells, and `came` is all that came of it."""
        found = self.untold(pipeline, place).values()
        return bool(found) and set(found) == {came}

    def pipeline_of(self, letter: LetterPlace) -> Pipeline | None:
        """Whose model refused, if it looks something up."""
        return self._by_model.get((letter.topic, (letter.model or "").partition("@")[0]))

    def counts(self) -> dict[str, int]:
        """How many look-ups cannot be judged, by why; nothing where there are none."""
        questions = {
            "look-ups that found nothing": "entity IS NOT NULL AND seen IS NULL",
            "look-ups the log no longer tells": f"told = {_UNTOLD}",
        }
        found = {
            what: int(self._file.execute(f"SELECT count(*) FROM reads WHERE {holds}").fetchone()[0])  # noqa: S608
            for what, holds in questions.items()
        }
        return {what: count for what, count in found.items() if count}

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._folder.cleanup()

    # ------------------------------------------------------------------------------------------------------------- who read what

    def _note_predictions(self, reader: RecordReader, pipeline: Pipeline) -> None:
        """Where the predictions of a pipeline have read."""
        place_of = PredictionPlaces(pipeline.source.topic, self._casting.model_name(pipeline.name)).of
        for batch in reader.batches(*self._scope.results([pipeline.predictions])):
            rows: list[_Noted] = []
            for record in batch.records():
                place = place_of(record.value)
                if place is not None and is_of_these_definitions(record, pipeline.fingerprint):
                    rows += self._read_by(record, pipeline, place, PREDICTED)
            self._note(rows)
            self._told(len(batch))

    def _note_refusals(self, reader: RecordReader) -> None:
        """Where that has read which a model refused. A dead letter names no definitions, so it is believed to be of ours."""
        topics = {topic for topic, _ in self._by_model}
        for batch in reader.batches(*self._scope.results([self._app.dead_letters])):
            rows: list[_Noted] = []
            for record in batch.records():
                letter = letter_place(record.headers, topics)
                pipeline = None if letter is None else self.pipeline_of(letter)
                if letter is None or pipeline is None or text_of(record.headers, "headrace-reason") != Reason.MODEL_OUTPUT.value:
                    continue
                rows += self._read_by(record, pipeline, (letter.partition, letter.offset), REFUSED)
            self._note(rows)
            self._told(len(batch))

    def _read_by(self, record: Record, pipeline: Pipeline, place: Place, came: int) -> Iterator[_Noted]:
        """What a result says of where it has read. Its partition is not taken down: that follows from the entity."""
        seen = _seen(record)
        for one in self._reads[pipeline.name]:
            _, offset = seen.get(one.view.name, (None, None))
            yield one.number, *place, offset, came

    def _note(self, rows: Sequence[_Noted]) -> None:
        """Of several results of one record the first counts, as it does when they are compared."""
        self._write(
            "INSERT INTO reads (reads, source, at, seen, told, came) VALUES (?, ?, ?, ?, 0, ?)"
            " ON CONFLICT DO UPDATE SET came = came | excluded.came",
            rows,
        )

    def _note_events(self, reader: RecordReader, stage: Stage) -> None:
        """Of whom, and as of when. The partition is the one where the entity belongs, whatever the prediction says."""
        reads = self._reads[stage.pipeline.name]
        decoder = decoder_of(self._app, stage.reads, fields={one.view.entity for one in reads})
        mine = self._scope.partitions[stage.reads.topic]
        ends = {name: self._scope.ends[name] for name in mine}
        for batch in reader.batches({name: self._scope.starts[name] for name in mine}, ends):
            events = decoder.decode(batch).events
            self._told(len(batch))
            places = _source_places(events)
            for one in reads:
                keys = keys_of(events.columns[one.view.entity])
                there = [row for row, key in enumerate(keys) if key is not None]
                some = [key for key in keys if key is not None]
                numbers = self._partitioner.partitions(some, len(self._scope.partitions[one.kept_at.topic]))
                rows = [
                    (number, key, int(events.event_times_ms[row]), one.number, *places[row])
                    for row, key, number in zip(there, some, numbers, strict=True)
                ]
                self._write("UPDATE reads SET number = ?, entity = ?, time_ms = ? WHERE reads = ? AND source = ? AND at = ?", rows)

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._file.execute("BEGIN")
        self._file.executemany(statement, rows)
        self._file.execute("COMMIT")

    # ------------------------------------------------------------------------------------------------------------------- answers

    def _answer_all(self, reader: RecordReader, kept_at: Source) -> None:
        """Fold a source or hop up to every offset that was read."""
        reads = {one.number: (one, StateReader(one.view)) for some in self._reads.values() for one in some if one.kept_at is kept_at}
        for name in self._scope.partitions[kept_at.topic]:
            log = reader.log_range(name)
            whole = whole_from(reader, self._app, kept_at, name, self._scope.committed[name].offset) if log.start else 0
            for number in reads:
                self._file.execute(
                    "UPDATE reads SET told = ? WHERE reads = ? AND number = ? AND entity IS NOT NULL AND seen < ?",
                    (_UNTOLD, number, name.partition, max(log.start, whole)),
                )
            with closing(Shelf({kept_at.topic: [view.fp for view in self._app.views_of(kept_at)]})) as shelf:
                fold = state_fold(self._app, kept_at, shelf, {name: log.start}, self._scope)
                # No store can stand beyond the end: what says so will be found to be wrong.
                seen = [offset for offset in self._offsets_seen(reads, name) if offset <= log.end]
                for come in up_to_each(reader, name, log.start, seen):
                    if isinstance(come, RecordBatch):
                        fold.take(come)
                        self._told(len(come))
                        continue
                    fold.settle({name: come})
                    for one, state_reader in reads.values():
                        self._answer(one, state_reader, name, come, shelf, fold)

    def _offsets_seen(self, reads: Mapping[int, object], name: TopicPartition) -> list[int]:
        question = "SELECT DISTINCT seen FROM reads WHERE number = ? AND entity IS NOT NULL AND seen IS NOT NULL AND reads = ? AND told = ?"
        found = {seen for number in reads for (seen,) in self._file.execute(question, (name.partition, number, _OPEN))}
        return sorted(found)

    def _answer(self, one: _Reads, reader: StateReader, name: TopicPartition, seen: int, shelf: Shelf, fold: SourceFold) -> None:
        """Everybody who read one view where the fold stands now: of a source at rest that may be millions, so some at a time."""
        question = (
            "SELECT entity, time_ms, source, at FROM reads WHERE number = ? AND seen = ? AND entity IS NOT NULL AND reads = ?"
            " AND (source, at) > (?, ?) ORDER BY source, at LIMIT ?"
        )
        head, last = ViewHead(offset=seen, watermark_ms=fold.watermark_ms(name)), (-1, -1)
        while asked := self._file.execute(question, (name.partition, seen, one.number, *last, AT_ONCE)).fetchall():
            last = asked[-1][2:]
            self._answer_some(one, reader, name, head, shelf, self._told_at(asked, one, name, seen))

    def _answer_some(
        self, one: _Reads, reader: StateReader, name: TopicPartition, head: ViewHead, shelf: Shelf, asked: Sequence[_Asked]
    ) -> None:
        if not asked:
            return
        times_ms = np.array([time_ms for _, time_ms, _, _ in asked], dtype=np.int64)
        packed = shelf.states(name, one.view.fp, [entity for entity, _, _, _ in asked])
        values, ahead = reader.vectors_at(packed, times_ms, np.full(len(asked), horizon_ms(one.view, head)))
        stale = head.come_ms < times_ms - one.stale_after_ms
        place = place_text(one.view.name, StorePlace(partition=name.partition, head=head))
        rows = [
            (_ANSWERED, values[row].tobytes(), int(stale[row]), int(ahead[row]), place, one.number, source, at)
            for row, (_, _, source, at) in enumerate(asked)
        ]
        self._write(
            "UPDATE reads SET told = ?, answer = ?, stale = ?, ahead = ?, place = ? WHERE reads = ? AND source = ? AND at = ?", rows
        )

    def _told_at(self, asked: list[_Asked], one: _Reads, name: TopicPartition, seen: int) -> list[_Asked]:
        """Those that the log tells. Whoever was forgotten at just this offset was read before or after it, which nobody can tell."""
        due = {erasure.token for erasure in self._scope.erased.get(name, ()) if erasure.offset == seen}
        if not due:
            return asked
        untold = [row for row in asked if token_of(name.topic, row[0].decode()) in due]
        rows = [(_UNTOLD, one.number, source, at) for _, _, source, at in untold]
        self._write("UPDATE reads SET told = ? WHERE reads = ? AND source = ? AND at = ?", rows)
        return [row for row in asked if row not in untold]


class Recorded:
    """What predictions have looked up, in place of a store: `looked_up.LooksUp`."""

    def __init__(self, file: sqlite3.Connection, reads: Sequence[_Reads]) -> None:
        self._file, self._reads = file, reads
        nobody, never = [None], np.zeros(1, dtype=np.int64)
        self._empty = [StateReader(one.view).vectors_at(nobody, never, never + NO_WATERMARK_MS)[0][0] for one in reads]

    def look(self, events: EventBatch) -> LookedUp:
        """What the prediction of each event has looked up, by the log; what was not there when it looked is empty, and stale."""
        places = _source_places(events)
        values, stale = [], np.zeros((len(events), len(self._reads)), dtype=np.bool_)
        ahead, texts = np.zeros_like(stale), [[b""] * len(self._reads) for _ in places]
        row_of = {place: row for row, place in enumerate(places)}
        for column, (one, empty) in enumerate(zip(self._reads, self._empty, strict=True)):
            some = np.tile(empty, (len(events), 1))
            stale[:, column] = [key is not None for key in keys_of(events.columns[one.view.entity])]
            for place, (answer, was_stale, was_ahead, text) in self._answers(one, places):
                row = row_of.get(place)
                if row is not None:
                    some[row] = np.frombuffer(answer)
                    stale[row, column], ahead[row, column], texts[row][column] = was_stale, was_ahead, text
            values.append(some)
        return LookedUp(
            views=tuple(one.view.name for one in self._reads),
            values=np.concatenate(values, axis=1),
            stale=stale,
            ahead=ahead,
            places=[b";".join(filter(None, some)) for some in texts],
        )

    def _answers(self, one: _Reads, places: Sequence[Place]) -> Iterator[tuple[Place, tuple[bytes, int, int, bytes]]]:
        question = (
            "SELECT at, answer, stale, ahead, place FROM reads WHERE reads = ? AND source = ? AND at BETWEEN ? AND ? AND answer IS NOT NULL"
        )
        for source, some in groupby(sorted(places), key=itemgetter(0)):
            offsets = [offset for _, offset in some]
            for at, *answer in self._file.execute(question, (one.number, source, offsets[0], offsets[-1])):
                yield (source, at), tuple(answer)


def up_to_each(reader: RecordReader, name: TopicPartition, start: int, offsets: Sequence[int]) -> Iterator[RecordBatch | int]:
    """The records from `start` up to the last of these offsets, which ascend, in one read; between them each offset, as soon as all records
    below it have been given. So nobody need keep more than one batch.
    """
    left = list(reversed(offsets))
    for batch in reader.batches({name: start}, {name: offsets[-1]}) if offsets and start < offsets[-1] else ():
        begin = 0
        while left and left[-1] <= batch.offsets[-1]:
            end = int(np.searchsorted(batch.offsets, left[-1]))
            if begin < end:
                yield batch.select(np.arange(begin, end))
            yield left.pop()
            begin = end
        if begin < len(batch):
            yield batch if begin == 0 else batch.select(np.arange(begin, len(batch)))
    yield from reversed(left)


def _source_places(events: EventBatch) -> list[Place]:
    """Where each event stands in the source's topic."""
    return list(zip(events.sent.partitions[events.rows].tolist(), events.sent.offsets[events.rows].tolist(), strict=True))


def _seen(record: Record) -> dict[str, tuple[int, int]]:
    """What a prediction says of where it has read; nothing where it says something else."""
    try:
        return places_of((text_of(record.headers, LOOKED_UP) or "").encode())
    except ValueError:
        return {}
