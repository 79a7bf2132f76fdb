"""Topics, starting offsets and broker settings: what `headrace apply`, `doctor` and the tests do to a cluster beside reading and writing.

A topic that is there is described, never changed. Starting offsets of a new group carry the same metadata as those a worker commits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import ConfigResource, NewTopic

from headrace import commit_metadata
from headrace.errors import BrokerRefused, TransientError
from headrace.kafka_client import Coordinator, Properties, answer, make_admin, reason, refuse_fixed, translate
from headrace.types import Position, TopicPartition

ANSWER_S = 15.0
TRY_S, AGAIN_S = 3.0, 0.1

BROKER_SETTINGS = (
    "transaction.abort.timed.out.transaction.cleanup.interval.ms",  # how long an open transaction outlives its time-out
    "transaction.max.timeout.ms",
    "transactional.id.expiration.ms",
    "group.min.session.timeout.ms",  # how soon a lost worker can be missed (classic groups)
    "group.max.session.timeout.ms",
    "group.consumer.session.timeout.ms",  # the same under KIP-848
    "group.consumer.min.session.timeout.ms",
    "group.initial.rebalance.delay.ms",
    "offsets.retention.minutes",  # how long a group may be away
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "default.replication.factor",
    "min.insync.replicas",
    "unclean.leader.election.enable",
    "auto.create.topics.enable",
    "message.max.bytes",
    "log.retention.ms",
    "log.retention.hours",
)
"""The broker settings that decide what headrace can promise, and how soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicWish:
    """A topic to be made; `replication` -1 is the broker's default."""

    name: str
    partitions: int
    replication: int = -1
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTopic:
    """A topic as it is."""

    name: str
    topic_id: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


class KafkaTopics:
    """The administrator's view of a cluster. All calls raise `TransientError` or `BrokerRefused`."""

    def __init__(self, properties: Properties) -> None:
        refuse_fixed(properties)
        self._properties = properties
        self._admin = make_admin(properties)
        self._coordinators: dict[str, Coordinator] = {}

    def describe(self, names: Sequence[str]) -> dict[str, FoundTopic | None]:
        """Topics by name; None for one that is not there."""
        asked = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=ANSWER_S) if names else {}
        there = {}
        for name, future in asked.items():
            try:
                there[name] = future.result()
            except KafkaException as error:
                if reason(error).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise translate(reason(error), f"describing topic {name}") from error
        settings = self._settings([ConfigResource(ConfigResource.Type.TOPIC, name) for name in there])
        found = {
            name: FoundTopic(
                name=name,
                topic_id=str(topic.topic_id),
                partitions=len(topic.partitions),
                replication=min(len(partition.replicas) for partition in topic.partitions),
                settings=settings[name],
            )
            for name, topic in there.items()
            if name in settings
        }
        return {name: found.get(name) for name in names}

    def create(self, wishes: Sequence[TopicWish]) -> list[str]:
        """Make the topics that are not there; returns their names."""
        new = [
            NewTopic(wish.name, num_partitions=wish.partitions, replication_factor=wish.replication, config=dict(wish.settings))
            for wish in wishes
        ]
        made = []
        for name, future in (self._admin.create_topics(new, request_timeout=ANSWER_S) if new else {}).items():
            try:
                future.result()
            except KafkaException as error:
                if reason(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise translate(reason(error), f"creating topic {name}") from error
            else:
                made.append(name)
        return made

    def delete_before(self, partition: TopicPartition, offset: int) -> None:
        """Delete the records of a partition below an offset; those that are gone already are no trouble."""
        asked = self._admin.delete_records([KafkaPartition(*partition, offset)], request_timeout=ANSWER_S)
        for future in asked.values():
            answer(future, f"deleting the beginning of {partition.topic}-{partition.partition}")

    def group_offsets(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Position | None]:
        """What a group has committed, pending transactions left aside; None where it has committed nothing."""
        doing = f"asking for the offsets of group {group}"
        if group not in self._coordinators:
            self._coordinators[group] = Coordinator(self._properties, group, stable=False)
        try:
            found = self._coordinators[group].committed([KafkaPartition(*name) for name in partitions], ANSWER_S)
        except KafkaException as error:
            raise translate(reason(error), doing) from error
        offsets: dict[TopicPartition, Position | None] = {}
        for one in found:
            if one.error is not None:
                raise translate(one.error, doing)
            known = one.offset >= 0
            offsets[TopicPartition(one.topic, one.partition)] = commit_metadata.position(one.offset, one.metadata) if known else None
        return offsets

    def members(self, group: str) -> list[str]:
        """Who is in a group now, each by its slot where it has one, and its host; nobody, where the group is not there."""
        doing = f"asking for the members of group {group}"
        found = answer(self._admin.describe_consumer_groups([group], request_timeout=ANSWER_S)[group], doing)
        return sorted(f"{one.group_instance_id or one.client_id} on {one.host.removeprefix('/')}" for one in found.members)

    def start_group(self, group: str, offsets: Mapping[TopicPartition, Position]) -> None:
        """Commit the offsets at which a group that nobody is in begins. Raises `BrokerRefused` while it has members.

        The first group of a new cluster waits for the topic of all groups to be made: until then nobody coordinates it, and the client
        may wait for an answer that never comes. And who coordinates it may hear of a new topic later than others. Setting offsets twice
        is setting them once, so it is asked again.
        """
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                self._set_offsets(group, offsets)
            except TransientError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_S)
            else:
                return

    def _set_offsets(self, group: str, offsets: Mapping[TopicPartition, Position]) -> None:
        doing = f"setting the starting offsets of group {group}"
        wanted = [KafkaPartition(*name, found.offset, commit_metadata.as_text(found)) for name, found in offsets.items()]
        # A client of its own: one that has waited in vain for a coordinator ends the process when its connection breaks some time later.
        admin = make_admin(self._properties)
        asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)], request_timeout=TRY_S)
        try:
            done = asked[group].result()
        except KafkaException as error:
            if reason(error).code() in _HAS_MEMBERS:
                raise BrokerRefused(f"{doing}: it has members; stop every worker of the app first") from error
            raise translate(reason(error), doing) from error
        for one in done.topic_partitions:
            if one.error is not None:
                if one.error.code() in _HAS_MEMBERS:
                    raise BrokerRefused(f"{doing}: it has members; stop every worker of the app first")
                if one.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise TransientError(f"{doing}: {one.topic}-{one.partition} is not known there")
                raise translate(one.error, doing)

    def broker_settings(self) -> dict[int, dict[str, str]]:
        """By broker id: the settings that decide how soon a lost worker is replaced and how safe a commit is (`BROKER_SETTINGS`)."""
        brokers = answer(self._admin.describe_cluster(request_timeout=ANSWER_S), "describing the cluster").nodes
        found = self._settings([ConfigResource(ConfigResource.Type.BROKER, str(broker.id)) for broker in brokers])
        return {int(broker): {name: one[name] for name in BROKER_SETTINGS if name in one} for broker, one in found.items()}

    def _settings(self, resources: list[ConfigResource]) -> dict[str, dict[str, str]]:
        """Settings by name; a topic that is gone meanwhile is not among them."""
        found = {}
        for resource, future in (self._admin.describe_configs(resources, request_timeout=ANSWER_S) if resources else {}).items():
            gone = future.exception()
            if isinstance(gone, KafkaException) and reason(gone).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            told = answer(future, f"asking for the settings of {resource.name}")
            found[resource.name] = {name: one.value for name, one in told.items()}
        return found


_HAS_MEMBERS = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.ILLEGAL_GENERATION})
