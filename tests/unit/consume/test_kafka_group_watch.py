"""When a member of a group joins again because partitions are nobody's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaException

from headrace.consume.kafka_group_watch import AGAIN_MS, EVERY_MS, LONGEST_MS, LOOKS, GroupMembers, GroupWatch, assigned
from headrace.consume.kafka_questions import KafkaQuestions
from headrace.types import TopicPartition

TOPIC = "visits"


class Group:
    """A broker's answers, to be changed."""

    def __init__(self, held: Mapping[str, Sequence[int]], *, partitions: int = 4) -> None:
        self.numbers, self.partitions = held, partitions
        self.stable = True
        self.away = self.silent = False
        self.asked = 0

    def held(self) -> Future[Any]:
        self.asked += 1
        held = {name: frozenset(TopicPartition(TOPIC, one) for one in numbers) for name, numbers in self.numbers.items()}
        return self._answer(held if self.stable else {})

    def describe(self, topics: Sequence[str]) -> dict[str, Future[Any]]:
        return {
            topic: self._answer(SimpleNamespace(name=topic, partitions=[SimpleNamespace(id=one) for one in range(self.partitions)]))
            for topic in topics
        }

    def _answer(self, what: object) -> Future[Any]:
        future: Future[Any] = Future()
        if self.away:
            future.set_exception(KafkaException("away"))
        elif not self.silent:
            future.set_result(what)
        return future


def watched(group: Group, member: str, until_ms: int, step_ms: int = 100) -> list[int]:
    """When this member would join again, if it changed nothing."""
    watch = GroupWatch(cast("GroupMembers", group), cast("KafkaQuestions", group), [TOPIC])
    return [now_ms for now_ms in range(0, until_ms, step_ms) if watch.nobodys(member, now_ms)]


def test_a_whole_group_is_left_alone() -> None:
    """Looked at every five seconds, no more."""
    group = Group({"a": [0, 1], "b": [2, 3]})
    assert watched(group, "a", 60_000) == []
    assert group.asked == 60_000 // EVERY_MS - 1


def test_the_member_with_the_fewest_partitions_joins_again_first() -> None:
    """After three looks in a row; should it not, then the next; ties by name. What is missing is told."""
    group = Group({"a": [0], "b": [], "c": [1]})
    first_ms = EVERY_MS + (LOOKS - 1) * AGAIN_MS
    assert [watched(group, member, 2 * EVERY_MS)[0] for member in "bac"] == [first_ms, first_ms + AGAIN_MS, first_ms + 2 * AGAIN_MS]
    watch = GroupWatch(cast("GroupMembers", group), cast("KafkaQuestions", group), [TOPIC])
    found = [watch.nobodys("b", now_ms) for now_ms in range(0, first_ms + 1, AGAIN_MS)]
    assert found[-1] == [TopicPartition(TOPIC, 2), TopicPartition(TOPIC, 3)]
    assert watched(group, "not a member", 60_000) == []


@pytest.mark.parametrize("change", ["moves", "rebalances", "heals"])
def test_a_group_that_moves_is_left_alone(change: str) -> None:
    """Other partitions missing, a rebalance, or none missing in between: counted from the beginning."""
    group = Group({"a": [0, 1], "b": []})
    watch = GroupWatch(cast("GroupMembers", group), cast("KafkaQuestions", group), [TOPIC])
    for look in range(20):
        odd = look % 2 == 1
        if change == "moves":
            group.numbers = {"a": [0, 1], "b": [2]} if odd else {"a": [0, 1], "b": []}
        elif change == "rebalances":
            group.stable = not odd
        else:
            group.numbers = {"a": [0, 1], "b": [2, 3]} if odd else {"a": [0, 1], "b": []}
        assert watch.nobodys("b", look * EVERY_MS) == []
    assert group.asked >= 10


def test_joining_again_is_tried_less_and_less_often() -> None:
    """New partitions that the members do not know of yet look the same: the pause doubles up to five minutes, and is short again after."""
    group = Group({"a": [0, 1, 2]})
    times_ms = watched(group, "a", 3_600_000, AGAIN_MS)
    pauses_ms = [later - earlier for earlier, later in pairwise(times_ms)]
    assert pauses_ms[0] < 10_000
    assert pauses_ms == sorted(pauses_ms)
    assert LONGEST_MS <= pauses_ms[-1] < LONGEST_MS + 10_000


def test_no_answer_is_no_verdict() -> None:
    """A broker that is away or silent changes nothing; it is asked again."""
    group = Group({"a": [0]})
    group.away = True
    assert watched(group, "a", 60_000) == []
    assert group.asked > 5
    group.away, group.silent, group.asked = False, True, 0
    assert watched(group, "a", 60_000) == []
    assert group.asked == 1


def test_an_assignment_is_read_as_the_protocol_writes_it() -> None:
    """Topics with their partitions; nothing at all for a member that was given nothing yet; what a user adds is passed over."""
    written = b"\x00\x00" + b"\x00\x00\x00\x02" + b"\x00\x01a\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x07"
    written += b"\x00\x02bc\x00\x00\x00\x00" + b"\x00\x00\x00\x03xyz"
    assert assigned(written) == {TopicPartition("a", 1), TopicPartition("a", 7)}
    assert assigned(b"") == assigned(b"\x00\x00\x00\x00\x00\x00") == frozenset()
