"""Writing a record now and then, outside of any worker: facts of operators, commands to the registry."""

from __future__ import annotations

from headrace.errors import TransientError
from headrace.kafka_client import Properties
from headrace.publish.kafka_sink import KafkaAtLeastOnceSink
from headrace.publish.kafka_topics import KafkaTopics
from headrace.publish.record_sink import CommitResult
from headrace.types import OutRecords, TopicPartition

LARGEST_RECORD_BYTES = 16_777_216
"""A snapshot of the registry holds all versions ever registered."""


def write_now(properties: Properties, records: OutRecords, *, name: str) -> None:
    """Write records of one topic and wait until they are there; `name` is the client's.

    Raises `BrokerRefused`, and `TransientError` where they may be there or not: in part, all, or late.
    """
    sized = {"message.max.bytes": LARGEST_RECORD_BYTES, **properties}
    sink = KafkaAtLeastOnceSink(sized, name=name, commit_offsets=lambda _, __: True)
    try:
        sink.open()
        sink.begin()
        sink.send(records)
        if sink.commit({}, _Nobody()) is not CommitResult.COMMITTED:
            raise TransientError(f"writing to {records.topic}: no broker has said that it is there")
    finally:
        sink.close()


class KafkaControl:
    """The control topic of an app, as operators write to it. All methods raise `TransientError` or `BrokerRefused`."""

    def __init__(self, properties: Properties, app: str, topic: str) -> None:
        self._properties, self._name, self._topic = properties, f"{app}.model", topic

    def write(self, key: bytes | None, value: bytes) -> None:
        """Put a record at the end; raises `TransientError` where it may be there or not."""
        write_now(
            self._properties, OutRecords(topic=self._topic, keys=[key], values=[value], headers=[[]], timestamps_ms=[0]), name=self._name
        )

    def delete_before(self, offset: int) -> None:
        """Delete the records below an offset."""
        KafkaTopics(self._properties).delete_before(TopicPartition(self._topic, 0), offset)


class _Nobody:
    """The group metadata of somebody who commits no offsets."""
