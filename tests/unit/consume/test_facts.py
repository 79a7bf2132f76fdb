"""The facts of an app, read on from a log in memory."""

from __future__ import annotations

import pytest

from headrace.clock import ManualClock
from headrace.consume.facts import Facts
from headrace.errors import UnstableOffsets
from headrace.memory_log import MemoryLog, MemoryReader, MemorySink
from headrace.types import OutRecords, TopicPartition

TOPIC = "app.facts.v1"


def fact(text: bytes) -> OutRecords:
    """A record for the topic."""
    return OutRecords(topic=TOPIC, keys=[None], values=[text], headers=[[]], timestamps_ms=[0])


def test_facts_are_read_on() -> None:
    """Each question gives all facts so far; aborted ones are none, and an app without the topic has none."""
    log = MemoryLog(ManualClock(0))
    facts = Facts(TOPIC, lambda: MemoryReader(log), log.end_offset)
    assert list(facts()) == []
    log.create_topic(TOPIC, 1)
    assert list(facts()) == []
    log.append(TOPIC, 0, None, b"one")
    assert list(facts()) == [b"one"]
    sink = MemorySink(log, transactional_id="t")
    sink.open()
    sink.begin()
    sink.send(fact(b"never"))
    sink.abort()
    log.append(TOPIC, 0, None, b"two")
    assert list(facts()) == [b"one", b"two"]
    assert list(facts()) == [b"one", b"two"]


def test_a_pending_fact_is_waited_for() -> None:
    """What is written and not decided may be committed already, where this partition has not heard of it yet: nobody says."""
    log = MemoryLog(ManualClock(0))
    log.create_topic(TOPIC, 1)
    facts = Facts(TOPIC, lambda: MemoryReader(log), log.end_offset)
    sink = MemorySink(log, transactional_id="t")
    sink.open()
    sink.begin()
    sink.send(fact(b"pending"))
    assert log.end_offset(TopicPartition(TOPIC, 0)) == 1
    with pytest.raises(UnstableOffsets, match="pending transaction"):
        facts()
    log.expire("t")
    assert list(facts()) == []
