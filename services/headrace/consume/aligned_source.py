"""A source whose partitions keep pace with one another in event time, where they meet again behind a hop.

Whoever reads a hop sees the events of many partitions as one log. If one of those were days ahead, which happens whenever there is a
backlog, the entities of the next stage would live on different days at once. So records of a partition that feeds a hop wait here until
they are no more than a *slack* (half the lateness) ahead of the slowest partition, and come out in the order of event time:

    inner source --> held, by partition --> those within the slack of the slowest, oldest first --> the loop

A partition that is at its end is *idle* and holds nobody up. The partitions of other workers count as well: how far they are is told by
their committed offsets and the event at that offset, asked for in an executor, only as often as records here wait for it. One that has not
moved for `STILL_MS` counts as idle: its worker is gone, or has given it up.

What is held was read and is not given out yet, so a revocation, a new position or an error simply drops it. A partition of which much is
held is paused. The order in which a hop receives events changes no promise: its log is what it is. Limit: an event far ahead of all others
(a source that declares its times historical takes any) holds up what stands behind it in its partition until the others have come as far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from headrace.consume.record_reader import RecordReader
from headrace.consume.record_source import GroupMetadata, RebalanceListener, RecordSource
from headrace.errors import TransientError
from headrace.executor import Executor, Outcome
from headrace.types import NO_WATERMARK_MS, Drain, Int64s, LogRange, Position, RecordBatch, TopicPartition

STILL_MS = 30_000
"""A partition of another worker that stood for so long holds nobody up."""
LOOK_MS, LOOK_AGAIN_MS = 100, 5_000
"""How soon the partitions of others are looked at again, when something waits for them and when nothing does."""

TimesOf = Callable[[RecordBatch], Int64s]
"""The event time of each record; `NO_WATERMARK_MS` where there is none."""
NOBODY = np.iinfo(np.int64).max


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
    """A topic that feeds a hop."""

    name: str
    slack_ms: int
    times_of: TimesOf
    parts: dict[int, _Part] = field(default_factory=dict)
    held: RecordBatch | None = None
    marks_ms: Int64s = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Of each record that is held, the largest event time of its partition up to it."""
    others: dict[int, _Other] = field(default_factory=dict)
    blind: bool = False
    """Whether of some of the others nothing is known yet."""
    looked_ms: int | None = None
    look: Outcome[dict[int, _Other]] | None = None

    def take(self, batch: RecordBatch) -> None:
        """Hold more records."""
        times = self.times_of(batch)
        marks = np.empty(len(batch), dtype=np.int64)
        for number in np.unique(batch.partitions).tolist():
            part, rows = self.parts[number], np.flatnonzero(batch.partitions == number)
            marks[rows] = np.maximum(np.maximum.accumulate(times[rows]), part.mark_ms)
            part.mark_ms, part.next_offset = int(marks[rows[-1]]), int(batch.offsets[rows[-1]]) + 1
            part.held += len(rows)
            part.idle, part.end = False, None
        self.held = batch if self.held is None else joined(self.held, batch)
        self.marks_ms = np.concatenate((self.marks_ms, marks))

    def drop(self, number: int) -> None:
        """Forget a partition and what is held of it."""
        part = self.parts.pop(number, None)
        if part is not None and part.held and self.held is not None:
            kept = np.flatnonzero(self.held.partitions != number)
            self._keep(kept)

    def give(self, most: int) -> RecordBatch | None:
        """The records that need not wait, oldest first."""
        if self.held is None:
            return None
        ready = np.flatnonzero(self.marks_ms <= self.bound_ms())
        ready = ready[np.argsort(self.marks_ms[ready], kind="stable")][:most]
        if not len(ready):
            return None
        given = self.held if len(ready) == len(self.held) and (np.diff(ready) == 1).all() else self.held.select(ready)
        for number, count in zip(*np.unique(given.partitions, return_counts=True), strict=True):
            self.parts[int(number)].held -= int(count)
        self._keep(np.delete(np.arange(len(self.held)), ready))
        return given

    def bound_ms(self) -> int:
        """The largest event time that may be given out now."""
        here = [part.mark_ms for part in self.parts.values() if not part.idle or part.held]
        there = [other.frontier_ms for other in self.others.values() if other.frontier_ms is not None]
        if self.blind:
            return NO_WATERMARK_MS
        slowest = min((*here, *there), default=NOBODY)
        return slowest if slowest == NOBODY else slowest + self.slack_ms

    def _keep(self, rows: Int64s) -> None:
        self.held = None if self.held is None or not len(rows) else self.held.select(rows)
        self.marks_ms = self.marks_ms[rows]


class AlignedSource:
    """A `RecordSource` around another one."""

    def __init__(
        self,
        inner: RecordSource,
        *,
        slack_ms: Mapping[str, int],
        times_of: Mapping[str, TimesOf],
        reader: Callable[[], RecordReader],
        executor: Executor,
        now_ms: Callable[[], int],
        most_held: int,
    ) -> None:
        """`slack_ms` and `times_of`: by topic that feeds a hop; `most_held`: how many records of a partition wait before it is paused."""
        self._inner, self._reader, self._executor, self._now_ms, self._most_held = inner, reader, executor, now_ms, most_held
        self._topics = {name: _Topic(name=name, slack_ms=slack, times_of=times_of[name]) for name, slack in slack_ms.items()}
        self._listener: RebalanceListener | None = None

    def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group."""
        self._listener = listener
        self._inner.start(topics, self)

    def poll(self, max_records: int, timeout_ms: int) -> Drain:
        """What the source beneath has, of the topics that feed hops no more than may be given out."""
        ready = any(topic.held is not None and (topic.marks_ms <= topic.bound_ms()).any() for topic in self._topics.values())
        drain = self._inner.poll(max_records, 0 if ready else timeout_ms)
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
            given = topic.give(room)
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
        if topic.held is None:
            return
        wanted = [number for number in range(self._inner.partitions(topic.name)) if number not in topic.parts]
        topic.others = {number: other for number, other in topic.others.items() if number in wanted}
        topic.blind = len(topic.others) < len(wanted)
        if topic.look is not None:
            return
        waits = topic.blind or bool((topic.marks_ms > topic.bound_ms() - topic.slack_ms // 2).any())
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
                    other.frontier_ms = max(other.frontier_ms, int(topic.times_of(first)[0]))
        finally:
            reader.close()


def joined(first: RecordBatch, then: RecordBatch) -> RecordBatch:
    """The records of both, in this order."""
    return RecordBatch(
        topic=first.topic,
        partitions=np.concatenate((first.partitions, then.partitions)),
        offsets=np.concatenate((first.offsets, then.offsets)),
        timestamps_ms=np.concatenate((first.timestamps_ms, then.timestamps_ms)),
        keys=first.keys + then.keys,
        values=first.values + then.values,
        headers=first.headers + then.headers,
    )
