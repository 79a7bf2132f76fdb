"""What a worker asks of the broker beside consuming: of clients of its own, so that any thread may ask at any time.

Nearly all of it goes through the admin client; the group's offsets do not, see `kafka_client.Coordinator`. The id of a topic is watched:
one that is deleted and made again under its name goes on flowing at the old position, without an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec, TopicDescription

from headrace import commit_metadata
from headrace.errors import TransientError, UnstableOffsets
from headrace.kafka_client import Coordinator, answer, reason, translate
from headrace.types import LogRange, Position, TopicPartition

ANSWER_S = 5.0
"""How long a question may take."""
_ANOTHER_EPOCH = frozenset({KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError._NOENT})
STABLE_S = 0.5
"""How long a stable offset is waited for at first; twice as long after each time it did not come, up to `ANSWER_S`."""


class KafkaQuestions:
    """Questions about one group and any topics. All raise `TransientError` while the broker is away, `BrokerRefused` when it says no."""

    def __init__(self, admin: AdminClient, group: str, coordinator: Coordinator) -> None:
        """`coordinator` is asked for the group's offsets, the admin client for everything else."""
        self._admin = admin
        self._group = group
        self._coordinator = coordinator
        self._patience_s = STABLE_S
        self._partitions: dict[str, int] = {}

    def committed(self, partition: TopicPartition) -> Position | None:
        """The stable committed position. Raises `UnstableOffsets` when there is none yet."""
        doing = f"asking for the offset of group {self._group} for {partition.topic}-{partition.partition}"
        found = self._stable(partition, doing)
        if found.error is not None:
            if found.error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT:
                raise UnstableOffsets(f"{doing}: a pending transaction holds it")
            raise translate(found.error, doing, was_let_in=True)
        return None if found.offset < 0 else commit_metadata.position(found.offset, found.metadata)

    def _stable(self, partition: TopicPartition, doing: str) -> KafkaPartition:
        """Ask the coordinator, which answers as soon as the offset is stable."""
        try:
            (found,) = self._coordinator.committed([KafkaPartition(*partition)], self._patience_s)
        except KafkaException as error:
            if reason(error).code() != KafkaError._TIMED_OUT:
                raise translate(reason(error), doing, was_let_in=True) from error
            waited_s, self._patience_s = self._patience_s, min(2 * self._patience_s, ANSWER_S)
            raise UnstableOffsets(
                f"{doing}: not stable within {waited_s:g} s; a pending transaction holds it, or the broker is away; if this lasts for "
                "longer than transactions may, one hangs: Kafka's kafka-transactions.sh find-hanging names it, abort ends it"
            ) from error
        self._patience_s = STABLE_S
        return found

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""
        doing = f"asking how far {partition.topic}-{partition.partition} reaches"
        first, last = (_told(self._offset(partition, spec, doing), doing) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
        return LogRange(start=first, end=last)

    def written_end(self, partition: TopicPartition) -> int:
        """The end, pending transactions included."""
        doing = f"asking how far {partition.topic}-{partition.partition} is written"
        return _told(self._offset(partition, OffsetSpec.latest(), doing, IsolationLevel.READ_UNCOMMITTED), doing)

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset below the last stable one with a timestamp of at least `time_ms`; markers and aborted records count too."""
        doing = f"asking for an offset by time in {partition.topic}-{partition.partition}"
        found = self._offset(partition, OffsetSpec.for_timestamp(time_ms), doing)
        return None if found < 0 else found

    def topic_id(self, topic: str) -> str:
        """The id of a topic."""
        found = answer(self.describe([topic])[topic], f"asking for the id of topic {topic}")
        self._partitions[topic] = len(found.partitions)
        return str(found.topic_id)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic had when its id was asked for last; asks for it where nobody has."""
        if topic not in self._partitions:
            self.topic_id(topic)
        return self._partitions[topic]

    def describe(self, topics: Sequence[str]) -> dict[str, Future[TopicDescription]]:
        """Descriptions of topics, to come."""
        return self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=ANSWER_S)

    def _offset(
        self, partition: TopicPartition, spec: OffsetSpec, doing: str, isolation: IsolationLevel = IsolationLevel.READ_COMMITTED
    ) -> int:
        """Ask the leader; librdkafka asks with the epoch it knows, and learns a newer one, or of a leader at all after there was none, only
        when the topic is described.
        """
        name = KafkaPartition(*partition)

        def ask() -> Future[ListOffsetsResultInfo]:
            return self._admin.list_offsets({name: spec}, isolation_level=isolation, request_timeout=ANSWER_S)[name]

        asked = ask()
        refusal = asked.exception()
        if isinstance(refusal, KafkaException) and reason(refusal).code() in _ANOTHER_EPOCH:
            self.topic_id(partition.topic)
            asked = ask()
        return answer(asked, doing).offset


def _told(offset: int, doing: str) -> int:
    """The offset of an answer; one below zero is none, which librdkafka gives for a broker that is just going away."""
    if offset < 0:
        raise TransientError(f"{doing}: the answer holds no offset")
    return offset


class TopicWatch:
    """Notices topics that are not the ones they were, without waiting for an answer."""

    def __init__(self, questions: KafkaQuestions, *, every_ms: int) -> None:
        self._questions = questions
        self._every_ms = every_ms
        self._due_ms = 0
        self._expected: dict[str, str] = {}
        self._asked: dict[str, Future[TopicDescription]] = {}

    def expect(self, topic: str, topic_id: str) -> None:
        """This is the id it has to have."""
        self._expected[topic] = topic_id

    def changed(self, topics: Iterable[str], now_ms: int) -> list[tuple[str, str]]:
        """Those of the topics, among those asked about earlier, that have another id now; with a text that says so."""
        if not self._asked:
            if now_ms >= self._due_ms:
                self._due_ms = now_ms + self._every_ms
                wanted = [topic for topic in topics if topic in self._expected]
                self._asked = self._questions.describe(wanted) if wanted else {}
            return []
        if not all(asked.done() for asked in self._asked.values()):
            return []
        asked, self._asked = self._asked, {}
        found = {topic: str(one.result().topic_id) for topic, one in asked.items() if one.exception() is None}
        return [
            (topic, f"topic {topic} was deleted and made again: its id is {topic_id}, it was {self._expected[topic]}")
            for topic, topic_id in found.items()
            if topic_id != self._expected[topic]
        ]
