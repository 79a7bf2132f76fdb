"""What a transactional sink answers where its client never does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.publish.kafka_sink import KafkaTransactionalSink
from headrace.publish.record_sink import CommitResult
from headrace.types import Position, TopicPartition


@pytest.fixture
def for_ever() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


def test_offsets_that_are_never_taken_make_the_commit_unknown(for_ever: threading.Event) -> None:
    """A client that waits for ever for the group's coordinator is left behind after the time of a request, with its producer."""
    said: list[dict[str, Any]] = []
    sink = KafkaTransactionalSink({"bootstrap.servers": "b:1"}, transactional_id="a.0", say=lambda _, **fields: said.append(fields))
    producer = SimpleNamespace(send_offsets_to_transaction=lambda *_: for_ever.wait())
    outbox = SimpleNamespace(producer=producer, serve=lambda: None, raise_refused=lambda: None, discard=lambda: None, shaken=False)
    sink.__dict__.update(_outbox=outbox, _begun=True, _request_s=0.05)
    assert sink.commit({TopicPartition("t", 0): Position(offset=1, watermark_ms=None)}, object()) is CommitResult.UNKNOWN
    assert sink._outbox is None
    assert said[0]["code"] == "_TIMED_OUT"
