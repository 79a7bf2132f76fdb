"""The other worker: the same path of an event, fed from the log alone, one partition after another or all at once.

Nothing of it was ever published or stored, it never died and was never rebalanced; so what comes out is what the definitions demand of a
log. It is the worker's own decoder, fold, scorer and encoder, whose laws have tests of their own; what is verified here is delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headrace.assembly import source_path
from headrace.clock import ManualClock
from headrace.crashes import rows_at
from headrace.definition import App, Pipeline
from headrace.features.looked_up import LooksUp
from headrace.forgotten import Erasure, token_of
from headrace.parts import Limits
from headrace.predict.casting import Casting
from headrace.publish.encoder import HeaderPolicy
from headrace.source import Source
from headrace.timeline import Timeline
from headrace.types import (
    NO_WATERMARK_MS,
    Bools,
    Int32s,
    Int64s,
    OutRecords,
    PartitionWrite,
    RecordBatch,
    TopicPartition,
    ViewWrite,
)
from headrace.verify.shelf import Shelf

RESIDENT = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Led:
    """Records for a result topic that records of the log lead to: row by row, which rows of the batch those are. `partitions` and `offsets`
    are where they stand in the source's topic, `reads` where in the log that is read. Of dead letters there are none of these; of
    corrections they are those of the records that caused them.
    """

    records: OutRecords
    partitions: Int32s
    offsets: Int64s
    reads: tuple[Int32s, Int64s]


class SourceFold:
    """Folds the partitions of one source or hop from offsets of our choice on."""

    def __init__(
        self,
        app: App,
        source: Source,
        *,
        casting: Casting,
        shelf: Shelf,
        starts: Mapping[TopicPartition, int],
        left_out: Mapping[TopicPartition, Sequence[int]],
        erased: Mapping[TopicPartition, Sequence[Erasure]],
        headers: HeaderPolicy,
        limits: Limits,
        partitions: int,
        look_ups: Callable[[Pipeline], LooksUp | None],
    ) -> None:
        """`left_out`: the offsets that were condemned (`crashes.py`); `erased`: whose state was taken away, and where (`forgotten.py`);
        `partitions`: how many the topic has; `look_ups` gives what a pipeline looks up, `casting` says who scores.
        """
        self._shelf, self._left_out = shelf, left_out
        # What was taken away where the fold begins, or before, is not there anyway.
        self._erased = {name: [one for one in erased.get(name, ()) if one.offset > start] for name, start in starts.items()}
        self.of_other_definitions = 0
        """Records of a hop with features that other definitions made."""
        self._clock = ManualClock(0)
        self._path = source_path(
            app,
            source,
            shelf,
            look_ups=look_ups,
            casting=casting,
            clock=self._clock,
            limits=replace(limits, refused_share=1.0, resident_entities=RESIDENT),
            headers=headers,
        )
        self._path.partitions = partitions
        self._ends: dict[TopicPartition, int] = {}
        for partition, start in starts.items():
            at = {view.fp: start for view in self._path.states.kept}
            self._path.states.start(partition, at, NO_WATERMARK_MS, empty=True)

    def take(self, batch: RecordBatch) -> None:
        """Fold the next records, whatever they lead to."""
        for some in self._cut(batch):
            kept = np.flatnonzero(~rows_at(some, self._left_out))
            self._path.replay(some if len(kept) == len(some) else some.select(kept), Timeline(self._clock.monotonic_ns))
            self._store_if_many()

    def results(self, batch: RecordBatch) -> Iterator[Led]:
        """What the next records lead to. Those of a hop that other definitions made are folded and lead to nothing we could tell."""
        for some in self._cut(batch):
            yield from self._results(some)

    def _results(self, batch: RecordBatch) -> Iterator[Led]:
        out = rows_at(batch, self._left_out)
        if out.any():
            letters, _ = self._path.refuse(batch.select(np.flatnonzero(out)))
            yield from map(_letters, letters)
        strange = self._path.made_otherwise(batch) & ~out
        for rows, ours in _stretches(np.flatnonzero(~out), strange):
            some = batch if len(rows) == len(batch) else batch.select(rows)
            if ours:
                yield from self._scored(some)
            else:
                self._path.replay(some, Timeline(self._clock.monotonic_ns))
                self.of_other_definitions += len(some)
            self._store_if_many()

    def settle(self, ends: Mapping[TopicPartition, int]) -> None:
        """Everything below these offsets was given: take away what was taken away up to there, and bring the shelf up to it all."""
        for name, end in ends.items():
            while self._erased.get(name) and self._erased[name][0].offset <= end:
                self._erase(name)
        self.store()

    def _cut(self, batch: RecordBatch) -> Iterator[RecordBatch]:
        """The next records, cut where somebody's state is taken away; it is, before what follows is asked for."""
        rest = batch
        while len(rest):
            cuts = [(place, name) for name in self._erased if name.topic == rest.topic and (place := self._place(rest, name)) is not None]
            if not cuts:
                break
            place, name = min(cuts)
            if place:
                yield self._begun(rest.select(np.arange(place)))
                rest = rest.select(np.arange(place, len(rest)))
            self._erase(name)
        if len(rest):
            yield self._begun(rest)

    def _place(self, batch: RecordBatch, name: TopicPartition) -> int | None:
        """In front of which record somebody's state is taken away."""
        if not self._erased[name]:
            return None
        behind = np.flatnonzero((batch.partitions == name.partition) & (batch.offsets >= self._erased[name][0].offset))
        return int(behind[0]) if len(behind) else None

    def _erase(self, name: TopicPartition) -> None:
        """Take away the next state that was taken away: as for a worker that comes to a partition whose store has it no more."""
        erasure, states = self._erased[name].pop(0), self._path.states
        self.store()
        for view in states.kept:
            keys = [key for page in self._shelf.pages(name, view.fp) for key, _ in page]
            gone = [key for key in keys if token_of(name.topic, key.decode()) == erasure.token]
            write = ViewWrite(view=view.fp, start=erasure.offset, end=erasure.offset, chunks=[], deletions=gone)
            self._shelf.apply([PartitionWrite(partition=name, watermark_ms=states.watermark_ms(name), views=[write])])
        at = self._ends.get(name, 0)
        states.start(name, {view.fp: at for view in states.kept}, states.watermark_ms(name))

    def _begun(self, batch: RecordBatch) -> RecordBatch:
        self._begin(batch)
        return batch

    def _begin(self, batch: RecordBatch) -> None:
        for number in set(batch.partitions.tolist()):
            last = int(batch.offsets[batch.partitions == number][-1])
            self._ends[TopicPartition(batch.topic, number)] = last + 1

    def _store_if_many(self) -> None:
        if self._path.states.touched() > RESIDENT // 2:
            self.store()

    def _scored(self, batch: RecordBatch) -> Iterator[Led]:
        """What records lead to that all go down the path."""
        outputs, _ = self._path.score(batch, Timeline(self._clock.monotonic_ns))
        letters = self._path.dead_letters.topic
        sent = self._path.sent(batch)
        for records in outputs:
            if records.topic == letters or records.rows is None:
                yield _letters(records)
                continue
            yield Led(
                records=records,
                partitions=sent.partitions[records.rows],
                offsets=sent.offsets[records.rows],
                reads=(batch.partitions[records.rows], batch.offsets[records.rows]),
            )

    def store(self) -> None:
        """Bring the shelf up to what was folded."""
        self._shelf.apply(self._path.states.pack(self._ends))
        for partition, end in self._ends.items():
            self._path.states.applied(partition, end)

    def watermark_ms(self, partition: TopicPartition) -> int:
        """The watermark behind everything folded."""
        return self._path.states.watermark_ms(partition)


def _letters(records: OutRecords) -> Led:
    nowhere = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    return Led(records=records, partitions=nowhere[0], offsets=nowhere[1], reads=nowhere)


def _stretches(rows: Int64s, strange: Bools) -> Iterator[tuple[Int64s, bool]]:
    """Rows in their order, cut where ours and those of other definitions meet, and which they are."""
    cuts = np.flatnonzero(np.diff(strange[rows])) + 1
    for some in np.split(rows, cuts):
        if len(some):
            yield some, not strange[some[0]]
