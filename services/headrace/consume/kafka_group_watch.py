"""Partitions that nobody has, although the group is at rest.

A cooperative rebalance moves a partition in two steps (KIP-429): its owner gives it up and joins again, which begins the rebalance that
hands it on. A static member that is killed between the two comes back with what it was to keep, without any rebalance (KIP-345), and
knows nothing of the second step. Nobody begins it: the partition is nobody's until something else moves the group, which may be never.
Seen with two workers in two of eight runs that kill one of them soon after the other joined.

So every static member looks at its group once in a while, and soon again while partitions are missing. When the same ones are missing
look after look, the member that has the fewest partitions leaves the group and joins again, which is a rebalance; should it not, then
the next one does. The others keep what they have. Limit: a group whose members do not know of new partitions yet looks the same; then
this comes too early, and is tried less and less often.

The group is asked for by the older of two calls, which blocks and so has a thread. The newer one goes through the admin client's questions
to a coordinator, and those end the whole process when the connection breaks under them: of three processes that asked all the while a
broker was killed and started again, none lived through the second time; of three that asked this way, all lived through four.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from headrace.consume.kafka_questions import KafkaQuestions
from headrace.types import TopicPartition

ANSWER_S = 2.0
STABLE = "Stable"
EVERY_MS, AGAIN_MS, LONGEST_MS = 5_000, 1_000, 300_000
"""How often a group is looked at: at rest, while something is missing, and at most after joining again was of no use."""
_HEAD, _LENGTH, _COUNT = struct.Struct(">hi"), struct.Struct(">h"), struct.Struct(">i")
LOOKS = 3
"""How often the same partitions must be missing; one look more for each member with fewer partitions than we."""


Held = Mapping[str, frozenset[TopicPartition]]
"""What each member has."""


class GroupMembers:
    """Asks for the members of a group, beside the thread that polls."""

    def __init__(self, admin: AdminClient, group: str) -> None:
        self._admin, self._group = admin, group
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="group")

    def held(self) -> Future[Held]:
        """What each member has, to come; nothing while the group is rebalancing."""
        return self._thread.submit(self._held)

    def close(self) -> None:
        """Ask no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _held(self) -> Held:
        groups: list[Any] = list(self._admin.list_groups(self._group, timeout=ANSWER_S) or ())
        found = [group for group in groups if group.id == self._group]
        return {one.id: assigned(one.assignment) for group in found if group.state == STABLE for one in group.members}


def assigned(content: bytes) -> frozenset[TopicPartition]:
    """The partitions in a member's assignment, as the consumer protocol writes it: version, then topics with their partitions; what a
    user may add behind them is not looked at.
    """
    found: set[TopicPartition] = set()
    if len(content) < _HEAD.size:
        return frozenset()
    _, topics = _HEAD.unpack_from(content)
    at = _HEAD.size
    for _ in range(topics):
        (length,) = _LENGTH.unpack_from(content, at)
        at += _LENGTH.size
        topic = content[at : at + length].decode()
        (count,) = _COUNT.unpack_from(content, at + length)
        at += length + _COUNT.size
        found.update(TopicPartition(topic, number) for number in struct.unpack_from(f">{count}i", content, at))
        at += 4 * count
    return frozenset(found)


class GroupWatch:
    """Looks at one group without waiting for an answer."""

    def __init__(self, members: GroupMembers, questions: KafkaQuestions, topics: Sequence[str]) -> None:
        self._members, self._questions = members, questions
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
            self._asked = [self._members.held(), *self._questions.describe(self._topics).values()]
        if not self._asked or not all(one.done() for one in self._asked):
            return []
        asked, self._asked = self._asked, []
        try:
            held, *topics = (one.result() for one in asked)
        except KafkaException:  # a broker that is away: whoever needs its answer says so
            self._due_ms = now_ms + EVERY_MS
            return []
        every = {TopicPartition(topic.name, one.id) for topic in topics for one in topic.partitions}
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
