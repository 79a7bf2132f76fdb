"""The records that wait in `aligned_source`, by topic, and which of them may go.

A group is the topics that keep pace with one another. What it gives is always the oldest it holds, over all its partitions and topics, so
nothing that is given leaves anything older behind; and nothing is given that is more than the slack of its topic ahead of the slowest
*front*. The front of a partition is the largest event time that came from it; seen from another topic it is the first record that is still
held: what waits here is not in the store yet. A partition without a front holds nobody up: one that is at its end, one that is being
replayed (its records were published before, so they wait for nothing), one from which nothing came for `STILL_MS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from headrace.consume.held_records import NOBODY, HeldRecords
from headrace.executor import Outcome
from headrace.types import NO_WATERMARK_MS, Bools, Int64s, RecordBatch

STILL_MS = 30_000
"""A partition that stood for so long holds nobody up: its worker is gone, or its leader is."""

TimesOf = Callable[[RecordBatch], Int64s]
"""The event time of each record; `NO_WATERMARK_MS` where there is none."""


class Waits(Protocol):
    """What the records of a topic wait for, beside the others: nothing of it may raise."""

    @property
    def wait_ms(self) -> int:
        """How long they do, at most."""

    def wants(self, batch: RecordBatch) -> Int64s:
        """What each record waits for, a row each, in whatever form `there` understands."""

    def there(self, wants: Int64s, passed: Bools) -> Bools:
        """For each of these rows whether it is there, or will not come: `passed` says that everybody else has come past the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The rule for the records of a topic."""

    times_of: TimesOf
    group: str
    """Topics of one group keep pace with one another."""
    slack_ms: int | None
    """How far ahead of the slowest they may be; None: they keep pace with nobody."""
    waits: Waits | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Part:
    """A partition that flows."""

    next_offset: int
    live_from: int
    """What stands before it is a replay."""
    came_ms: int
    """When something came from it, or it began to flow."""
    mark_ms: int = NO_WATERMARK_MS
    """The largest event time that came, given out or not."""
    held: int = 0
    end: int | None = None
    """The end it came to, to be told when nothing of it is held."""
    idle: bool = False
    paused: bool = False

    def ahead_of_none(self, now_ms: int) -> bool:
        """Whether it has no front, nothing of it being held."""
        return self.idle or self.next_offset < self.live_from or now_ms - self.came_ms >= STILL_MS


@dataclass(slots=True, kw_only=True, eq=False)
class Other:
    """A partition of another worker: where it was seen, since when it has stood there, and how far it is; None: at its end."""

    offset: int
    since_ms: int
    frontier_ms: int | None


@dataclass(slots=True, kw_only=True, eq=False)
class HeldTopic:
    """A topic whose records are held."""

    name: str
    rule: Pace
    parts: dict[int, Part] = field(default_factory=dict)
    held: HeldRecords = field(default_factory=HeldRecords)
    others: dict[int, Other] = field(default_factory=dict)
    blind: bool = True
    """Whether of some of the others nothing is known yet."""
    looked_ms: int | None = None
    look: Outcome[dict[int, Other]] | None = None

    def take(self, batch: RecordBatch) -> None:
        """Hold more records."""
        times = self.rule.times_of(batch)
        marks = np.empty(len(batch), dtype=np.int64)
        for number in np.unique(batch.partitions).tolist():
            part, rows = self.parts[number], np.flatnonzero(batch.partitions == number)
            marks[rows] = np.maximum(np.maximum.accumulate(times[rows]), part.mark_ms)
            part.mark_ms = int(marks[rows[-1]])
            part.held += len(rows)
        self.held.add(batch, marks, None if self.rule.waits is None else self.rule.waits.wants(batch))

    def drop(self, number: int) -> None:
        """Forget a partition and what is held of it."""
        part = self.parts.pop(number, None)
        if part is not None and part.held:
            self.held.drop(number)

    def give(self, places: Int64s) -> RecordBatch:
        """The records at these places, which are no longer held."""
        given = self.held.take(places)
        for number, count in zip(*np.unique(given.partitions, return_counts=True), strict=True):
            self.parts[int(number)].held -= int(count)
        return given

    def fronts_ms(self, now_ms: int, *, received: bool) -> Iterator[int]:
        """The fronts of its partitions; `received`: what came counts, also as far as it is held."""
        firsts = {} if received else self.held.firsts_ms()
        for number, part in self.parts.items():
            if part.held:
                yield firsts.get(number, part.mark_ms)
            elif not part.ahead_of_none(now_ms):
                yield part.mark_ms
        yield from (other.frontier_ms for other in self.others.values() if other.frontier_ms is not None)

    def waiting(self) -> bool:
        """Whether anything held waits for something else than for others."""
        return self.held.wants is not None and bool((self.held.since_ms < NOBODY).any())

    def due(self, ready: Int64s, now_ms: int, others_ms: int) -> Int64s:
        """Those of these places that have what they want, or have waited long enough, and so has all before them in their partition."""
        held, waits = self.held, self.rule.waits
        if waits is None or held.wants is None or not len(ready):
            return ready
        held.since_ms[ready] = np.minimum(held.since_ms[ready], now_ms)
        waiting = ready[now_ms - held.since_ms[ready] < waits.wait_ms]
        waiting = waiting[~waits.there(held.wants[waiting], held.marks_ms[waiting] < others_ms)]
        if not len(waiting):
            return ready
        held_up, firsts = np.unique(held.partitions[waiting], return_index=True)
        first = np.full(int(held.partitions.max()) + 1, NOBODY, dtype=np.int64)
        first[held_up] = waiting[firsts]
        return ready[ready < first[held.partitions[ready]]]


class PaceGroup:
    """Topics that keep pace with one another."""

    def __init__(self) -> None:
        self.topics: list[HeldTopic] = []

    def give(self, most: int, now_ms: int) -> list[RecordBatch]:
        """The oldest of the records that need not wait, at most so many, of each topic as one batch, oldest first."""
        bounds = [self.bound_ms(topic, now_ms) for topic in self.topics]
        others = [self._others_ms(topic, now_ms) for topic in self.topics]
        due = [
            topic.due(np.flatnonzero(topic.held.marks_ms <= bound_ms), now_ms, others_ms)
            for topic, bound_ms, others_ms in zip(self.topics, bounds, others, strict=True)
        ]
        whose = np.repeat(np.arange(len(due)), [len(places) for places in due])
        places = np.concatenate(due)
        marks = np.concatenate([topic.held.marks_ms[some] for topic, some in zip(self.topics, due, strict=True)])
        order = np.argsort(marks, kind="stable")[:most]
        whose, places = whose[order], places[order]
        return [topic.give(mine) for number, topic in enumerate(self.topics) if len(mine := places[whose == number])]

    def ready(self, now_ms: int) -> bool:
        """Whether anything held is not ahead of others."""
        return any(bool((topic.held.marks_ms <= self.bound_ms(topic, now_ms)).any()) for topic in self.topics if len(topic.held))

    def bound_ms(self, topic: HeldTopic, now_ms: int) -> int:
        """The largest event time of a topic that may be given out now."""
        if topic.rule.slack_ms is None:
            return NOBODY
        if self._blind():
            return NO_WATERMARK_MS
        fronts = (front for one in self.topics for front in one.fronts_ms(now_ms, received=one is topic and topic.rule.waits is None))
        slowest = min(fronts, default=NOBODY)
        return slowest if slowest == NOBODY else slowest + topic.rule.slack_ms

    def _others_ms(self, topic: HeldTopic, now_ms: int) -> int:
        """How far the slowest of the other topics is; those that have nothing to give are nowhere."""
        if self._blind():
            return NO_WATERMARK_MS
        fronts = (front for one in self.topics if one is not topic for front in one.fronts_ms(now_ms, received=False))
        return min(fronts, default=NO_WATERMARK_MS)

    def _blind(self) -> bool:
        return any(topic.blind for topic in self.topics if topic.rule.slack_ms is not None)
