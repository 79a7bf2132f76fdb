"""What `headrace plan` asks a cluster and `headrace apply` does to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TypeVar

from headrace.changes import Changes, changes, definitions_fact, last_applied, starts_fact, topic_names
from headrace.consume.kafka_reader import KafkaReader
from headrace.definition import App
from headrace.errors import BrokerRefused, TransientError
from headrace.publish.kafka_control import write_now
from headrace.publish.kafka_topics import KafkaTopics, TopicWish
from headrace.types import OutRecords, Position, TopicPartition

LARGEST_RECORD_BYTES = 2_097_152
"""What the dead-letter topic takes, so that an event of 1 MiB fits with its headers."""

LEADER_TRIES, LEADER_PAUSE_S = 50, 0.2

Answer = TypeVar("Answer")
Properties = Mapping[str, str | int | float | bool]


class Start(StrEnum):
    """Where a new app begins to score."""

    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the operator may choose for things that are made."""

    partitions: int = 4
    replication: int = -1
    retention_ms: int = -1
    start: Start = Start.EARLIEST


class Cluster:
    """An app's view of a Kafka cluster. All methods raise `TransientError` or `BrokerRefused`."""

    def __init__(self, app: App, properties: Properties, wishes: Wishes) -> None:
        self._app, self.properties, self._wishes = app, properties, wishes
        self._topics = KafkaTopics(properties)

    def compare(self) -> Changes:
        """What is missing."""
        there = self._topics.describe(topic_names(self._app))
        found = {name: None if topic is None else topic.partitions for name, topic in there.items()}
        partitions = [TopicPartition(reads.topic, number) for reads in self._app.inputs for number in range(found[reads.topic] or 0)]
        offsets = _insist(lambda: self._topics.group_offsets(self._app.name, partitions)) if partitions else {}
        facts = self._app.facts
        return changes(
            self._app,
            found=found,
            committed={name: position is not None for name, position in offsets.items()},
            applied=last_applied(self._values(facts) if found[facts] is not None else []),
            partitions=self._wishes.partitions,
            retention_ms=str(self._wishes.retention_ms),
            largest_record_bytes=LARGEST_RECORD_BYTES,
            settings={name: topic.settings for name, topic in there.items() if topic is not None},
        )

    def apply(self, wanted: Changes) -> None:
        """Make the topics, commit the starting offsets, remember the definitions; each step is skipped where nothing is missing."""
        self._topics.create(
            [
                TopicWish(name=topic.name, partitions=topic.partitions, replication=self._wishes.replication, settings=topic.settings)
                for topic in wanted.topics
            ]
        )
        if wanted.offsets:
            starts = self._starts(wanted)
            _insist(lambda: self._topics.start_group(self._app.name, starts))
            self.remember(b"starts", starts_fact(starts))
        made = {topic.name for topic in wanted.topics}
        if wanted.views or any(pipeline.corrections in made for pipeline in self._app.pipelines):
            self.remember(b"definitions", definitions_fact(self._app))

    def _starts(self, wanted: Changes) -> dict[TopicPartition, Position]:
        reader = KafkaReader(self.properties)
        try:
            ranges = {name: _insist(partial(reader.log_range, name), BrokerRefused) for name in wanted.offsets}
        finally:
            reader.close()
        return {
            name: Position(offset=found.start if self._wishes.start is Start.EARLIEST else found.end, watermark_ms=None)
            for name, found in ranges.items()
        }

    def remember(self, key: bytes, value: bytes) -> None:
        """Write a fact."""
        fact = OutRecords(topic=self._app.facts, keys=[key], values=[value], headers=[[]], timestamps_ms=[0])
        write_now(self.properties, fact, name=f"{self._app.name}.apply")

    def _values(self, topic: str) -> list[bytes | None]:
        reader = KafkaReader(self.properties)
        try:
            return [record.value for record in reader.records(topic)]
        finally:
            reader.close()


def _insist(call: Callable[[], Answer], also: type[Exception] = TransientError) -> Answer:
    """Try until what was just made is there: partitions need a leader, groups a coordinator.

    `also`: what a client may raise that has not heard of it yet.
    """
    for _ in range(LEADER_TRIES):
        try:
            return call()
        except (TransientError, also):
            time.sleep(LEADER_PAUSE_S)
    return call()
