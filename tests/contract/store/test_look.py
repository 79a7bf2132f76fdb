"""What look-ups ask of every store: the states of some entities in one round trip, the head of their partition of the same instant."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import pytest

from headrace.errors import StoreRefused, TransientError
from headrace.features.redis_connection import LOOKUP_RIGHTS
from headrace.features.redis_store import RedisStore
from headrace.features.state_store import ApplyResult, Ask, StateStore
from headrace.local_process import wait_until
from headrace.local_stack import RedisServer
from headrace.types import TopicPartition, ViewHead
from tests.contract.store.conftest import Connect, Make
from tests.contract.store.subjects import P0, P1, Subject, ask, come_back, ready, view_write, write

ME = b"nonce of mine"
V, W = "0123456789abcdef", "fedcba9876543210"
TOPIC = P0.topic


def look(store: StateStore, keys: Mapping[int, Sequence[bytes]], view: str = V) -> tuple[int | None, object, object]:
    """What a look-up of some keys by partition gives: partitions, heads, states."""
    (found,) = store.look([Ask(TOPIC, view, keys)])
    heads = {number: (head.offset, head.watermark_ms) for number, head in found.heads.items()}
    return found.partitions, heads, {number: list(states) for number, states in found.states.items()}


def fill(store: StateStore, partitions: Sequence[TopicPartition] = (P0, P1)) -> None:
    """Two views in each partition, the state of an entity telling view and partition."""
    for name in partitions:
        ready(store, ME, {V: 0, W: 0}, name)
        told = [view_write(view, 0, 5, {b"a": f"{view} {name.partition}".encode(), b"b": b"\r\n"}) for view in (V, W)]
        assert store.apply(ME, write(*told, partition=name, watermark_ms=-7 + name.partition)) is ApplyResult.OK


def test_a_store_that_knows_nothing(store: StateStore) -> None:
    """There is no number of partitions, no head and no state."""
    assert look(store, {3: [b"a"]}) == (None, {3: (None, None)}, {3: [None]})
    assert look(store, {}) == (None, {}, {})


def test_what_was_applied_is_found(store: StateStore) -> None:
    """States come in the order of their keys, repeated and missing ones too, with the head of each partition; other views are not in it."""
    fill(store)
    store.set_partitions(TOPIC, 2)
    assert look(store, {1: [b"b", b"none", b"a", b"a"], 0: [b"a"]}, W) == (
        2,
        {1: (5, -6), 0: (5, -7)},
        {1: [b"\r\n", None, f"{W} 1".encode(), f"{W} 1".encode()], 0: [f"{W} 0".encode()]},
    )


def test_several_questions_in_one_round_trip(store: StateStore) -> None:
    """Each question of one call has an answer of its own, in their order, of any view and topic."""
    fill(store)
    store.set_partitions(TOPIC, 2)
    first, second, third = store.look([Ask(TOPIC, V, {0: [b"a"]}), Ask("another.v1", V, {0: [b"a"]}), Ask(TOPIC, W, {1: [b"a"]})])
    assert (first.partitions, second.partitions, third.partitions) == (2, None, 2)
    assert (first.states, second.states, third.states) == ({0: [f"{V} 0".encode()]}, {0: [None]}, {1: [f"{W} 1".encode()]})
    assert store.look([]) == []


def test_what_is_being_rebuilt_is_not_seen(store: StateStore) -> None:
    """From a reset until it stands where it was, a view holds a part of what it should: it looks as if it were not there."""
    fill(store)
    assert store.reset(P0, {V: 1}, ME, "topic-1", whole_from=5) is ApplyResult.OK
    for begin, end in ((1, 3), (3, 4)):
        assert store.apply(ME, write(view_write(V, begin, end, {b"a": b"a part"}), watermark_ms=9)) is ApplyResult.OK
        assert look(store, {0: [b"a", b"b"]})[1:] == ({0: (None, None)}, {0: [None, None]})
    assert look(store, {0: [b"a"]}, W)[1:] == ({0: (5, -7)}, {0: [f"{W} 0".encode()]}), "the other view is whole"
    assert store.apply(ME, write(view_write(V, 4, 5, {b"a": b"all"}), watermark_ms=9)) is ApplyResult.OK
    assert look(store, {0: [b"a"]})[1:] == ({0: (5, 9)}, {0: [b"all"]})


def test_the_number_of_partitions_is_replaced(store: StateStore, subject: Subject, app: str) -> None:
    """It is kept per app and topic, and the last word counts."""
    store.set_partitions(TOPIC, 4)
    store.set_partitions("another.v1", 9)
    store.set_partitions(TOPIC, 12)
    assert look(store, {})[0] == 12
    assert look(subject.store(f"{app}2"), {})[0] is None


def test_many_entities_of_many_partitions(store: StateStore) -> None:
    """1,000 keys of any bytes in each of twelve partitions come back in one look."""
    keys = [b"{%d}\r\n\x00\xff" % number for number in range(1_000)]
    for number in range(12):
        name = TopicPartition(TOPIC, number)
        ready(store, ME, {V: 0}, name)
        store.apply(ME, write(view_write(V, 0, 1, {key: b"%d " % number + key for key in keys}), partition=name))
    _, heads, states = look(store, dict.fromkeys(range(12), keys))
    assert heads == dict.fromkeys(range(12), (1, 1_000))
    assert states == {number: [b"%d " % number + key for key in keys] for number in range(12)}


def test_state_and_head_are_of_one_instant(subject: Subject, app: str) -> None:
    """While somebody writes on, every look finds the states, the offset and the watermark of one and the same apply."""
    store, reader = subject.store(app), subject.store(app)
    ready(store, ME, {V: 0})
    done = threading.Event()

    def write_on() -> None:
        for offset in range(300):
            told = dict.fromkeys((b"a", b"b", b"c"), b"%d" % (offset + 1))
            store.apply(ME, write(view_write(V, offset, offset + 1, told), watermark_ms=offset + 1))
        done.set()

    writer = threading.Thread(target=write_on)
    writer.start()
    looked = 0
    while not done.is_set() or not looked:
        (found,) = reader.look([Ask(TOPIC, V, {0: [b"a", b"b", b"c"]})])
        head, (state, *others) = found.heads[0], found.states[0]
        assert others == [state, state]
        if head.offset:
            assert (head, state) == (ViewHead(offset=head.offset, watermark_ms=head.offset), b"%d" % head.offset)
        looked += 1
    writer.join()


def test_a_flush_takes_the_number_too(own_subject: Subject, app: str) -> None:
    """An emptied store knows no number of partitions; one that is away is a TransientError, and answers when it is back."""
    store = own_subject.store(app)
    fill(store)
    store.set_partitions(TOPIC, 2)
    own_subject.go_away()
    with pytest.raises(TransientError):
        look(store, {0: [b"a"]})
    with pytest.raises(TransientError):
        store.set_partitions(TOPIC, 2)
    own_subject.come_back()
    assert look(store, {0: [b"b"]}) == (2, {0: (5, -7)}, {0: [b"\r\n"]})
    own_subject.flush()
    assert look(store, {0: [b"b"]}) == (None, {0: (None, None)}, {0: [None]})


# What only a real server can do.


def test_another_layout_is_refused(shared: RedisServer, connect: Connect, app: str) -> None:
    """State of a layout we do not know is refused with both layouts and what to do."""
    store = connect(shared)
    fill(store)
    ask(shared, "HSET", f"hr:{{{app}.{TOPIC}.1}}:{V}:m", "v", "2")
    assert look(store, {0: [b"b"]})[1] == {0: (5, -7)}
    with pytest.raises(StoreRefused, match="has layout 2, this version knows 1: run the version of headrace that wrote it"):
        look(store, {0: [b"b"], 1: [b"b"]})


def test_something_else_under_our_keys_is_refused(shared: RedisServer, connect: Connect, app: str) -> None:
    """A foreign value under one of our keys is refused instead of being read as no state; the connection is good for the next look."""
    store = connect(shared)
    fill(store)
    ask(shared, "SET", f"hr:{{{app}.{TOPIC}.7}}:{V}:s", "foreign")
    with pytest.raises(StoreRefused, match="hr:"):
        look(store, {0: [b"b"], 7: [b"b"], 1: [b"b"]})
    assert look(store, {1: [b"b"]})[2] == {1: [b"\r\n"]}


def test_a_full_server_still_answers(own_redis: Make, connect: Connect) -> None:
    """A server that is out of memory queues not even a read in a MULTI; look-ups are answered all the same."""
    server = own_redis()
    store = connect(server)
    fill(store)
    store.set_partitions(TOPIC, 2)
    before = look(store, {0: [b"a"], 1: [b"a", b"c"]})
    ask(server, "CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(TransientError, match="raise maxmemory"):
        store.set_partitions(TOPIC, 3)
    assert look(store, {0: [b"a"], 1: [b"a", b"c"]}) == before


def test_a_user_who_may_only_look(own_redis: Make, connect: Connect) -> None:
    """A user with LOOKUP_RIGHTS and no more can look up, also when the server is full, and write nothing; fewer are refused by name."""
    server, canary = own_redis(), "canary"
    store = connect(server)
    fill(store)
    store.set_partitions(TOPIC, 2)
    ask(server, "ACL", "SETUSER", "reader", "on", f">{canary}", *LOOKUP_RIGHTS.split())
    reader = connect(server, username="reader", password=canary)
    assert look(reader, {0: [b"b"]}) == look(store, {0: [b"b"]})
    ask(server, "CONFIG", "SET", "maxmemory", "1mb")
    assert look(reader, {0: [b"b"]}) == look(store, {0: [b"b"]})
    with pytest.raises(StoreRefused):
        reader.set_partitions(TOPIC, 3)
    ask(server, "ACL", "SETUSER", "reader", "-multi")
    with pytest.raises(StoreRefused, match="lets our user look nothing up; run `ACL SETUSER <user> -@all"):
        look(reader, {0: [b"b"]})


def test_a_server_that_was_restarted(own_redis: Make, connect: Connect) -> None:
    """The first look after a restart finds the closed connection and opens another; nobody sees an error."""
    server = own_redis()
    store = connect(server)
    fill(store)
    assert look(store, {0: [b"b"]})[2] == {0: [b"\r\n"]}
    server.stop()
    come_back(server)
    assert look(store, {0: [b"b"]})[2] == {0: [b"\r\n"]}


def test_a_server_that_hangs(own_redis: Make, connect: Connect) -> None:
    """A frozen server is away after the time-out, and no late reply is taken for the next answer."""
    server = own_redis()
    store = connect(server, timeout_s=0.3)
    fill(store)
    server.pause()
    with pytest.raises(TransientError, match="did not answer in time"):
        look(store, {0: [b"a"]})
    server.resume()
    server.wait_ready()
    assert look(store, {1: [b"b"]})[1:] == ({1: (5, -6)}, {1: [b"\r\n"]})


def test_a_cluster(cluster: tuple[RedisServer, RedisServer], connect: Connect) -> None:
    """One look gathers partitions from all nodes, whichever is known at the start, before and after their places are learned."""
    partitions = [TopicPartition(TOPIC, number) for number in range(16)]
    writer = connect(cluster[0])
    fill(writer, partitions)
    writer.set_partitions(TOPIC, 16)
    right = (
        16,
        {name.partition: (5, -7 + name.partition) for name in partitions},
        {name.partition: [None, f"{V} {name.partition}".encode()] for name in partitions},
    )
    for first in cluster:
        store = connect(first)
        for _ in range(3):
            assert look(store, {name.partition: [b"c", b"a"] for name in partitions}) == right
        assert len(store._server._idle) == 2


def test_a_full_cluster(cluster: tuple[RedisServer, RedisServer], connect: Connect) -> None:
    """Out of memory on all nodes the answer is the same, and each slot is still looked for at the node that has it."""
    partitions = [TopicPartition(TOPIC, number) for number in range(16)]
    store = connect(cluster[0])
    fill(store, partitions)
    store.set_partitions(TOPIC, 16)
    keys = {name.partition: [b"b"] for name in partitions}
    before = look(store, keys)
    for node in cluster:
        ask(node, "CONFIG", "SET", "maxmemory", "1mb")
    assert look(store, keys) == before
    for number in keys:
        look(store, {number: [b"b"]})
        learned = {slot: int(address.rpartition(":")[2]) for slot, address in store._server._routes.items()}
        assert learned == {slot: cluster[slot >= 8_192].port for slot in learned}


def test_a_slot_that_moved(cluster: tuple[RedisServer, RedisServer], connect: Connect, app: str) -> None:
    """A look whose partition has moved to another node follows it; while it moves the look is a TransientError that says so."""
    store = connect(cluster[0])
    fill(store)
    assert isinstance(store, RedisStore)
    slot = str(ask(cluster[0], "CLUSTER", "KEYSLOT", f"hr:{{{app}.{TOPIC}.0}}:{V}:m"))
    old, new = cluster if int(slot) < 8_192 else cluster[::-1]
    old_name, new_name = (bytes(ask(node, "CLUSTER", "MYID")).decode() for node in (old, new))  # type: ignore[call-overload]
    before = look(store, {0: [b"a"], 1: [b"a"]})
    ask(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", old_name)
    ask(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", new_name)
    keys = ask(old, "CLUSTER", "GETKEYSINSLOT", slot, "100")
    assert isinstance(keys, list)
    for key in keys:
        ask(old, "MIGRATE", "127.0.0.1", str(new.port), key.decode(), "0", "5000")
    with pytest.raises(TransientError, match="moving these keys to another node"):
        look(store, {0: [b"a"], 1: [b"a"]})
    for node in (new, old):
        ask(node, "CLUSTER", "SETSLOT", slot, "NODE", new_name)
    assert look(store, {0: [b"a"], 1: [b"a"]}) == before


def test_a_lost_node(cluster: tuple[RedisServer, RedisServer], connect: Connect) -> None:
    """When one node is gone a look that needs it is a TransientError and leaves no half-read connection behind."""
    partitions = [TopicPartition(TOPIC, number) for number in range(16)]
    store = connect(cluster[0])
    fill(store, partitions)
    every = {name.partition: [b"b"] for name in partitions}
    before = look(store, every)
    cluster[1].stop()
    with pytest.raises(TransientError):
        look(store, every)
    come_back(cluster[1])
    assert _asked_until_there(store, every) == before


def _asked_until_there(store: StateStore, keys: Mapping[int, Sequence[bytes]]) -> object:
    """The answer, once the cluster is whole again."""
    found: list[object] = []

    def answered() -> bool:
        try:
            found.append(look(store, keys))
        except TransientError:
            return False
        return True

    wait_until(answered, what="the cluster is whole again", deadline_s=60)
    return found[-1]
