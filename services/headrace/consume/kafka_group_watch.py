"""Partitions that nobody has, although the group is at rest.

A cooperative rebalance moves a partition in two steps (KIP-429): its owner gives it up and joins again, which begins the rebalance that
hands it on. A static member that is killed between the two comes back with what it was to keep, without any rebalance (KIP-345), and
knows nothing of the second step. Nobody begins it: the partition is nobody's until something else moves the group, which may be never.
Seen with two workers in one of six runs that kill one of them soon after its start.

So every static member looks at its group once in a while, and soon again while partitions are missing. When the same ones are missing
look after look, the member that has the fewest partitions leaves the group and joins again, which is a rebalance; should it not, then
the next one does. The others keep what they have. Limit: a group whose members do not know of new partitions yet looks the same; then
this comes too early, and is tried less and less often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import ConsumerGroupDescription

from headrace.consume.kafka_questions import KafkaQuestions
from headrace.types import TopicPartition

EVERY_MS, AGAIN_MS, LONGEST_MS = 5_000, 1_000, 300_000
"""How often a group is looked at: at rest, while something is missing, and at most after joining again was of no use."""
LOOKS = 3
"""How often the same partitions must be missing; one look more for each member with fewer partitions than we."""


class GroupWatch:
    """Looks at one group without waiting for an answer."""

    def __init__(self, questions: KafkaQuestions, topics: Sequence[str]) -> None:
        self._questions = questions
        self._topics = tuple(topics)
        self._due_ms: int | None = None
        self._asked: list[Future[Any]] = []
        self._missing: list[TopicPartition] = []
        self._looks = 0
        self._pause_ms = EVERY_MS

    def nobodys(self, member: str, now_ms: int) -> list[TopicPartition]:
        """The partitions for which this member is to join the group again; mostly none. To be called with every poll."""
        if self._due_ms is None:
            self._due_ms = now_ms + EVERY_MS
        if not self._asked and now_ms >= self._due_ms:
            self._asked = [self._questions.members(), *self._questions.describe(self._topics).values()]
        if not self._asked or not all(one.done() for one in self._asked):
            return []
        asked, self._asked = self._asked, []
        try:
            group, *topics = (one.result() for one in asked)
        except KafkaException:  # a broker that is away: whoever needs its answer says so
            self._due_ms = now_ms + EVERY_MS
            return []
        every = {TopicPartition(topic.name, one.id) for topic in topics for one in topic.partitions}
        held = _held(group)
        self._note(sorted(every.difference(*held.values())) if held else [])
        self._due_ms = now_ms + (AGAIN_MS if self._missing else EVERY_MS)
        fewer = sorted(held, key=lambda name: (len(held[name]), name))
        if not self._missing or member not in held or self._looks < LOOKS + fewer.index(member):
            return []
        self._looks, self._due_ms = 0, now_ms + self._pause_ms
        self._pause_ms = min(2 * self._pause_ms, LONGEST_MS)
        return self._missing

    def _note(self, missing: list[TopicPartition]) -> None:
        """Count how often the same partitions are missing."""
        if not missing:
            self._pause_ms = EVERY_MS
        self._looks = self._looks + 1 if missing == self._missing else 1
        self._missing = missing


def _held(group: ConsumerGroupDescription) -> Mapping[str, frozenset[TopicPartition]]:
    """What each member of a group has; nothing while it is rebalancing."""
    if group.state is not ConsumerGroupState.STABLE:
        return {}
    return {
        one.member_id: frozenset(TopicPartition(found.topic, found.partition) for found in one.assignment.topic_partitions)
        for one in group.members
    }
