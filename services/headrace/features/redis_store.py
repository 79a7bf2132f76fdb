"""The online store in Redis or Valkey, 7.0 or newer.

Per view and source partition there are two hashes, and all keys of a partition share one hash tag, so that a transaction may span them
on a cluster too:

    hr:{<app>.<topic>.<partition>}:<view>:m      off   next offset to apply, decimal; absent: no state
                                                 own   nonce of the owner
                                                 wm    watermark, ms, decimal (`types.watermark_text`); absent: no event yet
                                                 v     version of this layout
                                                 tid   id of the topic the states were made from
    hr:{<app>.<topic>.<partition>}:<view>:s      entity key -> packed state
    hr:{<app>.<topic>.<partition>}:note          what the owner notes for the next one (`crashes.py`)
    hr:{<app>}:slot:<slot>                       who runs a slot
    hr:{<app>}:partitions                        hash: source topic -> how many partitions it has

`apply` is WATCH, HMGET of owner and offset, then MULTI: HSET in blocks, HDEL, the new offset, EXEC. Whoever claims or writes in
between touches `m`, so EXEC does nothing. Measured on 4,096 states of 400 bytes, that costs the server half of what a script with
the same check costs (1.0 against 2.0 us a state: a script turns every argument into a Lua string and back). `read` is HMGETs between
WATCH and an empty MULTI that says whether `m` was touched meanwhile: as cheap, and a server that is out of memory still answers, which
refuses even reads inside of MULTI. `claim`, `reset`, `note` and `adopt` are rare and are scripts (redis_store.lua).

`look` is what look-ups ask: one MULTI a partition (state and `off`, `wm` together), and how many partitions the topic has beside, all in
one round trip, in a cluster one a node and all nodes at once. `claim` writes the number down, so it is there again after a FLUSHALL
before any state is, and follows added partitions; the answer of each look-up says whether the number it was asked by is still right.

A transaction that a dead client left half sent is dropped by the server; in an AOF that was cut it is dropped by the reader. So
offset and states of all views of a partition always agree.

Limits: a call holds what it writes twice in memory for a moment; a server that evicts keys makes an entity look new and no check would
see it, so `check` refuses one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from importlib import resources
from itertools import repeat

from redis import exceptions

from headrace.errors import StoreRefused, TransientError
from headrace.features.redis_connection import (
    HEADS,
    LINE_END,
    LOOKUP_RIGHTS,
    NEXT_HEADS,
    Buffer,
    Conversation,
    Question,
    RedisServer,
    Reply,
    Tls,
    packed,
)
from headrace.features.state_store import ApplyResult, Ask, Claim, Looked, aside, one_owner, one_topic_id
from headrace.types import PartitionWrite, StatesPage, StoredStates, TopicPartition, ViewHead, ViewWrite, watermark_of, watermark_text

LAYOUT = b"1"

_BLOCK = 1_000
_PAGE = b"512"
_PIECES = 5  # of a field in the protocol: length, key, length, state, line end
_ATTEMPTS = 5
_LEAST_VERSION = (7, 0)


class RedisStore:
    """The state store in Redis. May be called from several threads; each call has a connection of its own.

    For `url`, `username`, `password` and `tls` see `RedisServer`.
    """

    def __init__(
        self,
        *,
        app: str,
        url: str,
        username: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
        timeout_s: float = 2.0,
    ) -> None:
        self._app = app
        self._server = RedisServer(url=url, username=username, password=password, tls=tls, timeout_s=timeout_s)

    def claim(self, partition: TopicPartition, views: Sequence[str], owner: bytes) -> Claim:
        """Make `owner` the only one whose writes are taken; says where the views stand."""
        tag = _tag(self._app, partition)
        command = ("claim", [_note(tag), *(_meta(tag, view) for view in views)], [owner, LAYOUT])
        taken, answer = self._server.converse(tag, lambda conversation: _script(conversation, *command))
        if not taken:
            raise _other_layout(partition, answer)
        note, *found = answer
        return Claim(
            heads={view: _head(offset, watermark) for view, (offset, watermark, _) in zip(views, found, strict=True)},
            topic_id=one_topic_id(topic_id and topic_id.decode() for _, _, topic_id in found),
            note=note or None,
        )

    def read(self, partition: TopicPartition, views: Sequence[str], keys: Sequence[bytes]) -> StoredStates:
        """The states of some entities, with owner and heads of the same instant."""
        if not views:
            return StoredStates(owner=None, heads={}, states={})
        tag = _tag(self._app, partition)
        metas = [_meta(tag, view) for view in views]
        wanted = _fields(keys)
        heads = [packed(b"HMGET", meta, b"own", b"off", b"wm") for meta in metas]
        states = [_many(b"HMGET", _states(tag, view), len(keys)) + wanted for view in views] if keys else []
        answer = self._server.converse(tag, lambda conversation: _read(conversation, metas, [*heads, *states]))
        found = answer[: len(views)]
        columns = answer[len(views) :] or [[] for _ in views]
        return StoredStates(
            owner=one_owner(owner for owner, _, _ in found),
            heads={view: _head(offset, watermark) for view, (_, offset, watermark) in zip(views, found, strict=True)},
            states=dict(zip(views, columns, strict=True)),
        )

    def scan(self, partition: TopicPartition, view: str, cursor: int) -> StatesPage:
        """A page of HSCAN."""
        tag = _tag(self._app, partition)
        command = packed(b"HSCAN", _states(tag, view), b"%d" % cursor, b"COUNT", _PAGE)
        behind, flat = self._server.converse(tag, partial(Conversation.one, command=command))
        return StatesPage(cursor=int(behind), keys=flat[::2], states=flat[1::2])

    def apply(self, owner: bytes, write: PartitionWrite) -> ApplyResult:
        """Write only if the partition is `owner`'s and each view stands at its `start`; then each stands at its `end`."""
        if not write.views:
            return ApplyResult.OK
        tag = _tag(self._app, write.partition)
        return self._server.converse(tag, lambda conversation: _apply(conversation, tag, owner, write))

    def reset(self, partition: TopicPartition, starts: Mapping[str, int], owner: bytes, topic_id: str, whole_from: int = 0) -> ApplyResult:
        """Drop all states of the given views and let them stand at their start offset, without a watermark. OK or FENCED."""
        if not starts:
            return ApplyResult.OK
        tag = _tag(self._app, partition)
        keys = [key for view in starts for key in (_meta(tag, view), _states(tag, view))]
        words = [owner, LAYOUT, topic_id.encode(), b"%d" % whole_from, *(b"%d" % start for start in starts.values())]
        done = self._server.converse(tag, lambda conversation: _script(conversation, "reset", keys, words))
        return ApplyResult.OK if done else ApplyResult.FENCED

    def drop(self, partition: TopicPartition, views: Sequence[str]) -> None:
        """Forget all of some views: states, offset, owner, and the partition's note."""
        tag = _tag(self._app, partition)
        keys = [_note(tag), *(key for view in views for key in (_meta(tag, view), _states(tag, view)))]
        self._server.converse(tag, partial(Conversation.one, command=packed(b"UNLINK", *keys)))

    def note(self, partition: TopicPartition, views: Sequence[str], owner: bytes, note: bytes | None) -> ApplyResult:
        """Leave a note for whoever claims the partition next; None takes it away. OK or FENCED."""
        tag = _tag(self._app, partition)
        keys = [_note(tag), *(_meta(tag, view) for view in views)]
        done = self._server.converse(tag, lambda conversation: _script(conversation, "note", keys, [owner, note or b""]))
        return ApplyResult.OK if done else ApplyResult.FENCED

    def adopt(self, partition: TopicPartition, ends: Mapping[str, int], owner: bytes) -> ApplyResult:
        """Let what was put aside take the place of each view, by renaming its keys. OK, FENCED or BEHIND."""
        if not ends:
            return ApplyResult.OK
        tag = _tag(self._app, partition)
        keys = [key for view in ends for name in (view, aside(view)) for key in (_meta(tag, name), _states(tag, name))]
        words = [owner, *(b"%d" % end for end in ends.values())]
        done = self._server.converse(tag, lambda conversation: _script(conversation, "adopt", keys, words))
        return (ApplyResult.FENCED, ApplyResult.OK, ApplyResult.BEHIND)[done]

    def set_partitions(self, topic: str, partitions: int) -> None:
        """Write down how many partitions a source topic has, over what was there."""
        tag, key = self._counts()
        self._server.converse(tag, partial(Conversation.one, command=packed(b"HSET", key, topic.encode(), b"%d" % partitions)))

    def look(self, asked: Sequence[Ask]) -> list[Looked]:
        """The states of some entities in partitions of topics, with the heads of the same instant, in one round trip."""
        if not asked:
            return []
        tag, counts = self._counts()
        topics = list(dict.fromkeys(ask.topic for ask in asked))
        questions = [Question(tag=tag, replies=1, buffer=packed(b"HMGET", counts, *(topic.encode() for topic in topics)))]
        questions += [
            _look(_tag(self._app, TopicPartition(ask.topic, number)), ask.view, keys) for ask in asked for number, keys in ask.keys.items()
        ]
        try:
            (numbers,), *found = self._server.ask(questions)
        except (TransientError, StoreRefused) as error:
            if isinstance(error.__cause__, exceptions.OutOfMemoryError):
                return [self._look_when_full(ask) for ask in asked]
            if isinstance(error.__cause__, exceptions.NoPermissionError):
                text = f"Redis at {self._server.address} lets our user look nothing up; run `ACL SETUSER <user> {LOOKUP_RIGHTS}` there"
                raise StoreRefused(text) from error
            raise
        partitions = {topic: None if number is None else int(number) for topic, number in zip(topics, numbers, strict=True)}
        answers = iter(found)
        return [_looked(ask, partitions[ask.topic], [next(answers) for _ in ask.keys]) for ask in asked]

    def announce(self, slot: str, identity: str) -> None:
        """Write down who runs a slot, over whoever was there."""
        self._about_slot(slot, b"SET", identity.encode())

    def holder(self, slot: str) -> str | None:
        """Who announced the slot last."""
        found = self._about_slot(slot, b"GET")
        return None if found is None else found.decode()

    def check(self) -> list[str]:
        """Ask whether the store may be used: version, eviction policy, role; the answer warns of states that a crash could take.

        Raises `StoreRefused` with the command that mends it, or `TransientError`.
        """
        reply = self._server.converse(b"", partial(Conversation.one, command=packed(b"INFO")))
        told = dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)
        return _judge(told, self._server.address)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def states(self, partition: TopicPartition, view: str) -> dict[bytes, bytes]:
        """All packed states of one view of a partition, by entity key: for tests and `verify`.

        Reads in pages, so it is exact only while nobody writes.
        """
        found: dict[bytes, bytes] = {}
        cursor = 0
        while True:
            page = self.scan(partition, view, cursor)
            found.update(zip(page.keys, page.states, strict=True))
            cursor = page.cursor
            if not cursor:
                return found

    def _look_when_full(self, ask: Ask) -> Looked:
        """The same of a server that is out of memory: it queues nothing in a MULTI, not even a read, but reads under WATCH."""
        tag, counts = self._counts()
        count = self._server.converse(tag, partial(Conversation.one, command=packed(b"HGET", counts, ask.topic.encode())))
        heads: dict[int, ViewHead] = {}
        states: dict[int, Sequence[bytes | None]] = {}
        for number, keys in ask.keys.items():
            name = TopicPartition(ask.topic, number)
            found = self.read(name, [ask.view], keys)
            of_partition = _tag(self._app, name)
            command = packed(b"HGET", _meta(of_partition, ask.view), b"whole")
            whole_from = self._server.converse(of_partition, partial(Conversation.one, command=command))
            heads[number], states[number] = _if_whole(found.heads[ask.view], found.states.get(ask.view, ()), whole_from)
        return Looked(partitions=None if count is None else int(count), heads=heads, states=states)

    def _counts(self) -> tuple[bytes, bytes]:
        """Tag and key of the numbers of partitions."""
        tag = _plain(self._app).encode()
        return tag, b"hr:{%b}:partitions" % tag

    def _about_slot(self, slot: str, verb: bytes, *words: bytes) -> Reply:
        tag = _plain(self._app).encode()
        command = packed(verb, b"hr:{%b}:slot:%b" % (tag, slot.encode()), *words)
        return self._server.converse(tag, partial(Conversation.one, command=command))


def _escaped(name: str) -> str:
    """A name that cannot end the hash tag it stands in."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


def _plain(app: str) -> str:
    """An app's name without dots too, so that `app.topic` can be read in one way only."""
    return _escaped(app).replace(".", "%2E")


def _tag(app: str, partition: TopicPartition) -> bytes:
    return f"{_plain(app)}.{_escaped(partition.topic)}.{partition.partition}".encode()


def _meta(tag: bytes, view: str) -> bytes:
    return b"hr:{%b}:%b:m" % (tag, view.encode())


def _states(tag: bytes, view: str) -> bytes:
    return b"hr:{%b}:%b:s" % (tag, view.encode())


def _note(tag: bytes) -> bytes:
    return b"hr:{%b}:note" % tag


def _head(offset: bytes | None, watermark: bytes | None) -> ViewHead:
    return ViewHead(
        offset=None if offset is None else int(offset), watermark_ms=None if watermark is None else watermark_of(watermark.decode())
    )


def _if_whole(head: ViewHead, states: Sequence[bytes | None], whole_from: bytes | None) -> tuple[ViewHead, Sequence[bytes | None]]:
    """What a look-up is told: nothing of a view that is being rebuilt."""
    if head.offset is None or head.offset >= int(whole_from or 0):
        return head, states
    return ViewHead(offset=None, watermark_ms=None), [None] * len(states)


def _other_layout(partition: TopicPartition, found: bytes) -> StoreRefused:
    return StoreRefused(
        f"the state of {partition.topic} [{partition.partition}] in Redis has layout {found.decode()}, this version knows "
        f"{LAYOUT.decode()}: run the version of headrace that wrote it, or delete the keys of the app to rebuild its state"
    )


def _look(tag: bytes, view: str, keys: Sequence[bytes]) -> Question:
    """One MULTI about a view of a partition."""
    commands = [packed(b"MULTI"), packed(b"HMGET", _meta(tag, view), b"off", b"wm", b"v", b"whole")]
    if keys:
        commands += [_many(b"HMGET", _states(tag, view), len(keys)), _fields(keys)]
    return Question(tag=tag, replies=4 if keys else 3, buffer=b"".join([*commands, packed(b"EXEC")]))


def _looked(ask: Ask, partitions: int | None, answers: Sequence[Sequence[Reply]]) -> Looked:
    """What the replies to the MULTIs of one question say."""
    heads: dict[int, ViewHead] = {}
    states: dict[int, Sequence[bytes | None]] = {}
    for number, (*_, done) in zip(ask.keys, answers, strict=True):
        (offset, watermark, layout, whole_from), *some = done
        if layout not in (None, LAYOUT):
            raise _other_layout(TopicPartition(ask.topic, number), layout)
        heads[number], states[number] = _if_whole(_head(offset, watermark), some[0] if some else [], whole_from)
    return Looked(partitions=partitions, heads=heads, states=states)


def _read(conversation: Conversation, metas: Sequence[bytes], commands: Sequence[bytes]) -> list[Reply]:
    """What the commands read while nobody wrote to the partition."""
    for _ in range(_ATTEMPTS):
        found = conversation.unchanged(metas, len(commands), commands)
        if found is not None:
            return found
    raise TransientError("a partition is written to again and again while it is read")


def _apply(conversation: Conversation, tag: bytes, owner: bytes, write: PartitionWrite) -> ApplyResult:
    """Check, then write what was checked; when somebody moved the partition in between, check again."""
    metas = [_meta(tag, view.view) for view in write.views]
    questions = packed(b"WATCH", *metas), *(packed(b"HMGET", meta, b"own", b"off") for meta in metas)
    for _ in range(_ATTEMPTS):
        _, *found = conversation.ask(*questions)
        if any(owner_there != owner for owner_there, _ in found):
            answer = ApplyResult.FENCED
        elif any(offset != b"%d" % view.start for view, (_, offset) in zip(write.views, found, strict=True)):
            answer = ApplyResult.BEHIND
        else:
            buffers = [buffer for view in write.views for buffer in _write(tag, view, write.watermark_ms)]
            if conversation.transaction(len(buffers), buffers) is not None:
                return ApplyResult.OK
            continue
        conversation.ask(packed(b"UNWATCH"))
        return answer
    raise TransientError(f"{write.partition.topic} [{write.partition.partition}] is claimed again and again; nothing was written")


def _write(tag: bytes, view: ViewWrite, watermark_ms: int) -> Iterator[Buffer]:
    """The commands that write one view, one buffer each."""
    key = _states(tag, view.view)
    pieces = _pieces(view)
    for at in range(0, len(pieces), _BLOCK * _PIECES):
        block = pieces[at : at + _BLOCK * _PIECES]
        yield b"".join((_many(b"HSET", key, 2 * (len(block) // _PIECES)), *block))
    for at in range(0, len(view.deletions), _BLOCK):
        gone = view.deletions[at : at + _BLOCK]
        yield _many(b"HDEL", key, len(gone)) + _fields(gone)
    yield packed(b"HSET", _meta(tag, view.view), b"off", b"%d" % view.end, b"wm", watermark_text(watermark_ms).encode())


def _pieces(view: ViewWrite) -> list[Buffer]:
    """The fields to set in the protocol, five buffers each, states not copied; each key's last chunk only, none that is deleted."""
    pieces: list[Buffer] = []
    last: dict[bytes, int] = {}
    if len(view.chunks) > 1 or view.deletions:
        for number, chunk in enumerate(view.chunks):
            last.update(zip(chunk.keys, repeat(number)))
        last.update(zip(view.deletions, repeat(-1)))
    for number, chunk in enumerate(view.chunks):
        states = chunk.buffer.data
        begin, *ends = chunk.bounds.tolist() if chunk.keys else (0,)
        if last:
            for key, end in zip(chunk.keys, ends, strict=True):
                if last[key] == number:
                    pieces += (HEADS[len(key)], key, NEXT_HEADS[end - begin], states[begin:end], LINE_END)
                begin = end
        else:
            for key, end in zip(chunk.keys, ends, strict=True):
                pieces += (HEADS[len(key)], key, NEXT_HEADS[end - begin], states[begin:end], LINE_END)
                begin = end
    return pieces


def _many(verb: bytes, key: bytes, words: int) -> bytes:
    """The beginning of a command about one key with so many words more."""
    return b"*%d\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (words + 2, len(verb), verb, len(key), key)


def _fields(keys: Sequence[bytes]) -> bytes:
    return b"".join([piece for key in keys for piece in (HEADS[len(key)], key, LINE_END)])


def _script(conversation: Conversation, name: str, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
    """Run a script by its digest; a server that does not know it gets the text, which it keeps."""
    digest, text = _scripts()[name]
    arguments = (b"%d" % len(keys), *keys, *words)
    try:
        return conversation.one(packed(b"EVALSHA", digest, *arguments))
    except exceptions.NoScriptError:
        return conversation.one(packed(b"EVAL", text, *arguments))


@cache
def _scripts() -> dict[str, tuple[bytes, bytes]]:
    """Digest and text of each script in redis_store.lua, by its name."""
    _, *parts = resources.files(__package__).joinpath("redis_store.lua").read_text(encoding="utf-8").split("\n-- script: ")
    named = ((name, text.encode()) for name, _, text in (part.partition("\n") for part in parts))
    return {name: (hashlib.sha1(text, usedforsecurity=False).hexdigest().encode(), text) for name, text in named}


def _judge(told: Mapping[str, str], address: str) -> list[str]:
    """What INFO tells of a server, judged: refused, not yet, or warnings."""
    version = told.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _LEAST_VERSION:
        raise StoreRefused(f"Redis at {address} is version {version}; headrace needs 7.0 or newer, or any Valkey")
    policy = told.get("maxmemory_policy", "not told")
    if policy != "noeviction":
        raise StoreRefused(
            f"Redis at {address} may evict states (maxmemory-policy {policy}), which makes entities look new without anybody noticing: "
            "run `CONFIG SET maxmemory-policy noeviction` there and write it into its configuration"
        )
    if told.get("loading", "0") != "0":
        raise TransientError(f"Redis at {address} is loading its dump and answers when that is done")
    if told.get("role", "master") != "master":
        raise TransientError(f"Redis at {address} is a replica: a failover is going on, or redis.url does not name the primary")
    if told.get("aof_enabled", "0") != "1":
        warning = f"Redis at {address} keeps no append-only file: what it forgets in a crash is folded from the log again, which takes long"
        return [f"{warning}; run `CONFIG SET appendonly yes` there"]
    return []
