"""The two implementations of the log, as the contract suite meets them, and a listener that remembers what it was told."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.clock import ManualClock
from headrace.consume.kafka_reader import Isolation, KafkaReader
from headrace.consume.kafka_source import KafkaSource
from headrace.consume.record_source import GroupMetadata, RecordSource
from headrace.errors import UnstableOffsets
from headrace.memory_log import MemoryAtLeastOnceSink, MemoryLog, MemorySink, MemorySource
from headrace.publish.kafka_sink import KafkaAtLeastOnceSink, KafkaTransactionalSink
from headrace.publish.record_sink import RecordSink
from headrace.types import Drain, Headers, OutRecords, Position, Record, TopicPartition

DEADLINE_S = 30.0
NO_GROUP = b""
"""For transactions without offsets: no proof is looked at."""


@dataclass
class Told:
    """A listener. `on_assigned` and `on_revoked` are called inside the callbacks."""

    events: list[tuple[str, list[TopicPartition]]] = field(default_factory=list)
    on_assigned: Callable[[Sequence[TopicPartition]], None] = lambda _: None
    on_revoked: Callable[[Sequence[TopicPartition]], None] = lambda _: None
    owned: set[TopicPartition] = field(default_factory=set)

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("assigned", list(partitions)))
        self.owned.update(partitions)
        self.on_assigned(partitions)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.on_revoked(partitions)
        self.events.append(("revoked", list(partitions)))
        self.owned.difference_update(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.events.append(("lost", list(partitions)))
        self.owned.difference_update(partitions)

    def of(self, kind: str) -> list[TopicPartition]:
        return sorted(partition for found, partitions in self.events if found == kind for partition in partitions)


@dataclass
class Member:
    """A source with its listener and everything it has polled."""

    source: RecordSource
    told: Told = field(default_factory=Told)
    records: list[Record] = field(default_factory=list)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    broken: dict[TopicPartition, str] = field(default_factory=dict)

    def poll(self, max_records: int = 500) -> Drain:
        drain = self.source.poll(max_records, 50)
        assert len(drain) <= max_records
        for batch in drain.batches:
            self.records += batch.records()
        self.ends.update(drain.ends)
        self.broken.update(drain.broken)
        return drain

    def offsets(self, partition: TopicPartition) -> list[int]:
        return [record.offset for record in self.records if (record.topic, record.partition) == partition]

    def start_all(self, partitions: Iterable[TopicPartition], offset: int = 0) -> None:
        for partition in partitions:
            self.source.start_at(partition, offset)


class Kit(ABC):
    """One implementation of the log."""

    def __init__(self) -> None:
        self._opened: list[Callable[[], None]] = []

    def close(self) -> None:
        for close in reversed(self._opened):
            close()

    def name(self, kind: str) -> str:
        return f"{kind}-{uuid.uuid4().hex[:10]}"

    def member(self, group: str, topics: Sequence[str], *, slot: str | None = None, told: Told | None = None) -> Member:
        """A member that has started; nothing is polled yet."""
        member = Member(self.source(group, slot=slot), told or Told())
        member.source.start(topics, member.told)
        return member

    def settled(self, group: str, topics: Sequence[str], *, slot: str | None = None) -> Member:
        """The only member of a group, with all partitions, none of them flowing."""
        member = self.member(group, topics, slot=slot)
        wait_for("the partitions to be assigned", lambda: len(member.told.owned) == sum(map(self.partitions, topics)), [member])
        return member

    def opened(self, transactional_id: str | None = None, *, short_lived: bool = False) -> RecordSink:
        sink = self.sink(transactional_id or self.name("tx"), short_lived=short_lived)
        sink.open()
        return sink

    @abstractmethod
    def topic(self, partitions: int = 1) -> str: ...
    @abstractmethod
    def partitions(self, topic: str) -> int: ...
    @abstractmethod
    def recreate(self, topic: str) -> None: ...
    @abstractmethod
    def source(self, group: str, *, slot: str | None = None) -> RecordSource: ...
    @abstractmethod
    def unguarded(self, source: RecordSource) -> GroupMetadata: ...
    @abstractmethod
    def sink(self, transactional_id: str, *, short_lived: bool = False) -> RecordSink: ...
    @abstractmethod
    def at_least_once(self, source: RecordSource) -> RecordSink: ...
    @abstractmethod
    def append(self, partition: TopicPartition, values: Sequence[bytes | None], *, times_ms: Sequence[int] | None = None) -> None: ...
    @abstractmethod
    def leave_pending(
        self, transactional_id: str, records: OutRecords, offsets: Mapping[TopicPartition, Position], source: RecordSource
    ) -> None:
        """A producer that sent records and offsets in a transaction and died."""

    @abstractmethod
    def expire(self, transactional_id: str, partition: TopicPartition) -> None:
        """Let the time-out of a pending transaction with records in `partition` pass."""

    @abstractmethod
    def miss(self, member: Member) -> None:
        """Let the group miss a member, which does not know it yet."""

    @abstractmethod
    def delete_before(self, partition: TopicPartition, offset: int) -> None: ...
    @abstractmethod
    def read(self, topic: str) -> list[Record]: ...
    @abstractmethod
    def read_uncommitted(self, topic: str) -> list[Record]: ...


class MemoryKit(Kit):
    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(ManualClock())

    def topic(self, partitions: int = 1) -> str:
        topic = self.name("topic")
        self.log.create_topic(topic, partitions)
        return topic

    def partitions(self, topic: str) -> int:
        return self.log.topics()[topic]

    def recreate(self, topic: str) -> None:
        self.log.recreate_topic(topic)

    def source(self, group: str, *, slot: str | None = None) -> MemorySource:
        return MemorySource(self.log, group=group, instance_id=slot)

    def unguarded(self, source: RecordSource) -> GroupMetadata:
        assert isinstance(source, MemorySource)
        return source.membership()

    def sink(self, transactional_id: str, *, short_lived: bool = False) -> RecordSink:
        del short_lived
        return MemorySink(self.log, transactional_id=transactional_id)

    def at_least_once(self, source: RecordSource) -> RecordSink:
        del source
        return MemoryAtLeastOnceSink(self.log)

    def append(self, partition: TopicPartition, values: Sequence[bytes | None], *, times_ms: Sequence[int] | None = None) -> None:
        self.log.extend(*partition, [b"key"] * len(values), values, times_ms or [1_000] * len(values))

    def leave_pending(
        self, transactional_id: str, records: OutRecords, offsets: Mapping[TopicPartition, Position], source: RecordSource
    ) -> None:
        assert isinstance(source, MemorySource)
        epoch = self.log.init(transactional_id)
        self.log.write(transactional_id, epoch, records)
        if offsets:
            assert self.log.add_offsets(transactional_id, epoch, offsets, source.group())

    def expire(self, transactional_id: str, partition: TopicPartition) -> None:
        del partition
        self.log.expire(transactional_id)

    def miss(self, member: Member) -> None:
        assert isinstance(member.source, MemorySource)
        self.log.group(member.source.group().group).evict(member.source.member_id)

    def delete_before(self, partition: TopicPartition, offset: int) -> None:
        self.log.delete_before(partition, offset)

    def read(self, topic: str) -> list[Record]:
        return [record for number in range(self.partitions(topic)) for record in self.log.read(TopicPartition(topic, number))]

    def read_uncommitted(self, topic: str) -> list[Record]:
        return [record for number in range(self.partitions(topic)) for record in self.log.read_uncommitted(TopicPartition(topic, number))]


class KafkaKit(Kit):
    """A real broker, the group protocol to use, and whether members have an instance id unless they are given none."""

    SHORT_MS = 2_000

    def __init__(self, address: str, *, group_protocol: str = "classic") -> None:
        super().__init__()
        self.address = address
        self.group_protocol = group_protocol
        self.properties: dict[str, str | int | float | bool] = {"bootstrap.servers": address}
        self.consumer_properties: dict[str, str | int | float | bool] = {**self.properties, "group.protocol": group_protocol}
        if group_protocol == "classic":
            self.consumer_properties.update({"session.timeout.ms": 6_000, "heartbeat.interval.ms": 200, "max.poll.interval.ms": 6_000})
        else:
            self.consumer_properties["max.poll.interval.ms"] = 6_000
        self.admin = AdminClient({**self.properties, "log_level": 0})
        self._partitions: dict[str, int] = {}
        self.said: list[tuple[str, dict[str, object]]] = []

    def _say(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def topic(self, partitions: int = 1) -> str:
        topic = self.name("topic")
        self._create(topic, partitions)
        return topic

    def _create(self, topic: str, partitions: int) -> None:
        self._partitions[topic] = partitions
        self.admin.create_topics([NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})])[topic].result()

    def partitions(self, topic: str) -> int:
        return self._partitions[topic]

    def recreate(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result()
        wait_for("the topic to be gone", lambda: topic not in self.admin.list_topics().topics)
        self._create(topic, self._partitions[topic])

    def source(self, group: str, *, slot: str | None = None) -> KafkaSource:
        source = KafkaSource(self.consumer_properties, group=group, slot=slot)
        self._opened.append(lambda: source.close(leave=True))
        return source

    def unguarded(self, source: RecordSource) -> GroupMetadata:
        assert isinstance(source, KafkaSource)
        return source.membership()

    def sink(self, transactional_id: str, *, short_lived: bool = False) -> KafkaTransactionalSink:
        properties = {**self.properties, **({"transaction.timeout.ms": self.SHORT_MS} if short_lived else {})}
        sink = KafkaTransactionalSink(properties, transactional_id=transactional_id, say=self._say)
        self._opened.append(sink.close)
        return sink

    def at_least_once(self, source: RecordSource) -> RecordSink:
        assert isinstance(source, KafkaSource)
        sink = KafkaAtLeastOnceSink(self.properties, name=self.name("alo"), commit_offsets=source.commit)
        self._opened.append(sink.close)
        return sink

    def append(self, partition: TopicPartition, values: Sequence[bytes | None], *, times_ms: Sequence[int] | None = None) -> None:
        producer = Producer({**self.properties, "linger.ms": 0})
        for value, time_ms in zip(values, times_ms or [1_000] * len(values), strict=True):
            producer.produce(*partition[:1], value, b"key", partition.partition, None, None, time_ms)
        assert producer.flush(DEADLINE_S) == 0

    def leave_pending(
        self, transactional_id: str, records: OutRecords, offsets: Mapping[TopicPartition, Position], source: RecordSource
    ) -> None:
        producer = Producer(
            {
                **self.properties,
                "transactional.id": transactional_id,
                "partitioner": "murmur2_random",
                "retry.backoff.ms": 1,
            }
        )
        producer.init_transactions()
        producer.begin_transaction()
        for key, value in zip(records.keys, records.values, strict=True):
            producer.produce(records.topic, value, key)
        assert producer.flush(DEADLINE_S) == 0
        if offsets:
            producer.send_offsets_to_transaction([KafkaPartition(*name, found.offset) for name, found in offsets.items()], source.group())
        producer.purge()

    def expire(self, transactional_id: str, partition: TopicPartition) -> None:
        del transactional_id
        committed, uncommitted = KafkaReader(self.properties), KafkaReader(self.properties, isolation=Isolation.UNCOMMITTED)
        wait_for("the transaction to expire", lambda: committed.log_range(partition).end == uncommitted.log_range(partition).end)
        committed.close()
        uncommitted.close()

    def miss(self, member: Member) -> None:
        """It does not poll for `max.poll.interval.ms`: librdkafka then leaves the group, and says so in the next poll."""
        assert isinstance(member.source, KafkaSource)
        group = member.source._group
        wait_for("the group to miss a member", lambda: not self.admin.describe_consumer_groups([group])[group].result().members)

    def delete_before(self, partition: TopicPartition, offset: int) -> None:
        found = KafkaPartition(*partition, offset)
        self.admin.delete_records([found])[found].result()

    def read(self, topic: str) -> list[Record]:
        return self._read(topic, Isolation.COMMITTED)

    def read_uncommitted(self, topic: str) -> list[Record]:
        return self._read(topic, Isolation.UNCOMMITTED)

    def _read(self, topic: str, isolation: Isolation) -> list[Record]:
        reader = KafkaReader(self.properties, isolation=isolation)
        try:
            return reader.records(topic)
        finally:
            reader.close()


def wait_for(what: str, condition: Callable[[], bool], members: Sequence[Member] = (), *, deadline_s: float = DEADLINE_S) -> None:
    """Poll the members until the condition holds; what did not come about in time is named."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {deadline_s:.0f} s in vain for {what}; told: {[member.told.events for member in members]}")
        for member in members:
            member.poll()
        if not members:
            time.sleep(0.02)  # the pause between two looks at a broker


def stable(source: RecordSource, partition: TopicPartition) -> Position | None:
    """The committed position, or None while it is not stable."""
    try:
        return source.committed(partition)
    except UnstableOffsets:
        return None


def is_stable(source: RecordSource, partition: TopicPartition) -> bool:
    """Whether no transaction with offsets of the partition is pending."""
    try:
        source.committed(partition)
    except UnstableOffsets:
        return False
    return True


def stands_at(source: RecordSource, partition: TopicPartition, position: Position) -> bool:
    """Whether that is the stable committed position."""
    return stable(source, partition) == position


def has_records(member: Member, count: int) -> bool:
    """Whether a member has polled at least so many records."""
    return len(member.records) >= count


def out(
    topic: str, values: Sequence[bytes | None], *, key: bytes | None = b"key", headers: Headers | None = None, time_ms: int = 1_000
) -> OutRecords:
    """Records to send, all with one key."""
    count = len(values)
    return OutRecords(
        topic=topic, keys=[key] * count, values=list(values), headers=[headers or []] * count, timestamps_ms=[time_ms] * count
    )


def values_of(records: Iterable[Record]) -> list[bytes | None]:
    return [record.value for record in records]
