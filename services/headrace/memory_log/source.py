"""`RecordSource` on the log in memory.

One poll is: hear from the group (callbacks), take about half of what is wanted, hear again, take the rest. So a rebalance can happen in
the middle of a drain, with records of the revoked partition already in it. Without a hook there is nobody who could cause one in
between, and a poll takes everything at once.

Steps, in the order of a poll: "heartbeat" (lost: no news of the group this time), "fetch", "drain" (a heartbeat again, in the middle), and
the questions "committed", "log_range", "written_end", "offset_at", "topic_id" (lost: `TransientError`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from headrace.consume.record_source import RebalanceListener
from headrace.errors import SlotTaken, TransientError
from headrace.memory_log.group import Membership
from headrace.memory_log.log import Fate, Hook, MemoryLog, go_on
from headrace.memory_log.partition import Slice
from headrace.types import Drain, LogRange, Position, RecordBatch, TopicPartition

Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Flow:
    """How far an assigned partition is; it does not flow before `start_at`."""

    topic_id: str = ""
    position: int = 0
    flowing: bool = False
    told_end: int = -1


class MemorySource:
    """A member of a group.

    `member` names it (unique in the group, by default made up); `pause` is the hook; `idle(timeout_ms)` is called when a poll finds
    nothing (an embedded worker passes `MemoryLog.wait`; by default a poll returns at once).
    """

    def __init__(
        self,
        log: MemoryLog,
        *,
        group: str,
        member: str | None = None,
        instance_id: str | None = None,
        pause: Hook = go_on,
        idle: Callable[[int], None] | None = None,
    ) -> None:
        self._log = log
        self._group = group
        self._wish = member
        self._instance_id = instance_id
        self._hook = pause
        self._idle = idle
        self._listener: RebalanceListener | None = None
        self._topics: tuple[str, ...] = ()
        self._flows: dict[TopicPartition, _Flow] = {}
        self._shown = Membership(group=group, member_id="", generation=-1, instance_id=instance_id)
        self._polling = False
        self._later: dict[TopicPartition, int] = {}
        self._turn = 0

    @property
    def member_id(self) -> str:
        """The id under which the group knows us; empty before the first poll."""
        return self._shown.member_id

    def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Remember what to join; the first poll does it."""
        self._topics, self._listener = tuple(topics), listener

    def poll(self, max_records: int, timeout_ms: int) -> Drain:
        """Callbacks, then up to `max_records`; waits only where `idle` does."""
        self._polling = True
        try:
            if self._step("heartbeat") is Fate.GO:
                self._hear()
            if self._step("fetch") is not Fate.GO:
                raise TransientError("the broker did not answer a fetch")
            drain = self._take(max_records)
            if self._idle is not None and not (len(drain) or drain.ends or drain.broken) and timeout_ms > 0:
                self._idle(timeout_ms)
                drain = self._take(max_records)
            return drain
        finally:
            self._polling = False
            for partition, offset in self._later.items():
                if partition in self._flows:
                    self.start_at(partition, offset)
            self._later.clear()

    def start_at(self, partition: TopicPartition, offset: int) -> None:
        """Let a partition flow from an offset on; inside a callback, from the next poll on. Raises `ValueError` when it is not ours."""
        if partition not in self._flows:
            raise ValueError(f"{partition.topic}-{partition.partition} is not assigned to us")
        if self._polling:
            self._flows[partition].flowing = False
            self._later[partition] = offset
        else:
            self._flows[partition] = _Flow(self._log.topic_id(partition.topic), offset, flowing=True)

    def pause(self, partition: TopicPartition) -> None:
        """Stop the flow of a partition."""
        self._later.pop(partition, None)
        if partition in self._flows:
            self._flows[partition].flowing = False

    def waiting(self) -> Mapping[TopicPartition, int]:
        """Nothing waits here."""
        return {}

    def group(self) -> Membership:
        """Proof of membership as of now. Raises `TransientError` without a member id or an assignment."""
        shown = self.membership()
        if not shown.member_id or not self._flows:
            raise TransientError(f"not a member of group {self._group} with an assignment")
        return shown

    def membership(self) -> Membership:
        """The proof without the guard: also of one who never joined. For tests of what the broker refuses."""
        group = self._log.group(self._group)
        if self._shown.member_id in group.members:
            self._shown = Membership(
                group=self._group, member_id=self.member_id, generation=group.generation, instance_id=self._instance_id
            )
        return self._shown

    def committed(self, partition: TopicPartition) -> Position | None:
        """The stable committed position."""
        return self._ask("committed", lambda: self._log.committed(self._group, partition))

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""
        return self._ask("log_range", lambda: self._log.log_range(partition))

    def written_end(self, partition: TopicPartition) -> int:
        """The end of a partition, pending transactions included."""
        return self._ask("written_end", lambda: self._log.end_offset(partition))

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`."""
        return self._ask("offset_at", lambda: self._log.offset_at(partition, time_ms))

    def topic_id(self, topic: str) -> str:
        """The id of a topic."""
        return self._ask("topic_id", lambda: self._log.topic_id(topic))

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; the broker is not asked for it, as its answer came with the id."""
        return self._log.topics()[topic]

    def close(self, *, leave: bool) -> None:
        """Give the partitions back in an orderly way; a static member stays in the group unless it leaves."""
        group = self._log.group(self._group)
        if self._listener is None or self.member_id not in group.members:
            return
        owned = sorted(self._flows)
        if owned:
            self._flows.clear()
            self._listener.revoked(owned)
        if leave or self._instance_id is None:
            group.leave(self.member_id)
        self._listener = None

    # ------------------------------------------------------------------------------------------------------------- inside

    def _step(self, name: str) -> Fate:
        return self._hook(name) or Fate.GO

    def _ask(self, step: str, question: Callable[[], Answer]) -> Answer:
        if self._step(step) is not Fate.GO:
            raise TransientError(f"the broker did not answer: {step}")
        return question()

    def _hear(self) -> None:
        """Hear what the group decided since we last asked, and join where we are no member."""
        listener = self._listener
        if listener is None:
            raise ValueError("start() comes before poll()")
        group = self._log.group(self._group)
        if self.member_id not in group.members:
            self._join(listener)
        revoked = group.to_revoke(self.member_id)
        if revoked:
            for partition in revoked:
                self._forget(partition)
            listener.revoked(revoked)
            group.release(self.member_id, revoked)
        assigned = group.take(self.member_id)
        if assigned:
            self._flows.update((partition, _Flow()) for partition in assigned)
            listener.assigned(assigned)

    def _join(self, listener: RebalanceListener) -> None:
        group = self._log.group(self._group)
        if self.member_id:
            lost = sorted(self._flows)
            for partition in lost:
                self._forget(partition)
            if lost:
                listener.lost(lost)
            if group.static(self._instance_id) is not None:
                raise SlotTaken(f"a newer member of group {self._group} has our instance id {self._instance_id}")
        joined = group.join(self._wish, self._instance_id, self._topics)
        self._shown = Membership(group=self._group, member_id=joined, generation=group.generation, instance_id=self._instance_id)

    def _forget(self, partition: TopicPartition) -> None:
        self._flows.pop(partition, None)
        self._later.pop(partition, None)

    def _take(self, max_records: int) -> Drain:
        """Records of the flowing partitions, in two portions where a hook may let something happen in between."""
        taken: list[tuple[TopicPartition, Slice]] = []
        drain = Drain(batches=[], ends={})
        wanted = max_records
        if self._hook is not go_on and max_records > 1:
            wanted -= self._portion(max_records // 2, taken, drain)
            if self._step("drain") is Fate.GO:
                self._hear()
        self._portion(wanted, taken, drain)
        drain.batches = _batches([(partition, rows) for partition, rows in taken if partition not in self._later])
        for partition in self._later:
            drain.ends.pop(partition, None)
        return drain

    def _portion(self, wanted: int, taken: list[tuple[TopicPartition, Slice]], drain: Drain) -> int:
        """Take up to `wanted` records, an even share of each flowing partition first; note ends reached and positions that do not exist."""
        flowing = sorted(partition for partition, flow in self._flows.items() if flow.flowing)
        if not flowing:
            return 0
        self._turn += 1
        first = self._turn % len(flowing)
        turns = flowing[first:] + flowing[:first]
        left = wanted
        for share in (-(-wanted // len(turns)), wanted):
            for partition in turns:
                if left > 0:
                    left -= self._fetch(partition, min(share, left), taken, drain)
        return wanted - left

    def _fetch(self, partition: TopicPartition, limit: int, taken: list[tuple[TopicPartition, Slice]], drain: Drain) -> int:
        flow = self._flows[partition]
        if not flow.flowing:
            return 0
        topic_id = self._log.topic_id(partition.topic)
        if topic_id != flow.topic_id:
            flow.flowing = False
            drain.broken[partition] = f"topic {partition.topic} was deleted and made again: its id is {topic_id}, it was {flow.topic_id}"
            return 0
        found = self._log.fetch(partition, flow.position, limit)
        if found is None:
            flow.flowing = False
            kept = self._log.log_range(partition)
            drain.broken[partition] = f"offset {flow.position} does not exist: the log keeps {kept.start} to {kept.end}"
            return 0
        rows, flow.position = found
        count = len(rows[0])
        if count:
            taken.append((partition, rows))
        if flow.position >= self._log.stable_end(partition) and flow.told_end != flow.position:
            flow.told_end = drain.ends[partition] = flow.position
        return count


def _batches(taken: list[tuple[TopicPartition, Slice]]) -> list[RecordBatch]:
    """Slices of partitions, in the order they were taken, as one batch a topic."""
    answer = []
    for topic in dict.fromkeys(partition.topic for partition, _ in taken):
        parts = [(partition.partition, rows) for partition, rows in taken if partition.topic == topic]
        batch = RecordBatch(
            topic=topic,
            partitions=np.repeat(np.array([number for number, _ in parts], np.int32), [len(rows[0]) for _, rows in parts]),
            offsets=np.concatenate([rows[0] for _, rows in parts]),
            timestamps_ms=np.concatenate([rows[1] for _, rows in parts]),
            keys=[],
            values=[],
            headers=[],
        )
        for _, rows in parts:
            batch.keys += rows[2]
            batch.values += rows[3]
            batch.headers += rows[4]
        answer.append(batch)
    return answer
