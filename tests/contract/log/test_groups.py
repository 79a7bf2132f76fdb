"""What a source promises about membership: who has which partition, who may commit, and who is told what."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from headrace.errors import SlotTaken, TransientError
from headrace.publish.record_sink import CommitResult
from headrace.types import Position, TopicPartition
from tests.contract.log.kits import Kit, Member, Told, out, stable, values_of, wait_for


def all_of(kit: Kit, topic: str) -> set[TopicPartition]:
    return {TopicPartition(topic, number) for number in range(kit.partitions(topic))}


def shared(kit: Kit, topic: str, members: Sequence[Member]) -> bool:
    """Every partition has exactly one owner, and nobody has two more than another."""
    owned = [member.told.owned for member in members]
    whole = sum(map(len, owned)) == kit.partitions(topic) and set().union(*owned) == all_of(kit, topic)
    return whole and max(map(len, owned)) - min(map(len, owned)) <= 1


def test_the_first_member_gets_every_partition(kit: Kit) -> None:
    """A member alone is assigned everything; nothing is revoked or lost."""
    topic = kit.topic(3)
    member = kit.settled(kit.name("group"), [topic])
    assert set(member.told.of("assigned")) == all_of(kit, topic)
    assert member.told.of("revoked") == member.told.of("lost") == []


def test_a_second_member_gets_its_share_only_after_it_was_revoked(kit: Kit) -> None:
    """Partitions move as deltas: the first member keeps the rest, and `revoked` has returned before anybody else has them."""
    topic, group = kit.topic(4), kit.name("group")
    first = kit.settled(group, [topic])
    second = kit.member(group, [topic])
    early: list[TopicPartition] = []
    first.told.on_revoked = lambda partitions: early.extend(set(partitions) & second.told.owned)

    wait_for("an even share", lambda: shared(kit, topic, [first, second]), [first, second])

    assert early == []
    assert first.told.of("lost") == second.told.of("lost") == []
    assert set(first.told.of("revoked")) == second.told.owned
    assert set(first.told.of("assigned")) == all_of(kit, topic)


def test_work_can_be_finished_while_partitions_are_revoked(kit: Kit) -> None:
    """Inside `revoked` a transaction with offsets of those partitions is still taken, and the next owner sees it."""
    topic, results, group = kit.topic(2), kit.topic(), kit.name("group")
    first = kit.settled(group, [topic])
    sink = kit.opened()
    sink.begin()
    sink.send(out(results, [b"begun before"]))
    done: list[CommitResult] = []

    def finish(partitions: Sequence[TopicPartition]) -> None:
        positions = {partition: Position(offset=5, watermark_ms=11) for partition in partitions}
        done.append(sink.commit(positions, first.source.group()))

    first.told.on_revoked = finish
    second = kit.member(group, [topic])
    wait_for("an even share", lambda: shared(kit, topic, [first, second]), [first, second])

    assert done == [CommitResult.COMMITTED]
    (moved,) = second.told.owned
    wait_for("the offset", lambda: stable(second.source, moved) == Position(offset=5, watermark_ms=11))
    wait_for("the record", lambda: values_of(kit.read(results)) == [b"begun before"])
    first.told.on_revoked = lambda _: None


def test_offsets_with_a_stale_generation_are_refused(kit: Kit) -> None:
    """Proof of membership taken before a rebalance is refused after it: ABORTED, nothing seen, and the sink goes on."""
    topic, results, group = kit.topic(2), kit.topic(), kit.name("group")
    first = kit.settled(group, [topic])
    stale = first.source.group()
    second = kit.member(group, [topic])
    wait_for("an even share", lambda: shared(kit, topic, [first, second]), [first, second])
    kept = min(first.told.owned)

    sink = kit.opened()
    sink.begin()
    sink.send(out(results, [b"stale"]))
    assert sink.commit({kept: Position(offset=3, watermark_ms=None)}, stale) is CommitResult.ABORTED
    assert first.source.committed(kept) is None
    sink.begin()
    sink.send(out(results, [b"fresh"]))
    assert sink.commit({kept: Position(offset=3, watermark_ms=None)}, first.source.group()) is CommitResult.COMMITTED
    wait_for("the fresh record", lambda: values_of(kit.read(results)) == [b"fresh"])


def test_at_least_once_offsets_with_a_stale_generation_are_refused(kit: Kit) -> None:
    """Without transactions a stale proof is refused too; what was sent stays."""
    topic, results, group = kit.topic(2), kit.topic(), kit.name("group")
    first = kit.settled(group, [topic])
    stale = first.source.group()
    second = kit.member(group, [topic])
    wait_for("an even share", lambda: shared(kit, topic, [first, second]), [first, second])
    kept = min(first.told.owned)

    sink = kit.at_least_once(first.source)
    sink.open()
    sink.begin()
    sink.send(out(results, [b"sent"]))
    assert sink.commit({kept: Position(offset=3, watermark_ms=None)}, stale) is CommitResult.ABORTED
    assert first.source.committed(kept) is None
    assert values_of(kit.read(results)) == [b"sent"]


def test_offsets_of_a_member_that_left_are_refused(kit: Kit) -> None:
    """Proof of membership of somebody who has left is refused."""
    topic, group = kit.topic(), kit.name("group")
    gone = kit.settled(group, [topic])
    proof = gone.source.group()
    gone.source.close(leave=True)
    heir = kit.settled(group, [topic])

    sink = kit.opened()
    sink.begin()
    (partition,) = all_of(kit, topic)
    assert sink.commit({partition: Position(offset=3, watermark_ms=None)}, proof) is CommitResult.ABORTED
    assert heir.source.committed(partition) is None


def test_nobody_proves_a_membership_without_an_assignment(kit: Kit) -> None:
    """`group` raises before joining, and for a member that has no partition."""
    topic, group = kit.topic(), kit.name("group")
    with pytest.raises(TransientError):
        kit.source(group).group()
    member = kit.member(group, [topic])
    with pytest.raises(TransientError):
        member.source.group()
    wait_for("the partition", lambda: bool(member.told.owned), [member])
    member.source.group()

    idle = kit.member(group, [topic])
    for _ in range(20):
        idle.poll()
        member.poll()
    with pytest.raises(TransientError):
        idle.source.group()


def test_a_member_that_was_missed_is_told_that_its_partitions_are_lost(kit: Kit) -> None:
    """Somebody the group gave up hears `lost`, not `revoked`; its proof is refused; then it joins again."""
    topic, group = kit.topic(2), kit.name("group")
    missed = kit.settled(group, [topic])
    proof = missed.source.group()
    kit.miss(missed)

    wait_for("word of the loss", lambda: set(missed.told.of("lost")) == all_of(kit, topic), [missed])
    assert missed.told.of("revoked") == []
    sink = kit.opened()
    sink.begin()
    assert sink.commit({TopicPartition(topic, 0): Position(offset=3, watermark_ms=None)}, proof) is CommitResult.ABORTED
    wait_for("the return", lambda: missed.told.owned == all_of(kit, topic), [missed])


def test_partitions_of_a_missed_member_go_to_another(kit: Kit) -> None:
    """Whoever remains gets the partitions of a member that is missed, without its help."""
    topic, group = kit.topic(2), kit.name("group")
    missed = kit.settled(group, [topic])
    kit.miss(missed)
    heir = kit.member(group, [topic])
    wait_for("the partitions", lambda: heir.told.owned == all_of(kit, topic), [heir])
    assert missed.told.of("revoked") == []


def test_a_restarted_slot_has_its_partitions_back_at_once(kit: Kit) -> None:
    """A static member that closes without leaving keeps its partitions: others hear nothing, its successor gets the same."""
    topic, group = kit.topic(4), kit.name("group")
    first = kit.settled(group, [topic], slot="0")
    second = kit.member(group, [topic], slot="1")
    wait_for("an even share", lambda: shared(kit, topic, [first, second]), [first, second])
    had = set(first.told.owned)
    heard = len(second.told.events)

    first.source.close(leave=False)
    assert set(first.told.of("revoked")) >= had
    again = kit.member(group, [topic], slot="0")
    wait_for("the same partitions", lambda: again.told.owned == had, [again, second], deadline_s=5)

    assert len(second.told.events) == heard


def test_a_member_that_leaves_gives_its_partitions_up_at_once(kit: Kit) -> None:
    """`close(leave=True)` revokes, and the others have the partitions without waiting for a time-out."""
    topic, group = kit.topic(4), kit.name("group")
    first = kit.settled(group, [topic], slot="0")
    second = kit.member(group, [topic], slot="1")
    wait_for("an even share", lambda: shared(kit, topic, [first, second]), [first, second])
    had = set(first.told.owned)

    first.source.close(leave=True)

    assert set(first.told.of("revoked")) >= had
    wait_for("everything", lambda: second.told.owned == all_of(kit, topic), [second], deadline_s=5)


def test_the_older_of_two_processes_with_one_slot_is_told(kit: Kit) -> None:
    """When a newer member takes an instance id, the older one's next polls raise `SlotTaken`, and its proof is refused."""
    topic, group = kit.topic(2), kit.name("group")
    older = kit.settled(group, [topic], slot="0")
    proof = older.source.group()
    newer = kit.settled(group, [topic], slot="0")

    with pytest.raises(SlotTaken):
        wait_for("the word", lambda: False, [older])
    assert older.told.of("revoked") == []
    sink = kit.opened()
    sink.begin()
    assert sink.commit({TopicPartition(topic, 0): Position(offset=1, watermark_ms=None)}, proof) is CommitResult.ABORTED
    assert newer.told.owned == all_of(kit, topic)


def test_a_start_inside_a_callback_takes_effect_with_the_next_poll(kit: Kit) -> None:
    """A partition may be started where it is assigned; its records begin at that offset."""
    topic, group = kit.topic(2), kit.name("group")
    for partition in all_of(kit, topic):
        kit.append(partition, [b"%d" % number for number in range(20)])
    told = Told()
    member = kit.member(group, [topic], told=told)
    told.on_assigned = lambda partitions: member.start_all(partitions, 4)
    wait_for("the records", lambda: len(member.records) == 32, [member])
    assert all(member.offsets(partition) == list(range(4, 20)) for partition in all_of(kit, topic))


def test_a_partition_that_went_and_came_back_starts_anew(kit: Kit) -> None:
    """After revoked and assigned again a partition is silent until it is started, even if it was paused before."""
    topic, group = kit.topic(2), kit.name("group")
    for partition in all_of(kit, topic):
        kit.append(partition, [b"%d" % number for number in range(20)])
    first = kit.settled(group, [topic])
    first.start_all(all_of(kit, topic))
    wait_for("the records", lambda: len(first.records) == 40, [first])
    for partition in all_of(kit, topic):
        first.source.pause(partition)
    second = kit.member(group, [topic])
    wait_for("an even share", lambda: shared(kit, topic, [first, second]), [first, second])
    (moved,) = second.told.owned
    second.source.close(leave=True)
    first.records.clear()
    wait_for("its return", lambda: moved in first.told.owned, [first])
    for _ in range(3):
        first.poll()
    assert first.records == []
    first.source.start_at(moved, 10)
    wait_for("the records", lambda: len(first.records) == 10, [first])
    assert first.offsets(moved) == list(range(10, 20))


def test_flowing_partitions_go_on_without_a_hole_through_a_rebalance(kit: Kit) -> None:
    """While another partition is taken away, those that stay give every record once and in order."""
    topic, group = kit.topic(4), kit.name("group")
    for partition in all_of(kit, topic):
        kit.append(partition, [b"%d" % number for number in range(2_000)])
    first = kit.settled(group, [topic])
    first.start_all(all_of(kit, topic))
    second = kit.member(group, [topic])
    while not shared(kit, topic, [first, second]):
        first.poll(max_records=23)
        second.poll()
    kept = set(first.told.owned)
    wait_for("the rest", lambda: all(len(first.offsets(partition)) >= 2_000 for partition in kept), [first, second])
    assert all(first.offsets(partition) == list(range(2_000)) for partition in kept)
