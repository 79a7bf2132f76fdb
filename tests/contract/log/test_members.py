"""Who is in a group, as `headrace state forget` asks: nobody may be overlooked, whatever the kind of group."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.publish.kafka_topics import KafkaTopics
from tests.contract.log.kits import KafkaKit, wait_for


@pytest.fixture(params=[("classic", "7"), ("classic", None), ("consumer", None)], ids=["default", "classic not static", "KIP-848"])
def of(request: pytest.FixtureRequest) -> Iterator[tuple[KafkaKit, str | None]]:
    """A real Kafka, with each kind of group, and the slot of its members."""
    group_protocol, slot = request.param
    kit = KafkaKit(request.getfixturevalue("kafka").address, group_protocol=group_protocol)
    yield kit, slot
    kit.close()


def test_members_are_named_as_long_as_they_are_there(of: tuple[KafkaKit, str | None]) -> None:
    """A group that is read by somebody has its member, by its slot where it has one; who left is gone; one that is not there has none."""
    kit, slot = of
    topics, group = KafkaTopics(kit.properties), kit.name("group")
    member = kit.settled(group, [kit.topic()], slot=slot)
    (named,) = topics.members(group)
    assert named.startswith(f"{slot} on " if slot else "")
    assert " on 127.0.0.1" in named
    member.source.close(leave=True)
    wait_for("the group to be empty", lambda: topics.members(group) == [])
    assert topics.members(kit.name("another")) == []
