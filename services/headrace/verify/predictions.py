"""The predictions of one pipeline, found beside expected."""

from __future__ import annotations

from operator import itemgetter

from headrace.definition import Pipeline
from headrace.partitioner import Partitioner
from headrace.types import Int32s, Int64s, OutRecords, RecordBatch
from headrace.verify.compare import PredictionPlaces, compare_prediction, is_of_these_definitions, misplaced, where
from headrace.verify.findings import Findings, Kind, Site, Violation
from headrace.verify.ledger import Ledger, Outcome
from headrace.verify.scope import Scope


class PredictionCheck:
    """Every source record has exactly one prediction of this pipeline, in order, where its key belongs, as the definitions give it."""

    def __init__(self, pipeline: Pipeline, model: str, scope: Scope, findings: Findings) -> None:
        self._pipeline, self._scope, self._findings = pipeline, scope, findings
        self.source = self._topic = pipeline.source.topic
        self._places = PredictionPlaces(self._topic, model)
        self._partitions = len(scope.partitions[pipeline.predictions])
        self._partitioner = Partitioner()
        self.ledger = Ledger(
            firsts={name.partition: first for name, first in scope.firsts.items() if name.topic == self._topic},
            ends={name.partition: end for name, end in scope.ends.items() if name.topic == self._topic},
        )

    def expect(self, records: OutRecords, partitions: Int32s, offsets: Int64s) -> None:
        """Source records lead to these predictions, row by row."""
        for outcome in self.ledger.expect(records, partitions, offsets):
            self._compare(outcome)

    def meet(self, batch: RecordBatch) -> None:
        """These predictions were found."""
        self._findings.checked["predictions"] += len(batch)
        for violation in misplaced(batch, self._site, self._partitions, self._partitioner, self._pipeline.name):
            self._findings.add(violation)
        for outcome in self.ledger.meet(batch, self._places.of):
            self._compare(outcome)

    def _site(self, batch: RecordBatch, row: int) -> Site | None:
        place = self._places.of(batch.values[row])
        return None if place is None else Site(self._topic, *place)

    def settle(self) -> None:
        """Everything was read: what still waits is lost, what came without a record is one too many."""
        for partition, offset in sorted((one.partition, one.offset) for one in self.ledger.waiting.values()):
            self._add(Kind.LOST, Site(self._topic, partition, offset), "a prediction", "none")
        for place, record in sorted((found for some in self.ledger.early.values() for found in some), key=itemgetter(0)):
            site = Site(self._topic, *place)
            if self._scope.counts(site, record):
                self._add(Kind.UNEXPECTED, site, self._scope.instead(site), "a prediction", at=where(record))

    def _compare(self, outcome: Outcome) -> None:
        if outcome.place is None:
            site = Site(outcome.record.topic, outcome.record.partition, outcome.record.offset)
            self._add(Kind.UNEXPECTED, site, f"a prediction for {self._topic}", "something else")
            return
        site = Site(self._topic, *outcome.place)
        if outcome.again:
            self._add(Kind.DUPLICATE, site, "one prediction", "one more", at=where(outcome.record))
        if outcome.behind is not None:
            self._add(Kind.ORDER, site, f"to stand before that of offset {outcome.behind}", "behind it", at=where(outcome.record))
        if outcome.expected is None:
            return
        if not is_of_these_definitions(outcome.record, self._pipeline.fingerprint):
            self._findings.checked["predictions of other definitions"] += 1
            return
        for violation in compare_prediction(site, outcome.record, outcome.expected, self._pipeline.name):
            self._findings.add(violation)

    def _add(self, kind: Kind, site: Site, expected: str, found: str, *, at: str | None = None) -> None:
        self._findings.add(Violation(kind=kind, **site._asdict(), at=at, of=self._pipeline.name, expected=expected, found=found))
