"""What every state store promises, whatever it is made of."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import pytest
from hypothesis import strategies

from headrace.errors import TransientError
from headrace.features.state_store import ApplyResult, StateStore, aside
from headrace.types import NO_WATERMARK_MS, TopicPartition
from tests.contract.store.subjects import P0, P1, Subject, heads, ready, view_write, write

ME, OTHER = b"\x00nonce\r\nof mine", b"nonce of another"
V, W = "0123456789abcdef", "fedcba9876543210"


def test_an_unknown_partition_has_no_state(store: StateStore) -> None:
    """Before anything happened a claim and a read find neither offset nor watermark, owner, topic id or state."""
    found = store.read(P0, [V], [b"a"])
    assert (found.owner, found.heads[V].offset, found.heads[V].watermark_ms, found.states[V]) == (None, None, None, [None])
    claimed = store.claim(P0, [V, W], ME)
    assert claimed.topic_id is None
    assert {(head.offset, head.watermark_ms) for head in claimed.heads.values()} == {(None, None)}


def test_an_apply_moves_states_offset_and_watermark(store: StateStore) -> None:
    """After OK the view stands at its end, with the watermark and the states that were written."""
    ready(store, ME, {V: 7})
    assert heads(store, [V]) == {V: (7, None)}
    assert store.apply(ME, write(view_write(V, 7, 9, {b"a": b"state of a", b"b": b""}), watermark_ms=-5)) is ApplyResult.OK
    found = store.read(P0, [V], [b"b", b"unknown", b"a", b"a"])
    assert found.states[V] == [b"", None, b"state of a", b"state of a"]
    assert (found.owner, found.heads[V].offset, found.heads[V].watermark_ms) == (ME, 9, -5)


def test_offsets_and_watermarks_keep_every_digit(store: StateStore) -> None:
    """The largest offset and the smallest watermark come back as they were."""
    largest = (1 << 63) - 1
    ready(store, ME, {V: largest - 1})
    store.apply(ME, write(view_write(V, largest - 1, largest), watermark_ms=NO_WATERMARK_MS))
    assert heads(store, [V]) == {V: (largest, NO_WATERMARK_MS)}


@pytest.mark.parametrize("start", [0, 6, 8, 70])
def test_a_write_from_elsewhere_is_behind(store: StateStore, start: int) -> None:
    """A write that does not begin where the view stands is BEHIND and leaves everything as it was."""
    ready(store, ME, {V: 7})
    assert store.apply(ME, write(view_write(V, start, 9, {b"a": b"x"}))) is ApplyResult.BEHIND
    assert heads(store, [V]) == {V: (7, None)}
    assert store.read(P0, [V], [b"a"]).states[V] == [None]


def test_an_apply_sent_twice_is_behind_at_its_end(store: StateStore) -> None:
    """The second time it answers BEHIND, the view stands at the end and the states are those of the first."""
    ready(store, ME, {V: 0})
    once = write(view_write(V, 0, 3, {b"a": b"x"}))
    assert store.apply(ME, once) is ApplyResult.OK
    assert store.apply(ME, once) is ApplyResult.BEHIND
    assert heads(store, [V]) == {V: (3, 1_000)}
    assert store.read(P0, [V], [b"a"]).states[V] == [b"x"]


def test_a_view_without_a_start_takes_nothing(store: StateStore) -> None:
    """A claim alone does not let a view stand anywhere: a write from 0 is BEHIND."""
    store.claim(P0, [V], ME)
    assert store.apply(ME, write(view_write(V, 0, 1, {b"a": b"x"}))) is ApplyResult.BEHIND


def test_a_new_claim_fences_the_old_owner(store: StateStore) -> None:
    """After somebody else's claim an old owner's apply and reset are FENCED and write nothing, wherever they begin."""
    ready(store, ME, {V: 0})
    store.apply(ME, write(view_write(V, 0, 3, {b"a": b"x"})))
    claimed = store.claim(P0, [V], OTHER)
    assert (claimed.heads[V].offset, claimed.heads[V].watermark_ms, claimed.topic_id) == (3, 1_000, "topic-1")
    for start in (3, 0):
        assert store.apply(ME, write(view_write(V, start, 4, {b"a": b"y"}))) is ApplyResult.FENCED
    assert store.reset(P0, {V: 0}, ME, "topic-2") is ApplyResult.FENCED
    found = store.read(P0, [V], [b"a"])
    assert (found.owner, found.heads[V].offset, found.states[V]) == (OTHER, 3, [b"x"])
    assert store.apply(OTHER, write(view_write(V, 3, 4, {b"a": b"y"}))) is ApplyResult.OK


def test_nobody_writes_without_a_claim(store: StateStore) -> None:
    """A partition nobody has claimed fences everybody."""
    assert store.apply(ME, write(view_write(V, 0, 1, {b"a": b"x"}))) is ApplyResult.FENCED
    assert store.reset(P0, {V: 0}, ME, "topic-1") is ApplyResult.FENCED
    assert heads(store, [V]) == {V: (None, None)}


def test_all_views_are_written_or_none(store: StateStore) -> None:
    """One view that is elsewhere keeps all views of the write where they are."""
    ready(store, ME, {V: 0, W: 5})
    refused = write(view_write(V, 0, 9, {b"a": b"x"}), view_write(W, 4, 9, {b"a": b"y"}))
    assert store.apply(ME, refused) is ApplyResult.BEHIND
    assert heads(store, [V, W]) == {V: (0, None), W: (5, None)}
    taken = write(view_write(V, 0, 9, {b"a": b"x"}), view_write(W, 5, 9, {b"a": b"y"}))
    assert store.apply(ME, taken) is ApplyResult.OK
    assert heads(store, [V, W]) == {V: (9, 1_000), W: (9, 1_000)}
    found = store.read(P0, [W, V], [b"a"])
    assert found.states == {V: [b"x"], W: [b"y"]}


def test_a_scan_goes_round(store: StateStore) -> None:
    """A round of pages holds every entity that is there all the while, with its state, whoever comes and goes in between."""
    staying = {b"stays %d" % number: b"state %d" % number for number in range(3_000)}
    going = {b"goes %d" % number: b"x" for number in range(3_000)}
    ready(store, ME, {V: 0, W: 0})
    store.apply(ME, write(view_write(V, 0, 1, {**staying, **going}), view_write(W, 0, 1, {b"other view": b"y"})))
    found: dict[bytes, bytes] = {}
    page = store.scan(P0, V, 0)
    end = 1
    while page.cursor:
        found.update(zip(page.keys, page.states, strict=True))
        deleted = list(going)[100 * end : 100 * (end + 1)]
        assert store.apply(ME, write(view_write(V, end, end + 1, {b"comes %d" % end: b"z"}, delete=deleted))) is ApplyResult.OK
        end += 1
        page = store.scan(P0, V, page.cursor)
    found.update(zip(page.keys, page.states, strict=True))
    assert end > 3
    assert {key: state for key, state in found.items() if key in staying} == staying
    assert store.scan(P1, V, 0).keys == []


def test_a_drop_fences_and_leaves_nothing(store: StateStore) -> None:
    """The views are as if they had never been: no offset, no state, and their owner's next write is FENCED; other views stay."""
    ready(store, ME, {V: 0, W: 0})
    store.apply(ME, write(view_write(V, 0, 3, {b"a": b"x"}), view_write(W, 0, 3, {b"a": b"y"})))
    store.drop(P0, [V])
    assert heads(store, [V, W]) == {V: (None, None), W: (3, 1_000)}
    assert store.read(P0, [V, W], [b"a"]).states == {V: [None], W: [b"y"]}
    assert store.apply(ME, write(view_write(V, 3, 4))) is ApplyResult.FENCED
    store.drop(P0, [V, W])
    store.drop(P0, [])
    claimed = store.claim(P0, [V, W], OTHER)
    assert claimed.topic_id is None
    assert {head.offset for head in claimed.heads.values()} == {None}


def test_an_apply_may_stand_still(store: StateStore) -> None:
    """A write that ends where it starts changes states under the same compare-and-set: how one entity is mended."""
    ready(store, ME, {V: 0})
    store.apply(ME, write(view_write(V, 0, 3, {b"a": b"x", b"b": b"x"})))
    assert store.apply(ME, write(view_write(V, 3, 3, {b"a": b"y"}, delete=[b"b"]))) is ApplyResult.OK
    assert heads(store, [V]) == {V: (3, 1_000)}
    assert store.read(P0, [V], [b"a", b"b"]).states[V] == [b"y", None]
    assert store.apply(ME, write(view_write(V, 2, 2, {b"a": b"z"}))) is ApplyResult.BEHIND
    assert store.apply(OTHER, write(view_write(V, 3, 3, {b"a": b"z"}))) is ApplyResult.FENCED
    assert store.read(P0, [V], [b"a"]).states[V] == [b"y"]


@pytest.mark.parametrize("before", [{b"a": b"old", b"gone": b"old"}, {}])
def test_what_was_put_aside_takes_the_place(store: StateStore, before: dict[bytes, bytes]) -> None:
    """States put aside change nothing until they are adopted; then the views are those, whole, and nothing is left aside."""
    ready(store, OTHER, {V: 0, W: 0})
    store.apply(OTHER, write(view_write(V, 0, 9, before), view_write(W, 0, 9, before)))
    ready(store, ME, {aside(V): -5, aside(W): -5}, topic_id="topic-2")
    assert store.apply(ME, write(view_write(aside(V), -5, -4, {b"a": b"one", b"b": b"one"}))) is ApplyResult.OK
    assert store.apply(ME, write(view_write(aside(V), -4, 7, {b"a": b"new"}), watermark_ms=500)) is ApplyResult.OK
    assert store.apply(ME, write(view_write(aside(W), -5, 6), watermark_ms=400)) is ApplyResult.OK
    assert store.read(P0, [V], [b"a", b"b"]).states[V] == [before.get(b"a"), None]
    assert heads(store, [V, W]) == {V: (9, 1_000), W: (9, 1_000)}
    assert store.adopt(P0, {V: 7, W: 6}, ME) is ApplyResult.FENCED
    assert store.claim(P0, [V, W], ME).topic_id == "topic-1"
    assert store.adopt(P0, {V: 7, W: 7}, ME) is ApplyResult.BEHIND
    assert heads(store, [V, W]) == {V: (9, 1_000), W: (9, 1_000)}
    assert store.adopt(P0, {V: 7, W: 6}, ME) is ApplyResult.OK
    found = store.read(P0, [V, W], [b"a", b"b", b"gone"])
    assert (found.owner, found.states) == (ME, {V: [b"new", b"one", None], W: [None, None, None]})
    assert heads(store, [V, W, aside(V), aside(W)]) == {V: (7, 500), W: (6, 400), aside(V): (None, None), aside(W): (None, None)}
    assert store.read(P0, [aside(V)], [b"a"]).states[aside(V)] == [None]
    assert store.apply(OTHER, write(view_write(V, 9, 10))) is ApplyResult.FENCED
    assert store.claim(P0, [V, W], OTHER).topic_id == "topic-2"


def test_what_somebody_else_put_aside_is_not_adopted(store: StateStore) -> None:
    """Whoever puts states aside later fences the one before, whose pieces are not taken and not adopted."""
    ready(store, ME, {V: 0, aside(V): -5})
    ready(store, OTHER, {aside(V): -5})
    assert store.apply(ME, write(view_write(aside(V), -5, 7, {b"a": b"mine"}))) is ApplyResult.FENCED
    assert store.apply(OTHER, write(view_write(aside(V), -5, 7, {b"a": b"other"}))) is ApplyResult.OK
    assert store.adopt(P0, {V: 7}, ME) is ApplyResult.FENCED
    assert store.adopt(P0, {V: 7}, OTHER) is ApplyResult.FENCED
    assert store.read(P0, [V], [b"a"]).states[V] == [None]


def test_views_may_move_alone(store: StateStore) -> None:
    """A write of one view leaves the other where it is, so that a new view can catch up beside an old one."""
    ready(store, ME, {V: 0, W: 5})
    assert store.apply(ME, write(view_write(V, 0, 3, {b"a": b"x"}))) is ApplyResult.OK
    assert heads(store, [V, W]) == {V: (3, 1_000), W: (5, None)}


def test_one_foreign_view_fences_the_write(store: StateStore) -> None:
    """An owner is asked for by view: a read tells no owner where views disagree, and a write over all of them is FENCED."""
    ready(store, ME, {V: 0, W: 0})
    store.claim(P0, [W], OTHER)
    assert store.read(P0, [V, W], []).owner is None
    assert store.read(P0, [V], []).owner == ME
    assert store.apply(ME, write(view_write(V, 0, 1), view_write(W, 0, 1))) is ApplyResult.FENCED
    assert store.reset(P0, {V: 3, W: 3}, ME, "topic-1") is ApplyResult.FENCED
    assert heads(store, [V, W]) == {V: (0, None), W: (0, None)}


def test_later_chunks_win_then_deletions(store: StateStore) -> None:
    """Of several chunks the last one with a key counts, and what is deleted is gone whatever the chunks say."""
    ready(store, ME, {V: 0})
    store.apply(ME, write(view_write(V, 0, 1, {b"old": b"0", b"kept": b"0"})))
    tables = {b"a": b"1", b"b": b"1", b"gone": b"1"}, {b"b": b"2", b"gone": b"2"}, {b"c": b"3", b"a": b"3"}
    store.apply(ME, write(view_write(V, 1, 4, *tables, delete=[b"gone", b"old", b"never there"])))
    found = store.read(P0, [V], [b"a", b"b", b"c", b"gone", b"old", b"kept"])
    assert found.states[V] == [b"3", b"2", b"3", None, None, b"0"]


def test_a_write_may_hold_nothing_but_an_offset(store: StateStore) -> None:
    """A batch without events still moves the offset; a write may also only delete."""
    ready(store, ME, {V: 0})
    assert store.apply(ME, write(view_write(V, 0, 5, {}))) is ApplyResult.OK
    assert store.apply(ME, write(view_write(V, 5, 6, {b"a": b"x"}))) is ApplyResult.OK
    assert store.apply(ME, write(view_write(V, 6, 7, delete=[b"a"]))) is ApplyResult.OK
    assert store.read(P0, [V], [b"a"]).states[V] == [None]
    assert heads(store, [V]) == {V: (7, 1_000)}


def test_a_reset_drops_everything_of_its_views(store: StateStore) -> None:
    """After a reset a view stands at its start with no watermark, no state and the new topic id; other views keep theirs."""
    ready(store, ME, {V: 0, W: 0})
    store.apply(ME, write(view_write(V, 0, 3, {b"a": b"x"}), view_write(W, 0, 3, {b"a": b"y"})))
    assert store.reset(P0, {V: 1}, ME, "topic-2") is ApplyResult.OK
    found = store.read(P0, [V, W], [b"a"])
    assert found.states == {V: [None], W: [b"y"]}
    assert heads(store, [V, W]) == {V: (1, None), W: (3, 1_000)}
    assert found.owner == ME
    assert store.claim(P0, [V], ME).topic_id == "topic-2"
    assert store.claim(P0, [W], ME).topic_id == "topic-1"


def test_views_of_different_topics_give_no_topics_id(store: StateStore) -> None:
    """Where views were made from different topics, the id is none of theirs; a view without state does not count."""
    ready(store, ME, {V: 0}, topic_id="topic-1")
    assert store.claim(P0, [V, W], ME).topic_id == "topic-1"
    store.reset(P0, {W: 0}, ME, "topic-2")
    assert store.claim(P0, [V, W], ME).topic_id == "topic-1|topic-2"


def test_ten_thousand_states_in_one_call(store: StateStore, seed: int) -> None:
    """Writing, reading and deleting 10,000 entities each is one call, and none is lost or swapped."""
    rng = random.Random(seed)
    states = {b"entity-%d" % number: rng.randbytes(rng.randrange(200)) for number in range(10_000)}
    ready(store, ME, {V: 0, W: 0})
    both = write(view_write(V, 0, 10_000, states), view_write(W, 0, 10_000, states, {b"entity-5": b"later"}))
    assert store.apply(ME, both) is ApplyResult.OK
    keys = rng.sample(list(states), 10_000)
    found = store.read(P0, [V, W], keys)
    assert found.states[V] == [states[key] for key in keys]
    assert found.states[W] == [b"later" if key == b"entity-5" else states[key] for key in keys]
    assert store.apply(ME, write(view_write(V, 10_000, 10_001, delete=keys[:9_999]))) is ApplyResult.OK
    assert store.read(P0, [V], keys).states[V] == [None] * 9_999 + [states[keys[-1]]]


def test_a_state_may_be_large(store: StateStore) -> None:
    """States of a megabyte and keys of 256 bytes come back unchanged."""
    ready(store, ME, {V: 0})
    large = bytes(range(256)) * 4_096
    key = bytes(255 - number for number in range(256))
    assert store.apply(ME, write(view_write(V, 0, 1, {key: large, b"\r\n": b"$-1\r\n"}))) is ApplyResult.OK
    assert store.read(P0, [V], [key, b"\r\n"]).states[V] == [large, b"$-1\r\n"]


NAMES = strategies.sampled_from(["a", "a.b", "{a}", "a}", "{", "a%7D", "%", "ä"])
KEYS = strategies.one_of(
    strategies.binary(min_size=1, max_size=256), strategies.sampled_from([b"{a}", b"*", b":m", b":s", b"\r\n", b"\x00"])
)


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    names=strategies.lists(strategies.tuples(NAMES, NAMES, strategies.integers(0, 12)), min_size=2, max_size=4, unique=True),
    states=strategies.dictionaries(KEYS, strategies.binary(max_size=64), min_size=1, max_size=8),
)
def test_partitions_do_not_meet(subject: Subject, app: str, names: list[tuple[str, str, int]], states: dict[bytes, bytes]) -> None:
    """Whatever bytes apps, topics and keys hold, every partition of every app has states, offsets and owners of its own."""
    places = [(subject.store(f"{app}{name}"), TopicPartition(topic, number)) for name, topic, number in names]
    for number, (store, partition) in enumerate(places):
        ready(store, b"owner-%d" % number, {V: number}, partition)
        marked = {key: b"%d %b" % (number, state) for key, state in states.items()}
        moved = write(view_write(V, number, number + 100, marked), partition=partition, watermark_ms=number)
        assert store.apply(b"owner-%d" % number, moved) is ApplyResult.OK
    for number, (store, partition) in enumerate(places):
        found = store.read(partition, [V], list(states))
        assert found.owner == b"owner-%d" % number
        assert (found.heads[V].offset, found.heads[V].watermark_ms) == (number + 100, number)
        assert found.states[V] == [b"%d %b" % (number, state) for state in states.values()]


def test_of_many_writers_one_wins_every_offset(subject: Subject, app: str) -> None:
    """Threads that all try to move a partition from the offset they last saw: every offset is written once, by one of them."""
    ready(subject.store(app), ME, {V: 0})

    def move(writer: int) -> list[int]:
        store, won = subject.store(app), []
        while (offset := heads(store, [V])[V][0]) is not None and offset < 60:
            state = {b"chain": b"%d" % writer, b"%d" % offset: b"%d" % writer}
            if store.apply(ME, write(view_write(V, offset, offset + 1, state))) is ApplyResult.OK:
                won.append(offset)
        return won

    with ThreadPoolExecutor(4) as pool:
        wins = list(pool.map(move, range(4)))
    assert sorted(offset for won in wins for offset in won) == list(range(60))
    states = subject.states(app, P0, V)
    assert {offset: int(states[b"%d" % offset]) for offset in range(60)} == {
        offset: writer for writer, won in enumerate(wins) for offset in won
    }


def test_a_read_sees_one_instant(subject: Subject, app: str) -> None:
    """While somebody writes the same number into two views and many keys, a reader never sees two numbers at once."""
    keys = [b"%d" % number for number in range(50)]
    writer = subject.store(app)
    ready(writer, ME, {V: 0, W: 0})
    writer.apply(ME, write(*(view_write(view, 0, 1, dict.fromkeys(keys, b"1")) for view in (V, W))))
    done = threading.Event()

    def go_on() -> None:
        for offset in range(1, 200):
            state = dict.fromkeys(keys, b"%d" % (offset + 1))
            assert writer.apply(ME, write(*(view_write(view, offset, offset + 1, state) for view in (V, W)))) is ApplyResult.OK
        done.set()

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(go_on)
        reader = subject.store(app)
        while not done.is_set() and not written.done():
            found = reader.read(P0, [V, W], keys)
            seen = {head.offset for head in found.heads.values()} | {
                int(state or 0) for states in found.states.values() for state in states
            }
            assert len(seen) == 1
        written.result()


def test_a_note_waits_for_the_next_owner(store: StateStore) -> None:
    """Each claim finds the last note; it is taken away by None and by a drop, and another partition has its own."""
    assert store.claim(P0, ["view"], b"first").note is None
    assert store.note(P0, ["view"], b"first", b"one") is ApplyResult.OK
    assert store.note(P0, ["view"], b"first", bytes(range(256))) is ApplyResult.OK
    assert store.claim(P1, ["view"], b"first").note is None
    assert store.claim(P0, ["view"], b"second").note == bytes(range(256))
    assert store.claim(P0, ["view"], b"third").note == bytes(range(256))
    assert store.note(P0, ["view"], b"third", None) is ApplyResult.OK
    assert store.claim(P0, ["view"], b"fourth").note is None
    assert store.note(P0, ["view"], b"fourth", b"two") is ApplyResult.OK
    store.drop(P0, ["view"])
    assert store.claim(P0, ["view"], b"fifth").note is None


def test_only_the_owner_leaves_a_note(store: StateStore) -> None:
    """Who was fenced writes nothing and takes nothing away."""
    store.claim(P0, ["view", "other"], b"old")
    store.note(P0, ["view", "other"], b"old", b"mine")
    store.claim(P0, ["view", "other"], b"new")
    assert store.note(P0, ["view", "other"], b"old", b"zombie") is ApplyResult.FENCED
    assert store.note(P0, ["view", "other"], b"old", None) is ApplyResult.FENCED
    assert store.claim(P0, ["view", "other"], b"newer").note == b"mine"


def test_a_slot_knows_its_last_holder(store: StateStore) -> None:
    """Whoever announces a slot last holds it; slots do not meet."""
    assert store.holder("0") is None
    store.announce("0", "host-a pid 1")
    store.announce("0", "höst-b pid 2")
    store.announce("1", "host-c pid 3")
    assert (store.holder("0"), store.holder("1"), store.holder("2")) == ("höst-b pid 2", "host-c pid 3", None)


def test_empty_calls_are_harmless(store: StateStore) -> None:
    """No views and no keys are no error."""
    assert store.read(P0, [], [b"a"]).states == {}
    assert store.claim(P0, [], ME).heads == {}
    assert store.apply(ME, write()) is ApplyResult.OK
    assert store.reset(P0, {}, ME, "topic-1") is ApplyResult.OK
    assert store.adopt(P0, {}, ME) is ApplyResult.OK


def test_a_usable_store_passes_the_check(store: StateStore) -> None:
    """The check of a store as it should be warns of nothing."""
    assert store.check() == []


def test_a_flush_forgets_everybody(own_subject: Subject, app: str) -> None:
    """After a flush no offset, owner or state is left, so the old owner is fenced and a claim finds nothing."""
    store = own_subject.store(app)
    ready(store, ME, {V: 0})
    store.apply(ME, write(view_write(V, 0, 3, {b"a": b"x"})))
    own_subject.flush()
    assert store.apply(ME, write(view_write(V, 3, 4, {b"a": b"y"}))) is ApplyResult.FENCED
    claimed = store.claim(P0, [V], OTHER)
    assert (claimed.heads[V].offset, claimed.topic_id) == (None, None)
    assert store.read(P0, [V], [b"a"]).states[V] == [None]


def test_a_store_that_went_back_stands_there_as_a_whole(own_subject: Subject, app: str) -> None:
    """After a roll back states, offsets and watermarks are those of one earlier instant, and a write from the lost offset is BEHIND."""
    store = own_subject.store(app)
    for partition in (P0, P1):
        ready(store, ME, {V: 0}, partition)
        store.apply(ME, write(view_write(V, 0, 3, {b"a": b"early"}), partition=partition))
    own_subject.remember()
    store.apply(ME, write(view_write(V, 3, 9, {b"a": b"late", b"b": b"late"}), watermark_ms=2_000))
    own_subject.go_back()
    store = own_subject.store(app)
    assert store.apply(ME, write(view_write(V, 9, 10, {b"a": b"later"}))) is ApplyResult.BEHIND
    found = store.read(P0, [V], [b"a", b"b"])
    assert (found.heads[V].offset, found.heads[V].watermark_ms, found.states[V]) == (3, 1_000, [b"early", None])
    assert store.apply(ME, write(view_write(V, 3, 9, {b"a": b"late"}))) is ApplyResult.OK


def test_a_store_out_of_reach_is_a_named_error(own_subject: Subject, app: str) -> None:
    """Away, every call raises TransientError; back again, the same client works and finds what was there."""
    store = own_subject.store(app)
    ready(store, ME, {V: 0})
    store.apply(ME, write(view_write(V, 0, 3, {b"a": b"x"})))
    own_subject.go_away()
    calls = (
        lambda: store.claim(P0, [V], OTHER),
        lambda: store.read(P0, [V], [b"a"]),
        lambda: store.apply(ME, write(view_write(V, 3, 4))),
        lambda: store.reset(P0, {V: 0}, ME, "topic-1"),
        lambda: store.adopt(P0, {V: 3}, ME),
        lambda: store.announce("0", "me"),
        lambda: store.holder("0"),
        store.check,
    )
    for call in calls:
        with pytest.raises(TransientError):
            call()
    own_subject.come_back()
    found = store.read(P0, [V], [b"a"])
    assert (found.owner, found.heads[V].offset, found.states[V]) == (ME, 3, [b"x"])
    assert store.apply(ME, write(view_write(V, 3, 4, {b"a": b"y"}))) is ApplyResult.OK
