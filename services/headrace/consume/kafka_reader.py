"""Reading topics without a group: for `tail`, `verify`, training sets and tests.

It keeps no positions and fences nobody. A read that is given no ends stops where the topic ended when it began.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from headrace.consume.kafka_columns import record_batches
from headrace.errors import BrokerRefused, TransientError
from headrace.kafka_client import Properties, make, partitions_of, reason, refuse_fixed, translate
from headrace.types import LogRange, Record, RecordBatch, TopicPartition

ANSWER_S = 5.0
_AT_ONCE = 10_000
_GROUP = "headrace-reader"
"""librdkafka wants a name and asks for its coordinator; nothing is ever done with it, so nobody needs a right on it."""
_NO_FAULT = frozenset({KafkaError._PARTITION_EOF, KafkaError.GROUP_AUTHORIZATION_FAILED})


class Isolation(StrEnum):
    """Which records are seen."""

    COMMITTED = "read_committed"
    """Those of transactions that were committed, and those without one."""
    UNCOMMITTED = "read_uncommitted"
    """All: aborted and pending ones too."""


class KafkaReader:
    """Reads topics from anywhere to anywhere. One thread at a time."""

    def __init__(self, properties: Properties, *, isolation: Isolation = Isolation.COMMITTED, ahead_kbytes: int = 16_384) -> None:
        """`ahead_kbytes`: how much is fetched before it is asked for."""
        refuse_fixed(properties)
        configuration: dict[str, Any] = {
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": ahead_kbytes,
            "fetch.message.max.bytes": min(1_048_576, 1_024 * ahead_kbytes // 8),
            "check.crcs": True,
            **properties,
            "group.id": _GROUP,
            "isolation.level": isolation.value,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
        }
        self._consumer = make(Consumer, configuration)

    def exists(self, topic: str) -> bool:
        """Whether there is a topic of that name, as far as is known now."""
        try:
            found = self._consumer.list_topics(topic, ANSWER_S).topics[topic].error
        except KafkaException as error:
            raise translate(reason(error), f"asking for topic {topic}") from error
        if found is not None and found.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise translate(found, f"asking for topic {topic}")
        return found is None

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic. Raises `BrokerRefused` when there is none of that name."""
        return [TopicPartition(topic, number) for number in partitions_of(self._consumer, topic)]

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the end, as this isolation sees it."""
        try:
            found = self._consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=ANSWER_S, cached=False)
        except KafkaException as error:
            raise translate(reason(error), f"asking how far {partition.topic}-{partition.partition} reaches") from error
        if found is None:
            raise TransientError(f"asking how far {partition.topic}-{partition.partition} reaches: no answer")
        return LogRange(start=found[0], end=found[1])

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`; None where no record is that young."""
        doing = f"asking for an offset by time in {partition.topic}-{partition.partition}"
        try:
            (found,) = self._consumer.offsets_for_times([KafkaPartition(*partition, time_ms)], timeout=ANSWER_S)
        except KafkaException as error:
            raise translate(reason(error), doing) from error
        if found.error is not None:
            raise translate(found.error, doing)
        return None if found.offset < 0 else int(found.offset)

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> KafkaFeed:
        """The records of some partitions from their start up to, not with, their end, in any order of partitions."""
        return KafkaFeed(self._consumer, starts, ends)

    def batches(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None) -> Iterator[RecordBatch]:
        """The same, one batch after another; without ends up to where each partition ends now."""
        feed = self.feed(starts, {partition: self.log_range(partition).end for partition in starts} if ends is None else ends)
        try:
            while feed.left:
                yield from feed.take()
        finally:
            feed.close()

    def follow(self, starts: Mapping[TopicPartition, int], stop: Callable[[], bool]) -> Generator[RecordBatch, None, None]:
        """The records of some partitions from their start on, as they come, until `stop()`, which is asked ten times a second."""
        self._consumer.assign([KafkaPartition(*name, offset) for name, offset in starts.items()])
        try:
            while not stop():
                yield from record_batches([message for message in _polled(self._consumer) if message.error() is None])
        finally:
            self._consumer.unassign()

    def records(self, topic: str) -> list[Record]:
        """Everything a topic holds, one record at a time, partition by partition: for tests and small topics."""
        starts = {partition: self.log_range(partition).start for partition in self.partitions(topic)}
        found = [record for batch in self.batches(starts) for record in batch.records()]
        return sorted(found, key=lambda record: (record.partition, record.offset))

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


class KafkaFeed:
    """Some partitions from their start up to, not with, their end; those that are held wait.

    Raises `BrokerRefused` when the log does not reach a start, `TransientError` while the broker is away.
    """

    def __init__(self, consumer: Consumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        self._consumer, self._ends = consumer, ends
        self.left = {name for name, end in ends.items() if starts[name] < end}
        self._held: set[TopicPartition] = set()
        consumer.assign([KafkaPartition(*name, starts[name]) for name in sorted(self.left)])

    def hold(self, partitions: AbstractSet[TopicPartition]) -> None:
        """Give nothing of these until told otherwise; what was fetched of them is fetched again."""
        wanted = self.left & partitions
        stop, go = wanted - self._held, (self._held - wanted) & self.left
        if stop:
            self._consumer.pause([KafkaPartition(*name) for name in sorted(stop)])
        if go:
            self._consumer.resume([KafkaPartition(*name) for name in sorted(go)])
        self._held = wanted

    def take(self) -> list[RecordBatch]:
        """What has come; waits a tenth of a second for a first record."""
        messages = _polled(self._consumer)
        records = [message for message in messages if message.error() is None]
        for message in messages if len(records) < len(messages) else ():
            name = TopicPartition(message.topic() or "", message.partition() or 0)
            if message.error() is not None and (message.offset() or 0) >= self._ends.get(name, 0):
                self.left.discard(name)
        found = []
        for batch in record_batches(records):
            wanted = np.ones(len(batch), dtype=np.bool_)
            for number in np.unique(batch.partitions).tolist():
                name = TopicPartition(batch.topic, number)
                mine = batch.partitions == number
                wanted[mine & (batch.offsets >= self._ends[name])] = False
                if batch.offsets[mine][-1] + 1 >= self._ends[name]:
                    self.left.discard(name)
            found.append(batch if wanted.all() else batch.select(np.flatnonzero(wanted)))
        return [batch for batch in found if len(batch)]

    def close(self) -> None:
        """Stop fetching."""
        self._consumer.unassign()


def _polled(consumer: Consumer) -> list[Message]:
    """Messages and ends of partitions; any other error is raised."""
    try:
        first = consumer.poll(0.1)
        messages = [] if first is None else [first, *consumer.consume(_AT_ONCE - 1, 0)]
    except KafkaException as error:
        raise translate(reason(error), "reading") from error
    _raise_errors(messages)
    return [message for message in messages if message.topic() is not None]


def _raise_errors(messages: Iterable[Message]) -> None:
    for message in messages:
        error = message.error()
        if error is None or error.code() in _NO_FAULT:
            continue
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise BrokerRefused(f"{message.topic()}-{message.partition()} does not hold offset {message.offset()}: {error.str()}")
        raise translate(error, "reading")
