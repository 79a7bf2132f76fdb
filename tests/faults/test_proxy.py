"""The proxy does to a connection what it says, and only that."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.faults.proxy import HOST, Api, Proxy, Way

WAIT_S = 5.0


def read_frame(connection: socket.socket) -> bytes:
    """A message with its length before it; nothing at the end."""
    head = connection.recv(4, socket.MSG_WAITALL)
    return head + connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if head else b""


class Broker:
    """Answers every request with no error, and keeps what it was asked."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.port = self._listener.getsockname()[1]
        self.asked: list[tuple[int, int]] = []
        """API key and correlation id, in order."""
        self.ended = 0
        """Connections that the other side has ended or broken."""
        self._threads[0].start()

    def close(self) -> None:
        """End every thread; the connections have ended."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            while frame := read_frame(connection):
                key, _, correlation = struct.unpack_from(">hhi", frame, 4)
                self.asked.append((key, correlation))
                connection.sendall(struct.pack(">iiih", 10, correlation, 0, 0))
        self.ended += 1


class Client:
    """Asks and waits for answers."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection((HOST, port), timeout=WAIT_S)

    def ask(self, key: int, correlation: int, *, filling: int = 0) -> None:
        """Send a request."""
        body = struct.pack(">hhih", key, 0, correlation, 1) + b"c" + bytes(filling)
        self.connection.sendall(len(body).to_bytes(4, "big") + body)

    def answer(self) -> int:
        """The correlation id of the next answer."""
        return int.from_bytes(read_frame(self.connection)[4:8], "big")

    def silent(self) -> bool:
        """Whether nothing arrives for a moment."""
        self.connection.settimeout(0.2)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.connection.settimeout(WAIT_S)

    def broken(self) -> bool:
        """Whether the connection is reset."""
        try:
            return self.connection.recv(1) is None
        except ConnectionError:
            return True

    def close(self) -> None:
        """Go away."""
        self.connection.close()


def send_nonsense(port: int) -> None:
    """Send something that is no request, and wait for the end of the connection."""
    client = Client(port)
    client.connection.sendall(struct.pack(">i", 2) + b"no")
    assert client.silent()
    client.close()


Connect = Callable[[], Client]


@pytest.fixture
def broker() -> Iterator[Broker]:
    found = Broker()
    yield found
    found.close()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    with Proxy(broker.port) as found:
        yield found


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Connect]:
    clients: list[Client] = []

    def make() -> Client:
        clients.append(Client(proxy.port))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def wait(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.002)


@contextmanager
def taking(least_s: float, most_s: float) -> Iterator[None]:
    """What is done inside takes so long."""
    began = time.monotonic()
    yield
    assert least_s <= time.monotonic() - began < most_s


def test_it_passes_requests_and_replies(broker: Broker, connect: Connect, proxy: Proxy) -> None:
    """Untouched, every request and reply passes in order and unchanged, large ones too, and the end of one side is the other's."""
    client = connect()
    for number in range(50):
        client.ask(3, number, filling=number * 10_000)
    assert [client.answer() for _ in range(50)] == list(range(50))
    assert broker.asked == [(3, number) for number in range(50)]
    assert proxy.replies[3] == 50
    client.close()
    wait(lambda: broker.ended == 1, "the broker hears that the client went")


def test_it_delays_and_limits(connect: Connect, proxy: Proxy) -> None:
    """A delay counts once each way; a rate stretches what is large, and is shared."""
    client, other = connect(), connect()
    proxy.slow(delay_s=0.15)
    with taking(0.3, 1.0):
        client.ask(3, 1)
        client.answer()
    proxy.slow(bits_per_s=8 * 200_000)
    with taking(0.5, 2.0):
        client.ask(3, 2, filling=50_000)
        other.ask(3, 3, filling=50_000)
        client.answer()
        other.answer()
    proxy.slow()
    with taking(0.0, 0.15):
        client.ask(3, 4, filling=50_000)
        client.answer()


@pytest.mark.parametrize("way", list(Way))
def test_it_stalls_one_way(broker: Broker, connect: Connect, proxy: Proxy, way: Way) -> None:
    """Stalled one way, the other way still goes; nothing is lost when it flows again."""
    client = connect()
    client.ask(3, 0)
    client.answer()
    proxy.stall(way)
    client.ask(3, 1)
    assert client.silent()
    assert len(broker.asked) == (1 if way is Way.UP else 2)
    proxy.mend()
    assert client.answer() == 1


def test_it_cuts(broker: Broker, connect: Connect, proxy: Proxy) -> None:
    """A cut resets what is there on both sides, and whoever comes, until it is mended; it is counted."""
    client = connect()
    client.ask(3, 0)
    client.answer()
    proxy.cut()
    assert client.broken()
    wait(lambda: broker.ended == 1, "the broker's connection ends")
    assert connect().broken()
    assert (proxy.counted["reset"], proxy.counted["refused"]) == (1, 1)
    proxy.mend()
    client = connect()
    client.ask(3, 1)
    assert client.answer() == 1


def test_it_leaves_half_open(broker: Broker, connect: Connect, proxy: Proxy) -> None:
    """Half open, the broker loses the connection and the client hears nothing, and what it sends is gone; mended, it is told."""
    client = connect()
    client.ask(3, 0)
    client.answer()
    proxy.half_open()
    wait(lambda: broker.ended == 1, "the broker's connection ends")
    late = connect()
    for one in (client, late):
        one.ask(3, 1)
        assert one.silent()
    assert broker.asked == [(3, 0)]
    assert (proxy.counted["severed"], proxy.counted["swallowed"]) == (2, 2 * 15)
    proxy.mend()
    assert client.broken()
    assert late.broken()


def test_it_holds_a_request_until_another_succeeds(broker: Broker, connect: Connect, proxy: Proxy) -> None:
    """A held request outlives its client, and reaches the broker before the client of the awaited one has its answer."""
    client = connect()
    held = proxy.hold(Api.END_TXN, until=[Api.ADD_OFFSETS_TO_TXN])
    client.ask(Api.END_TXN, 7)
    wait(lambda: held.caught, "the request is held")
    client.close()
    again = connect()
    again.ask(Api.END_TXN, 1)
    assert again.answer() == 1
    assert not held.out
    again.ask(Api.ADD_OFFSETS_TO_TXN, 2)
    assert again.answer() == 2
    assert held.answer == 0
    assert broker.asked == [(Api.END_TXN, 1), (Api.ADD_OFFSETS_TO_TXN, 2), (Api.END_TXN, 7)]


def test_it_lets_a_held_request_out_by_hand(broker: Broker, connect: Connect, proxy: Proxy) -> None:
    """What is held goes when the test says so, and its answer is told to nobody else."""
    client = connect()
    held = proxy.hold(Api.END_TXN)
    client.ask(Api.END_TXN, 7)
    wait(lambda: held.caught, "the request is held")
    assert not broker.asked
    proxy.let_out(held)
    assert (broker.asked, held.answer) == ([(Api.END_TXN, 7)], 0)
    assert client.silent()


def test_it_drops_a_reply(broker: Broker, connect: Connect, proxy: Proxy) -> None:
    """One reply of the kind is dropped after the broker gave it; the next arrives."""
    client = connect()
    dropped = proxy.drop_reply(Api.END_TXN)
    for number, key in enumerate((Api.PRODUCE, Api.END_TXN, Api.END_TXN)):
        client.ask(key, number)
    assert [client.answer(), client.answer()] == [0, 2]
    assert (dropped.done, dropped.answer) == (True, 0)
    assert len(broker.asked) == 3


def test_what_breaks_inside_is_raised(broker: Broker) -> None:
    """What is no request of Kafka's breaks its connection, and fails the test at the end instead of being hidden."""
    proxy = Proxy(broker.port)
    with pytest.raises(struct.error), proxy:
        send_nonsense(proxy.port)
