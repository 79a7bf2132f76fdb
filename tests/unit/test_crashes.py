"""Which record ends the process: the attempts that owners note, and what is taken alone, or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from headrace.crashes import DEATHS, RELEASED, Attempt, CrashWatch, begin, condemned_offsets, crash_fact, rows_at
from headrace.errors import PartitionGivenUp, PartitionMoved
from headrace.features.memory_store import MemoryStore
from headrace.takeover import identity_of, is_newer
from headrace.types import RecordBatch, TopicPartition

P0, P1 = TopicPartition("visits", 0), TopicPartition("visits", 1)
VIEWS = {"visits": ["view"]}
ROOM = 8
NUMBERS = itertools.count()


def batch_of(offsets: dict[TopicPartition, Sequence[int]]) -> RecordBatch:
    """Records of some partitions, those of the first one first."""
    places = [(name.partition, offset) for name, wanted in offsets.items() for offset in wanted]
    return RecordBatch(
        topic="visits",
        partitions=np.array([number for number, _ in places], np.int32),
        offsets=np.array([offset for _, offset in places], np.int64),
        timestamps_ms=np.zeros(len(places), np.int64),
        keys=[None for _ in places],
        values=[None for _ in places],
        headers=[None for _ in places],
    )


class Owner:
    """A process that claims partitions, one attempt after another."""

    def __init__(self, store: MemoryStore, facts: Sequence[bytes] = (), *, slot: str = "0") -> None:
        self.said: list[str] = []
        self.store = store
        self.watch = CrashWatch(
            store=store,
            views=VIEWS,
            facts=lambda: facts,
            room=ROOM,
            say=lambda event, **_: self.said.append(event),
            slot=slot,
            process=(process := identity_of("process", next(NUMBERS))),
            is_newer=is_newer,
        )
        store.announce(slot, process)

    def claim(self, partition: TopicPartition = P0, *, start: int = 0, committed: int = 0, end: int = 100) -> Attempt:
        """Claim and begin, as an assignment does."""
        owner = b"%d" % next(NUMBERS)
        note = self.store.claim(partition, VIEWS["visits"], owner).note
        begun = self.watch.begin(partition, owner, note, start=start, committed=committed, end=end)
        self.watch.watch(partition, begun)
        return begun.attempt

    def taken(self, batch: RecordBatch, until: int | None = None) -> list[list[int]]:
        """The offsets of each piece; stops, like a process that ends, in the middle of the piece with `until`."""
        found = []
        for piece in self.watch.pieces(batch):
            found.append([-offset if piece.condemned else offset for offset in piece.records.offsets.tolist()])
            if until in found[-1]:
                break
        return found


def attempt(process: str = "old", **told: Any) -> Attempt:
    """What a process of slot 0 noted."""
    return Attempt(**{"slot": "0", "process": process, "start": 10, "committed": 20, **told})


BEFORE = attempt()


@pytest.mark.parametrize(
    ("before", "start", "committed", "wary_until", "deaths"),
    [
        (None, 10, 20, 0, {}),
        (BEFORE, 11, 20, 0, {}),
        (BEFORE, 10, 21, 0, {}),
        (BEFORE, 10, 20, 18, {}),
        (BEFORE, 4, 20, 18, {}),
        (attempt("new"), 10, 20, 0, {}),
        (attempt(RELEASED), 10, 20, 0, {}),
        (attempt(RELEASED, wary_until=15, deaths={14: 2}), 10, 20, 15, {14: 2}),
        (attempt(wary_until=15, taking=12), 11, 20, 15, {12: 1}),
        (attempt(wary_until=15, taking=12, deaths={12: 2}), 12, 20, 15, {12: 3}),
        (attempt("new", wary_until=15, taking=12, deaths={12: 2}), 12, 20, 15, {12: 2}),
        (attempt(wary_until=15, taking=12, deaths={12: 2, 14: 1}), 13, 20, 15, {14: 1}),
        (attempt(wary_until=15, taking=12), 15, 20, 0, {}),
    ],
)
def test_an_attempt_begins_by_the_table(
    before: Attempt | None, start: int, committed: int, wary_until: int, deaths: dict[int, int]
) -> None:
    """Only the death of another process that got no further, or that was in the middle of a record, makes the next one wary."""
    found = begin(before, attempt("new", start=start, committed=committed), wary_until=18, gone=lambda *_: False)
    assert (found.wary_until, found.deaths, found.taking) == (wary_until, deaths, None)
    assert (found.process, found.start, found.committed) == ("new", start, committed)


def test_a_note_says_everything() -> None:
    """What is read from a note is what was noted."""
    noted = attempt(wary_until=9, taking=7, deaths={7: 2, 8: 3}, open_cases=[("1", "other", 7)])
    assert Attempt.of(noted.note()) == noted
    assert noted.condemned() == {8}


def test_who_lost_a_partition_is_dead_when_its_slot_has_another_process() -> None:
    """A takeover in the middle of a record is an open case until the slot is started again; then it counts, whoever claims."""
    before = attempt(slot="1", wary_until=15, taking=12)
    found = begin(before, attempt("new"), wary_until=0, gone=lambda *_: False)
    assert (found.deaths, found.open_cases, found.wary_until) == ({}, [("1", "old", 12)], 15)
    third = attempt("third", slot="2")
    assert begin(found, third, wary_until=0, gone=lambda *_: False).open_cases == [("1", "old", 12)]
    assert begin(found, third, wary_until=0, gone=lambda slot, process: (slot, process) == ("1", "old")).deaths == {12: 1}
    assert begin(found, attempt("newer", slot="1"), wary_until=0, gone=lambda *_: False).deaths == {12: 1}
    assert begin(found, attempt("old", slot="1"), wary_until=0, gone=lambda *_: False).deaths == {}
    assert begin(found, attempt("third", start=13), wary_until=0, gone=lambda *_: True).deaths == {}


def test_a_record_is_condemned_wherever_its_partition_goes() -> None:
    """Where every death moves the partition to another slot, the deaths are counted as the slots come back."""
    store = MemoryStore()
    Owner(store, slot="9").claim()
    for number in range(2 * DEATHS):
        owner = Owner(store, slot=str(number % 2))
        if 2 in owner.claim().condemned():
            break
        owner.taken(batch_of({P0: range(4)}), until=2)
    assert number == DEATHS + 1


def test_nobody_died_and_everything_goes_as_a_whole() -> None:
    """The first owner, and one that follows an orderly release, take every batch as it is."""
    store = MemoryStore()
    first, second = Owner(store), Owner(store)
    first.claim()
    batch = batch_of({P0: range(4), P1: range(3)})
    assert first.taken(batch) == [[0, 1, 2, 3, 0, 1, 2]]
    first.watch.release([P0])
    assert second.claim().wary_until == 0
    assert second.taken(batch) == [[0, 1, 2, 3, 0, 1, 2]]


def test_a_record_is_condemned_by_three_deaths() -> None:
    """One death finds the place, three deaths of one record condemn it; the others of its partition go alone, other partitions as ever."""
    store = MemoryStore()
    Owner(store).claim()
    batch = batch_of({P0: range(12), P1: range(3)})
    for deaths in range(DEATHS):
        owner = Owner(store)
        assert owner.claim().deaths == ({5: deaths} if deaths else {})
        assert owner.taken(batch, until=5) == [[0], [1], [2], [3], [4], [5]]
    last = Owner(store)
    assert last.claim().condemned() == {5}
    assert last.taken(batch) == [[0], [1], [2], [3], [4], [-5], [6], [7], [8, 9, 10, 11, 0, 1, 2]]
    assert last.taken(batch_of({P0: range(12, 14)})) == [[12, 13]]


def test_what_came_after_the_death_is_not_suspected() -> None:
    """Records behind the end that the log had at the claim killed nobody."""
    store = MemoryStore()
    Owner(store).claim(end=3)
    second = Owner(store)
    assert second.claim(end=3).wary_until == 3
    assert second.taken(batch_of({P0: range(5)})) == [[0], [1], [2], [3, 4]]


def test_a_claim_of_the_same_process_counts_no_death() -> None:
    """A worker that starts over in the middle of a record did not die of it."""
    store = MemoryStore()
    Owner(store).claim()
    owner = Owner(store)
    owner.claim()
    for _ in range(DEATHS + 1):
        owner.taken(batch_of({P0: range(4)}), until=2)
        assert owner.claim().deaths == {}


def test_a_release_keeps_what_was_found_out() -> None:
    """Deaths are still counted after the partition was given up in order."""
    store = MemoryStore()
    Owner(store).claim()
    for _ in range(DEATHS):
        owner = Owner(store)
        owner.claim()
        owner.taken(batch_of({P0: range(4)}), until=2)
    last = Owner(store)
    last.claim()
    last.watch.release([P0])
    assert Owner(store).claim().condemned() == {2}


def test_a_release_after_an_outage_takes_the_record_back() -> None:
    """A worker that was stopped in the middle of a record by a store that was away, and then told to end, did not die of it."""
    store = MemoryStore()
    Owner(store).claim()
    for _ in range(DEATHS + 1):
        owner = Owner(store)
        assert owner.claim().deaths == {}
        owner.taken(batch_of({P0: range(4)}), until=2)
        owner.watch.stop(P0)
        owner.watch.release([P0])


def test_nobody_notes_anything_in_a_partition_that_was_taken() -> None:
    """A zombie on its way through the records is told, and its release changes nothing."""
    store = MemoryStore()
    Owner(store).claim()
    zombie, heir = Owner(store), Owner(store)
    zombie.claim()
    heir.claim()
    with pytest.raises(PartitionMoved):
        zombie.taken(batch_of({P0: range(3)}))
    zombie.watch.release([P0])
    assert Owner(store).claim().wary_until == ROOM


def test_condemned_records_are_left_out_of_every_later_fold() -> None:
    """What the facts name is in no piece, and what is behind the last of them goes as a whole again."""
    facts = [None, b'{"kind": "starts", "offsets": {}}', crash_fact(P0, 2), crash_fact(P0, 5), crash_fact(P1, 1)]
    assert condemned_offsets(facts) == {P0: [2, 5], P1: [1]}
    owner = Owner(MemoryStore(), [fact for fact in facts if fact])
    owner.claim(start=0, committed=6)
    assert owner.taken(batch_of({P0: range(4)})) == [[0, 1, 3]]
    assert owner.taken(batch_of({P0: [4, 5], P1: [0]})) == [[4, 0]]
    whole = batch_of({P0: [6, 7]})
    assert [piece.records is whole for piece in owner.watch.pieces(whole)] == [True]


def test_a_condemned_record_is_left_out_wherever_a_batch_ends() -> None:
    """Also when the batch before it ends with the very record in front of it."""
    facts = [crash_fact(P0, 2), crash_fact(P0, 5)]
    for cut in range(1, 8):
        owner = Owner(MemoryStore(), facts)
        owner.claim(start=0, committed=8)
        taken = [owner.taken(batch_of({P0: some})) for some in (range(cut), range(cut, 8))]
        assert [offset for pieces in taken for piece in pieces for offset in piece] == [0, 1, 3, 4, 6, 7]


def test_facts_are_read_for_a_fold_only() -> None:
    """A partition that goes on where it stands asks for no facts."""

    def facts() -> Sequence[bytes]:
        raise AssertionError

    store = MemoryStore()
    watch = CrashWatch(
        store=store, views=VIEWS, facts=facts, room=ROOM, say=lambda *_, **__: None, slot="0", process="p", is_newer=is_newer
    )
    store.claim(P0, VIEWS["visits"], b"me")
    assert watch.begin(P0, b"me", None, start=6, committed=6, end=9).left_out == []


def test_a_record_whose_prediction_is_out_gives_the_partition_up() -> None:
    """Below the committed offset nothing can become a dead letter: after three deaths the partition stops, and says what to do."""
    store = MemoryStore()
    Owner(store).claim(committed=9)
    for _ in range(DEATHS):
        owner = Owner(store)
        owner.claim(committed=9)
        owner.taken(batch_of({P0: range(9)}), until=4)
    with pytest.raises(PartitionGivenUp, match=r"visits-0: folding offset 4 again .* `headrace state rebuild --partition visits-0`"):
        Owner(store).claim(committed=9)
    store.drop(P0, VIEWS["visits"])
    assert Owner(store).claim(committed=9).deaths == {}


def test_rows_are_found_by_partition_and_offset() -> None:
    """The same offset of another partition, or of another topic, is another record."""
    batch = batch_of({P0: [1, 2], P1: [1, 2]})
    assert rows_at(batch, {P1: [2, 7], TopicPartition("other", 0): [1]}).tolist() == [False, False, False, True]
