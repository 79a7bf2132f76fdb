"""What a sink promises: all or nothing, one at a time, and an honest answer."""

from __future__ import annotations

from functools import partial

import pytest

from headrace.errors import TransientError, UnstableOffsets
from headrace.publish.record_sink import CommitResult, RecordSink
from headrace.types import Position, TopicPartition
from tests.contract.log.kits import NO_GROUP, Kit, Member, is_stable, out, stable, stands_at, values_of, wait_for


@pytest.fixture
def member(kit: Kit) -> Member:
    """The only member of a group, reading a topic of two partitions."""
    return kit.settled(kit.name("group"), [kit.topic(2)])


def at(member: Member) -> TopicPartition:
    """The partition whose offsets a test commits."""
    return min(member.told.owned)


def test_a_commit_makes_records_and_offsets_visible(kit: Kit, member: Member) -> None:
    """After COMMITTED the records are seen, and the offset comes back with its watermark."""
    topic, sink = kit.topic(), kit.opened()
    assert member.source.committed(at(member)) is None
    sink.begin()
    sink.send(out(topic, [b"1", b"2"]))
    position = Position(offset=17, watermark_ms=1_372_636_800_123)

    assert sink.commit({at(member): position}, member.source.group()) is CommitResult.COMMITTED

    wait_for("the offset", lambda: stable(member.source, at(member)) == position)
    wait_for("the records", lambda: values_of(kit.read(topic)) == [b"1", b"2"])


def test_an_unknown_watermark_comes_back_as_unknown(kit: Kit, member: Member) -> None:
    """A position without a watermark is committed and read back as such; negative watermarks survive too."""
    sink = kit.opened()
    for watermark_ms in (None, -5, 0):
        sink.begin()
        position = Position(offset=3, watermark_ms=watermark_ms)
        assert sink.commit({at(member): position}, member.source.group()) is CommitResult.COMMITTED
        wait_for("the offset", partial(stands_at, member.source, at(member), position))


def test_an_abort_leaves_nothing_to_be_seen(kit: Kit, member: Member) -> None:
    """After ABORTED nothing is seen by a reader of committed records, no offset moved, and the next transaction works."""
    topic, sink = kit.topic(), kit.opened()
    sink.begin()
    sink.send(out(topic, [b"aborted"]))
    wait_for("the record to arrive", lambda: len(kit.read_uncommitted(topic)) == 1)
    assert sink.abort() is CommitResult.ABORTED
    sink.begin()
    sink.send(out(topic, [b"committed"]))
    assert sink.commit({}, member.source.group()) is CommitResult.COMMITTED

    wait_for("the record", lambda: values_of(kit.read(topic)) == [b"committed"])
    wait_for("the markers", lambda: member.source.log_range(TopicPartition(topic, 0)).end == 4)
    assert member.source.committed(at(member)) is None


def test_nothing_is_seen_before_the_commit(kit: Kit) -> None:
    """Records of an open transaction are there for nobody but a reader of uncommitted records."""
    topic = kit.topic()
    member = kit.settled(kit.name("group"), [topic])
    kit.leave_pending(kit.name("tx"), out(topic, [b"1"]), {}, member.source)
    assert kit.read(topic) == []
    assert values_of(kit.read_uncommitted(topic)) == [b"1"]


def test_committed_waits_while_a_transaction_with_offsets_is_pending(kit: Kit, member: Member) -> None:
    """While a pending transaction holds offsets of a partition its committed position is unstable, that of others is not."""
    transactional_id, topic = kit.name("tx"), kit.topic()
    first, second = sorted(member.told.owned)
    kit.leave_pending(transactional_id, out(topic, [b"1"]), {first: Position(offset=9, watermark_ms=None)}, member.source)

    with pytest.raises(UnstableOffsets):
        member.source.committed(first)
    assert member.source.committed(second) is None

    kit.opened(transactional_id)
    wait_for("a stable answer", lambda: is_stable(member.source, first))
    assert member.source.committed(first) is None


def test_a_new_sink_with_the_same_id_fences_the_old_one(kit: Kit, member: Member) -> None:
    """The older sink's commit answers FENCED, what it had sent is never seen, and the newer one works."""
    transactional_id, topic = kit.name("tx"), kit.topic()
    older = kit.opened(transactional_id)
    older.begin()
    older.send(out(topic, [b"older"]))

    newer = kit.opened(transactional_id)

    assert older.commit({at(member): Position(offset=5, watermark_ms=None)}, member.source.group()) is CommitResult.FENCED
    newer.begin()
    newer.send(out(topic, [b"newer"]))
    assert newer.commit({at(member): Position(offset=6, watermark_ms=None)}, member.source.group()) is CommitResult.COMMITTED
    wait_for("the newer record", lambda: values_of(kit.read(topic)) == [b"newer"])
    wait_for("its offset", lambda: stable(member.source, at(member)) == Position(offset=6, watermark_ms=None))


def test_a_fenced_sink_says_so_when_it_aborts(kit: Kit) -> None:
    """The abort of a fenced sink answers FENCED too, and opening it again makes it the newest."""
    transactional_id, topic = kit.name("tx"), kit.topic()
    older = kit.opened(transactional_id)
    older.begin()
    older.send(out(topic, [b"older"]))
    newer = kit.opened(transactional_id)

    assert older.abort() is CommitResult.FENCED
    older.open()
    older.begin()
    older.send(out(topic, [b"again"]))
    newer.begin()
    assert older.commit({}, NO_GROUP) is CommitResult.COMMITTED
    wait_for("the record", lambda: values_of(kit.read(topic)) == [b"again"])
    assert _end_of(newer, topic) is CommitResult.FENCED


def _end_of(sink: RecordSink, topic: str) -> CommitResult:
    """A fenced sink either cannot send any more or is told at the commit."""
    try:
        sink.send(out(topic, [b"late"]))
    except TransientError:
        return sink.abort()
    return sink.commit({}, NO_GROUP)


def test_a_new_sink_aborts_what_an_older_one_left_pending(kit: Kit, member: Member) -> None:
    """When a sink of the same id is open, records and offsets of the dead one are gone for good."""
    transactional_id, topic = kit.name("tx"), kit.topic()
    kit.leave_pending(transactional_id, out(topic, [b"dead"]), {at(member): Position(offset=9, watermark_ms=None)}, member.source)

    kit.opened(transactional_id)

    wait_for("the abort marker", lambda: member.source.log_range(TopicPartition(topic, 0)).end == 2)
    wait_for("a stable answer", lambda: is_stable(member.source, at(member)))
    assert member.source.committed(at(member)) is None
    assert kit.read(topic) == []


def test_an_open_transaction_expires_and_its_sink_is_fenced(kit: Kit, member: Member) -> None:
    """A transaction that stays open too long is aborted by the broker; the sink learns it at its commit and opens again."""
    transactional_id, topic = kit.name("tx"), kit.topic()
    sink = kit.opened(transactional_id, short_lived=True)
    sink.begin()
    sink.send(out(topic, [b"slow"]))
    wait_for("the record to arrive", lambda: len(kit.read_uncommitted(topic)) == 1)
    kit.expire(transactional_id, TopicPartition(topic, 0))

    result = sink.commit({at(member): Position(offset=5, watermark_ms=None)}, member.source.group())

    assert result is CommitResult.FENCED
    assert member.source.committed(at(member)) is None
    assert kit.read(topic) == []
    sink.open()
    sink.begin()
    sink.send(out(topic, [b"quick"]))
    assert sink.commit({}, member.source.group()) is CommitResult.COMMITTED
    wait_for("the record", lambda: values_of(kit.read(topic)) == [b"quick"])


def test_offsets_alone_and_nothing_at_all_can_be_committed(kit: Kit, member: Member) -> None:
    """A transaction may hold only offsets, or nothing."""
    sink = kit.opened()
    sink.begin()
    assert sink.commit({at(member): Position(offset=1, watermark_ms=1)}, member.source.group()) is CommitResult.COMMITTED
    sink.begin()
    assert sink.commit({}, member.source.group()) is CommitResult.COMMITTED
    sink.begin()
    assert sink.abort() is CommitResult.ABORTED
    wait_for("the offset", lambda: stable(member.source, at(member)) == Position(offset=1, watermark_ms=1))


def test_many_small_transactions_keep_their_order(kit: Kit, member: Member) -> None:
    """Transactions of one sink are seen in the order of their commits."""
    topic, sink = kit.topic(), kit.opened()
    for number in range(200):
        sink.begin()
        sink.send(out(topic, [b"%d" % number]))
        assert sink.commit({at(member): Position(offset=number, watermark_ms=None)}, member.source.group()) is CommitResult.COMMITTED
    wait_for("the records", lambda: values_of(kit.read(topic)) == [b"%d" % number for number in range(200)])


def test_a_sink_that_is_not_open_begins_nothing(kit: Kit) -> None:
    """`begin` before `open`, twice, or `send` before `begin` is a mistake of the caller and says so."""
    sink = kit.sink(kit.name("tx"))
    with pytest.raises(ValueError, match="open"):
        sink.begin()
    assert sink.abort() is CommitResult.UNKNOWN
    sink.open()
    with pytest.raises(ValueError, match="begin"):
        sink.send(out("any", []))
    sink.begin()
    with pytest.raises(ValueError, match="begin"):
        sink.begin()


def test_at_least_once_shows_records_at_once_and_commits_offsets_after(kit: Kit, member: Member) -> None:
    """Without transactions a record is seen when it is sent; the offset follows with the commit."""
    topic, sink = kit.topic(), kit.at_least_once(member.source)
    sink.open()
    sink.begin()
    sink.send(out(topic, [b"1"]))
    wait_for("the record", lambda: values_of(kit.read(topic)) == [b"1"])
    assert member.source.committed(at(member)) is None

    assert sink.commit({at(member): Position(offset=4, watermark_ms=7)}, member.source.group()) is CommitResult.COMMITTED

    assert member.source.committed(at(member)) == Position(offset=4, watermark_ms=7)


def test_at_least_once_an_abort_takes_nothing_back(kit: Kit, member: Member) -> None:
    """What was delivered before an abort stays; no offset moved; the next batch works."""
    topic, sink = kit.topic(), kit.at_least_once(member.source)
    sink.open()
    sink.begin()
    sink.send(out(topic, [b"1"]))
    wait_for("the record", lambda: values_of(kit.read(topic)) == [b"1"])
    assert sink.abort() is CommitResult.ABORTED
    sink.begin()
    sink.send(out(topic, [b"1"]))
    assert sink.commit({at(member): Position(offset=1, watermark_ms=None)}, member.source.group()) is CommitResult.COMMITTED
    wait_for("the repeat", lambda: values_of(kit.read(topic)) == [b"1", b"1"])
