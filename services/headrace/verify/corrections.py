"""The corrections of one pipeline, found beside expected: the same ledger as for predictions, but a record may lead to several.

A violation names the record that caused the correction, and the correction by its id. Which corrections there are depends on the features;
so up to the last cause of one that other definitions made nothing is missed, and those are counted. Limit: where corrections were switched
on later than the app began, those of before were never published: verify from then on (`--from`).
"""

from __future__ import annotations

import re
from operator import attrgetter

from headrace.definition import Pipeline
from headrace.partitioner import Partitioner
from headrace.publish.records import decode_correction
from headrace.types import Record, RecordBatch
from headrace.verify.compare import compare_prediction, is_of_these_definitions, misplaced, where
from headrace.verify.findings import Findings, Kind, Site, Violation
from headrace.verify.fold import Led
from headrace.verify.ledger import Ledger, Outcome, Place, prediction_name
from headrace.verify.scope import Scope


class CorrectionCheck:
    """Everything that an event out of order corrected is on the topic of corrections once, in order, as the definitions give it."""

    def __init__(self, pipeline: Pipeline, scope: Scope, findings: Findings) -> None:
        self.topic = pipeline.corrections or ""
        self.reads = pipeline.source.topic
        self._of, self._fingerprint = f"corrections of {pipeline.name}", pipeline.fingerprint
        self._scope, self._findings = scope, findings
        firsts = {name.partition: first for name, first in scope.firsts.items() if name.topic == self.reads}
        self.ledger = Ledger(firsts=firsts, place_firsts=firsts)
        caused_by = rb'"caused_by":\{"topic":"%b","partition":(\d+),"offset":(\d+)\}' % re.escape(self.reads.encode())
        self._cause = re.compile(rb'\{"id":"[^"]*",.*?' + caused_by)
        self._partitions, self._partitioner = len(scope.partitions[self.topic]), Partitioner()
        self._others: dict[int, int] = {}
        """By source partition, the last cause of a correction that other definitions made."""

    def expect(self, led: Led) -> None:
        """Records that were read lead to these corrections."""
        for outcome in self.ledger.expect(led.records, (led.partitions, led.offsets), led.reads):
            self._compare(outcome)

    def meet(self, batch: RecordBatch) -> None:
        """These corrections were found."""
        self._findings.checked["corrections"] += len(batch)
        for violation in misplaced(batch, self._site, self._partitions, self._partitioner, self._of):
            self._findings.add(violation)
        for outcome in self.ledger.meet(batch, self._place):
            self._compare(outcome)

    def settle(self) -> None:
        """Everything was read: what still waits is lost, what came and nothing led to is one too many."""
        early = [one for found in self.ledger.early.values() for one in found if self._ours(one[1], one[0])]
        for one in sorted(self.ledger.waiting.values(), key=attrgetter("partition", "offset", "value")):
            if one.offset <= self._others.get(one.partition, -1):
                continue
            self._add(Kind.LOST, Site(self.reads, one.partition, one.offset), f"correction {_id(one.value)}", "none")
        for place, record in early:
            site = Site(self.reads, *place)
            if self._scope.counts(site, record):
                self._add(Kind.UNEXPECTED, site, self._scope.instead(site), f"correction {_id(record.value)}", at=where(record))

    def _ours(self, record: Record, cause: Place) -> bool:
        """Whether these definitions made a correction; those of others are counted."""
        if is_of_these_definitions(record, self._fingerprint):
            return True
        self._findings.checked["corrections of other definitions"] += 1
        self._others[cause[0]] = max(self._others.get(cause[0], -1), cause[1])
        return False

    def _place(self, value: bytes | None) -> Place | None:
        """Where the record stands that caused a correction."""
        found = self._cause.match(value or b"")
        return None if found is None else (int(found[1]), int(found[2]))

    def _site(self, batch: RecordBatch, row: int) -> Site | None:
        place = self._place(batch.values[row])
        return None if place is None else Site(self.reads, *place)

    def _compare(self, outcome: Outcome) -> None:
        record = outcome.record
        if outcome.place is None:
            site = Site(record.topic, record.partition, record.offset)
            self._add(Kind.UNEXPECTED, site, f"a correction for {self.reads}", "something else")
            return
        if not self._ours(record, outcome.place):
            return
        site = Site(self.reads, *outcome.place)
        if outcome.again:
            self._add(Kind.DUPLICATE, site, f"correction {_id(record.value)} once at most", "one more", at=where(record))
        if outcome.behind is not None:
            self._add(Kind.ORDER, site, f"to stand before those of offset {outcome.behind}", "behind them", at=where(record))
        if outcome.expected is None:
            return
        for violation in compare_prediction(site, record, outcome.expected, self._of, decode=decode_correction):
            self._findings.add(violation)

    def _add(self, kind: Kind, site: Site, expected: str, found: str, *, at: str | None = None) -> None:
        self._findings.add(Violation(kind=kind, **site._asdict(), at=at, of=self._of, expected=expected, found=found))


def _id(value: bytes | None) -> str:
    return prediction_name(value or b"").decode(errors="replace")
