"""The promise of section "Exactly once", checked on a deployment from its topics, store and definitions alone.

    source log --fold (SourceFold)--> expected results --+
                                                          +-- Ledger: met once, in order, byte for byte
    prediction topics, hops, dead letters ----------------+

Of a pipeline of several stages each is verified by itself: what it reads, its source or a hop, leads to what it writes, a hop or
predictions.

What was looked up in views of other sources is worked out first (`look_ups.py`).

Both sides are read as streams, and a partition that is far ahead of the other side waits; so what is in memory is how far they are apart,
not the log.

First the ends of the result topics are taken, then the group's stable offsets, then the ends again: a result of a committed record stands
below the last, and one above the offset and below the first is one too many, whoever works meanwhile.

Limits. What was scored under other definitions (another fingerprint) is counted, met and not compared; another version of the model than
the one at hand is named as wrong. A log that has lost its beginning is folded from there, and compared from where every window is whole
again. The fold uses the worker's own decoder, kernel, model call and encoder: a mistake in those is found by their tests, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from headrace.consume.record_reader import RecordFeed
from headrace.definition import App
from headrace.parts import Limits
from headrace.predict.casting import Casting
from headrace.publish.encoder import HeaderPolicy
from headrace.types import RecordBatch, TopicPartition
from headrace.verify.corrections import CorrectionCheck
from headrace.verify.findings import Findings
from headrace.verify.fold import SourceFold
from headrace.verify.letters import DeadLetterCheck
from headrace.verify.look_ups import LookUpAnswers
from headrace.verify.rest import StateCheck, check_rest
from headrace.verify.results import ResultCheck
from headrace.verify.scope import Scope, scope_of
from headrace.verify.shelf import Shelf
from headrace.verify.subject import Subject

APART, LEAST_APART = 100_000, 2_000
"""How many results may wait for the other side in all, and of one partition in any case."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a verification is."""

    events: int = 0
    of: int = 0
    waiting: int = 0
    """Expected results that were not met yet, and found ones that were not expected yet."""
    violations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is to be verified: records with timestamps from `from_ms` up to `to_ms` (None: all there are)."""

    from_ms: int | None = None
    to_ms: int | None = None
    live: bool = False
    """Do not expect everything to be at rest: workers may be at work."""
    rest_ms: int = 10_000
    """How long to wait for rest."""
    keep: int = 1_000
    """How many violations are kept whole."""


class Verification:
    """One verification of an app. `casting_of` says by the facts who scored what; `told` hears how far it is, after every batch."""

    def __init__(
        self,
        app: App,
        subject: Subject,
        *,
        casting_of: Callable[[Sequence[bytes | None]], Casting],
        headers: HeaderPolicy,
        limits: Limits,
        told: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._app, self._subject, self._headers, self._limits, self._told = app, subject, headers, limits, told
        self._casting_of = casting_of
        self._findings = Findings()
        self._progress = Progress()

    def run(self, wishes: Wishes) -> Findings:
        """Verify. Raises `TransientError` while a server is away, `BrokerRefused` where something is missing."""
        self._findings.keep = wishes.keep
        scope = scope_of(self._app, self._subject, wishes.from_ms, wishes.to_ms, rest_ms=0 if wishes.live else wishes.rest_ms)
        casting = self._casting_of(scope.facts)
        self._progress.of = sum(max(0, scope.ends[name] - start) for name, start in scope.starts.items())
        with (
            closing(LookUpAnswers(self._app, self._subject, scope, casting, self._read_first)) as look_ups,
            closing(Shelf({reads.topic: [view.fp for view in self._app.kept_of(reads)] for reads in self._app.inputs})) as shelf,
        ):
            look_ups.gather()
            folds = {
                reads.topic: SourceFold(
                    self._app,
                    reads,
                    casting=casting,
                    shelf=shelf,
                    starts={name: start for name, start in scope.starts.items() if name.topic == reads.topic},
                    left_out=scope.left_out,
                    erased=scope.erased,
                    headers=self._headers,
                    limits=self._limits,
                    partitions=len(scope.partitions[reads.topic]),
                    look_ups=look_ups.of,
                )
                for reads in self._app.inputs
            }
            self._join(scope, folds, look_ups, casting)
            self._findings.checked.update(look_ups.counts())
            for fold in folds.values():
                fold.settle(scope.ends)
            check_rest(self._app, self._subject, scope, self._findings, live=wishes.live)
            watermarks = {name: folds[name.topic].watermark_ms(name) for name in scope.starts}
            StateCheck(self._app, self._subject, shelf, self._findings).run(scope, watermarks, whole=wishes.to_ms is None)
        return self._findings

    def _read_first(self, records: int) -> None:
        """Records that are read for what was looked up, before the others: how many there are shows as they come."""
        self._progress.events += records
        self._progress.of += records
        self._told(self._progress)

    # --------------------------------------------------------------------------------------------------------- two streams

    def _join(self, scope: Scope, folds: Mapping[str, SourceFold], look_ups: LookUpAnswers, casting: Casting) -> None:
        """Read source and results side by side until both are over."""
        checks = [
            ResultCheck(stage, topic, casting.model_name(stage.pipeline.name), scope, self._findings, look_ups)
            for stage in self._app.stages
            for topic in stage.writes
        ]
        results: dict[str, ResultCheck | CorrectionCheck] = {check.topic: check for check in checks}
        corrections = (CorrectionCheck(one, scope, self._findings) for one in self._app.pipelines if one.corrections is not None)
        results |= {check.topic: check for check in corrections}
        letters = DeadLetterCheck(self._app, scope, self._findings, look_ups)
        readers = [self._subject.reader() for _ in range(3)]
        try:
            source = readers[0].feed(scope.starts, scope.ends)
            found = readers[1].feed(*scope.results([*results]))
            refused = readers[2].feed(*scope.results([self._app.dead_letters]))
            while source.left or found.left or refused.left:
                self._hold(source, found, results)
                for batch in source.take() if source.left else ():
                    self._fold(batch, folds[batch.topic], results, letters)
                for batch in found.take() if found.left else ():
                    results[batch.topic].meet(batch)
                for batch in refused.take() if refused.left and (letters.wants() or not source.left) else ():
                    letters.meet(batch)
                self._progress.waiting = sum(len(one.ledger.waiting) + len(one.ledger.early) for one in results.values())
                self._progress.violations = self._findings.counts.total()
                self._told(self._progress)
        finally:
            for reader in readers:
                reader.close()
        for one in results.values():
            one.settle()
        letters.settle()

    def _hold(self, source: RecordFeed, found: RecordFeed, results: Mapping[str, ResultCheck | CorrectionCheck]) -> None:
        """Let those wait that are far ahead of the other side; nobody, where that would be everybody who has something left.

        Results stand in the order of their transactions, so what one partition waits for is never behind what waits for it.
        """
        most = max(LEAST_APART, APART // (len(source.left) + len(found.left) + 1))
        ahead, early = set(), set()
        for topic, one in results.items():
            ahead |= {TopicPartition(one.reads, number) for number, count in one.ledger.waiting_of.items() if count > most}
            early |= {TopicPartition(topic, number) for number, count in one.ledger.early_of.items() if count > most}
        stuck = source.left <= ahead and found.left <= early
        source.hold(frozenset() if stuck or not found.left else ahead)
        found.hold(frozenset() if stuck or not source.left else early)

    def _fold(
        self, batch: RecordBatch, fold: SourceFold, results: Mapping[str, ResultCheck | CorrectionCheck], letters: DeadLetterCheck
    ) -> None:
        self._progress.events += len(batch)
        self._findings.checked["events"] += len(batch)
        for led in fold.results(batch):
            if led.records.topic == self._app.dead_letters:
                letters.expect(led.records)
            else:
                results[led.records.topic].expect(led)
