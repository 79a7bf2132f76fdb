"""A TCP proxy between a worker and a broker: it passes, delays, limits, stalls, cuts, leaves half open, and holds or drops single messages.

It reads the frames of Kafka's protocol, so it knows which request it has before it (API key, correlation id, client id) and which request a
reply answers. A broker tells its clients where it is; `proxied` makes one that tells those who come through a proxy the proxy's address.
Whatever is broken is counted: a test asks whether its fault was one.

Limits: frames pass whole, so a cut never falls into the middle of one; a reply's error code is read only where it stands first (EndTxn and
AddOffsetsToTxn, in the versions before tagged fields).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import TracebackType
from typing import Any, Self, TypeVar

from headrace.local_stack import free_port

HOST = "127.0.0.1"
PIECE = 16_384
"""A frame is sent in pieces of so many bytes, so that a slow line is shared."""
QUEUED = 64
"""Frames that wait in one direction of a connection before its sender has to."""
ANSWER_S = 10.0
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: the other side sees its connection reset."""

Answer = TypeVar("Answer")


class Api(IntEnum):
    """API keys of Kafka's protocol."""

    PRODUCE = 0
    FETCH = 1
    HEARTBEAT = 12
    INIT_PRODUCER_ID = 22
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


SAYS_AT_ONCE = frozenset({Api.ADD_OFFSETS_TO_TXN, Api.END_TXN})
"""Kinds of requests whose reply begins with the throttle time and an error code."""


class Way(Enum):
    """A direction."""

    UP = "to the broker"
    DOWN = "to the client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who asked for what."""

    key: int
    correlation: int
    client: str

    @classmethod
    def of(cls, frame: bytes) -> Self:
        """Read the head of a request."""
        key, _, correlation, length = struct.unpack_from(">hhih", frame, 4)
        return cls(key=key, correlation=correlation, client=frame[14 : 14 + max(0, length)].decode())


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """One request that is kept back: let out when one of another kind has succeeded, or by `Proxy.let_out`."""

    key: int
    until: Collection[int]
    stalls: bool
    caught: bool = False
    out: bool = False
    answer: int | None = None
    """The error code with which the broker answered when it was out."""
    frame: bytes = b""
    connection: _Connection | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, kw_only=True, eq=False)
class Dropped:
    """One reply that never arrives."""

    key: int
    done: bool = False
    answer: int | None = None
    """The error code that nobody heard."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Line:
    """One direction of all connections together."""

    delay_s: float = 0.0
    bytes_per_s: float | None = None
    free_at_s: float = 0.0
    """When the line has room again."""
    flows: asyncio.Event = field(default_factory=asyncio.Event)


Queue = asyncio.Queue[tuple[float, bytes] | None]


@dataclass(slots=True, kw_only=True, eq=False)
class _Connection:
    """A client's connection and ours to the broker."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    asked: dict[int, Request] = field(default_factory=dict)
    held: Held | None = None
    severed: bool = False
    """Whether the broker's side is closed and the client was not told."""

    def reset(self) -> None:
        """Break both sides."""
        _reset(self.client)
        _reset(self.broker)


class Proxy:
    """Listens on `port` and passes on to `target`, both on this machine; all methods may be called from any thread."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.port, self._target = port, target
        self.counted: Counter[str] = Counter()
        """What was done to connections and bytes: "opened", "reset", "refused", "severed", "stalled" and "swallowed"."""
        self.replies: Counter[int] = Counter()
        """How many the broker gave, by API key."""
        self._loop = asyncio.new_event_loop()
        self._lines = {way: _Line() for way in Way}
        self._connections: set[_Connection] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._holds: list[Held] = []
        self._drops: list[Dropped] = []
        self._cut = self._half_open = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._wait(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Break everything, and raise what went wrong inside."""
        self._wait(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        if self._error is not None and error is None:
            raise self._error

    # -------------------------------------------------------------------------------------------------------------- faults

    def slow(self, *, delay_s: float = 0.0, bits_per_s: float | None = None) -> None:
        """In each direction: every byte arrives so much later, and so many fit through."""

        def change() -> None:
            for line in self._lines.values():
                line.delay_s, line.bytes_per_s = delay_s, None if bits_per_s is None else bits_per_s / 8

        self._do(change)

    def stall(self, *ways: Way) -> None:
        """Nothing goes these ways, new connections included, until `mend`; nothing is lost."""
        self._do(lambda: self._stop(*ways))

    def cut(self) -> None:
        """Reset every connection, and every new one, until `mend`."""

        def change() -> None:
            self._cut = True
            self.counted["reset"] += len(self._connections)
            for connection in self._connections:
                connection.reset()

        self._do(change)

    def half_open(self) -> None:
        """The broker loses every connection, the client is not told: what it sends goes nowhere, on new connections too, until `mend`."""

        def change() -> None:
            self._half_open = True
            self.counted["severed"] += len(self._connections)
            for connection in self._connections:
                connection.severed = True
                _reset(connection.broker)

        self._do(change)

    def mend(self) -> None:
        """Everything flows again; the client of a half-open connection hears now that it is broken."""

        def change() -> None:
            self._cut = self._half_open = False
            for line in self._lines.values():
                line.flows.set()
            for connection in self._connections:
                if connection.severed:
                    connection.reset()

        self._do(change)

    def hold(self, key: Api, *, until: Collection[Api] = (), stalls: bool = False) -> Held:
        """Keep the next request of a kind back, even from a client that gives up waiting.

        `until`: when the broker has answered one of these kinds (and not said no), the held one is let out, and answered before the
        client has that answer. `stalls`: then nothing more goes either way.
        """
        held = Held(key=key, until=until, stalls=stalls)
        self._do(lambda: self._holds.append(held))
        return held

    def let_out(self, held: Held) -> None:
        """Let a held request go to the broker, and wait for its answer, which the client does not get."""
        self._wait(self._let_out(held))

    def drop_reply(self, key: Api) -> Dropped:
        """Let the next request of a kind reach the broker, and its reply nobody."""
        dropped = Dropped(key=key)
        self._do(lambda: self._drops.append(dropped))
        return dropped

    # ---------------------------------------------------------------------------------------------------------- connections

    async def _listen(self) -> None:
        for line in self._lines.values():
            line.flows.set()
        self._server = await asyncio.start_server(self._accepted, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        self._server.close()
        for writer in self._writers:
            _reset(writer)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while any(map(_is_open, self._writers)):  # noqa: ASYNC110 - a transport has no event for its end, a turn later
            await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._error = self._error or task.exception()

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._cut:
            self.counted["refused"] += 1
            _reset(client)
            return
        try:
            from_broker, broker = await asyncio.open_connection(HOST, self._target)
        except OSError:
            _reset(client)
            return
        self._writers.append(broker)
        connection = _Connection(client=client, broker=broker)
        if self._half_open:
            self.counted["severed"] += 1
            connection.severed = True
            _reset(broker)
        self._connections.add(connection)
        self.counted["opened"] += 1
        up, down = Queue(QUEUED), Queue(QUEUED)
        parts = [
            self._loop.create_task(part)
            for part in (
                self._read_requests(connection, from_client, up),
                self._read_replies(connection, from_broker, down),
                self._send(connection, Way.UP, broker, up),
                self._send(connection, Way.DOWN, client, down),
            )
        ]
        try:
            # A side that ends has told its sender, which ends when all is sent.
            while not any(part.done() for part in parts[2:]) and not any(part.done() and part.exception() for part in parts[:2]):
                await asyncio.wait([part for part in parts if not part.done()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            for found in await asyncio.gather(*parts, return_exceptions=True):
                if isinstance(found, Exception):
                    self._error = self._error or found
            self._connections.discard(connection)
            if connection.severed:
                _reset(client)
            for writer in (client, broker):
                writer.close()

    async def _read_requests(self, connection: _Connection, reader: asyncio.StreamReader, queue: Queue) -> None:
        async for frame in _frames(reader):
            request = Request.of(frame)
            connection.asked[request.correlation] = request
            held = next((one for one in self._holds if one.key == request.key), None)
            if held is not None and not connection.severed:
                self._holds.remove(held)
                held.frame, held.connection, held.caught = frame, connection, True
                connection.held = held
                continue
            await queue.put((self._loop.time() + self._lines[Way.UP].delay_s, frame))
        if connection.held is not None:
            await connection.held.answered.wait()
        await queue.put(None)

    async def _read_replies(self, connection: _Connection, reader: asyncio.StreamReader, queue: Queue) -> None:
        async for frame in _frames(reader):
            request = connection.asked.pop(int.from_bytes(frame[4:8], "big"))
            self.replies[request.key] += 1
            held = connection.held
            if held is not None and held.out and held.answer is None and Request.of(held.frame) == request:
                held.answer = _error(request, frame)
                held.answered.set()
                continue
            dropped = next((one for one in self._drops if one.key == request.key), None)
            if dropped is not None:
                self._drops.remove(dropped)
                dropped.done, dropped.answer = True, _error(request, frame)
                continue
            for other in list(self._connections):
                due = other.held
                if due is not None and not due.out and request.key in due.until and not _error(request, frame):
                    await self._let_out(due)
            await queue.put((self._loop.time() + self._lines[Way.DOWN].delay_s, frame))
        if not connection.severed:
            await queue.put(None)

    async def _let_out(self, held: Held) -> None:
        if held.connection is None:
            raise ValueError("nothing is held yet")
        held.out = True
        held.connection.broker.write(held.frame)
        await asyncio.wait_for(held.answered.wait(), ANSWER_S)
        if held.stalls:
            self._stop(*Way)

    def _stop(self, *ways: Way) -> None:
        for way in ways:
            self._lines[way].flows.clear()

    async def _send(self, connection: _Connection, way: Way, writer: asyncio.StreamWriter, queue: Queue) -> None:
        line = self._lines[way]
        while (found := await queue.get()) is not None:
            due_s, frame = found
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))
            for begin in range(0, len(frame), PIECE):
                piece = frame[begin : begin + PIECE]
                if line.bytes_per_s is not None:
                    line.free_at_s = max(line.free_at_s, self._loop.time()) + len(piece) / line.bytes_per_s
                    await asyncio.sleep(line.free_at_s - self._loop.time())
                self.counted["stalled"] += not line.flows.is_set()
                await line.flows.wait()
                if connection.severed:
                    self.counted["swallowed"] += len(piece)
                    continue
                try:
                    writer.write(piece)
                    await writer.drain()
                except ConnectionError:
                    return

    # ------------------------------------------------------------------------------------------------------------- threads

    def _do(self, change: Callable[[], None]) -> None:
        async def inside() -> None:
            change()

        self._wait(inside())

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_S + 5)


def proxied(ports: Sequence[int], proxies: Sequence[int]) -> dict[str, Any]:
    """Arguments of `Stack.up` for one broker that also listens on `ports`, and tells who comes there to come to `proxies` instead.

    So each worker can have a proxy of its own, while the test itself goes to the broker directly.
    """
    own = free_port()
    names = [f"PROXY{number}" for number in range(len(ports))]
    kinds = ["CONTROLLER:PLAINTEXT", "PLAINTEXT:PLAINTEXT", *(f"{name}:PLAINTEXT" for name in names)]
    told = [f"PLAINTEXT://{HOST}:{own}", *(f"{name}://{HOST}:{port}" for name, port in zip(names, proxies, strict=True))]
    return {
        "brokers": 1,
        "redis": False,
        "kafka_ports": [own],
        "kafka_listeners": {name: [port] for name, port in zip(names, ports, strict=True)},
        "kafka_properties": {"listener.security.protocol.map": ",".join(kinds), "advertised.listeners": ",".join(told)},
    }


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The messages of one side, with their length before them, until it ends."""
    while True:
        try:
            head = await reader.readexactly(4)
            yield head + await reader.readexactly(int.from_bytes(head, "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return


def _error(request: Request, reply: bytes) -> int | None:
    """The error code of a reply; None where it does not stand at the beginning."""
    return int.from_bytes(reply[12:14], "big", signed=True) if request.key in SAYS_AT_ONCE else None


def _is_open(writer: asyncio.StreamWriter) -> bool:
    return bool(writer.get_extra_info("socket").fileno() >= 0)


def _reset(writer: asyncio.StreamWriter) -> None:
    if _is_open(writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
