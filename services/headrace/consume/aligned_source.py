"""A source whose partitions keep pace with one another in event time, where they meet again.

Whoever reads a hop sees the events of many partitions as one log. If one of those were days ahead, which happens whenever there is a
backlog, the entities of the next stage would live on different days at once. The same is true of two topics one of which is scored by what
is looked up of the other. So records of a partition wait here until they are no more than a *slack* ahead of the slowest partition of all
topics they keep pace with, and come out in the order of event time (`pace_group`):

    inner source --> held, by partition --> those within the slack of the slowest, and due --> the oldest of a group --> the loop

A partition that is at its end is *idle* and holds nobody up. The partitions of other workers count as well: how far they are is told by
their committed offsets and the event at that offset, asked for in an executor, only as often as records here wait for it. One that has not
moved for `STILL_MS` counts as idle: its worker is gone, or has given it up.

Of a topic that waits for something else (`Waits`) a record that is within the slack waits until that is there, or its time is over.

What is held was read and is not given out yet, so a revocation, a new position or an error simply drops it. A partition of which much is
held is paused. The order in which a hop receives events changes no promise: its log is what it is. Limit: of a source that declares its
times historical an event far ahead of all others holds up what stands behind it in its partition until the others have come as far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from headrace.consume.pace_group import STILL_MS, HeldTopic, Other, Pace, PaceGroup, Part
from headrace.consume.record_reader import RecordReader
from headrace.consume.record_source import GroupMetadata, RebalanceListener, RecordSource
from headrace.errors import TransientError
from headrace.executor import Executor
from headrace.types import NO_WATERMARK_MS, Drain, LogRange, Position, RecordBatch, TopicPartition

WAIT_MS = 5
"""How soon it is looked again for what is waited for."""
LOOK_MS, LOOK_AGAIN_MS = 100, 5_000
"""How soon the partitions of others are looked at again, when something waits for them and when nothing does."""


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
        live_from: Callable[[TopicPartition], int],
        most_held: int,
    ) -> None:
        """`rules`: by topic; `live_from`: what stands before it in a partition that begins to flow is a replay, and waits for nothing;
        `most_held`: how many records of a partition wait before it is paused.
        """
        self._inner, self._reader, self._executor, self._now_ms, self._most_held = inner, reader, executor, now_ms, most_held
        self._live_from = live_from
        self._topics = {name: HeldTopic(name=name, rule=rule) for name, rule in rules.items()}
        groups = {rule.group: PaceGroup() for rule in rules.values()}
        for topic in self._topics.values():
            groups[topic.rule.group].topics.append(topic)
        self._groups = list(groups.values())
        self._listener: RebalanceListener | None = None
        self._crowded = False

    def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group."""
        self._listener = listener
        self._inner.start(topics, self)

    def poll(self, max_records: int, timeout_ms: int) -> Drain:
        """What the source beneath has, of the topics with rules no more than may be given out."""
        now_ms = self._now_ms()
        ready = any(group.ready(now_ms) for group in self._groups)
        if any(topic.waiting() for topic in self._topics.values()):
            timeout_ms = min(timeout_ms, WAIT_MS)
        elif ready:
            timeout_ms = 0
        # Beside topics without rules what is held gets half of the batch, or they could keep it waiting for ever.
        drain = self._inner.poll(max(1, max_records // 2) if ready and self._crowded else max_records, timeout_ms)
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
        self._crowded = bool(passed)
        drain.batches = passed + self._given(max(1, max_records - sum(map(len, passed))))
        for topic in self._topics.values():
            self._tell_ends(topic, drain)
            self._let_flow(topic)
        return drain

    def _given(self, room: int) -> list[RecordBatch]:
        """At most so many of the held records, each time another group first."""
        given: list[RecordBatch] = []
        self._groups.append(self._groups.pop(0))
        for group in self._groups:
            for topic in group.topics:
                self._look_at_others(topic, group)
            if room:
                some = group.give(room, self._now_ms())
                room -= sum(map(len, some))
                given += some
        return given

    def start_at(self, partition: TopicPartition, offset: int) -> None:
        """Let a partition flow from an offset on."""
        self._forget(partition)
        if partition.topic in self._topics:
            part = Part(next_offset=offset, live_from=self._live_from(partition), came_ms=self._now_ms())
            self._topics[partition.topic].parts[partition.partition] = part
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

    def waiting(self) -> dict[TopicPartition, int]:
        """How many records of each partition are held here."""
        held = {TopicPartition(topic.name, number): part.held for topic in self._topics.values() for number, part in topic.parts.items()}
        return {**self._inner.waiting(), **{name: count for name, count in held.items() if count}}

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

    def _hold(self, topic: HeldTopic, batch: RecordBatch) -> list[RecordBatch]:
        """Hold the records that are news, of partitions that flow; gives the others: replays, and what the caller drops."""
        ours, now_ms = np.zeros(len(batch), dtype=np.bool_), self._now_ms()
        for number in np.unique(batch.partitions).tolist():
            part = topic.parts.get(number)
            if part is not None:
                of_part = batch.partitions == number
                ours |= of_part & (batch.offsets >= part.live_from)
                part.next_offset, part.came_ms = int(batch.offsets[of_part][-1]) + 1, now_ms
                part.idle, part.end = False, None
        if ours.all():
            topic.take(batch)
            return []
        if ours.any():
            topic.take(batch.select(np.flatnonzero(ours)))
        return [batch.select(np.flatnonzero(~ours))]

    def _tell_ends(self, topic: HeldTopic, drain: Drain) -> None:
        """An end is reached when nothing before it is held."""
        for number, part in topic.parts.items():
            if part.end is not None and not part.held:
                drain.ends[TopicPartition(topic.name, number)], part.end = part.end, None

    def _let_flow(self, topic: HeldTopic) -> None:
        """Pause the partitions of which much is held, and let them flow again when little is left."""
        for number, part in topic.parts.items():
            name = TopicPartition(topic.name, number)
            if not part.paused and part.held >= self._most_held:
                part.paused = True
                self._inner.pause(name)
            elif part.paused and part.held <= self._most_held // 2:
                part.paused = False
                self._inner.start_at(name, part.next_offset)

    def _look_at_others(self, topic: HeldTopic, group: PaceGroup) -> None:
        """Learn how far the partitions of other workers are: soon, if something waits for them."""
        if topic.look is not None and topic.look.done():
            look, topic.look = topic.look, None
            with suppress(TransientError):  # those who wait go on waiting, and it is asked again
                topic.others = look.result()
        if topic.rule.slack_ms is None or not any(len(one.held) for one in group.topics):
            return
        wanted = [number for number in range(self._inner.partitions(topic.name)) if number not in topic.parts]
        topic.others = {number: other for number, other in topic.others.items() if number in wanted}
        topic.blind = len(topic.others) < len(wanted)
        if topic.look is not None or not wanted:
            return
        now_ms = self._now_ms()
        waits = topic.blind or any(
            bool((one.held.marks_ms > group.bound_ms(one, now_ms) - (one.rule.slack_ms or 0) // 2).any())
            for one in group.topics
            if len(one.held)
        )
        if topic.looked_ms is None or now_ms - topic.looked_ms >= (LOOK_MS if waits else LOOK_AGAIN_MS):
            topic.looked_ms = now_ms
            topic.look = self._executor.submit(self._look, topic, wanted, dict(topic.others), now_ms)

    def _look(self, topic: HeldTopic, wanted: Sequence[int], known: Mapping[int, Other], now_ms: int) -> dict[int, Other]:
        """Runs in the executor: where others have committed, and the event time of the record there."""
        found: dict[int, Other] = {}
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
                found[number] = Other(offset=-1, since_ms=now_ms, frontier_ms=None)
                continue
            since_ms = before.since_ms if before is not None and before.offset == position.offset else now_ms
            still = now_ms - since_ms >= STILL_MS
            mark_ms = NO_WATERMARK_MS if position.watermark_ms is None else int(position.watermark_ms)
            found[number] = Other(offset=position.offset, since_ms=since_ms, frontier_ms=None if still else mark_ms)
            if not still:
                starts[name] = position.offset
        self._add_next(topic, starts, found)
        return found

    def _add_next(self, topic: HeldTopic, starts: Mapping[TopicPartition, int], found: Mapping[int, Other]) -> None:
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
