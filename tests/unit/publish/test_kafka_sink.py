"""What a transactional sink answers where its client never does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.publish.kafka_sink import KafkaTransactionalSink
from headrace.publish.record_sink import CommitResult
from headrace.types import Position, TopicPartition

OFFSETS = {TopicPartition("t", 0): Position(offset=1, watermark_ms=None)}


@pytest.fixture
def for_ever() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


class Client:
    """A sink in a transaction of a client that does as it is told; `calls` are those it was given."""

    def __init__(self, **answers: Any) -> None:
        self.said: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.sink = KafkaTransactionalSink(
            {"bootstrap.servers": "b:1"}, transactional_id="a.0", say=lambda _, **fields: self.said.append(fields)
        )
        steps = ("send_offsets_to_transaction", "commit_transaction", "abort_transaction")
        producer = SimpleNamespace(**{step: self._step(step, answers.get(step, lambda: None)) for step in steps})
        outbox = SimpleNamespace(producer=producer, serve=lambda: None, raise_refused=lambda: None, discard=lambda: None, shaken=False)
        self.sink.__dict__.update(_outbox=outbox, _begun=True, _request_s=0.05, _patience_s=0.05)

    def _step(self, name: str, answer: Any) -> Any:
        def call(*_: object) -> None:
            self.calls.append(name)
            answer()

        return call

    def is_unknown(self, result: CommitResult) -> None:
        """Nobody knows how the transaction ended: the producer is thrown away and the log hears of it."""
        assert result is CommitResult.UNKNOWN
        assert self.sink._outbox is None
        assert self.said[-1]["code"] == "_TIMED_OUT"


def test_offsets_that_are_never_taken_make_the_commit_unknown(for_ever: threading.Event) -> None:
    """A client that waits for ever for the group's coordinator is left behind, with its producer, and nothing is committed after it."""
    client = Client(send_offsets_to_transaction=for_ever.wait)
    client.is_unknown(client.sink.commit(OFFSETS, object()))
    for_ever.set()
    transaction = [thread for thread in threading.enumerate() if thread.name == "transaction"]
    for thread in transaction:
        thread.join()
    assert client.calls == ["send_offsets_to_transaction"]


def test_a_commit_that_never_ends_is_unknown(for_ever: threading.Event) -> None:
    """The same for a client that never answers the commit itself."""
    client = Client(commit_transaction=for_ever.wait)
    client.is_unknown(client.sink.commit(OFFSETS, object()))


def test_an_abort_that_never_ends_is_unknown(for_ever: threading.Event) -> None:
    """The same for the abort, asked for by us or made necessary by a commit that failed."""
    client = Client(abort_transaction=for_ever.wait)
    client.is_unknown(client.sink.abort())

    def fail() -> None:
        raise KafkaException(KafkaError(KafkaError._INCONSISTENT, "records were not delivered", txn_requires_abort=True))

    client = Client(commit_transaction=fail, abort_transaction=for_ever.wait)
    client.is_unknown(client.sink.commit(OFFSETS, object()))


def test_a_commit_without_offsets_only_ends() -> None:
    """Nothing is asked of the group where no offset is to be committed."""
    client = Client()
    assert client.sink.commit({}, object()) is CommitResult.COMMITTED
    assert client.calls == ["commit_transaction"]
