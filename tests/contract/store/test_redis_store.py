"""What only a real server can do to the store: crash, roll back, run full, refuse, move. Kill -9 under load is in tests/faults."""

from __future__ import annotations

import datetime as dt
import random
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from headrace.errors import FatalError, StoreRefused, TransientError
from headrace.features import redis_store
from headrace.features.redis_connection import RIGHTS, Tls
from headrace.features.redis_store import RedisStore
from headrace.features.state_store import ApplyResult, aside
from headrace.local_process import wait_until
from headrace.local_stack import RedisServer
from headrace.types import TopicPartition
from tests.contract.store.conftest import Connect, Make
from tests.contract.store.subjects import P0, ask, come_back, heads, ready, view_write, write

ME, OTHER = b"nonce of mine", b"nonce of another"
V, W = "0123456789abcdef", "fedcba9876543210"
NUMBERS = [b"entity-%d" % number for number in range(40)]


def numbered(offset: int) -> dict[bytes, bytes]:
    """States that say which offset they belong to."""
    return dict.fromkeys(NUMBERS, b"%d " % offset * 20)


def write_on(store: RedisStore, start: int, end: int) -> None:
    """Apply one offset after the other, the same number into all keys of two views."""
    for offset in range(start, end):
        moved = write(*(view_write(view, offset, offset + 1, numbered(offset + 1)) for view in (V, W)), watermark_ms=offset + 1)
        assert store.apply(ME, moved) is ApplyResult.OK


def stands_whole(store: RedisStore) -> int | None:
    """The offset the partition stands at, after making sure that all of it belongs to that offset."""
    found = store.read(P0, [V, W], NUMBERS)
    assert len(set(found.heads.values())) == 1
    head = found.heads[V]
    for states in found.states.values():
        if head.offset:
            assert states == list(numbered(head.offset).values())
            assert head.watermark_ms == head.offset
        else:
            assert set(states) == {None}
    return head.offset


# What a crash leaves behind.


def test_a_killed_server_comes_back_as_a_whole(own_redis: Make, connect: Connect) -> None:
    """Kill -9 with an append-only file that is synced every second: some applies may be gone, but offset and states agree (T30)."""
    server = own_redis()
    store = connect(server)
    offset = None
    for _ in range(3):
        if offset is None:
            ready(store, ME, {V: 0, W: 0})
        begin = offset or 0
        write_on(store, begin, begin + 100)
        server.kill()
        come_back(server)
        offset = stands_whole(store)
        assert offset is None or offset <= begin + 100


def test_an_append_only_file_cut_anywhere_leaves_a_whole(own_redis: Make, connect: Connect, tmp_path: Path, seed: int) -> None:
    """60 cuts at random bytes of the append-only file: each time offset, watermark and states of all views agree (T40)."""
    rng = random.Random(seed)
    server = own_redis()
    store = connect(server)
    ready(store, ME, {V: 0, W: 0})
    write_on(store, 0, 200)
    server.stop()
    kept = shutil.copytree(server.folder / "appendonlydir", tmp_path / "kept")
    (log,) = kept.glob("*.incr.aof")
    seen = set()
    for _ in range(60):
        shutil.rmtree(server.folder / "appendonlydir")
        shutil.copytree(kept, server.folder / "appendonlydir")
        with (server.folder / "appendonlydir" / log.name).open("r+b") as cut:
            cut.truncate(rng.randrange(log.stat().st_size))
        come_back(server)
        seen.add(stands_whole(store))
        server.kill()
    assert len(seen) > 20


def test_a_server_set_back_to_an_old_dump_is_noticed(own_redis: Make, connect: Connect) -> None:
    """A dump that is 2,000 applies old: the partition stands where the dump was made, and nobody can write past the hole (T32)."""
    server = own_redis(appendonly="no", save='""')
    store = connect(server)
    ready(store, ME, {V: 0, W: 0})
    write_on(store, 0, 10)
    ask(server, "SAVE")
    shutil.copy(server.folder / "dump.rdb", server.folder / "old.rdb")
    write_on(store, 10, 2_010)
    server.kill()
    shutil.copy(server.folder / "old.rdb", server.folder / "dump.rdb")
    come_back(server)
    assert stands_whole(store) == 10
    assert store.apply(ME, write(view_write(V, 2_010, 2_011))) is ApplyResult.BEHIND
    write_on(store, 10, 12)
    assert stands_whole(store) == 12


def test_flushall_is_noticed(own_redis: Make, connect: Connect) -> None:
    """After FLUSHALL nobody owns a partition, so the first write is fenced and recovery begins (T33)."""
    server = own_redis()
    store = connect(server)
    ready(store, ME, {V: 0, W: 0})
    write_on(store, 0, 5)
    ask(server, "FLUSHALL")
    assert store.apply(ME, write(view_write(V, 5, 6))) is ApplyResult.FENCED
    assert stands_whole(store) is None


def test_a_half_sent_transaction_is_dropped(shared: RedisServer, connect: Connect, app: str) -> None:
    """A client that dies between MULTI and EXEC leaves nothing behind."""
    store = connect(shared)
    ready(store, ME, {V: 0})
    key = f"hr:{{{app}.{P0.topic}.0}}:{V}:s"
    with socket.create_connection(("127.0.0.1", shared.port)) as dying:
        dying.sendall(f"MULTI\r\nHSET {key} a x\r\n".encode())
        with dying.makefile("rb") as replies:
            assert [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+QUEUED\r\n"]
    assert store.read(P0, [V], [b"a"]).states[V] == [None]


def test_a_claim_between_check_and_write_fences(shared: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who claims after our check and before our EXEC wins: nothing of ours is written."""
    store, other = connect(shared), connect(shared)
    ready(store, ME, {V: 0})
    packing = redis_store._write

    def claim_meanwhile(*arguments: object) -> object:
        other.claim(P0, [V], OTHER)
        return packing(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(redis_store, "_write", claim_meanwhile)
    assert store.apply(ME, write(view_write(V, 0, 1, {b"a": b"x"}))) is ApplyResult.FENCED
    assert store.read(P0, [V], [b"a"]).states[V] == [None]
    assert heads(store, [V]) == {V: (0, None)}


def test_a_partition_that_never_rests_is_given_back(shared: RedisServer, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody touches the partition after every check the write gives up without having written."""
    store, other = connect(shared), connect(shared)
    ready(store, ME, {V: 0})
    packing = redis_store._write

    def touch_meanwhile(*arguments: object) -> object:
        other.claim(P0, [V], ME)
        return packing(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(redis_store, "_write", touch_meanwhile)
    with pytest.raises(TransientError, match="nothing was written"):
        store.apply(ME, write(view_write(V, 0, 1, {b"a": b"x"})))
    assert store.read(P0, [V], [b"a"]).states[V] == [None]


# What a server may refuse.


def test_a_server_that_hangs_is_away_after_the_time_out(own_redis: Make, connect: Connect) -> None:
    """A frozen server is a TransientError; once it goes on, the same write is OK, or BEHIND because it had arrived (T34)."""
    server = own_redis()
    store = connect(server, timeout_s=0.3)
    ready(store, ME, {V: 0})
    server.pause()
    moved = write(view_write(V, 0, 1, {b"a": b"x"}))
    with pytest.raises(TransientError, match="did not answer in time"):
        store.apply(ME, moved)
    server.resume()
    server.wait_ready()
    result = store.apply(ME, moved)
    assert result is ApplyResult.OK or heads(store, [V])[V][0] == 1
    assert store.read(P0, [V], [b"a"]).states[V] == [b"x"]


def test_a_full_server_waits_and_says_so(own_redis: Make, connect: Connect) -> None:
    """Out of memory nothing is written, the error names maxmemory, reads go on, and the write succeeds once there is room (T37)."""
    server = own_redis()
    store = connect(server)
    ready(store, ME, {V: 0, W: 0})
    write_on(store, 0, 3)
    ask(server, "CONFIG", "SET", "maxmemory", "1mb")
    big = write(*(view_write(view, 3, 4, dict.fromkeys(NUMBERS, b"x" * 100_000)) for view in (V, W)))
    with pytest.raises(TransientError, match="raise maxmemory"):
        store.apply(ME, big)
    with pytest.raises(TransientError, match="raise maxmemory"):
        store.claim(P0, [V, W], OTHER)
    assert stands_whole(store) == 3
    ask(server, "CONFIG", "SET", "maxmemory", "0")
    assert store.apply(ME, big) is ApplyResult.OK


def test_a_full_server_can_still_be_reset(own_redis: Make, connect: Connect) -> None:
    """A reset frees before it writes, so it works when nothing else does, and is whole."""
    server = own_redis()
    store = connect(server)
    ready(store, ME, {V: 0, W: 0})
    write_on(store, 0, 3)
    ask(server, "CONFIG", "SET", "maxmemory", "1mb")
    assert store.reset(P0, {V: 0, W: 0}, ME, "topic-2") is ApplyResult.OK
    assert stands_whole(store) == 0


def test_a_server_that_evicts_is_refused(own_redis: Make, connect: Connect) -> None:
    """Any policy but noeviction is refused with the command that mends it (T38)."""
    server = own_redis(maxmemory_policy="allkeys-lru")
    store = connect(server)
    with pytest.raises(StoreRefused, match="CONFIG SET maxmemory-policy noeviction"):
        store.check()
    ask(server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert store.check() == []


def test_a_server_without_append_only_file_is_warned_of(own_redis: Make, connect: Connect) -> None:
    """Such a server may be used; the warning names the command that mends it."""
    (warning,) = connect(own_redis(appendonly="no")).check()
    assert "CONFIG SET appendonly yes" in warning


def test_forgotten_scripts_are_sent_again(own_redis: Make, connect: Connect) -> None:
    """After SCRIPT FLUSH or a restart claim and reset work as before (T41, NOSCRIPT)."""
    server = own_redis()
    store = connect(server)
    for _ in range(2):
        ready(store, ME, {V: 0})
        ask(server, "SCRIPT", "FLUSH")
    server.kill()
    come_back(server)
    ready(store, ME, {V: 0})


def test_a_replica_is_waited_out(own_redis: Make, connect: Connect) -> None:
    """A read-only replica refuses writes as TransientError that names what to look at; promoted, it serves (T41, READONLY)."""
    primary, replica = own_redis(repl_diskless_sync_delay="0"), own_redis()
    store = connect(replica)
    ask(replica, "REPLICAOF", "127.0.0.1", str(primary.port))
    wait_until(
        lambda: b"master_link_status:up" in bytes(str(ask(replica, "INFO", "replication")), "utf-8"),
        what="the replica follows",
        deadline_s=30,
    )
    with pytest.raises(TransientError, match="read-only replica"):
        store.claim(P0, [V], ME)
    with pytest.raises(TransientError, match="replica"):
        store.check()
    ask(replica, "REPLICAOF", "NO", "ONE")
    ready(store, ME, {V: 0})
    assert store.check() == []


def test_wrong_credentials_are_refused(own_redis: Make, connect: Connect) -> None:
    """A wrong, missing or superfluous password is StoreRefused with the settings to check, and never appears in the text (T41)."""
    right = "right-canary"
    server = own_redis(requirepass=right)
    connect(server, password=right).claim(P0, [V], ME)
    connect(server, url=f"redis://:right-canary@127.0.0.1:{server.port}/0").claim(P0, [V], ME)
    connect(server, url=f"redis://:wrong@127.0.0.1:{server.port}/0", password=right).claim(P0, [V], ME)
    for credentials in ({"password": "wrong-canary"}, {}, {"username": "nobody-canary", "password": "right-canary"}):
        with pytest.raises(StoreRefused, match=r"redis\.password") as refused:
            connect(server, **credentials).claim(P0, [V], ME)
        assert "canary" not in str(refused.value)


def test_the_rights_we_ask_for_are_enough(own_redis: Make, connect: Connect) -> None:
    """A user with RIGHTS and no more can do everything the store does, and not FLUSHALL; without them the refusal names the command."""
    server, canary = own_redis(), "canary"
    ask(server, "ACL", "SETUSER", "mill", "on", f">{canary}", *RIGHTS.split())
    store = connect(server, username="mill", password=canary)
    assert store.check() == []
    ready(store, ME, {V: 0, W: 0})
    write_on(store, 0, 3)
    assert store.apply(ME, write(view_write(V, 1, 2))) is ApplyResult.BEHIND
    assert store.apply(ME, write(view_write(V, 3, 4, delete=[b"a"]))) is ApplyResult.OK
    store.announce("0", "me")
    assert (store.holder("0"), len(store.states(P0, V))) == ("me", len(NUMBERS))
    ready(store, ME, {aside(V): -1})
    store.apply(ME, write(view_write(aside(V), -1, 4, {b"a": b"x"})))
    assert store.adopt(P0, {V: 4}, ME) is ApplyResult.OK
    store.drop(P0, [W])
    ask(server, "ACL", "SETUSER", "mill", "-@write")
    with pytest.raises(StoreRefused, match="ACL SETUSER"):
        store.apply(ME, write(view_write(V, 4, 5)))
    ask(server, "ACL", "SETUSER", "mill", *RIGHTS.split(), "resetkeys", "~other:*")
    with pytest.raises(StoreRefused, match="ACL SETUSER"):
        store.claim(P0, [V], ME)


def test_another_layout_is_left_alone(shared: RedisServer, connect: Connect, app: str) -> None:
    """State of a layout we do not know is neither claimed nor changed."""
    store = connect(shared)
    ready(store, ME, {V: 0, W: 0})
    key = f"hr:{{{app}.{P0.topic}.0}}:{W}:m"
    ask(shared, "HSET", key, "v", "2")
    with pytest.raises(StoreRefused, match="layout 2"):
        store.claim(P0, [V, W], OTHER)
    assert store.read(P0, [V], []).owner == ME


def test_something_else_under_our_keys_is_refused(shared: RedisServer, connect: Connect, app: str) -> None:
    """A foreign value under one of our keys stops the worker instead of being read as no state."""
    store = connect(shared)
    ask(shared, "SET", f"hr:{{{app}.{P0.topic}.0}}:{V}:m", "foreign")
    with pytest.raises(StoreRefused, match="hr:"):
        store.read(P0, [V], [b"a"])
    with pytest.raises(StoreRefused, match="hr:"):
        store.claim(P0, [V], ME)


def test_what_is_no_redis_is_refused(app: str) -> None:
    """A web server behind redis.url is named as one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_http, args=(listener,))
        thread.start()
        store = RedisStore(app=app, url=f"redis://127.0.0.1:{listener.getsockname()[1]}/0", timeout_s=1.0)
        with pytest.raises((StoreRefused, TransientError)) as refused:
            store.check()
        thread.join()
        store.close()
    assert "does not speak the Redis protocol" in str(refused.value)


def _answer_http(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1_000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


# A cluster.


def test_a_cluster_is_followed(cluster: tuple[RedisServer, RedisServer], connect: Connect) -> None:
    """MOVED is followed to the node of each partition, whichever node is asked first, and no key leaves its partition's slot (T41)."""
    partitions = [TopicPartition("flights", number) for number in range(8)]
    for first in cluster:
        store = connect(first)
        for partition in partitions:
            ready(store, ME, {V: 0, W: 0}, partition)
            moved = write(*(view_write(view, 0, 1, {b"{a}": b"x", b"b": b"y"}) for view in (V, W)), partition=partition)
            assert store.apply(ME, moved) is ApplyResult.OK
            assert store.read(partition, [V, W], [b"{a}", b"b"]).states[W] == [b"x", b"y"]
            ready(store, ME, {aside(V): -1}, partition)
            store.apply(ME, write(view_write(aside(V), -1, 1, {b"b": b"z"}), partition=partition))
            assert store.adopt(partition, {V: 1}, ME) is ApplyResult.OK
            assert store.read(partition, [V], [b"{a}", b"b"]).states[V] == [None, b"z"]
        store.announce("0", "me")
        assert store.holder("0") == "me"
    assert all(ask(node, "DBSIZE") for node in cluster)


def test_a_slot_that_moves_is_followed(cluster: tuple[RedisServer, RedisServer], connect: Connect, app: str) -> None:
    """While a partition moves to another node its writes are TransientError that says so; then MOVED is followed, to all of it (T41)."""
    store = connect(cluster[0])
    ready(store, ME, {V: 0, W: 0})
    write_on(store, 0, 3)
    slot = str(ask(cluster[0], "CLUSTER", "KEYSLOT", f"hr:{{{app}.{P0.topic}.0}}:{V}:m"))
    old, new = cluster if int(slot) < 8_192 else cluster[::-1]
    old_name, new_name = (bytes(ask(node, "CLUSTER", "MYID")).decode() for node in (old, new))  # type: ignore[call-overload]
    ask(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", old_name)
    ask(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", new_name)
    keys = ask(old, "CLUSTER", "GETKEYSINSLOT", slot, "100")
    assert isinstance(keys, list)
    assert len(keys) == 4
    for number, key in enumerate(keys):
        ask(old, "MIGRATE", "127.0.0.1", str(new.port), key.decode(), "0", "5000")
        if number < len(keys) - 1:
            with pytest.raises(TransientError, match="moving these keys to another node"):
                write_on(store, 3, 4)
    for node in (new, old):
        ask(node, "CLUSTER", "SETSLOT", slot, "NODE", new_name)
    assert stands_whole(store) == 3
    write_on(store, 3, 6)
    assert stands_whole(store) == 6


def test_a_lost_node_is_waited_for(cluster: tuple[RedisServer, RedisServer], connect: Connect) -> None:
    """Partitions of a node that died are away, and served again when it is back."""
    store = connect(cluster[0])
    partitions = [TopicPartition("flights", number) for number in range(8)]
    for partition in partitions:
        ready(store, ME, {V: 0}, partition)
    cluster[1].kill()
    away = [partition for partition in partitions if _away(store, partition)]
    assert away
    come_back(cluster[1])
    wait_until(lambda: not any(_away(store, partition) for partition in partitions), what="the cluster is whole again", deadline_s=60)


def _away(store: RedisStore, partition: TopicPartition) -> bool:
    try:
        store.read(partition, [V], [b"a"])
    except TransientError:
        return True
    return False


# TLS: the server's side is a small relay, as a server built without TLS cannot play it.


@pytest.fixture
def authority() -> trustme.CA:
    """Who signs certificates here."""
    return trustme.CA()


@pytest.fixture
def relay(shared: RedisServer) -> Iterator[Callable[[ssl.SSLContext], int]]:
    """Makes ports that take TLS and pass plain bytes on to the server."""
    listeners: list[socket.socket] = []

    def make(tls: ssl.SSLContext) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=_relay, args=(listener, tls, shared.port), daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield make
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _relay(listener: socket.socket, tls: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        try:
            outer = tls.wrap_socket(plain, server_side=True)
        except (ssl.SSLError, OSError):
            plain.close()
            continue
        inner = socket.create_connection(("127.0.0.1", port))
        for source, target in ((outer, inner), (inner, outer)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while block := source.recv(65_536):
            target.sendall(block)
    except OSError:
        return
    finally:
        target.close()


def server_side(authority: trustme.CA, **options: object) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for this machine."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost", **options).configure_cert(tls)  # type: ignore[arg-type]
    return tls


def test_tls_is_spoken_to_whom_we_know(
    relay: Callable[[ssl.SSLContext], int], authority: trustme.CA, connect: Connect, shared: RedisServer, tmp_path: Path
) -> None:
    """rediss:// with the authority's file works, also where the server asks for our own certificate."""
    ca, certificate, key = (str(tmp_path / name) for name in ("ca.pem", "certificate.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    mine = authority.issue_cert("worker@example.org")
    mine.private_key_pem.write_to_path(key)
    mine.cert_chain_pems[0].write_to_path(certificate)
    asks = server_side(authority)
    asks.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(asks)
    store = connect(shared, url=f"rediss://127.0.0.1:{relay(asks)}/0", tls=Tls(ca=ca, certificate=certificate, key=key))
    ready(store, ME, {V: 0, W: 0})
    write_on(store, 0, 3)
    assert stands_whole(store) == 3
    with pytest.raises(TransientError):
        connect(shared, url=f"rediss://127.0.0.1:{relay(asks)}/0", tls=Tls(ca=ca)).claim(P0, [V], ME)


def test_an_expired_or_unknown_certificate_is_refused(
    relay: Callable[[ssl.SSLContext], int], authority: trustme.CA, connect: Connect, shared: RedisServer, tmp_path: Path
) -> None:
    """A certificate that is out of date, or of an unknown authority, is StoreRefused with the reason and the next step (T41)."""
    ca = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ca)
    long_ago = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    expired = relay(server_side(authority, not_before=long_ago, not_after=long_ago + dt.timedelta(days=1)))
    with pytest.raises(StoreRefused, match=r"renew it.*expired"):
        connect(shared, url=f"rediss://127.0.0.1:{expired}/0", tls=Tls(ca=ca)).check()
    unknown = relay(server_side(trustme.CA()))
    with pytest.raises(StoreRefused, match=r"redis\.tls_ca"):
        connect(shared, url=f"rediss://127.0.0.1:{unknown}/0", tls=Tls(ca=ca)).check()


def test_the_port_of_another_program_is_not_hurt(shared: RedisServer) -> None:
    """The servers these tests may hurt are never the shared one: that one refuses to be started twice."""
    with pytest.raises(FatalError, match="runs already"):
        shared.start()
