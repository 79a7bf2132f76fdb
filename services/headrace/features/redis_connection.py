"""Conversations with a server that speaks the Redis protocol: connections, packed commands, and what its errors mean for us.

A conversation is a function that asks one connection several questions in turn. It has that connection to itself, so
several threads may converse at the same time; the connection of a conversation that failed is closed, so no reply can ever be read
by the next one. Only connecting is tried again by itself, with jitter: whether a command that got no reply was done is for the
caller to find out.

In a cluster the node of a key is learned from the answer MOVED, which says that nothing was done, so the whole conversation is
held again at the right node. Limit: one address is known at the start; while that node is away, partitions whose node is not
learned yet wait for it.
"""

from __future__ import annotations

import binascii
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from redis import exceptions
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.retry import Retry

from headrace.errors import HeadraceError, SettingsError, StoreRefused, TransientError

Answer = TypeVar("Answer")
Buffer: TypeAlias = bytes | memoryview
Reply: TypeAlias = Any
"""What the protocol holds: bytes, int, None, or a list of these; of the shape the command promises."""

_SLOTS = 16_384
RIGHTS = "-@all +@read +@write -@dangerous +eval +evalsha +watch +unwatch +multi +exec +ping +info ~hr:*"
"""What a worker's user must be allowed; no more."""
LOOKUP_RIGHTS = "-@all +@read -@dangerous +watch +multi +exec +ping %R~hr:*"
"""What a user must be allowed who only looks features up."""

_REDIRECTS = 5
_SEGMENT_BYTES = 262_144


class _Heads(dict[int, bytes]):
    """What goes before a word of a command, by the word's length, made once: `$5` and a line end for 5."""

    def __init__(self, before: bytes) -> None:
        super().__init__()
        self._before = before

    def __missing__(self, length: int) -> bytes:
        head = self[length] = b"%b$%d\r\n" % (self._before, length)
        return head


LINE_END = b"\r\n"
HEADS = _Heads(b"")
NEXT_HEADS = _Heads(LINE_END)
"""The same with the end of the word before."""


def packed(*words: bytes) -> bytes:
    """One command in the Redis protocol."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


# What an error means: the first row that fits decides. A row names a class of the client library or the code a server's error line
# begins with. Whatever may pass by itself, or by a hand on the server without us being restarted, is transient.
_MEANINGS: tuple[tuple[type[Exception] | str, type[HeadraceError], str], ...] = (
    (exceptions.BusyLoadingError, TransientError, "is loading its dump and answers when that is done"),
    (
        exceptions.OutOfMemoryError,
        TransientError,
        "is out of memory and takes no writes; raise maxmemory or free space, writing then goes on by itself",
    ),
    (
        exceptions.ReadOnlyError,
        TransientError,
        "is a read-only replica: a failover is going on, or redis.url names a replica instead of the primary",
    ),
    (exceptions.MasterDownError, TransientError, "is a replica that lost its primary"),
    (exceptions.ClusterDownError, TransientError, "belongs to a cluster that is down; it answers when all slots are covered again"),
    (exceptions.TryAgainError, TransientError, "is moving these keys to another node"),
    (exceptions.AskError, TransientError, "is moving these keys to another node"),
    (exceptions.SlotNotCoveredError, TransientError, "belongs to a cluster in which nobody holds the slot of these keys"),
    (exceptions.ClusterError, TransientError, "belongs to a cluster that is changing"),
    (exceptions.MaxConnectionsError, TransientError, "has no connection left for us"),
    ("NOREPLICAS", TransientError, "has fewer replicas than min-replicas-to-write asks for"),
    (
        "MISCONF",
        TransientError,
        "cannot save to its disk and takes no writes; free its disk or mend its rights, writing then goes on by itself",
    ),
    ("BUSY", TransientError, "is held up by somebody's script"),
    ("UNKILLABLE", TransientError, "is held up by somebody's script"),
    (exceptions.ExternalAuthProviderError, TransientError, "got no token for us from the credential provider"),
    (exceptions.AuthenticationError, StoreRefused, "refuses our credentials; check redis.username and redis.password"),
    (exceptions.AuthenticationWrongNumberOfArgsError, StoreRefused, "knows no user names (too old); leave redis.username out"),
    (exceptions.AuthorizationError, StoreRefused, "refuses our credentials; check redis.username and redis.password"),
    (
        exceptions.NoPermissionError,
        StoreRefused,
        f"does not let our user do this; run `ACL SETUSER <user> {RIGHTS}` there",
    ),
    (exceptions.ClusterCrossSlotError, StoreRefused, "says that our keys do not share a slot; please report this"),
    (exceptions.RedisClusterException, StoreRefused, "refused a cluster call; please report this"),
    (exceptions.ExecAbortError, TransientError, "gave up our transaction; nothing was written"),
    (exceptions.WatchError, TransientError, "gave up our transaction; nothing was written"),
    (exceptions.NoScriptError, TransientError, "forgot our script between two calls"),
    ("WRONGTYPE", StoreRefused, "holds something else under one of our keys; find out who writes below `hr:`"),
    (exceptions.InvalidResponse, StoreRefused, "does not speak the Redis protocol; check redis.url"),
    (exceptions.TimeoutError, TransientError, "did not answer in time"),
    (exceptions.ConnectionError, TransientError, "cannot be reached"),
    (exceptions.RedisError, StoreRefused, "refused a call"),
)


def meaning(error: Exception, address: str) -> HeadraceError:
    """Our exception for one of the client library's, in one line; never holds a credential."""
    detail = " ".join(str(error).split())[:200]
    certificate = _certificate_error(error)
    if certificate is not None:
        text = f"the certificate of Redis at {address} is not accepted; renew it, or name its authority in redis.tls_ca ({certificate})"
        return StoreRefused(text)
    code = detail.split(" ", 1)[0]
    for row, ours, says in _MEANINGS:
        if code == row if isinstance(row, str) else isinstance(error, row):
            return ours(f"Redis at {address} {says} ({detail})")
    return StoreRefused(f"Redis at {address}: {detail}")


def _certificate_error(error: BaseException | None) -> str | None:
    """The reason why a certificate was refused, if that lies below a connection error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Packed commands about keys of one hash tag that only read, and how many replies they get."""

    tag: bytes
    replies: int
    buffer: bytes


class Conversation:
    """One connection while a conversation lasts. Packed commands go out together; replies come back in order."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._fresh = True

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Send packed commands without waiting.

        What is small goes out in one piece; what is large goes in segments, each with the whole time-out.
        """
        if sum(map(len, buffers)) <= _SEGMENT_BYTES:
            segments: list[Buffer] = [b"".join(buffers)]
        else:
            views = [memoryview(buffer) for buffer in buffers]
            segments = [view[at : at + _SEGMENT_BYTES] for view in views for at in range(0, len(view), _SEGMENT_BYTES)]
        self._connection.send_packed_command(segments, check_health=self._fresh)
        self._fresh = False

    def replies(self, count: int) -> list[Reply]:
        """The next replies, all of them read; raises the first that is an error."""
        found: list[Reply] = []
        errors: list[exceptions.ResponseError] = []
        for _ in range(count):
            try:
                found.append(self._connection.read_response(disable_decoding=True))
            except exceptions.ResponseError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return found

    def ask(self, *commands: bytes) -> list[Reply]:
        """Send packed commands and wait for the reply of each."""
        self.send([b"".join(commands)])
        return self.replies(len(commands))

    def one(self, command: bytes) -> Reply:
        """Send one packed command and wait for its reply."""
        return self.ask(command)[0]

    def transaction(self, commands: int, buffers: Sequence[Buffer]) -> list[Reply] | None:
        """Run packed commands as one MULTI; None when a watched key has changed, so that nothing was done."""
        self.send([packed(b"MULTI"), *buffers, packed(b"EXEC")])
        done = self.replies(commands + 2)[-1]
        return None if done is None else _done(done)

    def unchanged(self, keys: Sequence[bytes], commands: int, buffers: Sequence[Buffer]) -> list[Reply] | None:
        """Run packed commands that only read; None when one of `keys` changed meanwhile, so that the replies may not fit together.

        An empty transaction asks that. The commands themselves stay outside of it: a full server queues none, not even a read.
        """
        self.send([packed(b"WATCH", *keys), *buffers, packed(b"MULTI") + packed(b"EXEC")])
        _, *found, _, same = self.replies(commands + 3)
        return None if same is None else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to know the server and be known by it: PEM files; what is None is left to the system or to the URL."""

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None


class RedisServer:
    """A Redis, a Valkey, or a cluster of them, as one address at the start.

    `url` is redis://, rediss:// (TLS) or unix://, with credentials or without; `username` and `password` win over those in it. A reply
    is waited for `timeout_s` at most.
    """

    def __init__(
        self, *, url: str, username: str | None = None, password: str | None = None, tls: Tls | None = None, timeout_s: float = 2.0
    ) -> None:
        self._options = _options(url, username, password, tls or Tls(), timeout_s)
        self._connection_class: type[AbstractConnection] = self._options.pop("connection_class", Connection)
        self.address = self._options.get("path") or f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"
        self._idle: dict[str, list[AbstractConnection]] = {}
        self._routes: dict[int, str] = {}

    def converse(self, tag: bytes, conversation: Callable[[Conversation], Answer]) -> Answer:
        """Hold a conversation about keys of one hash tag.

        Raises `TransientError` when the server went away: then it is not known whether what was asked last was done. Raises
        `StoreRefused` when the server must not or cannot be used.
        """
        slot = binascii.crc_hqx(tag, 0) % _SLOTS
        for _ in range(_REDIRECTS):
            address = self._routes.get(slot, self.address)
            try:
                with self._borrowed(address) as one:
                    return conversation(one)
            except exceptions.MovedError as moved:
                self._learn(slot, moved, address)
            except (exceptions.RedisError, OSError) as error:
                raise self._lost(address, error) from error
        raise self._restless()

    def ask(self, questions: Sequence[Question]) -> list[list[Reply]]:
        """The replies to each question, all asked at once: one buffer a node, sent to all nodes before any answer is waited for.

        What a node sends away (MOVED) is asked again of the right one, the rest is not. Raises as `converse` does.
        """
        found: dict[int, list[Reply]] = {}
        slots = [binascii.crc_hqx(question.tag, 0) % _SLOTS for question in questions]
        for _ in range(_REDIRECTS):
            nodes: dict[str, list[int]] = {}
            for number, slot in enumerate(slots):
                if number not in found:
                    nodes.setdefault(self._routes.get(slot, self.address), []).append(number)
            with ExitStack() as opened:
                conversations = {}
                for address, numbers in nodes.items():
                    with self._meaning(address):
                        one = conversations[address] = opened.enter_context(self._borrowed(address))
                        one.send([questions[number].buffer for number in numbers])
                for address, numbers in nodes.items():
                    for number in numbers:
                        try:
                            with self._meaning(address):
                                found[number] = _checked(conversations[address].replies(questions[number].replies))
                        except exceptions.MovedError as moved:
                            self._learn(slots[number], moved, address)
            if len(found) == len(questions):
                return [found[number] for number in range(len(questions))]
        raise self._restless()

    def close(self) -> None:
        """Close all connections that are not in use."""
        for idle in self._idle.values():
            while idle:
                idle.pop().disconnect()

    @contextmanager
    def _meaning(self, address: str) -> Iterator[None]:
        """Let errors mean what they mean for us, MOVED excepted."""
        try:
            yield
        except exceptions.MovedError:
            raise
        except (exceptions.RedisError, OSError) as error:
            raise self._lost(address, error) from error

    def _learn(self, slot: int, moved: exceptions.MovedError, address: str) -> None:
        """A node has named the one that has a slot now."""
        self._routes[slot] = f"{moved.host or address.rpartition(':')[0]}:{moved.port}"

    def _lost(self, address: str, error: Exception) -> HeadraceError:
        """What was learned may be out of date: the next call asks at the start again."""
        self._routes = {known: where for known, where in list(self._routes.items()) if where != address}
        return meaning(error, address)

    def _restless(self) -> TransientError:
        return TransientError(f"the cluster of Redis at {self.address} sends us from node to node; it is moving its slots")

    @contextmanager
    def _borrowed(self, address: str) -> Iterator[Conversation]:
        """A connection while a conversation lasts; closed when that fails, else kept for the next one."""
        idle = self._idle.setdefault(address, [])
        try:
            connection = idle.pop()  # atomic: no other thread gets it
        except IndexError:
            connection = self._connection(address)
        try:
            if connection.is_connected and _stale(connection):
                connection.disconnect()
            connection.connect()
            yield Conversation(connection)
        except BaseException:
            connection.disconnect()
            raise
        idle.append(connection)

    def _connection(self, address: str) -> AbstractConnection:
        options = dict(self._options)
        if address != self.address:
            host, _, port = address.rpartition(":")
            options |= {"host": host, "port": int(port)}
        return self._connection_class(**options)


def _done(replies: Sequence[Reply]) -> list[Reply]:
    """What the commands of a transaction gave; raises the first that is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return list(replies)


def _checked(replies: list[Reply]) -> list[Reply]:
    """The replies to a question, those inside of a transaction looked at too."""
    if isinstance(replies[-1], list):
        _done(replies[-1])
    return replies


def _stale(connection: AbstractConnection) -> bool:
    """Whether a server has closed an idle connection: nothing was asked, so there is nothing else to read."""
    try:
        return bool(connection.can_read())
    except exceptions.RedisError:
        return True


def _options(url: str, username: str | None, password: str | None, tls: Tls, timeout_s: float) -> dict[str, Any]:
    """What the client library is told; what the URL says in its query wins over our time-outs, not over the protocol we pack."""
    try:
        given: dict[str, Any] = parse_url(url)
    except ValueError as error:
        text = "redis.url cannot be used: write redis://host:6379/0, rediss://host:6379/0 (TLS) or unix:///path"
        raise SettingsError(text) from error
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
    chosen = {name: os.fspath(path) for name, path in files.items() if path is not None}
    if chosen and given.get("connection_class") is not SSLConnection:
        raise SettingsError("redis.tls_... is set but redis.url is not encrypted: let it begin with rediss://")
    defaults = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "health_check_interval": 30}
    credentials = {name: value for name, value in (("username", username), ("password", password)) if value is not None}
    fixed = {
        "protocol": 2,
        "decode_responses": False,
        "driver_info": None,  # its CLIENT SETINFO is refused to a user with few rights
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.4), 2),
    }
    return defaults | given | chosen | credentials | fixed
