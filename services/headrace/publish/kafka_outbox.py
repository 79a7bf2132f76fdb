"""A librdkafka producer with an ear: it sends columns, and remembers what the callbacks said of them.

Callbacks run only inside calls to the producer. Only failed deliveries are reported, so a record costs one `produce` call and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headrace.errors import BrokerRefused, FatalError, HeadraceError, TransientError
from headrace.kafka_client import make, partitions_of, reason, translate
from headrace.types import OutRecords

FULL_QUEUE_S = 0.05
"""How long to wait for room in a full queue before trying again."""

_SHAKEN = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})


class KafkaOutbox:
    """One producer."""

    def __init__(self, configuration: Mapping[str, Any], *, let_in: bool) -> None:
        """`let_in`: the broker has taken these credentials before; what looks like refused ones is a broken connection."""
        self.shaken = False
        """Whether a connection broke or a request timed out since this was last set to False."""
        self._let_in = let_in
        self._trouble: HeadraceError | None = None
        self._topics: set[str] = set()
        self.producer = make(Producer, {**configuration, "error_cb": self._note, "on_delivery": self._reported})

    @property
    def topics(self) -> list[str]:
        """Where it has sent to."""
        return sorted(self._topics)

    def send(self, records: OutRecords) -> None:
        """Queue records of one topic, in order; waits while the queue is full. Raises `TransientError` or `BrokerRefused`."""
        topic = records.topic
        self._know(topic)
        produce: Callable[..., None] = self.producer.produce
        for key, value, headers, timestamp_ms in zip(records.keys, records.values, records.headers, records.timestamps_ms, strict=True):
            try:
                produce(topic, value, key, -1, None, None, timestamp_ms, headers)
            except BufferError:
                self._wait_and_produce(topic, value, key, -1, None, None, timestamp_ms, headers)
            except KafkaException as error:
                self._raise(reason(error), topic)
        self.serve()
        self.raise_refused()

    def serve(self, wait_s: float = 0) -> None:
        """Run the callbacks that are due, or the first to come."""
        try:
            self.producer.poll(wait_s)
        except KafkaException as error:  # a producer that is fenced says so here too; the call that matters says it again
            self._note(reason(error))

    def raise_refused(self) -> None:
        """Raise what the broker refuses for good, if it said so."""
        if isinstance(self._trouble, FatalError):
            raise self._trouble

    def forget_failures(self) -> bool:
        """Whether a record was not delivered since the last call."""
        failed = self._trouble is not None
        if not isinstance(self._trouble, FatalError):
            self._trouble = None
        return failed

    def discard(self) -> None:
        """Throw away what is queued; the connection ends when the producer is no longer referred to."""
        self.producer.purge()

    def _wait_and_produce(self, topic: str, *arguments: object) -> None:
        produce: Callable[..., None] = self.producer.produce
        while True:
            self.serve(FULL_QUEUE_S)
            self.raise_refused()
            try:
                produce(topic, *arguments)
            except BufferError:
                continue
            except KafkaException as error:
                self._raise(reason(error), topic)
            return

    def _raise(self, error: KafkaError, topic: str) -> None:
        """Raise what `produce` said, or the older trouble that made it say so."""
        self.serve()
        self.raise_refused()
        found = translate(error, f"sending to {topic}", was_let_in=self._let_in)
        raise found if isinstance(found, BrokerRefused) else TransientError(str(found))

    def _know(self, topic: str) -> None:
        """Make sure that a topic exists, once: a record for a missing one would wait, then fail as if the broker were away."""
        if topic not in self._topics:
            partitions_of(self.producer, topic, was_let_in=self._let_in)
            self._topics.add(topic)

    def _note(self, error: KafkaError) -> None:
        if error.code() in _SHAKEN:
            self.shaken = True
        found = translate(error, "Kafka", was_let_in=self._let_in)
        if isinstance(found, BrokerRefused):
            self._trouble = found

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        if error is None or error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            return
        found = translate(error, f"sending to {message.topic()}", was_let_in=self._let_in)
        if self._trouble is None or isinstance(found, BrokerRefused):
            self._trouble = found
