"""A source whose partitions keep pace with one another in event time, where they meet again.

Whoever reads a hop sees the events of many partitions as one log. If one of those were days ahead, which happens whenever there is a
backlog, the entities of the next stage would live on different days at once. The same is true of two topics one of which is scored by what
is looked up of the other. So records of a partition wait here until they are no more than a *slack* ahead of the slowest partition of all
topics they keep pace with, and come out in the order of event time:

    inner source --> held, by partition --> those within the slack of the slowest, oldest first --> those that are due --> the loop

A partition that is at its end is *idle* and holds nobody up. The partitions of other workers count as well: how far they are is told by
their committed offsets and the event at that offset, asked for in an executor, only as often as records here wait for it. One that has not
moved for `STILL_MS` counts as idle: its worker is gone, or has given it up.

Of a topic that waits for something else (`Waits`) a record that is within the slack waits until that is there, or its time is over.

What is held was read and is not given out yet, so a revocation, a new position or an error simply drops it. A partition of which much is
held is paused. The order in which a hop receives events changes no promise: its log is what it is. Limit: an event far ahead of all others
(a source that declares its times historical takes any) holds up what stands behind it in its partition until the others have come as far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from headrace.consume.held_records import NOBODY, HeldRecords
from headrace.consume.record_reader import RecordReader
from headrace.consume.record_source import GroupMetadata, RebalanceListener, RecordSource
from headrace.errors import TransientError
from headrace.executor import Executor, Outcome
from headrace.types import NO_WATERMARK_MS, Bools, Drain, Int64s, LogRange, Position, RecordBatch, TopicPartition

STILL_MS = 30_000
"""A partition of another worker that stood for so long holds nobody up."""
WAIT_MS = 5
"""How soon it is looked again for what is waited for."""
LOOK_MS, LOOK_AGAIN_MS = 100, 5_000
"""How soon the partitions of others are looked at again, when something waits for them and when nothing does."""

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
class _Part:
    """A partition that flows."""

    mark_ms: int = NO_WATERMARK_MS
    """The largest event time that came, given out or not."""
    held: int = 0
    end: int | None = None
    """The end it came to, to be told when nothing of it is held."""
    idle: bool = False
    next_offset: int = 0
    paused: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class _Other:
    """A partition of another worker: where it was seen, since when it has stood there, and how far it is; None: at its end."""

    offset: int
    since_ms: int
    frontier_ms: int | None


@dataclass(slots=True, kw_only=True, eq=False)
class _Topic:
    """A topic whose records are held, and those it keeps pace with, itself among them."""

    name: str
    rule: Pace
    group: list[_Topic]
    parts: dict[int, _Part] = field(default_factory=dict)
    held: HeldRecords = field(default_factory=HeldRecords)
    others: dict[int, _Other] = field(default_factory=dict)
    blind: bool = False
    """Whether of some of the others nothing is known yet."""
    looked_ms: int | None = None
    look: Outcome[dict[int, _Other]] | None = None

    def take(self, batch: RecordBatch) -> None:
        """Hold more records."""
        times = self.rule.times_of(batch)
        marks = np.empty(len(batch), dtype=np.int64)
        for number in np.unique(batch.partitions).tolist():
            part, rows = self.parts[number], np.flatnonzero(batch.partitions == number)
            marks[rows] = np.maximum(np.maximum.accumulate(times[rows]), part.mark_ms)
            part.mark_ms, part.next_offset = int(marks[rows[-1]]), int(batch.offsets[rows[-1]]) + 1
            part.held += len(rows)
            part.idle, part.end = False, None
        self.held.add(batch, marks, None if self.rule.waits is None else self.rule.waits.wants(batch))

    def drop(self, number: int) -> None:
        """Forget a partition and what is held of it."""
        part = self.parts.pop(number, None)
        if part is not None and part.held:
            self.held.drop(number)

    def give(self, most: int, now_ms: int) -> RecordBatch | None:
        """The records that need not wait, oldest first."""
        ready = self._due(self.ready(), now_ms)
        ready = ready[np.argsort(self.held.marks_ms[ready], kind="stable")][:most]
        if not len(ready):
            return None
        given = self.held.take(ready)
        for number, count in zip(*np.unique(given.partitions, return_counts=True), strict=True):
            self.parts[int(number)].held -= int(count)
        return given

    def ready(self) -> Int64s:
        """The places of the records that are not ahead of others."""
        return np.flatnonzero(self.held.marks_ms <= self.bound_ms()) if len(self.held) else np.empty(0, dtype=np.int64)

    def bound_ms(self) -> int:
        """The largest event time that may be given out now."""
        if self.rule.slack_ms is None:
            return NOBODY
        if any(topic.blind for topic in self.group):
            return NO_WATERMARK_MS
        slowest = min((front for topic in self.group for front in topic.fronts_ms()), default=NOBODY)
        return slowest if slowest == NOBODY else slowest + self.rule.slack_ms

    def fronts_ms(self) -> Iterator[int]:
        """How far those of its partitions are that do not idle. What waits for something else is not behind us before it is given out."""
        waits = self.rule.waits is not None
        yield from (part.mark_ms for part in self.parts.values() if (not part.idle or part.held) and not (waits and part.held))
        yield from self.held.firsts_ms() if waits else ()
        yield from (other.frontier_ms for other in self.others.values() if other.frontier_ms is not None)

    def _others_ms(self) -> int:
        """How far the slowest of the other topics is; those that have nothing to give are nowhere."""
        if any(topic.blind for topic in self.group):
            return NO_WATERMARK_MS
        return min((front for topic in self.group if topic is not self for front in topic.fronts_ms()), default=NO_WATERMARK_MS)

    def waiting(self) -> bool:
        """Whether anything held waits for something else than for others."""
        return self.held.wants is not None and bool((self.held.since_ms < NOBODY).any())

    def _due(self, ready: Int64s, now_ms: int) -> Int64s:
        """Those of these places that have what they want, or have waited long enough, and so has all before them in their partition."""
        held, waits = self.held, self.rule.waits
        if waits is None or held.wants is None or not len(ready):
            return ready
        held.since_ms[ready] = np.minimum(held.since_ms[ready], now_ms)
        waiting = ready[now_ms - held.since_ms[ready] < waits.wait_ms]
        waiting = waiting[~waits.there(held.wants[waiting], held.marks_ms[waiting] < self._others_ms())]
        if not len(waiting):
            return ready
        held_up, firsts = np.unique(held.partitions[waiting], return_index=True)
        first = np.full(int(held.partitions.max()) + 1, NOBODY, dtype=np.int64)
        first[held_up] = waiting[firsts]
        return ready[ready < first[held.partitions[ready]]]


class AlignedSource:
    """A `RecordSource` around another one."""

    def __init__(
        self,
        inner: RecordSource,
        *,
        rules: Mapping[str, Pace],
        reader: Callable[[], RecordReader],
        executor: Executor,
        now_ms: Callable[[], int],
        most_held: int,
    ) -> None:
        """`rules`: by topic; `most_held`: how many records of a partition wait before it is paused."""
        self._inner, self._reader, self._executor, self._now_ms, self._most_held = inner, reader, executor, now_ms, most_held
        groups: dict[str, list[_Topic]] = {rule.group: [] for rule in rules.values()}
        self._topics = {name: _Topic(name=name, rule=rule, group=groups[rule.group]) for name, rule in rules.items()}
        for topic in self._topics.values():
            topic.group.append(topic)
        self._listener: RebalanceListener | None = None

    def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group."""
        self._listener = listener
        self._inner.start(topics, self)

    def poll(self, max_records: int, timeout_ms: int) -> Drain:
        """What the source beneath has, of the topics with rules no more than may be given out."""
        if any(topic.waiting() for topic in self._topics.values()):
            timeout_ms = min(timeout_ms, WAIT_MS)
        elif any(len(topic.ready()) for topic in self._topics.values()):
            timeout_ms = 0
        drain = self._inner.poll(max_records, timeout_ms)
        for name in drain.broken:
            self._forget(name)
        passed: list[RecordBatch] = []
        for batch in drain.batches:
            topic = self._topics.get(batch.topic)
            passed += [batch] if topic is None else self._hold(topic, batch)
        for name in [name for name in drain.ends if name.topic in self._topics]:
            part = self._topics[name.topic].parts.get(name.partition)
            if part is not None:
                part.end, part.idle = drain.ends.pop(name), True
        room = max(1, max_records - sum(map(len, passed)))
        for topic in self._topics.values():
            self._look_at_others(topic)
            given = topic.give(room, self._now_ms())
            if given is not None:
                passed.append(given)
            self._tell_ends(topic, drain)
            self._let_flow(topic)
        drain.batches = passed
        return drain

    def start_at(self, partition: TopicPartition, offset: int) -> None:
        """Let a partition flow from an offset on."""
        self._forget(partition)
        if partition.topic in self._topics:
            self._topics[partition.topic].parts[partition.partition] = _Part(next_offset=offset)
        self._inner.start_at(partition, offset)

    def pause(self, partition: TopicPartition) -> None:
        """Stop the flow of a partition."""
        self._forget(partition)
        self._inner.pause(partition)

    def group(self) -> GroupMetadata:
        """Proof of membership as of now."""
        return self._inner.group()

    def committed(self, partition: TopicPartition) -> Position | None:
        """The group's stable committed position."""
        return self._inner.committed(partition)

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""
        return self._inner.log_range(partition)

    def written_end(self, partition: TopicPartition) -> int:
        """The end of a partition, pending transactions included."""
        return self._inner.written_end(partition)

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`."""
        return self._inner.offset_at(partition, time_ms)

    def topic_id(self, topic: str) -> str:
        """The id of a topic."""
        return self._inner.topic_id(topic)

    def partitions(self, topic: str) -> int:
        """How many partitions the topic had when its id was asked for last."""
        return self._inner.partitions(topic)

    def close(self, *, leave: bool) -> None:
        """Give the partitions back and close."""
        self._inner.close(leave=leave)

    # ----------------------------------------------------------------------------------------------------------- rebalances

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """They are ours; they flow when somebody says so."""
        self._told().assigned(partitions)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """What is held of them is dropped."""
        for name in partitions:
            self._forget(name)
        self._told().revoked(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """The same."""
        for name in partitions:
            self._forget(name)
        self._told().lost(partitions)

    def _told(self) -> RebalanceListener:
        if self._listener is None:
            raise ValueError("start() comes before poll()")
        return self._listener

    # --------------------------------------------------------------------------------------------------------------- inside

    def _forget(self, name: TopicPartition) -> None:
        topic = self._topics.get(name.topic)
        if topic is not None:
            topic.drop(name.partition)

    def _hold(self, topic: _Topic, batch: RecordBatch) -> list[RecordBatch]:
        """Hold the records of partitions that flow; gives those of others, which the caller drops."""
        ours = np.isin(batch.partitions, list(topic.parts))
        if ours.all():
            topic.take(batch)
            return []
        if ours.any():
            topic.take(batch.select(np.flatnonzero(ours)))
        return [batch.select(np.flatnonzero(~ours))]

    def _tell_ends(self, topic: _Topic, drain: Drain) -> None:
        """An end is reached when nothing before it is held."""
        for number, part in topic.parts.items():
            if part.end is not None and not part.held:
                drain.ends[TopicPartition(topic.name, number)], part.end = part.end, None

    def _let_flow(self, topic: _Topic) -> None:
        """Pause the partitions of which much is held, and let them flow again when little is left."""
        for number, part in topic.parts.items():
            name = TopicPartition(topic.name, number)
            if not part.paused and part.held >= self._most_held:
                part.paused = True
                self._inner.pause(name)
            elif part.paused and part.held <= self._most_held // 2:
                part.paused = False
                self._inner.start_at(name, part.next_offset)

    def _look_at_others(self, topic: _Topic) -> None:
        """Learn how far the partitions of other workers are: soon, if something waits for them."""
        if topic.look is not None and topic.look.done():
            look, topic.look = topic.look, None
            with suppress(TransientError):  # those who wait go on waiting, and it is asked again
                topic.others = look.result()
        if topic.rule.slack_ms is None or not any(len(one.held) for one in topic.group):
            return
        wanted = [number for number in range(self._inner.partitions(topic.name)) if number not in topic.parts]
        topic.others = {number: other for number, other in topic.others.items() if number in wanted}
        topic.blind = len(topic.others) < len(wanted)
        if topic.look is not None:
            return
        waits = topic.blind or any(
            bool((one.held.marks_ms > one.bound_ms() - (one.rule.slack_ms or 0) // 2).any()) for one in topic.group if len(one.held)
        )
        now_ms = self._now_ms()
        if wanted and (topic.looked_ms is None or now_ms - topic.looked_ms >= (LOOK_MS if waits else LOOK_AGAIN_MS)):
            topic.looked_ms = now_ms
            topic.look = self._executor.submit(self._look, topic, wanted, dict(topic.others), now_ms)

    def _look(self, topic: _Topic, wanted: Sequence[int], known: Mapping[int, _Other], now_ms: int) -> dict[int, _Other]:
        """Runs in the executor: where others have committed, and the event time of the record there."""
        found: dict[int, _Other] = {}
        starts: dict[TopicPartition, int] = {}
        for number in wanted:
            name = TopicPartition(topic.name, number)
            try:
                position = self._inner.committed(name)
                end = self._inner.log_range(name).end
            except TransientError:
                if number in known:
                    found[number] = known[number]
                continue
            before = known.get(number)
            if position is None or position.offset >= end:
                found[number] = _Other(offset=-1, since_ms=now_ms, frontier_ms=None)
                continue
            since_ms = before.since_ms if before is not None and before.offset == position.offset else now_ms
            still = now_ms - since_ms >= STILL_MS
            mark_ms = NO_WATERMARK_MS if position.watermark_ms is None else int(position.watermark_ms)
            found[number] = _Other(offset=position.offset, since_ms=since_ms, frontier_ms=None if still else mark_ms)
            if not still:
                starts[name] = position.offset
        self._add_next(topic, starts, found)
        return found

    def _add_next(self, topic: _Topic, starts: Mapping[TopicPartition, int], found: Mapping[int, _Other]) -> None:
        """Partitions that are behind are as far as the next record that they will take."""
        if not starts:
            return
        reader = self._reader()
        try:
            for name, start in starts.items():
                other = found[name.partition]
                first = next(iter(reader.batches({name: start}, {name: self._inner.log_range(name).end})), None)
                if first is None:  # nothing but the markers of transactions
                    other.frontier_ms = None
                elif other.frontier_ms is not None:
                    other.frontier_ms = max(other.frontier_ms, int(topic.rule.times_of(first)[0]))
        finally:
            reader.close()
