"""The predictions of one pipeline, found beside expected."""

from __future__ import annotations

from headrace.definition import Pipeline
from headrace.partitioner import Partitioner
from headrace.types import RecordBatch
from headrace.verify.compare import PredictionPlaces, compare_prediction, is_of_these_definitions, misplaced, where
from headrace.verify.findings import Findings, Kind, Site, Violation
from headrace.verify.ledger import Expected, Ledger, Outcome
from headrace.verify.scope import Scope


class PredictionCheck:
    """Every source record has exactly one prediction of this pipeline, in order, where its key belongs, as the definitions give it."""

    def __init__(self, pipeline: Pipeline, model: str, scope: Scope, findings: Findings) -> None:
        self._pipeline, self._scope, self._findings = pipeline, scope, findings
        self._topic = pipeline.source.topic
        self._places = PredictionPlaces(self._topic, model)
        self._partitions = len(scope.partitions[pipeline.predictions])
        self._partitioner = Partitioner()
        self.ledger = Ledger(
            firsts={name.partition: first for name, first in scope.firsts.items() if name.topic == self._topic},
            ends={name.partition: end for name, end in scope.ends.items() if name.topic == self._topic},
        )

    def expect(self, expected: Expected) -> None:
        """A source record leads to this prediction."""
        place = self._places.of(expected.value)
        if place is None:
            raise ValueError(f"{self._pipeline!r}: its own encoder wrote an id that is none")
        for outcome in self.ledger.expect(place, expected):
            self._compare(outcome)

    def meet(self, batch: RecordBatch) -> None:
        """These predictions were found."""
        places = self._places.all(batch)
        sites = [None if place is None else Site(self._topic, *place) for place in places]
        self._findings.checked["predictions"] += len(batch)
        for row, place in enumerate(places):
            if place is None:
                site = Site(batch.topic, int(batch.partitions[row]), int(batch.offsets[row]))
                self._add(Kind.UNEXPECTED, site, f"a prediction for {self._topic}", "something else")
        for violation in misplaced(batch, sites, self._partitions, self._partitioner, self._pipeline.name):
            self._findings.add(violation)
        for outcome in self.ledger.meet(batch, places):
            self._compare(outcome)

    def settle(self) -> None:
        """Everything was read: what still waits is lost, what came without a record is one too many."""
        for partition, offset in sorted(self.ledger.waiting):
            self._add(Kind.LOST, Site(self._topic, partition, offset), "a prediction", "none")
        for (partition, offset), records in sorted(self.ledger.early.items()):
            site = Site(self._topic, partition, offset)
            for record in records:
                if self._scope.counts(site, record):
                    self._add(Kind.UNEXPECTED, site, self._scope.instead(site), "a prediction", at=where(record))

    def _compare(self, outcome: Outcome) -> None:
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
