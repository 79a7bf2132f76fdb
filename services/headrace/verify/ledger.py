"""What a result topic must hold, and what it was found to hold: every expected result is met once, by its source coordinates.

A ledger keeps the results that are expected and not met yet, those that are met and not expected yet, and one bit for each source record
that was ever expected: so a second result is told from one without a record. Results of one source partition stand in a result partition
in source order, so the newest offset met there is enough to see one that stands behind a later one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from headrace.types import Headers, Record, RecordBatch

Place = tuple[int, int]
"""Partition and offset of a source record."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A result that must be there."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


class OffsetBits:
    """A set of offsets from `first` on, one bit each."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._bits = bytearray()

    def add(self, offset: int) -> None:
        """Put an offset in."""
        place, bit = divmod(offset - self._first, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits) + len(self._bits) // 4))
        self._bits[place] |= 1 << bit

    def __contains__(self, offset: int) -> bool:
        place, bit = divmod(offset - self._first, 8)
        return 0 <= place < len(self._bits) and bool(self._bits[place] >> bit & 1)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one found result: `expected` is None where there is nothing (more) to compare it with."""

    record: Record
    place: Place
    expected: Expected | None
    again: bool = False
    """Its source record was met before."""
    behind: int | None = None
    """The later offset of the same source partition that stands in front of it."""


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The results of one source topic on one result topic."""

    firsts: dict[int, int]
    """The first offset of each source partition that is checked."""
    ends: dict[int, int]
    """The offset behind the last one."""
    waiting: dict[Place, Expected] = field(default_factory=dict)
    early: dict[Place, list[Record]] = field(default_factory=dict)
    _ever: dict[int, OffsetBits] = field(default_factory=dict)
    _newest: dict[tuple[int, int], int] = field(default_factory=dict)

    def expect(self, place: Place, expected: Expected) -> Iterator[Outcome]:
        """A source record leads to this; gives what was found of it before."""
        partition, offset = place
        if offset < self.firsts[partition]:
            return
        if partition not in self._ever:
            self._ever[partition] = OffsetBits(self.firsts[partition])
        self._ever[partition].add(offset)
        found = self.early.pop(place, None) if self.early else None
        if found is None:
            self.waiting[place] = expected
            return
        first, *more = found
        yield Outcome(record=first, place=place, expected=expected)
        for record in more:
            yield Outcome(record=record, place=place, expected=None, again=True)

    def meet(self, batch: RecordBatch, places: Sequence[Place | None]) -> Iterator[Outcome]:
        """Found results with what was expected of them; those that came before their source record wait for it. None: not ours to place."""
        partitions, offsets, times_ms = batch.partitions.tolist(), batch.offsets.tolist(), batch.timestamps_ms.tolist()
        for row, place in enumerate(places):
            if place is None or place[1] < self.firsts.get(place[0], 0):
                continue
            expected = self.waiting.pop(place, None)
            again = expected is None and place[1] in self._ever.get(place[0], ())
            behind = None if again else self._behind(partitions[row], place)
            record = Record(
                topic=batch.topic,
                partition=partitions[row],
                offset=offsets[row],
                timestamp_ms=times_ms[row],
                key=batch.keys[row],
                value=batch.values[row],
                headers=batch.headers[row] or [],
            )
            if expected is None and not again:
                self.early.setdefault(place, []).append(record)
                if behind is None:
                    continue
            yield Outcome(record=record, place=place, expected=expected, again=again, behind=behind)

    def _behind(self, partition: int, place: Place) -> int | None:
        """The newest offset met before in this result partition, if it is later; what was never committed says nothing about order."""
        if place[1] >= self.ends.get(place[0], 0):
            return None
        step = (partition, place[0])
        newest = self._newest.get(step, -1)
        self._newest[step] = max(newest, place[1])
        return newest if newest > place[1] else None
