"""What goes on beside the workers while they are hurt: a sender, a reader of results, and one who watches the committed offsets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from confluent_kafka import KafkaError, Message, Producer

from headrace.cli.tail import line
from headrace.consume.kafka_reader import Isolation, KafkaReader
from headrace.errors import TransientError
from headrace.publish.kafka_topics import KafkaTopics
from headrace.types import RecordBatch, TopicPartition
from tests.faults.app import Sent

PORTION_S, LARGEST = 0.04, 1_000
"""A portion is sent so often, or so large where nothing paces it."""
LOOK_S = 0.02

Properties = Mapping[str, str]
Result = tuple[str, int, int, bytes | None, bytes | None]
"""A record a reader saw: topic, partition, offset, key, value."""
Pace = Callable[[int], float]


class Beside:
    """A thread whose error is not lost: `check` raises it."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the thread."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End it and wait for its end."""
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), f"{self._thread.name} does not end"

    def _guarded(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - raised in the thread of the test
            self._error = error

    def work(self) -> None:
        """What the thread does."""
        raise NotImplementedError


class Loader(Beside):
    """Sends records to a topic in order; `pace(sent)` says how many a second from there on (0: no limit), `hurry` drops the pace."""

    def __init__(self, properties: Properties, topic: str, records: Sequence[Sent], *, pace: Pace) -> None:
        self._properties, self._topic, self._records, self._pace = properties, topic, records, pace
        self._hurry, self._last = threading.Event(), threading.Event()
        self.sent = 0
        self.done = False
        """Whether the broker has all of them."""
        super().__init__("loader")

    def hurry(self) -> None:
        """Send the rest at once."""
        self._hurry.set()

    def finish(self) -> None:
        """Send no more than what is on its way: the faults are over."""
        self._last.set()

    def work(self) -> None:
        """Send, at the pace given."""
        producer = Producer(
            {
                **self._properties,
                "enable.idempotence": True,
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "on_delivery": self._delivered,
            }
        )
        while self.sent < len(self._records) and not self._stop.is_set() and not self._last.is_set():
            pace = 0 if self._hurry.is_set() else self._pace(self.sent)
            due_s = time.monotonic() + PORTION_S
            portion = self._records[self.sent : self.sent + (max(1, int(pace * PORTION_S)) if pace else LARGEST)]
            for record in portion:
                producer.produce(self._topic, record.value, record.key, timestamp=record.timestamp_ms)
            self.sent += len(portion)
            producer.poll(0)
            if pace:
                self._hurry.wait(max(0.0, due_s - time.monotonic()))
        while producer.flush(1.0) and not self._stop.is_set():
            self.check()
        self.done = self.sent == len(self._records) or self._last.is_set()

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._error = RuntimeError(f"a source record was not delivered: {error.str()}")


class Seen(Beside):
    """A `read_committed` reader that reads while everything breaks."""

    def __init__(self, properties: Properties, topics: Sequence[str]) -> None:
        self._properties, self._topics = properties, topics
        self._batches: list[RecordBatch] = []
        self._seen_s: list[float] = []
        self.count = 0
        super().__init__("reader")

    def work(self) -> None:
        """Read until told to stop."""
        reader = KafkaReader(self._properties, isolation=Isolation.COMMITTED)
        starts = {partition: 0 for topic in self._topics for partition in reader.partitions(topic)}
        try:
            for batch in reader.follow(starts, self._stop.is_set):
                self._batches.append(batch)
                self._seen_s.append(time.monotonic())
                self.count += len(batch)
        finally:
            reader.close()

    def lines(self) -> Iterator[str]:
        """The same as `headrace tail --follow --from-beginning --output json` would have printed it."""
        return (f"{line(record)}\n" for batch in self._batches for record in batch.records())

    def results(self) -> list[Result]:
        """Everything it saw."""
        return [
            (batch.topic, partition, offset, key, value)
            for batch in self._batches
            for partition, offset, key, value in zip(
                batch.partitions.tolist(), batch.offsets.tolist(), batch.keys, batch.values, strict=True
            )
        ]

    def ends(self) -> dict[TopicPartition, int]:
        """Behind the last record seen of each partition."""
        return {TopicPartition(topic, partition): offset + 1 for topic, partition, offset, _, _ in self.results()}

    def longest_gap_s(self, partitions: Sequence[TopicPartition], begin_s: float, end_s: float) -> float:
        """The longest time in which one of these partitions showed nothing new."""
        shown: dict[TopicPartition, list[float]] = {name: [begin_s] for name in partitions}
        for batch, at_s in zip(self._batches, self._seen_s, strict=False):  # the reader goes on meanwhile
            if begin_s < at_s < end_s:
                for number in set(batch.partitions.tolist()):
                    shown.get(TopicPartition(batch.topic, number), []).append(at_s)
        return max(then - before for moments in shown.values() for before, then in pairwise((*moments, end_s)))


class Progress(Beside):
    """Watches how far a group has committed, fifty times a second."""

    def __init__(self, properties: Properties, group: str, partitions: Sequence[TopicPartition]) -> None:
        self._properties, self._group, self._partitions = properties, group, partitions
        self.offsets: dict[TopicPartition, int] = dict.fromkeys(partitions, 0)
        self.history: list[tuple[float, dict[TopicPartition, int]]] = []
        super().__init__("progress")

    @property
    def total(self) -> int:
        """Source records whose results are committed."""
        return sum(self.offsets.values())

    def work(self) -> None:
        """Look until told to stop; while the broker does not answer nothing is known."""
        topics = KafkaTopics(self._properties)
        while not self._stop.wait(LOOK_S):
            try:
                found = topics.group_offsets(self._group, self._partitions)
            except TransientError:
                continue
            offsets = {name: position.offset for name, position in found.items() if position is not None}
            if offsets != self.offsets:
                self.offsets = offsets
                self.history.append((time.monotonic(), offsets))

    def first_after(self, moment_s: float, partition: TopicPartition) -> float | None:
        """How long after a moment the group first committed something for a partition; None if it did not any more."""
        before = 0
        for at_s, offsets in self.history:
            offset = offsets.get(partition, 0)
            if at_s > moment_s and offset > before:
                return at_s - moment_s
            before = max(before, offset)
        return None
