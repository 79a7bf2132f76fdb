"""The broker in memory: topics, transactions, groups.

A transactional id has an epoch and at most one pending transaction:

    init: epoch + 1, abort what is pending         expire: the same, from the outside
    write, offsets, end: refused when the epoch is old
    end: the decision is final at once; its markers (one per partition, one for the offsets) are what readers wait for

With `hold_markers` the markers stay undelivered until `deliver`, or until the same id does its next thing, as on Kafka.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from headrace.clock import Clock
from headrace.errors import BrokerRefused, UnstableOffsets
from headrace.memory_log.group import Membership, MemoryGroup
from headrace.memory_log.partition import ABORTED, PENDING, SEEN, MemoryPartition, Slice
from headrace.partitioner import Partitioner
from headrace.types import Headers, LogRange, OutRecords, Position, Record, TopicPartition


class Fate(Enum):
    """What a hook may do to the step it is told of."""

    GO = "go"
    LOST_REQUEST = "lost request"
    """The step does not happen, and the caller does not learn whether it did."""
    LOST_REPLY = "lost reply"
    """The step happens, and the caller does not learn whether it did."""


Hook = Callable[[str], Fate | None]
"""Called with the name of an atomic step before it; None means GO."""


def go_on(step: str) -> Fate | None:  # noqa: ARG001  the hook of everybody who needs none
    """Let every step happen."""
    return None


class Fenced(Exception):
    """A newer epoch of the transactional id exists."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Transaction:
    """What is pending for one transactional id."""

    number: int
    begun_ms: int
    ranges: dict[TopicPartition, list[tuple[int, int]]] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True, eq=False)
class _Producer:
    """One transactional id."""

    epoch: int = 0
    pending: _Transaction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The end of a transaction that one place has not heard of yet: a partition, or (None) the offsets of its groups."""

    transactional_id: str
    transaction: _Transaction
    place: TopicPartition | None
    committed: bool


class MemoryLog:
    """A broker. Safe to call from several threads; runs none."""

    def __init__(self, clock: Clock, *, transaction_timeout_ms: int | None = None) -> None:
        self.hold_markers = False
        self.undelivered: list[Marker] = []
        self._clock = clock
        self._transaction_timeout_ms = transaction_timeout_ms
        self._lock = threading.RLock()
        self._arrival = threading.Condition(self._lock)
        self._topics: dict[str, list[MemoryPartition]] = {}
        self._topic_ids: dict[str, str] = {}
        self._groups: dict[str, MemoryGroup] = {}
        self._producers: dict[str, _Producer] = {}
        self._transactions = 0
        self._created = 0
        self._unkeyed = 0
        self._partitioner = Partitioner()

    # ------------------------------------------------------------------------------------------------------------- topics

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Make a topic; a topic of that name is left as it is."""
        with self._lock:
            if topic not in self._topics:
                self._make(topic, partitions)

    def recreate_topic(self, topic: str, partitions: int | None = None) -> None:
        """Delete a topic, its records and the offsets committed for it; make it again under the same name, with another id."""
        with self._lock:
            count = partitions or len(self._partitions(topic))
            self.undelivered = [marker for marker in self.undelivered if marker.place is None or marker.place.topic != topic]
            for producer in self._producers.values():
                if producer.pending is not None:
                    producer.pending.ranges = {name: found for name, found in producer.pending.ranges.items() if name.topic != topic}
            for group in self._groups.values():
                group.offsets = {name: found for name, found in group.offsets.items() if name.topic != topic}
            self._make(topic, count)

    def topics(self) -> dict[str, int]:
        """Every topic with the number of its partitions."""
        with self._lock:
            return {topic: len(partitions) for topic, partitions in self._topics.items()}

    def topic_id(self, topic: str) -> str:
        """The id of a topic; another one once it was recreated."""
        with self._lock:
            self._partitions(topic)
            return self._topic_ids[topic]

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""
        with self._lock:
            self._expire_overdue()
            found = self.partition(partition)
            return LogRange(start=found.start, end=max(found.start, found.stable_end()))

    def end_offset(self, partition: TopicPartition) -> int:
        """The end of a partition, pending records and markers included."""
        with self._lock:
            return self.partition(partition).end

    def delete_before(self, partition: TopicPartition, offset: int) -> None:
        """Play retention: everything below the offset is gone."""
        with self._lock:
            found = self.partition(partition)
            found.start = min(max(found.start, offset), found.end)

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset below the last stable one whose timestamp is at least `time_ms`."""
        with self._lock:
            return self.partition(partition).first_at(time_ms)

    # ------------------------------------------------------------------------------------------------------------ records

    def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
    ) -> int:
        """Put one record at the end of a partition (None: that of its key), without a transaction; returns its offset."""
        with self._lock:
            number = self._spread(topic, [key])[0] if partition is None else partition
            time_ms = self._clock.now_ms() if timestamp_ms is None else timestamp_ms
            return self.extend(topic, number, [key], [value], [time_ms], None if headers is None else [headers])

    def extend(
        self,
        topic: str,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]],
        headers: Sequence[Headers | None] | None = None,
    ) -> int:
        """Put many records at the end of a partition, without a transaction; returns the offset of the first."""
        with self._lock:
            times = np.asarray(timestamps_ms, np.int64)
            filled: list[Headers | None] = [None] * len(values) if headers is None else list(headers)
            first = self.partition(TopicPartition(topic, partition)).append(list(keys), list(values), filled, times)
            self._arrival.notify_all()
            return first

    def read(self, partition: TopicPartition, start: int = 0) -> list[Record]:
        """The committed records of a partition from an offset on, as a `read_committed` reader sees them now."""
        with self._lock:
            found = self.partition(partition)
            return self._records(partition, found, found.rows(max(start, found.start), found.stable_end(), (SEEN,)).tolist())

    def read_uncommitted(self, partition: TopicPartition, start: int = 0) -> list[Record]:
        """The records of a partition from an offset on, aborted and pending ones too."""
        with self._lock:
            found = self.partition(partition)
            return self._records(partition, found, found.rows(max(start, found.start), found.end, (SEEN, ABORTED, PENDING)).tolist())

    def fetch(self, partition: TopicPartition, position: int, limit: int) -> tuple[Slice, int] | None:
        """Committed records from a position on and the position behind them; None when the log does not reach there."""
        with self._lock:
            found = self.partition(partition)
            if not found.start <= position <= found.end:
                return None
            return found.fetch(position, limit)

    def stable_end(self, partition: TopicPartition) -> int:
        """The last stable offset."""
        with self._lock:
            self._expire_overdue()
            return self.partition(partition).stable_end()

    def wait(self, timeout_ms: int) -> None:
        """Wait until something is written, in real time: what an embedded worker's source is given as `idle`."""
        with self._arrival:
            self._arrival.wait(timeout_ms / 1_000)

    # ------------------------------------------------------------------------------------------------------- transactions

    def pending(self) -> list[str]:
        """The transactional ids with a pending transaction."""
        with self._lock:
            return [name for name, producer in self._producers.items() if producer.pending is not None]

    def expire(self, transactional_id: str) -> None:
        """Play the transaction time-out: abort what is pending and fence whoever holds it."""
        with self._lock:
            self.init(transactional_id)

    def deliver(self, index: int = 0) -> None:
        """Let one held marker arrive."""
        with self._lock:
            self._arrive(self.undelivered.pop(index))

    def init(self, transactional_id: str) -> int:
        """A new epoch: fences every older one and aborts what is pending."""
        with self._lock:
            producer = self._producers.setdefault(transactional_id, _Producer())
            producer.epoch += 1
            self._finish(transactional_id, producer, committed=False)
            self._deliver_all(transactional_id)
            return producer.epoch

    def write(self, transactional_id: str, epoch: int, records: OutRecords) -> None:
        """Append records of one topic as part of the pending transaction. Raises `Fenced`, or `BrokerRefused` for an unknown topic."""
        with self._lock:
            pending = self._begin(transactional_id, epoch)
            for number, rows in self._by_partition(records):
                name = TopicPartition(records.topic, number)
                first, end = self._write_rows(name, records, rows, PENDING)
                self.partition(name).open_from.setdefault(pending.number, first)
                ranges = pending.ranges.setdefault(name, [])
                if ranges and ranges[-1][1] == first:
                    ranges[-1] = (ranges[-1][0], end)
                else:
                    ranges.append((first, end))

    def write_at_once(self, records: OutRecords) -> None:
        """Append records of one topic, without a transaction."""
        with self._lock:
            for number, rows in self._by_partition(records):
                self._write_rows(TopicPartition(records.topic, number), records, rows, SEEN)
            self._arrival.notify_all()

    def add_offsets(self, transactional_id: str, epoch: int, offsets: Mapping[TopicPartition, Position], shown: Membership) -> bool:
        """Make offsets part of the pending transaction; False when the group refuses the proof. Raises `Fenced`."""
        with self._lock:
            self._expire_overdue()
            self._check(transactional_id, epoch)
            group = self.group(shown.group)
            if not group.accepts(shown):
                return False
            pending = self._begin(transactional_id, epoch)
            pending.groups.add(shown.group)
            group.pending.setdefault(pending.number, {}).update(offsets)
            return True

    def end(self, transactional_id: str, epoch: int, *, committed: bool) -> None:
        """Decide the pending transaction; the group's generation is not looked at again. Raises `Fenced`."""
        with self._lock:
            self._expire_overdue()
            producer = self._check(transactional_id, epoch)
            self._finish(transactional_id, producer, committed=committed)
            if not self.hold_markers:
                self._deliver_all(transactional_id)

    # ------------------------------------------------------------------------------------------------------------- groups

    def group(self, name: str) -> MemoryGroup:
        """A consumer group; made when first asked for."""
        with self._lock:
            if name not in self._groups:
                self._groups[name] = MemoryGroup(name, self._all_of, self._lock)
            return self._groups[name]

    def committed(self, group: str, partition: TopicPartition) -> Position | None:
        """The stable committed position. Raises `UnstableOffsets` while a pending transaction holds offsets of the partition."""
        with self._lock:
            self._expire_overdue()
            found = self.group(group)
            if any(partition in held for held in found.pending.values()):
                raise UnstableOffsets(f"a pending transaction holds offsets of {partition.topic}-{partition.partition} in group {group}")
            return found.offsets.get(partition)

    def commit_offsets(self, offsets: Mapping[TopicPartition, Position], shown: Membership) -> bool:
        """Commit offsets without a transaction; False when the group refuses the proof."""
        with self._lock:
            group = self.group(shown.group)
            if not group.accepts(shown):
                return False
            group.offsets.update(offsets)
            return True

    # ------------------------------------------------------------------------------------------------------------- inside

    def partition(self, name: TopicPartition) -> MemoryPartition:
        """One partition. Raises `BrokerRefused` when there is none."""
        partitions = self._partitions(name.topic)
        if not 0 <= name.partition < len(partitions):
            raise BrokerRefused(f"topic {name.topic} has {len(partitions)} partitions, there is no partition {name.partition}")
        return partitions[name.partition]

    def _partitions(self, topic: str) -> list[MemoryPartition]:
        if topic not in self._topics:
            raise BrokerRefused(f"there is no topic {topic}")
        return self._topics[topic]

    def _make(self, topic: str, partitions: int) -> None:
        self._created += 1
        self._topics[topic] = [MemoryPartition() for _ in range(partitions)]
        self._topic_ids[topic] = f"memory-{self._created}"
        for group in self._groups.values():
            if any(topic in member.topics for member in group.members.values()):
                group.refresh()

    def _all_of(self, topics: Iterable[str]) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for topic in sorted(topics) for number in range(len(self._topics.get(topic, ())))]

    def _records(self, name: TopicPartition, found: MemoryPartition, offsets: list[int]) -> list[Record]:
        return [
            Record(
                topic=name.topic,
                partition=name.partition,
                offset=offset,
                timestamp_ms=found.timestamp_ms(offset),
                key=found.keys[offset],
                value=found.values[offset],
                headers=list(found.headers[offset] or ()),
            )
            for offset in offsets
        ]

    def _spread(self, topic: str, keys: Sequence[bytes | None]) -> list[int]:
        """The partition of each key; records without a key take turns."""
        count = len(self._partitions(topic))
        if count == 1:
            return [0] * len(keys)
        whole = [key for key in keys if key is not None]
        found = self._partitioner.partitions(whole, count)
        if len(whole) == len(keys):
            return found
        keyed = iter(found)
        answer = []
        for key in keys:
            if key is None:
                self._unkeyed += 1
                answer.append(self._unkeyed % count)
            else:
                answer.append(next(keyed))
        return answer

    def _by_partition(self, records: OutRecords) -> list[tuple[int, list[int] | None]]:
        """Which rows go to which partition; None stands for all rows."""
        if len(records) == 0:
            return []
        if len(self._partitions(records.topic)) == 1:
            return [(0, None)]
        spread = np.array(self._spread(records.topic, records.keys), np.int32)
        return [(int(number), np.flatnonzero(spread == number).tolist()) for number in np.unique(spread)]

    def _write_rows(self, name: TopicPartition, records: OutRecords, rows: list[int] | None, visibility: int) -> tuple[int, int]:
        found = self.partition(name)
        times = np.array(records.timestamps_ms, np.int64)
        if rows is None:
            first = found.append(list(records.keys), list(records.values), [found or None for found in records.headers], times, visibility)
        else:
            first = found.append(
                [records.keys[row] for row in rows],
                [records.values[row] for row in rows],
                [records.headers[row] or None for row in rows],
                times[rows],
                visibility,
            )
        return first, found.end

    def _check(self, transactional_id: str, epoch: int) -> _Producer:
        producer = self._producers[transactional_id]
        if producer.epoch != epoch:
            raise Fenced(f"transactional id {transactional_id} is at epoch {producer.epoch}, not {epoch}")
        return producer

    def _begin(self, transactional_id: str, epoch: int) -> _Transaction:
        """The pending transaction of an id; a new one begins where none is pending, once the markers of the last have arrived."""
        producer = self._check(transactional_id, epoch)
        if producer.pending is None:
            self._deliver_all(transactional_id)
            self._transactions += 1
            producer.pending = _Transaction(number=self._transactions, begun_ms=self._clock.now_ms())
        return producer.pending

    def _finish(self, transactional_id: str, producer: _Producer, *, committed: bool) -> None:
        pending, producer.pending = producer.pending, None
        if pending is None:
            return
        places: list[TopicPartition | None] = [*pending.ranges]
        if pending.groups:
            places.append(None)
        for place in places:
            self.undelivered.append(Marker(transactional_id=transactional_id, transaction=pending, place=place, committed=committed))

    def _deliver_all(self, transactional_id: str) -> None:
        due = [marker for marker in self.undelivered if marker.transactional_id == transactional_id]
        self.undelivered = [marker for marker in self.undelivered if marker.transactional_id != transactional_id]
        for marker in due:
            self._arrive(marker)

    def _arrive(self, marker: Marker) -> None:
        transaction = marker.transaction
        if marker.place is not None:
            found = self.partition(marker.place)
            found.settle(transaction.number, transaction.ranges[marker.place], SEEN if marker.committed else ABORTED, self._clock.now_ms())
        else:
            for name in transaction.groups:
                group = self.group(name)
                held = group.pending.pop(transaction.number, {})
                if marker.committed:
                    group.offsets.update(held)
        self._arrival.notify_all()

    def _expire_overdue(self) -> None:
        if self._transaction_timeout_ms is None:
            return
        overdue = self._clock.now_ms() - self._transaction_timeout_ms
        for name, producer in self._producers.items():
            if producer.pending is not None and producer.pending.begun_ms <= overdue:
                self.init(name)
