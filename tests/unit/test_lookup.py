from __future__ import annotations

import json
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import LookupRefused, StoreRefused, TransientError
from headrace.features.finder import AT_ONCE
from headrace.features.memory_store import MemoryStore
from headrace.features.state_store import Ask, Looked
from headrace.lookup import FeatureLookups
from headrace.partitioner import partition_of
from headrace.types import PartitionWrite, TopicPartition, ViewWrite
from tests.unit.paying import APP, LAST, NOON_MS, SECOND_MS, TOPIC, Cards, bare

gaps = st.integers(min_value=0, max_value=400_000)
amounts = st.floats(min_value=-1e6, max_value=1e6)


@settings(max_examples=40)
@given(payments=st.lists(st.tuples(st.sampled_from("ab"), gaps, amounts), max_size=8), after_ms=gaps)
def test_the_as_of_law(payments: Sequence[tuple[str, int, float]], after_ms: int) -> None:
    """A look-up as of T gives, bit for bit, the vector that an event at T sees."""
    cards, time_ms = Cards(partitions=1), NOON_MS
    for card, gap_ms, amount in payments:
        time_ms += gap_ms
        cards.clock.set_now(max(time_ms, cards.clock.now_ms()))
        cards.pay(card, time_ms, amount)
    cards.driver.run()
    time_ms += after_ms
    cards.clock.set_now(time_ms)
    found = cards.features.get("spending", "a", time_ms)
    assert found.as_of_ms == time_ms
    assert cards.features.get("spending", "a").as_json() == found.as_json()
    cards.pay("a", time_ms, 0.0, probe=True)
    assert bare(found.values) == cards.served()


def test_an_answer_says_what_it_is_made_from() -> None:
    """An answer carries its as-of time, the applied offset, the watermark and how much event time the store has not seen."""
    cards = Cards()
    number = partition_of(b"a", 3)
    cards.pay("a", NOON_MS - 9 * SECOND_MS, 5.0)
    cards.pay("a", NOON_MS - 4 * SECOND_MS, 7.0)
    cards.clock.advance(3 * SECOND_MS)
    now_ms = cards.clock.now_ms()
    found = cards.features.get("spending", "a")
    view = cards.app.pipelines[0].views[0]
    assert (found.view, found.version, found.fingerprint, found.entity, found.known) == ("spending", 1, view.fingerprint, "a", True)
    assert (found.as_of_ms, found.partition, found.watermark_ms) == (now_ms, TopicPartition(TOPIC, number), NOON_MS - 4 * SECOND_MS)
    assert found.staleness_ms == now_ms - (NOON_MS - 4 * SECOND_MS)
    assert found.offset == cards.driver.store.head(found.partition, view.fp).offset
    assert (found.values["count_where_real_1m"], found.values[LAST]) == (2.0, 7.0)
    assert tuple(found.values) == view.feature_names
    told = json.loads(json.dumps(found.as_json()))
    assert (told["as_of_ms"], told["offset"], told["staleness_ms"], told["known"]) == (now_ms, found.offset, found.staleness_ms, True)


def test_values_decay_while_nothing_happens() -> None:
    """A look-up is as of now: a window empties although nobody writes."""
    cards = Cards()
    cards.pay("a", NOON_MS, 5.0)
    name = "sum_amount_where_real_1m"
    assert cards.features.get("spending", "a").values[name] == 5.0
    cards.clock.advance(61 * SECOND_MS + SECOND_MS)
    assert cards.features.get("spending", "a").values[name] == 0.0


def test_an_entity_that_was_never_seen() -> None:
    """An unknown entity is answered with the values of an empty state, marked; with null for what is absent in JSON."""
    cards = Cards()
    cards.pay("a", NOON_MS, 5.0)
    for number in range(20):
        unknown = f"nobody-{number}"
        if partition_of(unknown.encode(), 3) == partition_of(b"a", 3):
            break
    else:
        pytest.fail("some key lands where a does")
    found = cards.features.get("spending", unknown)
    assert not found.known
    assert set(bare(found.values)) == {0.0, None}
    assert found.watermark_ms == NOON_MS
    values = found.as_json()["values"]
    assert isinstance(values, dict)
    assert list(values.values()) == bare(found.values)


def test_a_partition_without_an_event() -> None:
    """Where no event was seen yet there is neither watermark nor staleness, and nobody is known."""
    cards = Cards(partitions=1)
    cards.driver.run()
    found = cards.features.get("spending", "a")
    assert (found.known, found.watermark_ms, found.staleness_ms, found.offset) == (False, None, None, 0)
    assert found.as_of_ms == cards.clock.now_ms()


def test_a_batch_equals_singles() -> None:
    """Many entities are answered in their order, repeated and unknown ones among them, each as if it were asked alone; several round trips
    are taken for very many.
    """
    cards = Cards()
    for number in range(40):
        cards.pay(f"card-{number % 17}", NOON_MS + number * SECOND_MS, 1.5 * number)
    wanted = [f"card-{number % 23}" for number in range(50)]
    singles = [cards.features.get("spending", one, NOON_MS + 60 * SECOND_MS) for one in wanted]
    found = cards.features.get_many("spending", wanted, NOON_MS + 60 * SECOND_MS)
    assert [one.as_json() for one in found] == [one.as_json() for one in singles]
    assert {one.known for one in found} == {True, False}
    assert {one.partition.partition for one in found} == {0, 1, 2}
    assert cards.features.get_many("spending", []) == []
    many = cards.features.get_many("spending", [*(f"other-{number}" for number in range(AT_ONCE)), *wanted], NOON_MS + 60 * SECOND_MS)
    assert [one.as_json() for one in many[AT_ONCE:]] == [one.as_json() for one in singles]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("spendin", "near it are spending"),
        ("Spending", "near it are spending"),
        ("xyz", "it has spending"),
    ],
)
def test_a_view_that_is_not_there(asked: str, said: str) -> None:
    """A wrong view name is refused with the near ones, or with all where none is near."""
    with pytest.raises(LookupRefused, match=f"no view '{asked}'; {said}"):
        Cards().features.get(asked, "a")


def test_an_instant_before_the_newest_event() -> None:
    """An as-of before the entity's newest event is refused with its name, alone and in a batch; another entity is not in its way."""
    cards = Cards(partitions=1)
    cards.pay("a", NOON_MS, 5.0)
    cards.pay("b", NOON_MS + 2 * SECOND_MS, 5.0)
    assert cards.features.get("spending", "a", NOON_MS).values[LAST] == 5.0
    for ask in (lambda: cards.features.get("spending", "b", NOON_MS), lambda: cards.features.get_many("spending", ["a", "b"], NOON_MS)):
        with pytest.raises(LookupRefused, match=r"'b' in spending has an event at 2023-11-14T22:13:22\.000"):
            ask()


def test_an_instant_before_the_horizon() -> None:
    """An as-of before watermark - lateness is refused: what lay in the windows then may have been swept."""
    cards = Cards(partitions=1)
    cards.pay("a", NOON_MS, 5.0)
    cards.pay("b", NOON_MS + 60 * SECOND_MS, 5.0)
    horizon_ms = NOON_MS + 50 * SECOND_MS
    with pytest.raises(LookupRefused, match=r"before 2023-11-14T22:14:10.000\+00:00 \(watermark less lateness\)"):
        cards.features.get("spending", "a", horizon_ms - 1)
    assert cards.features.get("spending", "a", horizon_ms).as_of_ms == horizon_ms


def test_an_event_ahead_of_our_clock() -> None:
    """Without an as-of an entity whose newest event is ahead of the clock is answered as of that event."""
    cards = Cards(partitions=1)
    cards.pay("a", NOON_MS + 60 * SECOND_MS, 5.0)
    found = cards.features.get("spending", "a")
    assert (found.as_of_ms, found.staleness_ms) == (NOON_MS + 60 * SECOND_MS, 0)


def test_a_historical_source() -> None:
    """Event times of a replay have nothing to do with the clock: without an as-of the answer is as of the partition's watermark."""
    cards = Cards(historical=True, partitions=1)
    long_ago_ms = NOON_MS - 3_650 * 86_400 * SECOND_MS
    cards.pay("a", long_ago_ms, 5.0)
    cards.pay("b", long_ago_ms + 30 * SECOND_MS, 6.0)
    found = cards.features.get("spending", "a")
    assert (found.as_of_ms, found.staleness_ms) == (long_ago_ms + 30 * SECOND_MS, 0)
    assert found.values[LAST] == 5.0


@pytest.mark.parametrize("instant", [-1, 0, 10**20, 1_700_000_000, True, 1.7e12, "now"])
def test_what_is_no_instant(instant: object) -> None:
    """Seconds, floats, flags and texts are refused; an integer of numpy's is an integer."""
    with pytest.raises(LookupRefused, match="is no instant; write milliseconds UTC"):
        Cards().features.get("spending", "a", instant)  # type: ignore[arg-type]
    cards = Cards()
    cards.driver.run()
    assert cards.features.get("spending", "a", np.int64(NOON_MS)).as_of_ms == NOON_MS  # type: ignore[arg-type]


@pytest.mark.parametrize("entity", ["", "x" * 257, "é" * 129])
def test_what_is_no_entity(entity: str) -> None:
    """A key that no record can have is refused."""
    with pytest.raises(LookupRefused, match="a key has 1 to 256 bytes"):
        Cards().features.get("spending", entity)


def test_a_store_nobody_has_filled() -> None:
    """A store that knows nothing of the app is refused, not taken for one in which nobody is known."""
    with pytest.raises(LookupRefused, match="no worker of app 'cards' has served it there"):
        FeatureLookups(APP, MemoryStore(), now_ms=lambda: NOON_MS).get("spending", "a")


def test_a_store_that_was_emptied() -> None:
    """After a flush a look-up is refused until a worker has claimed the partition again, and right when that has rebuilt it."""
    cards = Cards(partitions=1)
    cards.pay("a", NOON_MS, 5.0)
    before = cards.features.get("spending", "a", NOON_MS)
    cards.driver.store.flush()
    with pytest.raises(LookupRefused, match="no worker of app"):
        cards.features.get("spending", "a")
    cards.pay("b", NOON_MS, 1.0)
    found = cards.features.get("spending", "a", NOON_MS)
    assert (found.known, found.values, found.offset > before.offset) == (True, before.values, True)


def test_a_partition_that_is_not_filled_yet() -> None:
    """A partition that is claimed and has no state yet, or only that of another definition, is refused with its name."""
    cards = Cards(partitions=1)
    store = MemoryStore()
    store.set_partitions(TOPIC, 1)
    store.claim(TopicPartition(TOPIC, 0), [cards.app.pipelines[0].views[0].fp], b"somebody")
    with pytest.raises(LookupRefused, match=r"no state of spending for payments.v1-0 yet: a worker that serves it with this definition"):
        FeatureLookups(APP, store, now_ms=lambda: NOON_MS).get("spending", "a")


def test_partitions_that_were_added() -> None:
    """A look-up follows a number of partitions that has changed since the last one."""
    cards = Cards(partitions=1)
    cards.pay("moved", NOON_MS, 5.0)
    store, view = cards.driver.store, cards.app.pipelines[0].views[0]
    assert cards.features.get("spending", "moved").partition.partition == 0
    number = partition_of(b"moved", 7)
    assert number
    store.set_partitions(TOPIC, 7)
    with pytest.raises(LookupRefused, match=f"no state of spending for {TOPIC}-{number} yet"):
        cards.features.get("spending", "moved")
    added = TopicPartition(TOPIC, number)
    store.claim(added, [view.fp], b"me")
    store.reset(added, {view.fp: 0}, b"me", "topic")
    empty = ViewWrite(view=view.fp, start=0, end=4, chunks=[], deletions=[])
    store.apply(b"me", PartitionWrite(partition=added, watermark_ms=NOON_MS, views=[empty]))
    found = cards.features.get("spending", "moved")
    assert (found.partition, found.offset, found.known) == (added, 4, False)


class Restless(MemoryStore):
    """A store in which the number of partitions is another one each time."""

    def look(self, asked: Sequence[Ask]) -> list[Looked]:
        """One more than the last time."""
        for ask in asked:
            self.set_partitions(ask.topic, 1 + self._partitions.get(ask.topic, 0))
        return super().look(asked)


def test_a_number_that_never_stays() -> None:
    """A number of partitions that changes under every look-up is a TransientError, not an endless loop."""
    with pytest.raises(TransientError, match="change again and again"):
        FeatureLookups(APP, Restless(), now_ms=lambda: NOON_MS).get("spending", "a")


def test_a_state_of_another_layout() -> None:
    """Bytes that this version does not read are refused with both versions, and the next look-up is answered."""
    cards = Cards(partitions=1)
    cards.pay("a", NOON_MS, 5.0)
    cards.pay("b", NOON_MS, 5.0)
    cell = cards.driver.store._cells[TopicPartition(TOPIC, 0), cards.app.pipelines[0].views[0].fp]
    cell.states[b"a"] = b"\x09" + cell.states[b"a"][1:]
    with pytest.raises(StoreRefused, match="has layout version 9, this program reads"):
        cards.features.get("spending", "a")
    assert cards.features.get("spending", "b").known


def test_a_store_that_is_away() -> None:
    """A store that cannot be reached is a TransientError, also before the first look-up."""
    cards = Cards()
    cards.driver.run()
    cards.driver.store.away = True
    for ask in (cards.features.warm_up, lambda: cards.features.get("spending", "a")):
        with pytest.raises(TransientError):
            ask()
    cards.driver.store.away = False
    cards.features.warm_up()
    assert not cards.features.get("spending", "a").known
    cards.features.close()


def test_several_threads() -> None:
    """Look-ups of several threads at once are those of one."""
    cards = Cards()
    names = [f"card-{number}" for number in range(30)]
    for place, name in enumerate(names):
        cards.pay(name, NOON_MS + place, float(place))
    right = {name: cards.features.get("spending", name).as_json() for name in names}
    wrong: list[str] = []

    def look(step: int) -> None:
        for place in range(200):
            name = names[place * step % 30]
            if cards.features.get("spending", name).as_json() != right[name]:
                wrong.append(name)

    threads = [threading.Thread(target=look, args=(step,)) for step in (1, 7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
