"""Where librdkafka is told to fetch from."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import TopicPartition as KafkaPartition

from headrace.consume.kafka_source import KafkaSource
from headrace.local_stack import KafkaServer
from headrace.types import TopicPartition
from tests.contract.log.kits import Told


class Recorder:
    """A consumer without messages that remembers the offsets it was given."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def incremental_assign(self, partitions: Sequence[KafkaPartition]) -> None:
        self.offsets += [partition.offset for partition in partitions]

    def incremental_unassign(self, partitions: Sequence[KafkaPartition]) -> None:
        """It is known what is taken out."""

    pause = resume = incremental_unassign

    def poll(self, timeout_s: float) -> None:
        """Nothing came."""


def test_librdkafka_is_never_asked_to_look_for_an_offset(kafka: KafkaServer, unique_name: str) -> None:
    """Only numbers are handed over: the late answer to a query for a logical offset would move a partition placed meanwhile."""
    source = KafkaSource({"bootstrap.servers": kafka.address}, group=unique_name, slot=None)
    source.close(leave=False)
    recorder = Recorder()
    source.__dict__.update(_consumer=recorder, _listener=Told())
    source._assigned(recorder, [KafkaPartition(unique_name, 0)])  # type: ignore[arg-type]
    source.start_at(TopicPartition(unique_name, 0), 7)
    assert len(source.poll(10, 0)) == 0
    assert recorder.offsets == [0, 7]
