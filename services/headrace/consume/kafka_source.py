"""`RecordSource` on Kafka, through librdkafka's consumer.

librdkafka has no state "assigned, but not flowing": a partition that the group gives us is taken at its offset 0 and paused, and `start_at`
puts it where we want it, so librdkafka never looks for an offset itself. Found on a real broker while making this:

- Librdkafka must never be given a *logical* offset such as "the end". It asks the broker where that is; when the answer comes after the
  partition was placed at an offset of ours, it takes the answer for outdated, asks again, and moves the partition there. On a busy
  machine one start in four left out the whole backlog, without a word.
- A partition that is ours must be in librdkafka's assignment: with an empty one `close` never came back from its own callback.
- `seek` works only on a partition that is being fetched, after `pause` and `resume` the fetcher may sleep for another second, and a
  position outside the log leaves a partition in a state that `seek` refuses. Taking the partition out and putting it in again (`_place`)
  works from every state, in 1 to 2 ms, and drops what was fetched. It is done inside `poll` alone, right after the callbacks: librdkafka
  would take it for our answer to a revocation that waits in its queue, and here we hear of that before anything else happens.
- The error of a position outside the log may arrive when the partition is placed elsewhere already. So it is checked against the log.

Limits: of a rebalance between two polls nothing is known before the next one. The group's generation may move meanwhile (librdkafka joins
by itself), but no partition of ours is given away before `revoked` has returned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from headrace import commit_metadata
from headrace.consume.kafka_columns import record_batches
from headrace.consume.kafka_group_watch import GroupMembers, GroupWatch
from headrace.consume.kafka_questions import KafkaQuestions, TopicWatch
from headrace.consume.record_source import GroupMetadata, RebalanceListener
from headrace.errors import HeadraceError, TransientError
from headrace.kafka_client import KNOWN_S, LOGGER, Coordinator, Properties, make, make_admin, reason, refuse_fixed, translate
from headrace.types import Drain, LogRange, Position, RecordBatch, TopicPartition

DEFAULTS: Properties = {
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 1_000,
    "max.poll.interval.ms": 300_000,
    "fetch.queue.backoff.ms": 5,
    "fetch.wait.max.ms": 10,
    "queued.max.messages.kbytes": 16_384,
    "check.crcs": True,
}
_CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms")
_FIXED: Properties = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "enable.partition.eof": True,
}
TOPIC_WATCH_MS = 5_000
LEAVE_MS = 5_000
_STATISTICS_MS = 5_000

_OUTSIDE_THE_LOG = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION})
_LEFT_BEHIND = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS, KafkaError._STATE})


class KafkaSource:
    """A member of a consumer group; with a slot a static one, under the classic protocol.

    `on_lag` is told, every five seconds inside a poll, how many offsets each flowing partition is behind its last stable one.
    """

    def __init__(
        self,
        properties: Properties,
        *,
        group: str,
        slot: str | None,
        on_lag: Callable[[Mapping[TopicPartition, int]], None] | None = None,
    ) -> None:
        refuse_fixed(properties)
        self._group = group
        self._on_lag = on_lag
        self._consumer = make(Consumer, self._configuration(properties, slot))
        self._questions = KafkaQuestions(make_admin(properties), group, Coordinator(properties, group, stable=True))
        self._watch = TopicWatch(self._questions, every_ms=TOPIC_WATCH_MS)
        self._group_watch: GroupWatch | None = None
        static = slot is not None and _classic(properties)
        self._members = GroupMembers(make_admin(properties), group) if static else None
        self._rejoining = False
        """Whether we have left the group to join it again."""
        self._listener: RebalanceListener | None = None
        self._topics: list[str] = []
        self._only_topic: str | None = None
        self._owned: set[TopicPartition] = set()
        """What the group gave us."""
        self._flowing: set[TopicPartition] = set()
        """Whose records are let through."""
        self._next: dict[TopicPartition, int] = {}
        """Where the next record is expected."""
        self._wanted: dict[TopicPartition, int] = {}
        """Where the next poll is to place a partition."""
        self._ended: dict[TopicPartition, int] = {}
        """The last end that each partition came to: behind a last record there may be a marker, which is no lag."""
        self._trouble: HeadraceError | None = None
        self._unknown_since_ms: int | None = None
        self._fatal = False
        self._closed = False

    def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group."""
        self._listener = listener
        self._topics = list(topics)
        self._group_watch = None if self._members is None else GroupWatch(self._members, self._questions, topics)
        self._join()

    def _join(self) -> None:
        self._rejoining = False
        self._only_topic = self._topics[0] if len(self._topics) == 1 else None
        self._consumer.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def poll(self, max_records: int, timeout_ms: int) -> Drain:
        """Callbacks, positions, then records: wait for one, take what is there."""
        self._raise_trouble()
        drain = Drain(batches=[], ends={})
        try:
            messages = self._fetch(max_records, timeout_ms / 1_000)
        except BaseException:
            # What was fetched before this is lost to us: go on from where the last answer ended.
            self._wanted.update((name, self._next[name]) for name in self._flowing if name not in self._wanted)
            raise
        if any(map(Message.error, messages)):
            messages = self._sort_out(messages, drain)
        for batch in record_batches(messages, self._only_topic):
            drain.batches.append(self._keep_flowing(batch))
        self._break_changed_topics(drain)
        self._look_at_the_group()
        if not messages:
            self._raise_trouble()
            self._raise_missing_topics()
        return drain

    def start_at(self, partition: TopicPartition, offset: int) -> None:
        """Let a partition flow from an offset on, from the next poll on. Raises `ValueError` when it is not ours."""
        if partition not in self._owned:
            raise ValueError(f"{partition.topic}-{partition.partition} is not assigned to us")
        self._flowing.discard(partition)
        self._wanted[partition] = offset

    def pause(self, partition: TopicPartition) -> None:
        """Stop the flow of a partition."""
        self._wanted.pop(partition, None)
        self._flowing.discard(partition)
        if partition in self._owned:
            self._consumer.pause([KafkaPartition(*partition)])

    def waiting(self) -> Mapping[TopicPartition, int]:
        """Nothing waits here."""
        return {}

    def group(self) -> GroupMetadata:
        """Proof of membership as of now. Raises `TransientError` without a member id or an assignment."""
        if not self._owned or not self._consumer.memberid():
            raise TransientError(f"not a member of group {self._group} with an assignment")
        return self.membership()

    def membership(self) -> GroupMetadata:
        """The proof without the guard: also of one who never joined, whom a classic group believes. For tests of what a broker refuses."""
        proof: GroupMetadata = self._consumer.consumer_group_metadata()
        return proof

    def committed(self, partition: TopicPartition) -> Position | None:
        """The group's stable committed position; `UnstableOffsets` while there is none."""
        return self._questions.committed(partition)

    def log_range(self, partition: TopicPartition) -> LogRange:
        """The oldest kept offset and the last stable one."""
        return self._questions.log_range(partition)

    def written_end(self, partition: TopicPartition) -> int:
        """The end of a partition, pending transactions included."""
        return self._questions.written_end(partition)

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`."""
        return self._questions.offset_at(partition, time_ms)

    def topic_id(self, topic: str) -> str:
        """The id of a topic; while its records flow it is expected to stay."""
        found = self._questions.topic_id(topic)
        self._watch.expect(topic, found)
        return found

    def partitions(self, topic: str) -> int:
        """How many partitions the topic had when its id was asked for last."""
        return self._questions.partitions(topic)

    def commit(self, offsets: Mapping[TopicPartition, Position], group: GroupMetadata) -> bool:
        """Commit offsets without a transaction, for delivery at least once; False when the group has moved on since `group` was taken."""
        if group != self.membership():
            return False
        wanted = [KafkaPartition(*name, found.offset, commit_metadata.as_text(found)) for name, found in offsets.items()]
        try:
            taken = self._consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            if reason(error).code() in _LEFT_BEHIND:
                return False
            raise translate(reason(error), "committing offsets", was_let_in=True) from error
        refused = [found.error for found in taken if found.error is not None]
        if any(error.code() not in _LEFT_BEHIND for error in refused):
            raise translate(refused[0], "committing offsets", was_let_in=True)
        return not refused

    def close(self, *, leave: bool) -> None:
        """Give the partitions back (`revoked` is called) and close; a static member stays in the group unless it leaves. Twice is once."""
        if self._closed:
            return
        self._closed = True
        if self._members is not None:
            self._members.close()
        if leave and not self._fatal:
            self._consumer.unsubscribe()
            deadline_ms = _now_ms() + LEAVE_MS
            while self._owned and _now_ms() < deadline_ms:  # closed at once, it would stay
                self._consumer.poll(0.05)
        self._consumer.close()

    # ------------------------------------------------------------------------------------------------------------- polling

    def _fetch(self, max_records: int, timeout_s: float) -> list[Message]:
        """Callbacks and messages; what is wanted is placed between the first callbacks and the first message."""
        try:
            first = self._consumer.poll(0 if self._wanted else timeout_s)
            if self._wanted:
                placed = list(self._wanted)
                for name in placed:
                    self._place(name, self._wanted[name])
                    del self._wanted[name]
                if first is None or _name(first) in placed:
                    first = self._consumer.poll(timeout_s)
            if first is None:
                return []
            return [first, *self._consumer.consume(max_records - 1, 0)] if max_records > 1 else [first]
        except KafkaException as error:
            raise translate(reason(error), "polling", was_let_in=bool(self._owned)) from error

    def _place(self, partition: TopicPartition, offset: int) -> None:
        """Fetch a partition from an offset on, whatever became of it before."""
        try:
            self._consumer.incremental_unassign([KafkaPartition(*partition)])
        except KafkaException as error:
            if reason(error).code() != KafkaError._INVALID_ARG:  # which says that it is out already
                raise
        self._consumer.resume([KafkaPartition(*partition)])  # a pause outlives that; lifted after the next line it costs a second
        self._consumer.incremental_assign([KafkaPartition(*partition, offset)])
        self._next[partition] = offset
        self._ended.pop(partition, None)
        self._flowing.add(partition)

    def _keep_flowing(self, batch: RecordBatch) -> RecordBatch:
        """The batch without records of partitions that do not flow; notes how far those come that do."""
        partitions = batch.partitions.tolist()
        last = dict(zip(partitions, batch.offsets.tolist(), strict=True))
        strangers = set()
        for number, offset in last.items():
            name = TopicPartition(batch.topic, number)
            if name in self._flowing:
                self._next[name] = offset + 1
            else:
                strangers.add(number)
        if not strangers:
            return batch
        return batch.select(np.flatnonzero(~np.isin(batch.partitions, list(strangers))))

    def _sort_out(self, messages: list[Message], drain: Drain) -> list[Message]:
        """The records among the messages; what else they say goes into the drain, or is raised later."""
        records: list[Message] = []
        outside: dict[TopicPartition, KafkaError] = {}
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
                drain.ends.pop(_name(message), None)  # an end is one only if nothing comes behind it
            elif error.code() == KafkaError._PARTITION_EOF:
                if _name(message) in self._flowing:
                    drain.ends[_name(message)] = self._ended[_name(message)] = message.offset() or 0
            elif error.code() in _OUTSIDE_THE_LOG:
                outside[_name(message)] = error
            elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._unknown_since_ms = self._unknown_since_ms or _now_ms()
            else:
                self._note(error)
        for name, error in outside.items():
            if name in self._flowing:
                self._check_position(name, error, drain, next((m.offset() for m in reversed(records) if _name(m) == name), None))
        return records

    def _check_position(self, partition: TopicPartition, error: KafkaError, drain: Drain, last: int | None) -> None:
        """Librdkafka says that the log does not reach where a partition is: true, or said late of where it was before."""
        at = self._next[partition] if last is None else last + 1
        try:
            kept = self._questions.log_range(partition)
        except TransientError:
            self._wanted[partition] = at  # the next poll will hear of it again
            return
        if kept.start <= at <= kept.end:
            self._wanted[partition] = at
            return
        self._flowing.discard(partition)
        drain.ends.pop(partition, None)
        drain.broken[partition] = f"offset {at} does not exist: the log keeps {kept.start} to {kept.end} ({error.str()})"

    def _look_at_the_group(self) -> None:
        """Leave and join again where partitions would be nobody's for ever, or are ours though we do not read their topic."""
        if self._rejoining and not self._owned:
            self._join()
        elif self._group_watch is not None and not self._rejoining:
            strangers = self._strangers(self._owned)
            nobodys = [] if strangers else self._group_watch.nobodys(self._consumer.memberid() or "", _now_ms())
            if strangers or nobodys:
                why = "are of topics that we do not read" if strangers else "belong to no member"
                LOGGER.warning("%s of group %s %s: joining it again", _listed(strangers or nobodys), self._group, why)
                self._rejoining = True
                self._consumer.unsubscribe()

    def _strangers(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Those of topics that we do not read.

        A static member that comes back is given what it had before, whatever it subscribes to now: where nothing but the subscription has
        changed, the broker begins no rebalance (KIP-345).
        """
        return sorted(name for name in partitions if name.topic not in self._topics)

    def _read(self, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Those of topics that we read: of the others nobody is told."""
        return [name for name in partitions if name.topic in self._topics]

    def _break_changed_topics(self, drain: Drain) -> None:
        """Stop the flow of topics that were made again under their name."""
        changed = self._watch.changed({name.topic for name in self._flowing}, _now_ms())
        for topic, text in changed:
            for name in [name for name in self._flowing if name.topic == topic]:
                self.pause(name)
                drain.ends.pop(name, None)
                drain.broken[name] = text
            drain.batches = [batch for batch in drain.batches if batch.topic != topic]

    # ----------------------------------------------------------------------------------------------------------- callbacks

    def _assigned(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        names = _names(partitions)
        consumer.incremental_assign([KafkaPartition(*name, 0) for name in names])  # a number, see above; nothing of it is let through
        self._owned.update(names)
        for name in names:
            self.pause(name)
        if self._strangers(names):
            self._only_topic = None
        if names:
            self._told().assigned(self._read(names))

    def _revoked(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._give_back(consumer, partitions, self._told().revoked)

    def _lost(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        self._give_back(consumer, partitions, self._told().lost)

    def _give_back(self, consumer: Consumer, partitions: list[KafkaPartition], tell: Callable[[Sequence[TopicPartition]], None]) -> None:
        names = _names(partitions)
        self._owned.difference_update(names)
        self._flowing.difference_update(names)
        for name in names:
            self._wanted.pop(name, None)
        try:
            if names:
                tell(self._read(names))
        finally:
            consumer.incremental_unassign([KafkaPartition(*name) for name in names])

    def _told(self) -> RebalanceListener:
        if self._listener is None:
            raise ValueError("start() comes before poll()")
        return self._listener

    def _note(self, error: KafkaError) -> None:
        """An error without a caller: the worst of them is raised by the next poll that has no records. One broker that is away is none."""
        found = translate(error, "Kafka", was_let_in=bool(self._owned))
        self._fatal = self._fatal or error.code() == KafkaError._FATAL
        if isinstance(found, TransientError) and error.code() != KafkaError._ALL_BROKERS_DOWN:
            return
        if self._trouble is None or isinstance(self._trouble, TransientError):
            self._trouble = found

    def _raise_trouble(self) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is None:
            return
        if self._fatal and self._owned:
            lost, self._owned = sorted(self._owned), set()
            self._flowing.clear()
            self._wanted.clear()
            self._told().lost(self._read(lost))
        raise trouble

    def _raise_missing_topics(self) -> None:
        """A topic was said to be unknown: ask whether it still is, when it has had the time to get known."""
        if self._unknown_since_ms is not None and _now_ms() > self._unknown_since_ms + KNOWN_S * 1_000:
            self._unknown_since_ms = None
            for topic in self._topics:
                self._questions.topic_id(topic)

    def _measured(self, text: str) -> None:
        """Statistics of librdkafka, as JSON."""
        lags = {}
        for topic, found in json.loads(text)["topics"].items():
            for partition in found["partitions"].values():
                name = TopicPartition(topic, partition["partition"])
                if name in self._flowing and min(partition["ls_offset"], partition["app_offset"]) >= 0:
                    at = max(partition["app_offset"], self._ended.get(name, 0))
                    lags[name] = max(0, partition["ls_offset"] - at)
        if self._on_lag is not None:
            self._on_lag(lags)

    def _configuration(self, properties: Properties, slot: str | None) -> dict[str, Any]:
        classic = _classic(properties)
        answer: dict[str, Any] = {name: value for name, value in DEFAULTS.items() if classic or name not in _CLASSIC_ONLY}
        answer["client.id"] = f"headrace-{self._group}" if slot is None else f"headrace-{self._group}-{slot}"
        answer.update(properties)
        answer.update(_FIXED)
        answer.update({"group.id": self._group, "error_cb": self._note})
        if classic:
            answer["partition.assignment.strategy"] = "cooperative-sticky"
            if slot is not None:
                answer["group.instance.id"] = slot  # KIP-848 lets no killed static member back in before its time-out
        if self._on_lag is not None:
            answer.setdefault("statistics.interval.ms", _STATISTICS_MS)
            answer["stats_cb"] = self._measured
        return answer


def _classic(properties: Properties) -> bool:
    return properties.get("group.protocol", "classic") == "classic"


def _listed(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{name.topic}-{name.partition}" for name in partitions)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _names(partitions: Iterable[KafkaPartition]) -> list[TopicPartition]:
    return sorted(TopicPartition(partition.topic, partition.partition) for partition in partitions)


def _name(message: Message) -> TopicPartition:
    return TopicPartition(message.topic() or "", message.partition() or 0)
