"""The results of one stage on one topic, found beside expected: predictions, or what it passes on to the next stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter

import numpy as np

from headrace import hop_record
from headrace.definition import Stage
from headrace.partitioner import Partitioner
from headrace.source import Hop
from headrace.types import Int32s, Int64s, Record, RecordBatch
from headrace.verify.compare import PredictionPlaces, compare_hop, compare_prediction, is_of_these_definitions, misplaced, where
from headrace.verify.findings import Findings, Kind, Site, Violation
from headrace.verify.fold import Led
from headrace.verify.ledger import Expected, Ledger, Outcome, Place, PlaceOf
from headrace.verify.look_ups import PREDICTED, REFUSED, LookUpAnswers
from headrace.verify.scope import Scope

Places = tuple[Int32s, Int64s]
Compare = Callable[[Site, Record, Expected, str], Iterator[Violation]]


class ResultCheck:
    """Every record that a stage read has exactly one result on a topic, in order, where its key belongs, as the definitions give it."""

    def __init__(self, stage: Stage, topic: str, model: str, scope: Scope, findings: Findings, look_ups: LookUpAnswers) -> None:
        self._scope, self._findings = scope, findings
        self.reads = stage.reads.topic
        self._by_hop = isinstance(stage.reads, Hop) and stage.passes_on is None
        self._ours: Callable[[Record], bool]
        self._compare_two: Compare
        self._places: Callable[[Led], Places]
        self._excuse: Callable[[Place, int], bool]
        """Whether it may be that something else came of a record, or this although it was not expected."""
        firsts = {name.partition: first for name, first in scope.firsts.items() if name.topic == self.reads}
        self.topic = topic
        if stage.passes_on is None:
            shadows = topic == stage.pipeline.shadow
            self.of, self.what = stage.pipeline.name, "a shadow's score" if shadows else "a prediction"
            self._counted = "scores of shadows" if shadows else "predictions"
            self._sites, self._places = stage.pipeline.source.topic, _sent_places
            self._place_of: PlaceOf = PredictionPlaces(self._sites, model, shadows=shadows).of
            self._ours = partial(is_of_these_definitions, fingerprint=stage.pipeline.fingerprint)
            self._compare_two = lambda site, record, expected, of: compare_prediction(
                site, record, expected, of, look_ups.untold(stage.pipeline, (site.partition, site.offset))
            )
            self._excuse = partial(look_ups.excuse, stage.pipeline)
            self.ledger = Ledger(firsts=firsts, place_firsts={} if self._by_hop else firsts)
        else:
            self.of, self.what = f"hop {stage.passes_on.key}", "a record on the hop"
            self._sites, self._counted, self._places = self.reads, "records of hops", _read_places
            self._place_of = _hop_place
            self._excuse = _never
            self._ours = partial(_made_by, hop_record.made_by_number(stage.passes_on.made_by))
            self._compare_two = partial(compare_hop, stage.passes_on.carried)
            self.ledger = Ledger(firsts=firsts, place_firsts=firsts, name=_hop_name, cut=0)
        self._partial = self._by_hop and any(firsts.values())
        self._partitions = len(scope.partitions[self.topic])
        self._partitioner = Partitioner()

    def expect(self, led: Led) -> None:
        """What was read leads to these results."""
        for outcome in self.ledger.expect(led.records, self._places(led), led.reads):
            self._compare(outcome)

    def meet(self, batch: RecordBatch) -> None:
        """These results were found."""
        self._findings.checked[self._counted] += len(batch)
        for violation in misplaced(batch, self._site, self._partitions, self._partitioner, self.of):
            self._findings.add(violation)
        for outcome in self.ledger.meet(batch, self._place_of):
            self._compare(outcome)

    def _site(self, batch: RecordBatch, row: int) -> Site | None:
        place = self._place_of(batch.values[row])
        return None if place is None else Site(self._sites, *place)

    def settle(self) -> None:
        """Everything was read: what still waits is lost, what came without a record is one too many."""
        for place in sorted((one.partition, one.offset) for one in self.ledger.waiting.values()):
            if not self._excuse(place, REFUSED):
                self._add(Kind.LOST, Site(self._sites, *place), self.what, "none")
        early = ((*found, number == 0) for some in self.ledger.early.values() for number, found in enumerate(some))
        for place, record, first in sorted(early, key=itemgetter(0)):
            site = Site(self._sites, *place)
            if self._counts(site, record) and not (first and self._excuse(place, PREDICTED)):
                self._add(Kind.UNEXPECTED, site, self._scope.instead(site), self.what, at=where(record))

    def _counts(self, site: Site, record: Record) -> bool:
        """Whether a result that nothing was read for is one too many, and not one of what came before or behind what is looked at."""
        if not self._by_hop:
            return self._scope.counts(site, record)
        if self._partial and record.offset < self.ledger.begins.get(record.partition, np.iinfo(np.int64).max):
            return False
        return not self._scope.newer(record)

    def _compare(self, outcome: Outcome) -> None:
        if outcome.place is None:
            site = Site(outcome.record.topic, outcome.record.partition, outcome.record.offset)
            self._add(Kind.UNEXPECTED, site, f"{self.what} for {self._sites}", "something else")
            return
        site = Site(self._sites, *outcome.place)
        if outcome.again:
            self._add(Kind.DUPLICATE, site, f"one {self.what.partition(' ')[2]}", "one more", at=where(outcome.record))
        if outcome.behind is not None:
            self._add(Kind.ORDER, site, f"to stand before that of offset {outcome.behind}", "behind it", at=where(outcome.record))
        if outcome.expected is None:
            return
        if not self._ours(outcome.record):
            self._findings.checked[f"{self._counted} of other definitions"] += 1
            return
        for violation in self._compare_two(site, outcome.record, outcome.expected, self.of):
            self._findings.add(violation)

    def _add(self, kind: Kind, site: Site, expected: str, found: str, *, at: str | None = None) -> None:
        self._findings.add(Violation(kind=kind, **site._asdict(), at=at, of=self.of, expected=expected, found=found))


def _never(place: Place, came: int) -> bool:
    """A hop's records depend on no model."""
    del place, came
    return False


def _sent_places(led: Led) -> Places:
    return led.partitions, led.offsets


def _read_places(led: Led) -> Places:
    return led.reads


def _hop_name(value: bytes) -> bytes:
    return value[hop_record.PLACE]


def _hop_place(value: bytes | None) -> Place | None:
    """Where the record stands that a record of a hop was made of."""
    found = hop_record.opened([value])
    return (int(found.heads["feeder"][0]), int(found.heads["feeder_offset"][0])) if found.readable[0] else None


def _made_by(number: int, record: Record) -> bool:
    found = hop_record.opened([record.value])
    return not found.readable[0] or int(found.heads["made_by"][0]) == number
