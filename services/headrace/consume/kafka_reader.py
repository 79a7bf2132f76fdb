"""Reading topics without a group: for `tail`, `verify`, training sets and tests.

It keeps no positions and fences nobody. A read that is given no ends stops where the topic ended when it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from headrace.consume.kafka_columns import record_batches
from headrace.errors import BrokerRefused, TransientError
from headrace.kafka_client import Properties, make, partitions_of, reason, refuse_fixed, translate
from headrace.types import LogRange, Record, RecordBatch, TopicPartition

ANSWER_S = 5.0
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

    def batches(
        self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None, *, max_records: int = 10_000
    ) -> Iterator[RecordBatch]:
        """The records of some partitions from their start up to, not with, their end.

        Raises `BrokerRefused` when the log does not reach a start, `TransientError` while the broker is away.
        """
        last = {partition: self.log_range(partition).end for partition in starts} if ends is None else ends
        waiting = {partition: end for partition, end in last.items() if starts[partition] < end}
        for messages in self._messages({partition: starts[partition] for partition in waiting}, max_records, lambda: not waiting):
            records = []
            for message in messages:
                name = TopicPartition(message.topic() or "", message.partition() or 0)
                offset = message.offset() or 0
                if message.error() is None and offset < last[name]:
                    records.append(message)
                if offset + (message.error() is None) >= last[name]:
                    waiting.pop(name, None)
            yield from record_batches(records)

    def follow(self, starts: Mapping[TopicPartition, int], stop: Callable[[], bool]) -> Iterator[RecordBatch]:
        """The records of some partitions from their start on, as they come, until `stop()`, which is asked ten times a second."""
        for messages in self._messages(starts, 10_000, stop):
            yield from record_batches([message for message in messages if message.error() is None])

    def records(self, topic: str) -> list[Record]:
        """Everything a topic holds, one record at a time, partition by partition: for tests and small topics."""
        starts = {partition: self.log_range(partition).start for partition in self.partitions(topic)}
        found = [record for batch in self.batches(starts) for record in batch.records()]
        return sorted(found, key=lambda record: (record.partition, record.offset))

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _messages(self, starts: Mapping[TopicPartition, int], max_records: int, stop: Callable[[], bool]) -> Iterator[list[Message]]:
        """Messages and ends of partitions; any other error is raised."""
        self._consumer.assign([KafkaPartition(*name, offset) for name, offset in starts.items()])
        try:
            while not stop():
                first = self._consumer.poll(0.1)
                if first is not None:
                    messages = [first, *self._consumer.consume(max_records - 1, 0)]
                    _raise_errors(messages)
                    yield [message for message in messages if message.topic() is not None]
        except KafkaException as error:
            raise translate(reason(error), "reading") from error
        finally:
            self._consumer.unassign()


def _raise_errors(messages: Iterable[Message]) -> None:
    for message in messages:
        error = message.error()
        if error is None or error.code() in _NO_FAULT:
            continue
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise BrokerRefused(f"{message.topic()}-{message.partition()} does not hold offset {message.offset()}: {error.str()}")
        raise translate(error, "reading")
