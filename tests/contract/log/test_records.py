"""What a source promises about records, positions and ends."""

from __future__ import annotations

import random
from functools import partial

import pytest

from headrace.errors import BrokerRefused
from headrace.partitioner import partition_of
from headrace.publish.record_sink import CommitResult
from headrace.types import Headers, OutRecords, Position, Record, TopicPartition
from tests.contract.log.kits import NO_GROUP, Kit, Member, has_records, out, stable, values_of, wait_for


def numbered(count: int, first: int = 0) -> list[bytes | None]:
    return [b"%d" % number for number in range(first, first + count)]


def test_everything_of_a_record_comes_back_unchanged(kit: Kit) -> None:
    """Key, value, headers and timestamp come back as they were sent, nulls and empty bytes included."""
    topic = kit.topic()
    headers: Headers = [("a", b"1"), ("a", b""), ("b", None), ("ü", "ü".encode())]
    sent = OutRecords(
        topic=topic,
        keys=[b"key", None, b"", b"\x00\xff"],
        values=[b"value", b"", None, bytes(range(256))],
        headers=[headers, [], [("x", b"y")], []],
        timestamps_ms=[1, 1_372_636_800_000, 1_000, 2_000],
    )
    member = kit.settled(kit.name("group"), [topic])
    sink = kit.opened()
    sink.begin()
    sink.send(sent)
    assert sink.commit({}, member.source.group()).name == "COMMITTED"

    member.start_all(member.told.owned)
    wait_for("four records", lambda: len(member.records) == 4, [member])

    expected = [
        Record(topic=topic, partition=0, offset=row, timestamp_ms=time_ms, key=key, value=value, headers=found)
        for row, (key, value, found, time_ms) in enumerate(zip(sent.keys, sent.values, sent.headers, sent.timestamps_ms, strict=True))
    ]
    assert member.records == expected
    assert kit.read(topic) == expected


def test_records_of_a_partition_come_in_offset_order_without_a_hole(kit: Kit) -> None:
    """Each partition's records come in offset order, none missing and none twice, whatever the drains."""
    topic = kit.topic(3)
    partitions = [TopicPartition(topic, number) for number in range(3)]
    for number, partition in enumerate(partitions):
        kit.append(partition, numbered(700 + number))
    member = kit.settled(kit.name("group"), [topic])
    member.start_all(partitions)

    while sum(len(member.offsets(partition)) for partition in partitions) < 2_103:
        member.poll(max_records=97)

    for number, partition in enumerate(partitions):
        assert member.offsets(partition) == list(range(700 + number))


def test_several_topics_come_as_one_batch_each(kit: Kit) -> None:
    """A drain holds at most one batch a topic."""
    topics = [kit.topic(), kit.topic()]
    for topic in topics:
        kit.append(TopicPartition(topic, 0), numbered(50))
    member = kit.settled(kit.name("group"), topics)
    member.start_all(member.told.owned)

    drains = []
    while len(member.records) < 100:
        drains.append(member.poll())

    assert all(len({batch.topic for batch in drain.batches}) == len(drain.batches) for drain in drains)
    assert all(member.offsets(TopicPartition(topic, 0)) == list(range(50)) for topic in topics)


def test_nothing_flows_before_it_is_told_from_where(kit: Kit) -> None:
    """An assigned partition gives no records before `start_at`, then those from that offset on."""
    topic = kit.topic(2)
    quiet, told = TopicPartition(topic, 0), TopicPartition(topic, 1)
    kit.append(quiet, numbered(20))
    kit.append(told, numbered(20))
    member = kit.settled(kit.name("group"), [topic])

    for _ in range(5):
        member.poll()
    assert member.records == []

    member.source.start_at(told, 7)
    wait_for("13 records", lambda: len(member.records) >= 13, [member])
    assert member.offsets(told) == list(range(7, 20))
    assert member.offsets(quiet) == []


def test_start_at_moves_a_flowing_partition_and_drops_what_was_fetched(kit: Kit, seed: int) -> None:
    """After `start_at` the next record is the one at that offset, back or forth, at whatever moment it is called."""
    draw = random.Random(seed)
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    kit.append(partition, numbered(3_000))
    member = kit.settled(kit.name("group"), [topic])
    member.source.start_at(partition, 0)

    for _ in range(60):
        offset = draw.randrange(2_900)
        if draw.random() < 0.3:
            member.source.pause(partition)
            member.poll()
        member.source.start_at(partition, offset)
        member.records.clear()
        wanted = draw.choice([1, 10, 90])
        wait_for("records", partial(has_records, member, wanted), [member])
        assert member.offsets(partition) == list(range(offset, offset + len(member.records)))


def test_a_paused_partition_is_silent_until_it_is_started_again(kit: Kit) -> None:
    """`pause` stops a partition at once, the others go on; `start_at` lets it flow again."""
    topic = kit.topic(2)
    paused, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    kit.append(paused, numbered(500))
    kit.append(other, numbered(50))
    member = kit.settled(kit.name("group"), [topic])
    member.source.start_at(paused, 0)
    while not member.records:
        member.poll(max_records=10)

    member.source.pause(paused)
    seen = len(member.records)
    member.source.start_at(other, 0)
    wait_for("the other partition", lambda: len(member.offsets(other)) == 50, [member])
    assert len(member.offsets(paused)) == seen

    member.source.start_at(paused, seen)
    wait_for("the rest", lambda: len(member.offsets(paused)) == 500, [member])
    assert member.offsets(paused) == list(range(500))


def test_a_partition_that_is_not_ours_cannot_be_started(kit: Kit) -> None:
    """`start_at` refuses a partition that was not assigned."""
    topic = kit.topic()
    member = kit.settled(kit.name("group"), [topic])
    with pytest.raises(ValueError, match="not assigned"):
        member.source.start_at(TopicPartition(topic, 5), 0)


def test_the_end_of_a_partition_is_told_when_it_is_reached(kit: Kit) -> None:
    """A drain names the ends it reached, again after more was read, and those of empty partitions."""
    topic = kit.topic(2)
    partition, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
    kit.append(partition, numbered(30))
    member = kit.settled(kit.name("group"), [topic])
    member.start_all([partition, empty])
    wait_for("both ends", lambda: member.ends == {partition: 30, empty: 0}, [member])

    kit.append(partition, numbered(5))
    wait_for("the next end", lambda: member.ends[partition] == 35, [member])
    member.ends.clear()
    member.source.start_at(partition, 35)
    wait_for("the same end after a new start", lambda: member.ends == {partition: 35}, [member])
    assert member.offsets(partition) == list(range(35))


def test_an_end_lies_behind_markers_and_before_what_is_pending(kit: Kit) -> None:
    """Committed, aborted and pending transactions: the end is the last stable offset, markers take offsets, readers skip them."""
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    member = kit.settled(kit.name("group"), [topic])
    sink = kit.opened()
    sink.begin()
    sink.send(out(topic, numbered(3)))
    assert sink.commit({}, member.source.group()) is CommitResult.COMMITTED
    sink.begin()
    sink.send(out(topic, numbered(3)))
    wait_for("the records to arrive", lambda: len(kit.read_uncommitted(topic)) == 6)
    assert sink.abort() is CommitResult.ABORTED
    kit.leave_pending(kit.name("tx"), out(topic, numbered(2)), {}, member.source)
    kit.append(partition, [b"behind"])

    member.source.start_at(partition, 0)
    wait_for("the end", lambda: member.ends.get(partition) == 8, [member])

    assert member.offsets(partition) == [0, 1, 2]
    assert member.source.log_range(partition).end == 8
    assert values_of(kit.read(topic)) == [b"0", b"1", b"2"]
    assert values_of(kit.read_uncommitted(topic)) == [b"0", b"1", b"2", b"0", b"1", b"2", b"0", b"1", b"behind"]


@pytest.mark.parametrize("offset", [10, 61])
def test_a_position_outside_the_log_is_told_and_never_jumped_over(kit: Kit, offset: int) -> None:
    """Below the oldest kept offset or above the end: the partition is broken, the others go on, a new start mends it."""
    topic = kit.topic(2)
    partition, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    kit.append(partition, numbered(60))
    kit.append(other, numbered(40))
    kit.delete_before(partition, 30)
    member = kit.settled(kit.name("group"), [topic])

    member.source.start_at(partition, offset)
    member.source.start_at(other, 0)
    wait_for("the word of it", lambda: partition in member.broken and len(member.offsets(other)) == 40, [member])
    assert member.broken.keys() == {partition}
    assert f"offset {offset} does not exist: the log keeps 30 to 60" in member.broken[partition]
    assert member.offsets(partition) == []

    member.source.start_at(partition, 45)
    wait_for("records after the new start", lambda: len(member.offsets(partition)) == 15, [member])
    assert member.offsets(partition) == list(range(45, 60))


def test_retention_that_overtakes_a_reader_is_told(kit: Kit) -> None:
    """When the log forgets what a paused partition has not read, its old position is broken, not moved."""
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    kit.append(partition, numbered(100))
    member = kit.settled(kit.name("group"), [topic])
    member.source.start_at(partition, 0)
    while not member.records:
        member.poll(max_records=10)
    member.source.pause(partition)
    reached = member.records[-1].offset + 1
    kit.delete_before(partition, 90)

    member.source.start_at(partition, reached)
    wait_for("the word of it", lambda: partition in member.broken, [member])
    assert member.offsets(partition) == list(range(reached))


def test_the_number_of_partitions_comes_with_the_id(kit: Kit) -> None:
    """A source tells how many partitions a topic has, as of when its id was asked for last."""
    topics = {kit.topic(count): count for count in (1, 3)}
    member = kit.settled(kit.name("group"), list(topics))
    for topic, count in topics.items():
        member.source.topic_id(topic)
        assert member.source.partitions(topic) == count


def test_a_topic_made_again_under_its_name_is_noticed(kit: Kit) -> None:
    """A topic that was deleted and made again has another id, and what flowed from it is broken."""
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    kit.append(partition, numbered(10))
    member = kit.settled(kit.name("group"), [topic])
    before = member.source.topic_id(topic)
    member.source.start_at(partition, 0)
    wait_for("ten records", lambda: len(member.records) == 10, [member])

    kit.recreate(topic)
    kit.append(partition, numbered(10))
    wait_for("the word of it", lambda: _refused(member) or partition in member.broken)
    assert member.source.topic_id(topic) != before


def _refused(member: Member) -> bool:
    """Kafka may also say that the topic is unknown, while it is away."""
    try:
        member.poll()
    except BrokerRefused:
        return True
    return False


def test_offsets_are_found_by_time(kit: Kit) -> None:
    """`offset_at` gives the first offset whose record is at least as new, None when there is none."""
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    kit.append(partition, numbered(5), times_ms=[1_000, 3_000, 2_000, 5_000, 5_000])
    source = kit.settled(kit.name("group"), [topic]).source
    asked = [0, 1_000, 1_001, 3_001, 5_000, 5_001]
    assert [source.offset_at(partition, time_ms) for time_ms in asked] == [0, 0, 1, 3, 3, None]


def test_the_range_of_a_log_follows_retention_and_commits(kit: Kit) -> None:
    """`log_range` gives the oldest kept offset and the last stable one, `written_end` counts what is pending."""
    topic = kit.topic()
    partition = TopicPartition(topic, 0)
    source = kit.settled(kit.name("group"), [topic]).source
    assert (source.log_range(partition).start, source.log_range(partition).end) == (0, 0)
    kit.append(partition, numbered(20))
    kit.delete_before(partition, 5)
    assert (source.log_range(partition).start, source.log_range(partition).end) == (5, 20)
    kit.leave_pending(kit.name("tx"), out(topic, numbered(3)), {}, source)
    wait_for("the pending records to arrive", lambda: source.written_end(partition) == 23)
    assert source.log_range(partition).end == 20


def test_keys_land_where_murmur2_puts_them(kit: Kit) -> None:
    """A key's records all lie in the partition that Kafka's Java clients would choose."""
    topic = kit.topic(12)
    keys = [b"key-%d" % number for number in range(200)]
    sink = kit.opened()
    sink.begin()
    sink.send(OutRecords(topic=topic, keys=list(keys), values=list(keys), headers=[[]] * 200, timestamps_ms=[1] * 200))
    assert sink.commit({}, NO_GROUP).name == "COMMITTED"
    wait_for("the markers", lambda: len(kit.read(topic)) == 200)
    assert {record.key: record.partition for record in kit.read(topic)} == {key: partition_of(key, 12) for key in keys}


def test_a_missing_topic_is_refused_by_name(kit: Kit) -> None:
    """Sending to a topic that does not exist raises an error that names it, and nothing of the transaction is seen."""
    topic = kit.topic()
    sink = kit.opened()
    sink.begin()
    sink.send(out(topic, [b"1"]))
    with pytest.raises(BrokerRefused, match="no-such-topic"):
        sink.send(out("no-such-topic", [b"1"]))
    assert sink.abort().name == "ABORTED"
    assert kit.read(topic) == []


def test_positions_are_kept_per_partition(kit: Kit) -> None:
    """Offsets of several partitions are committed in one transaction, each with its watermark."""
    topic, results = kit.topic(3), kit.topic()
    member = kit.settled(kit.name("group"), [topic])
    positions = {TopicPartition(topic, number): Position(offset=number + 1, watermark_ms=number or None) for number in range(3)}
    sink = kit.opened()
    sink.begin()
    sink.send(out(results, [b"1"]))
    assert sink.commit(positions, member.source.group()).name == "COMMITTED"
    wait_for("the markers", lambda: all(stable(member.source, partition) == found for partition, found in positions.items()))
