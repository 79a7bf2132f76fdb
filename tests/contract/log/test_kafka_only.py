"""What a real broker does beyond the port: the fence of each kind of group (T22), unknown results (T23), and both group protocols."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.consume.kafka_source import KafkaSource
from headrace.errors import BrokerRefused, SettingsError, SlotTaken, TransientError
from headrace.local_process import wait_until
from headrace.publish.kafka_sink import KafkaTransactionalSink
from headrace.publish.kafka_topics import KafkaTopics, TopicWish
from headrace.publish.record_sink import CommitResult
from headrace.types import Position, TopicPartition
from tests.contract.log.kits import NO_GROUP, KafkaKit, Member, has_records, is_stable, out, stable, stands_at, values_of, wait_for

AT_THREE = Position(offset=3, watermark_ms=None)


@pytest.fixture
def kit(request: pytest.FixtureRequest) -> Iterator[KafkaKit]:
    """A real Kafka, classic groups."""
    kit = KafkaKit(request.getfixturevalue("kafka").address)
    yield kit
    kit.close()


@dataclass(frozen=True)
class GroupKit:
    """A kit with one of the three kinds of group that are supported."""

    kit: KafkaKit
    static: bool

    def slot(self, number: str) -> str | None:
        return number if self.static else None


@pytest.fixture(params=[("classic", True), ("classic", False), ("consumer", False)], ids=["default", "classic not static", "KIP-848"])
def of(request: pytest.FixtureRequest) -> Iterator[GroupKit]:
    """A real Kafka, with each kind of group."""
    group_protocol, static = request.param
    kit = KafkaKit(request.getfixturevalue("kafka").address, group_protocol=group_protocol)
    yield GroupKit(kit, static)
    kit.close()


def test_our_guard_refuses_who_is_no_member(of: GroupKit) -> None:
    """T22: a consumer that never joined, and one that left, cannot even prove what they are not."""
    group = of.kit.name("group")
    with pytest.raises(TransientError):
        of.kit.source(group, slot=of.slot("9")).group()
    left = of.kit.settled(group, [of.kit.topic()], slot=of.slot("8"))
    left.source.close(leave=True)
    with pytest.raises(TransientError):
        left.source.group()


@pytest.mark.parametrize("who", ["never joined", "left"])
def test_with_the_guard_off_the_broker_decides(of: GroupKit, who: str) -> None:
    """T22: the broker refuses all but one: who never joined a classic group without static membership is believed."""
    kit = of.kit
    topic, group = kit.topic(), kit.name("group")
    if who == "left":
        left = kit.settled(group, [topic], slot=of.slot("9"))
        proof = left.source.group()
        left.source.close(leave=True)
    else:
        proof = kit.unguarded(kit.source(group, slot=of.slot("9")))
    member = kit.settled(group, [topic], slot=of.slot("0"))
    (partition,) = member.told.owned
    sink = kit.opened()
    sink.begin()

    result = sink.commit({partition: AT_THREE}, proof)

    believed = (kit.group_protocol, of.static, who) == ("classic", False, "never joined")
    assert result is (CommitResult.COMMITTED if believed else CommitResult.ABORTED)
    wait_for("the offset", lambda: stable(member.source, partition) == (AT_THREE if believed else None))


def _lost(error: KafkaError, call: Callable[..., None] | None) -> Callable[..., None]:
    """A call that fails with an error, after it was made, or without."""

    def lose(*arguments: Any) -> None:
        if call is not None:
            call(*arguments)
        raise KafkaException(error)

    return lose


class _Losing:
    """A producer whose `commit_transaction` loses its request or its reply."""

    def __init__(self, producer: Any, *, applied: bool) -> None:
        self._producer = producer
        self.commit_transaction = _lost(KafkaError(KafkaError._TRANSPORT), producer.commit_transaction if applied else None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


@pytest.mark.parametrize("applied", [False, True], ids=["request lost", "reply lost"])
def test_an_unknown_commit_is_told_by_the_committed_offset(kit: KafkaKit, seed: int, *, applied: bool) -> None:
    """T23: after UNKNOWN a new producer and the committed offset say what happened; 50 of them later each result is there once.

    Five workers of five groups lose ten each, side by side: it is the broker that is waited for.
    """
    with ThreadPoolExecutor(5) as workers:
        for done in [workers.submit(lose_answers, kit, random.Random(seed + number), 10, applied=applied) for number in range(5)]:
            done.result()


def lose_answers(kit: KafkaKit, draw: random.Random, count: int, *, applied: bool) -> None:
    """Commit until so many commits had no answer; each result is there once."""
    topic, results, group = kit.topic(), kit.topic(), kit.name("group")
    member = kit.settled(group, [topic])
    (partition,) = member.told.owned
    sink = kit.sink(kit.name("tx"))
    sink.open()
    done, unknown = 0, 0
    while unknown < count:
        member.poll()
        sink.begin()
        sink.send(out(results, [b"%d" % done]))
        outbox = sink._outbox
        assert outbox is not None
        lose = draw.random() < 0.7
        if lose:
            outbox.producer = _Losing(outbox.producer, applied=applied)  # type: ignore[assignment]
        result = sink.commit({partition: Position(offset=done + 1, watermark_ms=None)}, member.source.group())
        if not lose:
            assert result is CommitResult.COMMITTED
            done += 1
            continue
        assert result is CommitResult.UNKNOWN
        unknown += 1
        with pytest.raises(ValueError, match="open"):
            sink.begin()
        sink.open()
        wait_for("a stable offset", partial(is_stable, member.source, partition))
        found = member.source.committed(partition)
        now = 0 if found is None else found.offset
        assert now == done + applied
        done = now

    wait_for("the results", lambda: len(kit.read(results)) >= done)
    assert values_of(kit.read(results)) == [b"%d" % number for number in range(done)]


def test_a_commit_over_a_shaken_connection_stands_and_the_producer_is_replaced(kit: KafkaKit) -> None:
    """When the client heard of a broken connection since `begin`, COMMITTED is COMMITTED, and the next transaction has a new producer."""
    results = kit.topic()
    member = kit.settled(kit.name("group"), [kit.topic()])
    sink = kit.sink(kit.name("tx"))
    sink.open()
    first = sink._outbox
    assert first is not None
    sink.begin()
    sink.send(out(results, [b"1"]))
    first._note(KafkaError(KafkaError._TRANSPORT))
    assert sink.commit({}, member.source.group()) is CommitResult.COMMITTED
    sink.begin()
    assert sink._outbox is not first
    sink.send(out(results, [b"2"]))
    assert sink.commit({}, member.source.group()) is CommitResult.COMMITTED
    second = sink._outbox
    sink.begin()
    assert sink._outbox is second
    assert sink.abort() is CommitResult.ABORTED
    wait_for("both", lambda: values_of(kit.read(results)) == [b"1", b"2"])


def test_why_a_transaction_failed_is_told(kit: KafkaKit) -> None:
    """The port answers FENCED; the log hears what the broker said."""
    transactional_id, results = kit.name("tx"), kit.topic()
    older = kit.opened(transactional_id)
    older.begin()
    older.send(out(results, [b"1"]))
    kit.opened(transactional_id)
    assert older.commit({}, NO_GROUP) is CommitResult.FENCED
    ((event, fields),) = kit.said
    assert event == "transaction failed"
    assert fields["result"] == "fenced"
    assert "fenced" in str(fields["reason"])


def test_a_full_queue_waits_and_loses_nothing(kit: KafkaKit) -> None:
    """T28: `send` waits while the producer's queue is full."""
    results = kit.topic()
    properties = {**kit.properties, "queue.buffering.max.messages": 10, "linger.ms": 0}
    sink = KafkaTransactionalSink(properties, transactional_id=kit.name("tx"), say=print)
    sink.open()
    sink.begin()
    sink.send(out(results, [b"%d" % number for number in range(500)]))
    assert sink.commit({}, NO_GROUP) is CommitResult.COMMITTED
    sink.close()
    wait_for("all of them", lambda: len(kit.read(results)) == 500)
    assert values_of(kit.read(results)) == [b"%d" % number for number in range(500)]


def test_a_record_too_large_for_the_client_is_refused(kit: KafkaKit) -> None:
    """T28: what the client itself will not send raises in `send`; the transaction can be aborted."""
    results = kit.topic()
    sink = kit.opened()
    sink.begin()
    with pytest.raises(BrokerRefused, match="MSG_SIZE_TOO_LARGE"):
        sink.send(out(results, [b"x" * 2_000_000]))
    assert sink.abort() is CommitResult.ABORTED


def test_a_record_too_large_for_the_broker_is_refused(kit: KafkaKit) -> None:
    """T28: what the broker refuses for good is raised by the commit after it was aborted, with the topic's name."""
    (results,) = KafkaTopics(kit.properties).create(
        [TopicWish(name=kit.name("small"), partitions=1, settings={"max.message.bytes": "1000"})]
    )
    sink = kit.opened()
    sink.begin()
    sink.send(out(results, [secrets.token_bytes(5_000)]))
    with pytest.raises(BrokerRefused, match=results):
        sink.commit({}, NO_GROUP)
    assert kit.read(results) == []


def test_groups_of_both_protocols_share_and_commit(kafka_kit: KafkaKit) -> None:
    """Under either protocol partitions flow, move with `revoked` first, and are committed for by their owner."""
    topic, group = kafka_kit.topic(2), kafka_kit.name("group")
    for number in range(2):
        kafka_kit.append(TopicPartition(topic, number), [b"%d" % value for value in range(100)])
    first = kafka_kit.settled(group, [topic])
    first.start_all(first.told.owned)
    wait_for("all records", lambda: len(first.records) == 200, [first])
    second = kafka_kit.member(group, [topic])
    wait_for("an even share", lambda: len(first.told.owned) == len(second.told.owned) == 1, [first, second])
    assert first.told.of("revoked") == sorted(second.told.owned)

    sink = kafka_kit.opened()
    for member in (first, second):
        (partition,) = member.told.owned
        sink.begin()
        assert sink.commit({partition: AT_THREE}, member.source.group()) is CommitResult.COMMITTED
        wait_for("the offset", partial(stands_at, member.source, partition, AT_THREE))
        member.records.clear()
        member.source.start_at(partition, 50)
        wait_for("the records", partial(has_records, member, 50), [member])

    second.source.close(leave=True)
    wait_for("the partition's return", lambda: len(first.told.owned) == 2, [first])


def test_lag_is_told_while_polling(kit: KafkaKit) -> None:
    """`on_lag` hears how many offsets each flowing partition is behind."""
    topic, group = kit.topic(2), kit.name("group")
    kit.append(TopicPartition(topic, 0), [b"x"] * 100)
    heard: list[dict[TopicPartition, int]] = []
    source = KafkaSource(
        {**kit.consumer_properties, "statistics.interval.ms": 50}, group=group, slot=None, on_lag=lambda lags: heard.append(dict(lags))
    )
    member = Member(source)
    source.start([topic], member.told)
    wait_for("the assignment", lambda: len(member.told.owned) == 2, [member])
    source.start_at(TopicPartition(topic, 0), 0)
    while not member.records:
        member.poll(max_records=40)
    wait_for("the lag", lambda: any(TopicPartition(topic, 0) in lags for lags in heard), [member])
    wait_for("no lag", lambda: heard[-1].get(TopicPartition(topic, 0)) == 0, [member])
    source.close(leave=True)


@pytest.mark.parametrize("name", ["isolation.level", "transactional.id", "group.instance.id", "error_cb"])
def test_properties_the_protocol_stands_on_are_refused(name: str) -> None:
    """A property that would break the protocol is refused by name, by every client."""
    with pytest.raises(SettingsError, match=name.replace(".", r"\.")):
        KafkaSource({name: "x"}, group="g", slot=None)
    with pytest.raises(SettingsError, match=name.replace(".", r"\.")):
        KafkaTransactionalSink({name: "x"}, transactional_id="t", say=print)


def test_properties_librdkafka_does_not_know_are_refused() -> None:
    """A misspelt property, or a value that is none, is a settings error."""
    with pytest.raises(SettingsError, match=r"no\.such\.property"):
        KafkaSource({"no.such.property": 1}, group="g", slot=None)
    with pytest.raises(SettingsError, match=r"socket\.timeout\.ms"):
        KafkaTransactionalSink({"transaction.timeout.ms": 5_000, "socket.timeout.ms": 6_000}, transactional_id="t", say=print).open()


def test_topics_and_starting_offsets(kit: KafkaKit) -> None:
    """Topics are made once with their settings; a group that nobody is in gets offsets with a watermark, one with members does not."""
    topics, topic, group = KafkaTopics(kit.properties), kit.name("made"), kit.name("group")
    wish = TopicWish(name=topic, partitions=2, settings={"retention.ms": "12345"})
    assert topics.create([wish]) == [topic]
    assert topics.create([wish]) == []
    # A broker learns of a topic a moment after its controller has made it.
    wait_until(lambda: topics.describe([topic])[topic] is not None, what="the broker knows the topic", deadline_s=10)
    found = topics.describe([topic, "no-such-topic"])
    assert found["no-such-topic"] is None
    made = found[topic]
    assert made is not None
    assert (made.partitions, made.replication, made.settings["retention.ms"]) == (2, 1, "12345")

    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    start = Position(offset=0, watermark_ms=77)
    topics.start_group(group, {first: start})
    assert topics.group_offsets(group, [first, second]) == {first: start, second: None}

    member = Member(kit.source(group))
    member.source.start([topic], member.told)
    wait_for("the assignment", lambda: len(member.told.owned) == 2, [member])
    assert member.source.committed(first) == start
    assert member.source.topic_id(topic) == made.topic_id
    with pytest.raises(BrokerRefused, match="stop every worker"):
        topics.start_group(group, {second: start})


def test_broker_settings_that_decide_the_takeover_can_be_read(kit: KafkaKit) -> None:
    """The sweep of expired transactions and the shortest session time-out are readable."""
    (settings,) = KafkaTopics(kit.properties).broker_settings().values()
    assert settings["transaction.abort.timed.out.transaction.cleanup.interval.ms"] == "1000"
    assert settings["group.min.session.timeout.ms"] == "6000"


def test_a_missing_source_topic_is_refused_by_name(kit: KafkaKit) -> None:
    """A subscribed topic that does not exist, and does not appear, ends the polling with an error that names it."""
    member = kit.member(kit.name("group"), ["no-such-topic"])
    with pytest.raises(BrokerRefused, match="no-such-topic"):
        wait_for("the refusal", lambda: False, [member])


def test_a_broker_that_is_away_is_told_from_one_that_refuses(kit: KafkaKit) -> None:
    """Where nobody listens polls, questions and `open` raise `TransientError`, and go on being possible."""
    properties: dict[str, str | int | float | bool] = {
        "bootstrap.servers": "127.0.0.1:1",
        "reconnect.backoff.ms": 10,
        "reconnect.backoff.max.ms": 50,
    }
    source = KafkaSource(properties, group=kit.name("group"), slot=None)
    member = Member(source)
    source.start(["any"], member.told)
    with pytest.raises(TransientError):
        wait_for("the word", lambda: False, [member])
    source.close(leave=False)


def test_nobodys_partitions_are_given_to_somebody(kit: KafkaKit) -> None:
    """A member killed between giving partitions up and saying so comes back as if nothing had happened (KIP-345), so the rebalance that was
    to hand them on never begins; whoever is there starts it.
    """
    group, topic = kit.name("group"), kit.topic(4)
    first = kit.settled(group, [topic], slot="0")
    asked, over = threading.Event(), threading.Event()

    def hold(_: Sequence[TopicPartition]) -> None:
        asked.set()
        over.wait()

    def serve() -> None:
        with suppress(SlotTaken):
            while not over.is_set():
                first.poll()

    first.told.on_revoked = hold
    with ThreadPoolExecutor(1) as beside:
        served = beside.submit(serve)
        try:
            second = kit.member(group, [topic], slot="1")
            wait_for("the first to be asked for partitions", asked.is_set, [second])
            again = kit.member(group, [topic], slot="0")
            wait_for("all to be somebody's", lambda: len(again.told.owned) == len(second.told.owned) == 2, [again, second], deadline_s=60)
        finally:
            over.set()
            served.result()
    assert not again.told.owned & second.told.owned


@pytest.mark.parametrize("reads", ["another one beside it", "nothing else"])
def test_a_slot_comes_back_for_other_topics(kit: KafkaKit, reads: str) -> None:
    """A restarted slot that reads one of two topics now hears of no partition and no record of the other, which KIP-345 gives it all the
    same.
    """
    group, left, kept = kit.name("group"), kit.topic(2), kit.topic(2)
    first = kit.settled(group, [left, kept], slot="0")
    first.source.close(leave=False)
    kit.append(TopicPartition(left, 0), [b"left"] * 3)
    kit.append(TopicPartition(kept, 0), [b"kept"] * 3)
    topics = [kept] if reads == "nothing else" else [kept, kit.topic(2)]
    again = kit.member(group, topics, slot="0")
    again.told.on_assigned = again.start_all
    wait_for("what it reads now", lambda: again.told.owned == {TopicPartition(topic, at) for topic in topics for at in (0, 1)}, [again])
    wait_for("the records", lambda: len(again.records) >= 3, [again])
    assert {(record.topic, record.value) for record in again.records} == {(kept, b"kept")}
    assert {name.topic for _, names in again.told.events for name in names} == set(topics)
