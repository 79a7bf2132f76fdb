"""A deployment on Kafka and Redis, for a verification."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.consume.kafka_questions import KafkaQuestions
from headrace.consume.kafka_reader import Isolation, KafkaReader
from headrace.features.state_store import StateStore
from headrace.kafka_client import Coordinator, Properties, make_admin
from headrace.types import TopicPartition
from headrace.verify.subject import Subject

AHEAD_KBYTES = 2_048
"""How much each reader may fetch ahead: partitions that are read far apart wait for one another in memory."""


@contextmanager
def deployment(group: str, properties: Properties, store: StateStore | None) -> Iterator[Subject]:
    """The topics and the group of an app on a cluster, and its store."""
    questions = KafkaQuestions(make_admin(properties), group, Coordinator(properties, group, stable=True))
    written = KafkaReader(properties, isolation=Isolation.UNCOMMITTED)

    def written_end(partition: TopicPartition) -> int:
        return written.log_range(partition).end

    try:
        yield Subject(
            reader=lambda: KafkaReader(properties, ahead_kbytes=AHEAD_KBYTES),
            written_end=written_end,
            committed=questions.committed,
            topic_id=questions.topic_id,
            store=store,
            now_ms=lambda: time.monotonic_ns() // 1_000_000,
            pause=lambda ms: time.sleep(ms / 1_000),
        )
    finally:
        written.close()
