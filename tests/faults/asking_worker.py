"""A process that asks for a group's offsets all the while, as workers and commands do.

    python -m tests.faults.asking_worker <group> <slot>

It says how many answers it has had, a line each time, and ends on SIGTERM.
"""

from __future__ import annotations

import json
import signal
import sys
import threading

from headrace.consume.kafka_source import KafkaSource
from headrace.errors import TransientError
from headrace.publish.kafka_topics import KafkaTopics
from headrace.settings import load
from headrace.types import TopicPartition

PAUSE_S = 0.02


def main(group: str, slot: str) -> None:
    """Ask until SIGTERM."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    properties = {"bootstrap.servers": load().settings.kafka.bootstrap_servers}
    source, topics = KafkaSource(properties, group=group, slot=slot), KafkaTopics(properties)
    partition = TopicPartition(f"{group}.payments.v1", 0)
    answers = 0
    while not stopped.wait(PAUSE_S):
        try:
            source.committed(partition)
            topics.group_offsets(group, [partition])
        except TransientError:
            continue
        answers += 1
        sys.stdout.write(json.dumps({"event": "answered", "answers": answers}) + "\n")
        sys.stdout.flush()
    source.close(leave=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
