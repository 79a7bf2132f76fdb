"""What a result topic must hold, and what it was found to hold: every expected result is met once, by its id.

A ledger keeps the results that are expected and not met yet, those that were found and not expected yet, and one bit for each source record
that was ever expected: so a second result is told from one without a record. Results of one source partition stand in a result partition
in source order, so the newest offset met there is enough to see one that stands behind a later one.

All of it runs once a record, so a result that is as it should be costs a look into a dict and four comparisons, and becomes no object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.types import Headers, Int32s, Int64s, OutRecords, Record, RecordBatch

Place = tuple[int, int]
"""Partition and offset of a source record."""

PlaceOf = Callable[[bytes | None], Place | None]
"""From the value of a prediction to its source record; None where it is none of ours."""

_ID = len(b'{"id":"')
_UNSCORED = len(b"0}")
"""How an expected prediction ends, which was scored at 0: what comes before must be the same in the one found."""


class Expected(NamedTuple):
    """A result that must be there, and its source record's partition and offset."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    """Of a prediction: up to where it says when it was scored."""
    headers: Headers
    timestamp_ms: int

    def is_met_by(self, key: bytes | None, value: bytes | None, headers: Headers | None, timestamp_ms: int) -> bool:
        """Whether a prediction is this one in every byte but for when it was scored; its score may still be near enough if not."""
        return (
            value is not None
            and value.startswith(self.value or b"")
            and key == self.key
            and timestamp_ms == self.timestamp_ms
            and headers == self.headers
        )


class OffsetBits:
    """A set of offsets from `first` on, one bit each."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._bits: NDArray[np.uint8] = np.zeros(1_024, dtype=np.uint8)

    def add(self, offsets: Int64s) -> None:
        """Put offsets in, none below the first."""
        places, bits = np.divmod(offsets - self._first, 8)
        if len(places) and places[-1] >= len(self._bits):
            self._bits = np.concatenate((self._bits, np.zeros(int(places[-1]) + 1, dtype=np.uint8)))
        np.bitwise_or.at(self._bits, places, np.left_shift(1, bits).astype(np.uint8))

    def __contains__(self, offset: int) -> bool:
        place, bit = divmod(offset - self._first, 8)
        return 0 <= place < len(self._bits) and bool(self._bits[place] >> bit & 1)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of a found result that is not simply right: `expected` is None where there is nothing (more) to compare it with."""

    record: Record
    place: Place | None
    """Its source record; None for what is no prediction of ours."""
    expected: Expected | None
    again: bool = False
    """Its source record was met before."""
    behind: int | None = None
    """The later offset of the same source partition that stands in front of it."""


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The predictions of one pipeline for one source topic."""

    firsts: dict[int, int]
    """The first offset of each source partition that is checked."""
    ends: dict[int, int]
    """The offset behind the last one."""
    waiting: dict[bytes, Expected] = field(default_factory=dict)
    early: dict[bytes, list[tuple[Place, Record]]] = field(default_factory=dict)
    waiting_of: Counter[int] = field(default_factory=Counter)
    """How many wait, by source partition."""
    early_of: Counter[int] = field(default_factory=Counter)
    """How many came early, by result partition."""
    _ever: dict[int, OffsetBits] = field(default_factory=dict)
    _newest: dict[Place, int] = field(default_factory=dict)

    def expect(self, records: OutRecords, partitions: Int32s, offsets: Int64s) -> Iterator[Outcome]:
        """Source records lead to these predictions, row by row; gives what was found of them before."""
        for number, first in self.firsts.items():
            mine = offsets[(partitions == number) & (offsets >= first)]
            self._ever.setdefault(number, OffsetBits(first)).add(mine)
        columns = partitions.tolist(), offsets.tolist(), records.keys, records.values, records.headers, records.timestamps_ms
        for partition, offset, key, value, headers, timestamp_ms in zip(*columns, strict=True):
            if offset < self.firsts[partition]:
                continue
            if value is None:
                continue
            name = value[_ID : value.find(b'"', _ID)]
            expected = Expected(partition, offset, key, value[:-_UNSCORED], headers, timestamp_ms)
            found = self.early.pop(name, None) if self.early else None
            if found is None:
                self.waiting[name] = expected
                self.waiting_of[partition] += 1
                continue
            self.early_of.subtract(record.partition for _, record in found)
            place, record = found[0]
            if not expected.is_met_by(record.key, record.value, record.headers, record.timestamp_ms):
                yield Outcome(record=record, place=place, expected=expected)
            for place, record in found[1:]:
                yield Outcome(record=record, place=place, expected=None, again=True)

    def meet(self, batch: RecordBatch, place_of: PlaceOf) -> Iterator[Outcome]:
        """Found predictions: those that are not simply right, with what was expected of them; those that came before their source record
        wait for it. `place_of` finds the source records of those that are not known by their ids.
        """
        waiting, newest = self.waiting, self._newest
        columns = batch.partitions.tolist(), batch.keys, batch.values, batch.headers, batch.timestamps_ms.tolist()
        for row, (number, key, value, headers, timestamp_ms) in enumerate(zip(*columns, strict=True)):
            expected = None if value is None else waiting.pop(value[_ID : value.find(b'"', _ID)], None)
            if value is None or expected is None or expected.value is None:
                yield from self._unknown(batch, row, place_of)
                continue
            self.waiting_of[expected.partition] -= 1
            step = (number, expected.partition)
            behind = newest.get(step, -1)
            if behind < expected.offset:
                newest[step] = expected.offset
                if expected.is_met_by(key, value, headers, timestamp_ms):
                    continue
                behind = -1
            place = (expected.partition, expected.offset)
            yield Outcome(record=one(batch, row), place=place, expected=expected, behind=None if behind < 0 else behind)

    def _unknown(self, batch: RecordBatch, row: int, place_of: PlaceOf) -> Iterator[Outcome]:
        """A prediction that nothing waits for: a second one, an early one, one out of scope or one too many."""
        place = place_of(batch.values[row])
        if place is None:
            yield Outcome(record=one(batch, row), place=None, expected=None)
            return
        if place[1] < self.firsts.get(place[0], 0):
            return
        record = one(batch, row)
        if place[1] in self._ever.get(place[0], ()):
            yield Outcome(record=record, place=place, expected=None, again=True)
            return
        name = (record.value or b"")[_ID : (record.value or b"").find(b'"', _ID)]
        repeated = name in self.early
        self.early.setdefault(name, []).append((place, record))
        self.early_of[record.partition] += 1
        if not repeated and place[1] < self.ends.get(place[0], 0):
            step = (record.partition, place[0])
            behind = self._newest.get(step, -1)
            self._newest[step] = max(behind, place[1])
            if behind > place[1]:
                yield Outcome(record=record, place=place, expected=None, behind=behind)


def one(batch: RecordBatch, row: int) -> Record:
    """One record of a batch."""
    return Record(
        topic=batch.topic,
        partition=int(batch.partitions[row]),
        offset=int(batch.offsets[row]),
        timestamp_ms=int(batch.timestamps_ms[row]),
        key=batch.keys[row],
        value=batch.values[row],
        headers=batch.headers[row] or [],
    )
