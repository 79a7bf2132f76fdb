from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import headrace as hr
from headrace.errors import TransientError
from headrace.features import resident, rows
from headrace.features.resident import ResidentStates
from headrace.features.state import unpack_state
from headrace.types import NO_WATERMARK_MS, PartitionWrite, TopicPartition
from tests.unit.features.folding import TOPIC, DictStore, batch_of, bits
from tests.unit.features.naive import Happening

ZERO, ONE = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
NOON_MS = 1_700_000_000_000


class Payment(hr.Event):
    """A payment."""

    card: str
    paid_at: hr.EventTime
    amount: float


SOURCE = hr.Source(TOPIC, Payment, key="card", time="paid_at", lateness="10s", historical=True)
SUMS = hr.FeatureView("sums", entity="card", source=SOURCE, features=[hr.sum("amount", over="1m"), hr.count(over="1h")])
LAST = hr.FeatureView("last", entity="card", source=SOURCE, features=[hr.last("amount", over="1m", empty=-1)])
BOTH = [SUMS, LAST]


def paid(card: str, after_ms: int = 0, amount: float = 1.0, partition: int = 0) -> Happening:
    """A payment, so long after noon."""
    return Happening(entity=card, time_ms=NOON_MS + after_ms, partition=partition, columns={"amount": amount})


def started(store: DictStore, *partitions: TopicPartition, capacity: int = 1_000) -> ResidentStates:
    """States of both views from offset 0 on."""
    states = ResidentStates(views=BOTH, read=store.read, capacity=capacity)
    for partition in partitions or (ZERO,):
        states.start(partition, {view.fp: 0 for view in BOTH}, NO_WATERMARK_MS)
    return states


def keys(write: PartitionWrite) -> list[list[bytes]]:
    """The keys a write holds, per view."""
    return [[key for chunk in view.chunks for key in chunk.keys] for view in write.views]


def test_vectors_of_all_views() -> None:
    """The vectors of all views stand side by side, under names that say whose they are."""
    states = started(DictStore(BOTH))
    found = states.fold(batch_of([paid("a"), paid("b"), paid("a", 1, 3.0)], [0, 1, 2]))
    assert found.names == ("sums.sum_amount_1m", "sums.count_1h", "last.last_amount_1m")
    assert found.values.tolist() == [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [4.0, 2.0, 1.0]]
    assert found.as_of_ms.tolist() == [NOON_MS, NOON_MS, NOON_MS + 1]
    assert not found.late.any()
    assert states.watermark_ms(ZERO) == NOON_MS + 1


def test_no_events() -> None:
    """A batch of refused records only folds to nothing."""
    states = started(DictStore(BOTH))
    found = states.fold(batch_of([], []))
    assert found.values.shape == (0, 3)
    assert states.pack({ZERO: 5})[0].views[0].end == 5


def test_no_touched_state_is_forgotten_between_packs() -> None:
    """However many batches are folded before a pack, as a long catch-up does, it holds every entity that any of them touched."""
    states = started(DictStore(BOTH))
    count = 3 * resident._MOST_RECENT
    for offset in range(count):
        states.fold(batch_of([paid(f"card-{offset}")], [offset]))
    (write,) = states.pack({ZERO: count})
    assert [sorted(view) for view in keys(write)] == [sorted(f"card-{offset}".encode() for offset in range(count))] * 2


def test_pack_says_what_was_touched() -> None:
    """A pack holds the states touched since the one before, once each, from the end before to the new one."""
    states = started(DictStore(BOTH))
    states.fold(batch_of([paid("a"), paid("b"), paid("a")], [0, 1, 2]))
    (first,) = states.pack({ZERO: 3})
    assert [(view.view, view.start, view.end) for view in first.views] == [(SUMS.fp, 0, 3), (LAST.fp, 0, 3)]
    assert [sorted(found) for found in keys(first)] == [[b"a", b"b"]] * 2
    assert first.watermark_ms == NOON_MS
    states.fold(batch_of([paid("b")], [3]))
    (second,) = states.pack({ZERO: 4})
    assert keys(second) == [[b"b"]] * 2
    assert states.pack({ZERO: 4}) == []
    (third,) = states.pack({ZERO: 9})
    assert keys(third) == [[], []]
    assert [(view.start, view.end) for view in third.views] == [(4, 9)] * 2


def test_partitions_do_not_meet() -> None:
    """The same key in two partitions is two entities, with watermarks of their own; each partition is packed by itself."""
    states = started(DictStore(BOTH), ZERO, ONE)
    states.fold(batch_of([paid("a"), paid("a", 100_000, partition=1), paid("a", 1), paid("a", 89_999, partition=1)], [0, 0, 1, 1]))
    found = states.fold(batch_of([paid("a", 2), paid("a", 100_001, partition=1)], [2, 2]))
    assert found.values[:, 1].tolist() == [3.0, 2.0]
    assert not found.late.any()
    assert states.entities() == 2
    (only_one,) = states.pack({ONE: 3})
    assert (only_one.partition, keys(only_one)) == (ONE, [[b"a"], [b"a"]])
    (only_zero,) = states.pack({ZERO: 3})
    assert (only_zero.partition, keys(only_zero)) == (ZERO, [[b"a"], [b"a"]])


def test_views_of_different_age() -> None:
    """While a newer view catches up, the older one skips what it holds already and is left out of the write."""
    happenings = [paid("a", step, float(step)) for step in range(6)]
    whole = started(DictStore(BOTH))
    whole.fold(batch_of(happenings, range(6)))
    (expected,) = whole.pack({ZERO: 6})

    store = DictStore(BOTH)
    older = started(store)
    older.fold(batch_of(happenings[:4], range(4)))
    store.apply(older.pack({ZERO: 4}))
    del store.states[ZERO, LAST.fp]
    store.ends[ZERO, LAST.fp] = 1
    states = ResidentStates(views=BOTH, read=store.read)
    states.start(ZERO, {SUMS.fp: 4, LAST.fp: 1}, NOON_MS)
    states.fold(batch_of(happenings[1:3], [1, 2]))
    (behind,) = states.pack({ZERO: 3})
    assert [(view.view, view.start, view.end) for view in behind.views] == [(LAST.fp, 1, 3)]
    states.fold(batch_of(happenings[3:], [3, 4, 5]))
    (level,) = states.pack({ZERO: 6})
    assert [(view.view, view.start, view.end) for view in level.views] == [(SUMS.fp, 4, 6), (LAST.fp, 3, 6)]
    for found, wanted in zip(level.views, expected.views, strict=True):
        assert found.chunks[0].buffer.tobytes() == wanted.chunks[0].buffer.tobytes()


def test_eviction_waits_for_the_store() -> None:
    """Beyond the capacity the least recently used rows go, but none that the store does not have yet."""
    store = DictStore(BOTH)
    states = started(store, capacity=3)
    states.fold(batch_of([paid(card) for card in "abcd"], range(4)))
    assert states.entities() == 4
    writes = states.pack({ZERO: 4})
    states.fold(batch_of([paid("e")], [4]))
    assert states.entities() == 5
    store.apply(writes)
    states.applied(ZERO, 4)
    states.fold(batch_of([paid("a")], [5]))
    states.fold(batch_of([paid("f")], [6]))
    assert states.entities() == 3
    reads = store.reads
    found = states.fold(batch_of([paid("a"), paid("e")], [7, 8]))
    assert store.reads == reads
    assert found.values[:, 1].tolist() == [3.0, 2.0]
    found = states.fold(batch_of([paid("b")], [9]))
    assert store.reads == reads + 1
    assert found.values[:, 1].tolist() == [2.0]


def test_touched_since_the_apply() -> None:
    """A row that was touched after it was packed stays until that is stored, too."""
    store = DictStore(BOTH)
    states = started(store, capacity=1)
    states.fold(batch_of([paid("a")], [0]))
    store.apply(states.pack({ZERO: 1}))
    states.fold(batch_of([paid("a")], [1]))
    states.applied(ZERO, 1)
    states.fold(batch_of([paid("b")], [2]))
    assert states.fold(batch_of([paid("a")], [3])).values[0, 1] == 3.0


def test_one_read_a_partition_and_batch() -> None:
    """Missing states are read in one call a partition, each key once, and only what is missing."""
    asked: list[tuple[TopicPartition, list[bytes]]] = []

    def read(partition: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        asked.append((partition, list(keys)))
        return {view.fp: [None] * len(keys) for view in BOTH}

    states = ResidentStates(views=BOTH, read=read)
    for partition in (ZERO, ONE):
        states.start(partition, {view.fp: 0 for view in BOTH}, NO_WATERMARK_MS)
    states.fold(batch_of([paid("a"), paid("é"), paid("a"), paid("a", partition=1)], [0, 1, 2, 0]))
    assert asked == [(ZERO, [b"a", "é".encode()]), (ONE, [b"a"])]
    states.fold(batch_of([paid("a"), paid("b"), paid("a", partition=1)], [3, 4, 1]))
    assert asked[2:] == [(ZERO, [b"b"])]


def test_nothing_is_read_from_a_store_that_is_known() -> None:
    """Where the store was empty at the start it is not asked for new entities, until something was given up to it."""
    store = DictStore(BOTH)
    asked: list[bytes] = []

    def read(partition: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        asked.extend(keys)
        return store.read(partition, keys)

    states = ResidentStates(views=BOTH, read=read, capacity=3)
    states.start(ZERO, {view.fp: 0 for view in BOTH}, NO_WATERMARK_MS, empty=True)
    for offset, card in enumerate("abc"):
        states.fold(batch_of([paid(card)], [offset]))
    assert asked == []
    store.apply(states.pack({ZERO: 3}))
    states.applied(ZERO, 3)
    states.fold(batch_of([paid("d")], [3]))
    assert asked == []
    states.fold(batch_of([paid("e")], [4]))
    found = states.fold(batch_of([paid("a", 1)], [5]))
    assert asked == [b"e", b"a"]
    assert found.values.tolist() == [[2.0, 2.0, 1.0]]


def test_a_read_that_fails_changes_nothing() -> None:
    """When the store is away in the middle of a fold, the same fold later gives what it would have given."""
    store = DictStore(BOTH)
    away = [False]

    def read(partition: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        if away[0] and partition == ONE:
            raise TransientError("the store is away")
        return store.read(partition, keys)

    states = ResidentStates(views=BOTH, read=read)
    for partition in (ZERO, ONE):
        states.start(partition, {view.fp: 0 for view in BOTH}, NO_WATERMARK_MS)
    states.fold(batch_of([paid("a")], [0]))
    batch = batch_of([paid("a", 60_000), paid("b"), paid("c", partition=1)], [1, 2, 0])
    away[0] = True
    with pytest.raises(TransientError):
        states.fold(batch)
    assert states.entities() == 1
    assert states.watermark_ms(ZERO) == NOON_MS
    away[0] = False
    assert states.fold(batch).values[:, 1].tolist() == [2.0, 0.0, 1.0]
    assert [found[0] for found in keys(states.pack({ZERO: 3})[0])] == [b"a", b"a"]


def test_sweep() -> None:
    """Entities of which no window sees anything are deleted from the store and from memory; touched again they are new."""
    store = DictStore(BOTH)
    states = started(store)
    states.fold(batch_of([paid("a"), paid("b")], [0, 1]))
    store.apply(states.pack({ZERO: 2}))
    # One hour and its last pane and the lateness later, to the millisecond.
    edge_ms = (NOON_MS // 60_000 + 61) * 60_000 - NOON_MS + 10_000
    states.fold(batch_of([paid("c", edge_ms - 1)], [2]))
    (write,) = states.pack({ZERO: 3})
    assert [view.deletions for view in write.views] == [[], []]
    store.apply([write])
    states.fold(batch_of([paid("c", edge_ms)], [3]))
    (write,) = states.pack({ZERO: 4})
    assert [sorted(view.deletions) for view in write.views] == [[b"a", b"b"]] * 2
    assert states.entities() == 1
    store.apply([write])
    assert states.fold(batch_of([paid("a", edge_ms)], [4])).values.tolist() == [[1.0, 1.0, -1.0]]


def swept_between(view: hr.FeatureView, first: Happening, *then: Happening) -> list[list[list[float]]]:
    """The last vector of a fold in which a pack, and so a sweep, follows every event, and of one without any pack."""
    found = []
    for packing in (True, False):
        store = DictStore([view])
        states = ResidentStates(views=[view], read=store.read)
        states.start(ZERO, {view.fp: 0}, NO_WATERMARK_MS)
        values = []
        for offset, one in enumerate([first, *then]):
            values = states.fold(batch_of([one], [offset])).values.tolist()
            if packing:
                store.apply(states.pack({ZERO: offset + 1}))
        found.append(values)
    return found


def test_no_sweep_while_a_time_decides() -> None:
    """An entity of which no window sees anything stays while its newest event is younger than the horizon: it decides as-of times."""
    absent = hr.FeatureView("v", entity="card", source=SOURCE, features=[hr.count(over="2s", pane="2s", where=hr.col("amount") > 0)])
    swept, kept = swept_between(absent, paid("a", 0, -1.0), paid("a", -9_000, 1.0))
    assert swept == kept == [[0.0]]


def test_no_sweep_while_a_newest_event_is_seen() -> None:
    """A newest event may be seen for longer than any pane; until then its entity stays, and not a millisecond longer."""
    view = hr.FeatureView(
        "v", entity="card", source=SOURCE, features=[hr.count(over="2s", pane="2s"), hr.last("amount", over="1h", empty=-1)]
    )
    hour_ms = 3_600_000
    for after_ms, last in ((hour_ms - 1, 1.0), (hour_ms, -1.0)):
        swept, kept = swept_between(view, paid("a"), paid("b", after_ms), paid("a", after_ms))
        assert swept == kept == [[1.0, last]]
    store = DictStore([view])
    states = ResidentStates(views=[view], read=store.read)
    states.start(ZERO, {view.fp: 0}, NO_WATERMARK_MS)
    for offset, one in enumerate([paid("a"), paid("b", hour_ms + 9_999), paid("b", hour_ms + 10_000)]):
        states.fold(batch_of([one], [offset]))
        store.apply(states.pack({ZERO: offset + 1}))
        assert store.deleted == (offset == 2)


def test_late_only_entities_leave_no_trace() -> None:
    """An entity that only late events name gets no state; its row leaves memory without a deletion."""
    store = DictStore(BOTH)
    states = started(store)
    found = states.fold(batch_of([paid("a", 60_000), paid("b")], [0, 1]))
    assert found.late.tolist() == [False, True]
    assert found.values[1].tolist() == [0.0, 0.0, -1.0]
    (write,) = states.pack({ZERO: 2})
    assert keys(write) == [[b"a"], [b"a"]]
    assert [view.deletions for view in write.views] == [[], []]
    assert states.entities() == 1


def test_no_sweep_while_views_differ() -> None:
    """A view that is left out of a write cannot lose states by it, so nothing is swept until all views move."""
    store = DictStore(BOTH)
    states = started(store)
    states.fold(batch_of([paid("a")], [0]))
    store.apply(states.pack({ZERO: 1}))
    states.start(ZERO, {SUMS.fp: 9, LAST.fp: 1}, NOON_MS)
    states.fold(batch_of([paid("a", 1), paid("b", 100_000_000)], [1, 2]))
    (write,) = states.pack({ZERO: 3})
    assert [(view.view, view.deletions) for view in write.views] == [(LAST.fp, [])]


def test_drop_and_start_again() -> None:
    """A dropped partition is forgotten with all that was not stored; started again it goes on from the store."""
    store = DictStore(BOTH)
    states = started(store, ZERO, ONE)
    states.fold(batch_of([paid("a"), paid("a", partition=1)], [0, 0]))
    store.apply(states.pack({ZERO: 1, ONE: 1}))
    states.fold(batch_of([paid("a", 5_000), paid("a", partition=1)], [1, 1]))
    states.drop(ZERO)
    states.drop(ZERO)
    assert states.entities() == 1
    states.start(ZERO, {view.fp: 1 for view in BOTH}, NOON_MS)
    assert states.watermark_ms(ZERO) == NOON_MS
    found = states.fold(batch_of([paid("a", 1), paid("a", partition=1)], [1, 2]))
    assert found.values[:, 1].tolist() == [2.0, 3.0]
    states.set_watermark(ZERO, NOON_MS + 100_000)
    assert states.fold(batch_of([paid("a", 2)], [2])).late.tolist() == [True]


def test_many_entities_many_panes(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Rows and arena grow, blocks move, memory is bounded by panes too: the vectors stay those of a fold that had room from the start."""
    draw = np.random.default_rng(seed)
    count, cards = 12_000, 3_000
    times = np.sort(draw.integers(0, 7_200_000, count)).tolist()
    happenings = [paid(f"card {draw.integers(cards)}", at, float(draw.normal())) for at in times]

    def fold(batch: int, capacity: int) -> list[list[int]]:
        store = DictStore(BOTH)
        states = started(store, capacity=capacity)
        found = []
        for begin in range(0, count, batch):
            end = min(begin + batch, count)
            found.append(states.fold(batch_of(happenings[begin:end], range(begin, end))).values)
            store.apply(states.pack({ZERO: end}))
            states.applied(ZERO, end)
        return bits(np.concatenate(found))

    roomy = fold(count, 10_000)
    monkeypatch.setattr(rows, "_FIRST_ROWS", 2)
    monkeypatch.setattr(rows, "_FIRST_CELLS", 1)
    assert fold(500, 10_000) == roomy
    monkeypatch.setattr(resident, "_MOST_CELLS", 2_000)
    assert fold(500, 100) == roomy


def test_same_bytes_whatever_memory_did() -> None:
    """A row that was moved, evicted and read again packs to the bytes of one that was left alone."""
    left_alone, moved = DictStore(BOTH), DictStore(BOTH)
    happenings = [paid("a", step * 700, 0.1 * step) for step in range(400)]
    calm, restless = started(left_alone), started(moved, capacity=1)
    for offset, one in enumerate(happenings):
        calm.fold(batch_of([one], [offset * 2]))
        restless.fold(batch_of([one], [offset * 2]))
        moved.apply(restless.pack({ZERO: offset * 2 + 1}))
        restless.applied(ZERO, offset * 2 + 1)
        restless.fold(batch_of([paid(f"other {offset}", offset * 700)], [offset * 2 + 1]))
        restless.tidy()
    left_alone.apply(calm.pack({ZERO: 1_000}))
    for view in BOTH:
        assert moved.states[ZERO, view.fp][b"a"] == left_alone.states[ZERO, view.fp][b"a"]
        assert unpack_state(view, moved.states[ZERO, view.fp][b"a"]).newest_ms == happenings[-1].time_ms
