"""The dead letters of an app, found beside expected: few, so they wait in tables."""

from __future__ import annotations

from headrace.definition import App
from headrace.partitioner import Partitioner
from headrace.types import OutRecords, Record, RecordBatch, TopicPartition
from headrace.verify.compare import LETTERS, LetterPlace, compare_letter, letter_place, misplaced, text_of, where
from headrace.verify.findings import Findings, Kind, Site, Violation
from headrace.verify.ledger import Expected
from headrace.verify.look_ups import PREDICTED, REFUSED, LookUpAnswers
from headrace.verify.scope import Scope


class DeadLetterCheck:
    """Every refused record has exactly one dead letter, which is that record, with the reason that the definitions give."""

    def __init__(self, app: App, scope: Scope, findings: Findings, look_ups: LookUpAnswers) -> None:
        self._scope, self._findings, self._look_ups = scope, findings, look_ups
        self._topics = frozenset(reads.topic for reads in app.inputs)
        hops = {hop.topic for hop in app.hops}
        self._by_hop_in_part = any(first > 0 for name, first in scope.firsts.items() if name.topic in hops)
        self._partitions = len(scope.partitions[app.dead_letters])
        self._partitioner = Partitioner()
        self._waiting: dict[LetterPlace, Expected] = {}
        self._early: dict[LetterPlace, list[Record]] = {}
        self._met: set[LetterPlace] = set()

    def wants(self) -> bool:
        """Whether more should be read now."""
        return len(self._waiting) >= len(self._early)

    def expect(self, records: OutRecords) -> None:
        """Source records lead to these dead letters."""
        columns = zip(records.keys, records.values, records.headers, records.timestamps_ms, strict=True)
        for key, value, headers, timestamp_ms in columns:
            place = letter_place(headers, self._topics)
            if place is None:
                raise ValueError("a dead letter of our own says not where it comes from")
            at = place.partition, place.offset
            self._expect(place, Expected(*at, key, value, headers, timestamp_ms, at))

    def _expect(self, place: LetterPlace, expected: Expected) -> None:
        if place.offset < self._scope.firsts[TopicPartition(place.topic, place.partition)]:
            return
        found = self._early.pop(place, None)
        if found is None:
            self._waiting[place] = expected
            return
        self._compare(place, found[0], expected)
        for record in found[1:]:
            self._twice(place, record)

    def meet(self, batch: RecordBatch) -> None:
        """These dead letters were found."""
        self._findings.checked["dead letters"] += len(batch)
        places = [letter_place(headers or [], self._topics) for headers in batch.headers]
        for violation in misplaced(batch, self._site, self._partitions, self._partitioner, LETTERS):
            self._findings.add(violation)
        for record, place in zip(batch.records(), places, strict=True):
            if place is None:
                site = Site(record.topic, record.partition, record.offset)
                self._add(Kind.UNEXPECTED, site, LETTERS, "the coordinates of a refused record", "none of this app")
            elif place.offset >= self._scope.firsts.get(TopicPartition(place.topic, place.partition), 0):
                self._meet(place, record)

    def _site(self, batch: RecordBatch, row: int) -> Site | None:
        place = letter_place(batch.headers[row] or [], self._topics)
        return None if place is None else place.site()

    def _meet(self, place: LetterPlace, record: Record) -> None:
        expected = self._waiting.pop(place, None)
        if expected is not None:
            self._compare(place, record, expected)
        elif place in self._met:
            self._twice(place, record)
        else:
            self._early.setdefault(place, []).append(record)

    def settle(self) -> None:
        """Everything was read: what still waits is lost, what came without a refusal is one too many."""
        for place in sorted(self._waiting, key=str):
            if not self._excuse(place, PREDICTED):
                self._add(Kind.LOST, place.site(), place.of(), "a dead letter", "none")
        for place, records in sorted(self._early.items(), key=str):
            for record in records[1:] if self._excuse(place, REFUSED) else records:
                if self._counts(place, record):
                    reason = text_of(record.headers, "headrace-reason")
                    wanted = self._scope.instead(place.site())
                    self._add(Kind.UNEXPECTED, place.site(), place.of(), wanted, f"a dead letter for {reason}", at=where(record))

    def _counts(self, place: LetterPlace, record: Record) -> bool:
        """Whether a letter that nothing was read for is one too many. Where hops are looked at in part only, those of a stage behind one
        cannot be told from letters of what came before.
        """
        if place.model is not None and self._by_hop_in_part:
            return False
        return self._scope.counts(place.site(), record)

    def _excuse(self, place: LetterPlace, came: int) -> bool:
        """Whether it may be that the model did the other thing (`LookUpAnswers.excuse`)."""
        pipeline = self._look_ups.pipeline_of(place)
        return pipeline is not None and self._look_ups.excuse(pipeline, (place.partition, place.offset), came)

    def _compare(self, place: LetterPlace, record: Record, expected: Expected) -> None:
        self._met.add(place)
        pipeline = self._look_ups.pipeline_of(place)
        untold = {} if pipeline is None else self._look_ups.untold(pipeline, (place.partition, place.offset))
        for violation in compare_letter(place.site(), record, expected, place.of(), untold):
            self._findings.add(violation)

    def _twice(self, place: LetterPlace, record: Record) -> None:
        self._add(Kind.DUPLICATE, place.site(), place.of(), "one dead letter", "one more", at=where(record))

    def _add(self, kind: Kind, site: Site, of: str, expected: str, found: str, *, at: str | None = None) -> None:
        self._findings.add(Violation(kind=kind, **site._asdict(), at=at, of=of, expected=expected, found=found))
