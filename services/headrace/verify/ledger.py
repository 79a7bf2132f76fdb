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
"""From the value of a result to its source record; None where it is none of ours."""

NameOf = Callable[[bytes], bytes]
"""From the value of a result to what no other result has."""

_ID = len(b'{"id":"')
UNSCORED = len(b"0}")
"""How an expected prediction ends, which was scored at 0: what comes before must be the same in the one found."""


def prediction_name(value: bytes) -> bytes:
    """The id of a prediction."""
    return value[_ID : value.find(b'"', _ID)]


class Expected(NamedTuple):
    """A result that must be there, and its source record's partition and offset."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    """Of a prediction: up to where it says when it was scored."""
    headers: Headers
    timestamp_ms: int
    read: Place
    """Where the record stands that was read: in a hop, if it came by one."""


class OffsetBits:
    """A set of offsets from `first` on, one bit each."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._bits: NDArray[np.uint8] = np.zeros(1_024, dtype=np.uint8)

    def add(self, offsets: Int64s) -> None:
        """Put offsets in, none below the first."""
        places, bits = np.divmod(offsets - self._first, 8)
        most = int(places.max(initial=0))
        if most >= len(self._bits):
            self._bits = np.concatenate((self._bits, np.zeros(most + 1, dtype=np.uint8)))
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
    """The results on one topic of what was read from one log: a source or a hop."""

    firsts: dict[int, int]
    """The first offset of each partition of the log from which on results are checked."""
    place_firsts: dict[int, int]
    """The same for the places that results name; nothing where those are not of the log, as with predictions that came by a hop."""
    name: NameOf = prediction_name
    cut: int = UNSCORED
    """So many bytes at the end of an expected value say nothing."""
    begins: dict[int, int] = field(default_factory=dict)
    """By result partition, where the first result stood that was expected."""
    waiting: dict[bytes, Expected] = field(default_factory=dict)
    early: dict[bytes, list[tuple[Place, Record]]] = field(default_factory=dict)
    waiting_of: Counter[int] = field(default_factory=Counter)
    """How many wait, by source partition."""
    early_of: Counter[int] = field(default_factory=Counter)
    """How many came early, by result partition."""
    _ever: dict[int, OffsetBits] = field(default_factory=dict)
    _newest: dict[Place, int] = field(default_factory=dict)
    _furthest: dict[Place, tuple[Place, Record]] = field(default_factory=dict)
    """Of those that came early and were expected since, the one that stands furthest in its result partition."""

    def expect(self, records: OutRecords, places: tuple[Int32s, Int64s], reads: tuple[Int32s, Int64s]) -> Iterator[Outcome]:
        """Records lead to these results, row by row; gives what was found of them before. `places`: where those records stand in the topic
        of the source, `reads`: where in the log.
        """
        wanted = reads[1] >= self._firsts(reads[0])
        for number in np.unique(places[0]).tolist():
            mine = places[1][(places[0] == number) & wanted]
            self._ever.setdefault(number, OffsetBits(self.place_firsts.get(number, 0))).add(mine)
        columns = records.keys, records.values, records.headers, records.timestamps_ms
        at = zip(places[0].tolist(), places[1].tolist(), reads[0].tolist(), reads[1].tolist(), wanted.tolist(), strict=True)
        for (partition, offset, read, read_offset, checked), key, value, headers, timestamp_ms in zip(at, *columns, strict=True):
            if not checked or value is None:
                continue
            name = self.name(value)
            kept = value[: len(value) - self.cut]
            expected = Expected(partition, offset, key, kept, headers, timestamp_ms, (read, read_offset))
            found = self.early.pop(name, None) if self.early else None
            if found is None:
                self.waiting[name] = expected
                self.waiting_of[read] += 1
                continue
            self.early_of.subtract(record.partition for _, record in found)
            place, record = found[0]
            step = (record.partition, read)
            self._newest[step] = max(self._newest.get(step, -1), read_offset)
            before = self._furthest.get(step)
            if before is not None and before[1].offset > record.offset:
                yield Outcome(record=before[1], place=before[0], expected=None, behind=read_offset)
            else:
                self._furthest[step] = place, record
            if not self._met(expected, record.key, record.value, record.headers, record.timestamp_ms):
                yield Outcome(record=record, place=place, expected=expected)
            for place, record in found[1:]:
                yield Outcome(record=record, place=place, expected=None, again=True)

    def _met(self, expected: Expected, key: bytes | None, value: bytes | None, headers: Headers | None, timestamp_ms: int) -> bool:
        """Whether a result is the expected one in every byte but for when it was scored; a score may still be near enough if not."""
        wanted = expected.value or b""
        return (
            value is not None
            and (value.startswith(wanted) if self.cut else value == wanted)
            and key == expected.key
            and timestamp_ms == expected.timestamp_ms
            and headers == expected.headers
        )

    def _firsts(self, partitions: Int32s) -> Int64s:
        """The first offset that is checked, for each of these partitions."""
        table = np.zeros(max(self.firsts, default=0) + 1, dtype=np.int64)
        table[list(self.firsts)] = list(self.firsts.values())
        return table[partitions]

    def meet(self, batch: RecordBatch, place_of: PlaceOf) -> Iterator[Outcome]:
        """Found predictions: those that are not simply right, with what was expected of them; those that came before their source record
        wait for it. `place_of` finds the source records of those that are not known by their ids.
        """
        waiting, newest, name, begins = self.waiting, self._newest, self.name, self.begins
        columns = batch.partitions.tolist(), batch.keys, batch.values, batch.headers, batch.timestamps_ms.tolist()
        for row, (number, key, value, headers, timestamp_ms) in enumerate(zip(*columns, strict=True)):
            expected = None if value is None else waiting.pop(name(value), None)
            if value is None or expected is None or expected.value is None:
                yield from self._unknown(batch, row, place_of)
                continue
            read, offset = expected.read
            self.waiting_of[read] -= 1
            if number not in begins:
                begins[number] = int(batch.offsets[row])
            step = (number, read)
            behind = newest.get(step, -1)
            if behind <= offset:  # a record leads to one result, or to several corrections
                newest[step] = offset
                if self._met(expected, key, value, headers, timestamp_ms):
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
        if place[1] < self.place_firsts.get(place[0], 0):
            return
        record = one(batch, row)
        if place[1] in self._ever.get(place[0], ()):
            yield Outcome(record=record, place=place, expected=None, again=True)
            return
        self.early.setdefault(self.name(record.value or b""), []).append((place, record))
        self.early_of[record.partition] += 1


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
