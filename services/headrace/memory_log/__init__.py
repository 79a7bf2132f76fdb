"""Kafka in memory: what the ports promise, on one process, with the habits of a real broker that decide whether a protocol is right.

It is the log of the embedded engine, of users' tests and of the simulation. It has what was first seen on a real Kafka: transactions whose
markers take offsets of their own and may arrive late, a last stable offset, offsets that become visible with their transaction only,
producers that are fenced, consumer groups with generations, static members and cooperative deltas, a rebalance in the middle of a drain,
retention, topics that are recreated under their name. `tests/contract/log` holds it and Kafka to the same promises.

    partition.py   one partition: columns of records, and which of them may be seen
    group.py       one consumer group: members, generation, who has what, offsets
    log.py         the broker: topics, transactions, groups
    source.py      RecordSource on it
    reader.py      RecordReader on it
    sink.py        RecordSink on it, transactional and at least once
    control.py     commands to the registry on it

Every call that would cross the network first calls a hook with the name of the step: there a scheduler may run somebody else, and its
answer (`Fate`) may lose the request or the reply. Limits: nothing survives the process, nothing is ever freed, no time passes by itself
(a member is evicted by who plays the broker's session time-out; transactions expire by the clock only where a time-out is set).
"""

from __future__ import annotations

from headrace.memory_log.control import MemoryControl
from headrace.memory_log.group import Membership, MemoryGroup
from headrace.memory_log.log import Fate, Hook, MemoryLog, go_on
from headrace.memory_log.reader import MemoryReader
from headrace.memory_log.sink import MemoryAtLeastOnceSink, MemorySink
from headrace.memory_log.source import MemorySource

__all__ = [
    "Fate",
    "Hook",
    "Membership",
    "MemoryAtLeastOnceSink",
    "MemoryControl",
    "MemoryGroup",
    "MemoryLog",
    "MemoryReader",
    "MemorySink",
    "MemorySource",
    "go_on",
]
