"""I4 alone: the state in the store beside a fold of the source log, without a look at what was published.

Of whole partitions (`StateVerification`), which must be at rest to be compared; or of one entity (`EntityFold`), which need not: its state
is kept for every offset at which it changed, so it is compared with the store where the store stands in that instant, and mended there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final

import numpy as np

from headrace.consume.record_reader import RecordReader
from headrace.definition import App
from headrace.errors import FatalError
from headrace.parts import Limits
from headrace.predict.casting import Pinned
from headrace.predict.scores import Scores
from headrace.publish.encoder import HeaderPolicy
from headrace.source import Source
from headrace.types import Float64s, RecordBatch, TopicPartition
from headrace.verify.findings import Findings
from headrace.verify.fold import SourceFold
from headrace.verify.rest import StateCheck
from headrace.verify.scope import LOOK_MS, Scope, state_scope
from headrace.verify.shelf import Shelf
from headrace.verify.subject import Subject

Told = Callable[[int, int], None]
"""Hears how many events are folded, of how many."""


class Unscored:
    """The model of a fold of which only the states are wanted: those do not depend on scores."""

    name: Final = "unscored"
    version: Final = "0"

    def score(self, values: Float64s) -> Scores:
        """Nothing for everything."""
        return Scores(scores=np.zeros(len(values)), refused=[])


def state_fold(app: App, source: Source, shelf: Shelf, starts: Mapping[TopicPartition, int], scope: Scope) -> SourceFold:
    """The fold of some partitions of a source, for their states; the scope says what is in none of them."""
    return SourceFold(
        app,
        source,
        casting=Pinned({pipeline.name: Unscored() for pipeline in app.pipelines}),
        shelf=shelf,
        starts=starts,
        left_out=scope.left_out,
        erased=scope.erased,
        headers=HeaderPolicy.MINIMAL,
        limits=Limits(),
        partitions=0,  # it stands in what is passed on, and of that nothing is looked at
        look_ups=lambda _: None,
    )


class StateVerification:
    """One comparison of the store with the log. `told` hears how far it is, after every batch."""

    def __init__(self, app: App, subject: Subject, *, told: Told) -> None:
        self._app, self._subject, self._told = app, subject, told

    def run(self, wanted: Sequence[TopicPartition], *, rest_ms: int, keep: int) -> Findings:
        """Compare offset, watermark and every entity of these partitions, at most `rest_ms` after they should have come to rest."""
        findings = Findings(keep=keep)
        scope = state_scope(self._app, self._subject, wanted, rest_ms=rest_ms)
        for name, why in _too_short(scope).items():
            findings.not_checked["I4"] = why
            scope.partitions[name.topic].remove(name)
            del scope.starts[name], scope.ends[name]
        with closing(Shelf({reads.topic: [view.fp for view in self._app.kept_of(reads)] for reads in self._app.inputs})) as shelf:
            folds = {
                reads.topic: state_fold(
                    self._app,
                    reads,
                    shelf,
                    {name: start for name, start in scope.starts.items() if name.topic == reads.topic},
                    scope,
                )
                for reads in self._app.inputs
            }
            self._fold(scope, folds, findings)
            for fold in folds.values():
                fold.settle(scope.ends)
            self._wait_for_store(scope, rest_ms)
            watermarks = {name: folds[name.topic].watermark_ms(name) for name in scope.starts}
            StateCheck(self._app, self._subject, shelf, findings).run(scope, watermarks, whole=True)
        return findings

    def _fold(self, scope: Scope, folds: Mapping[str, SourceFold], findings: Findings) -> None:
        of = sum(scope.ends[name] - start for name, start in scope.starts.items())
        with closing(self._subject.reader()) as reader:
            for batch in reader.batches(scope.starts, scope.ends):
                folds[batch.topic].take(batch)
                findings.checked["events"] += len(batch)
                self._told(findings.checked["events"], of)

    def _wait_for_store(self, scope: Scope, rest_ms: int) -> None:
        """What is committed is in the store a moment later."""
        store, deadline_ms = self._subject.store, self._subject.now_ms() + rest_ms
        while store is not None and self._subject.now_ms() < deadline_ms:
            heads = {
                name: store.read(name, [view.fp for view in self._app.kept_of(reads)], ()).heads.values()
                for reads in self._app.inputs
                for name in scope.partitions[reads.topic]
            }
            if all((head.offset or 0) >= scope.committed[name].offset for name, found in heads.items() for head in found):
                return
            self._subject.pause(LOOK_MS)


def _too_short(scope: Scope) -> dict[TopicPartition, str]:
    """Partitions whose log no longer holds what the windows need, and why they cannot be compared."""
    return {
        name: f"the log of {name.topic}-{name.partition} begins at offset {start} and no longer holds all events of the longest window"
        for name, start in scope.starts.items()
        if start > 0 and start < scope.ends[name] <= scope.firsts[name]
    }


class EntityFold:
    """The states of one entity, as the log gives them, at any offset from where it was told to `reach` on."""

    def __init__(self, app: App, subject: Subject, source: Source, name: TopicPartition, key: bytes, *, told: Told) -> None:
        self._views = [view.fp for view in app.kept_of(source)]
        self._name, self._key, self._told = name, key, told
        scope = state_scope(app, subject, [name], rest_ms=0)
        for why in _too_short(scope).values():
            raise FatalError(f"the state of this entity cannot be told from the log: {why}")
        self.end = scope.starts[name]
        self._begin, self._committed = self.end, scope.committed[name].offset
        self.left_out, self.erased = scope.left_out.get(name, []), scope.erased.get(name, [])
        self._shelf = Shelf({source.topic: self._views})
        self._fold = state_fold(app, source, self._shelf, scope.starts, scope)
        self._ends: list[int] = []
        self._versions: list[Mapping[str, bytes | None]] = []

    def reach(self, reader: RecordReader, end: int) -> None:
        """Fold up to an offset; from there on every version is kept."""
        for batch in self._batches(reader, end):
            self._fold.take(batch)
        self.end = max(self.end, end)
        self._keep(self.end)

    def follow(self, reader: RecordReader, end: int) -> None:
        """Fold on up to an offset, and keep what the states are after each record of the entity."""
        for batch in self._batches(reader, end):
            begin = 0
            for cut, at in self._changes(batch):
                if begin < cut:
                    self._fold.take(batch.select(np.arange(begin, cut)))
                self._keep(at)
                begin = cut
            if begin < len(batch):
                self._fold.take(batch.select(np.arange(begin, len(batch))))
        if any(self.end < one.offset <= end for one in self.erased):
            self._keep(end)
        self.end = max(self.end, end)

    def _changes(self, batch: RecordBatch) -> list[tuple[int, int]]:
        """Behind which records the state may be another one, and the offset that it is kept for."""
        found = {(row + 1, int(batch.offsets[row]) + 1) for row, key in enumerate(batch.keys) if key == self._key}
        found |= {
            (int(np.searchsorted(batch.offsets, one.offset)), one.offset)
            for one in self.erased
            if int(batch.offsets[0]) < one.offset <= int(batch.offsets[-1])
        }
        return sorted(found)

    def at(self, offset: int) -> Mapping[str, bytes | None] | None:
        """The packed state in each view as of an offset, None where there is none; None where we have no version."""
        place = bisect_right(self._ends, offset) - 1
        return self._versions[place] if place >= 0 and offset <= self.end else None

    def watermark_ms(self) -> int:
        """The watermark behind everything folded."""
        return self._fold.watermark_ms(self._name)

    def close(self) -> None:
        """Forget everything."""
        self._shelf.close()

    def _batches(self, reader: RecordReader, end: int) -> Iterator[RecordBatch]:
        if self.end < end:
            for batch in reader.batches({self._name: self.end}, {self._name: end}):
                yield batch
                self._told(int(batch.offsets[-1]) + 1 - self._begin, max(self._committed, end) - self._begin)

    def _keep(self, offset: int) -> None:
        self._fold.settle({self._name: offset})
        self._ends.append(offset)
        self._versions.append({view: self._shelf.states(self._name, view, [self._key])[0] for view in self._views})
