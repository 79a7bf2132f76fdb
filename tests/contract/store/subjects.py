"""The stores the suite runs on, each with the faults the port speaks of: flush, going back, going away."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from headrace.features.memory_store import MemoryStore, Snapshot
from headrace.features.redis_connection import RedisServer as Wire
from headrace.features.redis_connection import packed
from headrace.features.redis_store import RedisStore
from headrace.features.state_store import ApplyResult, StateStore
from headrace.local_process import wait_until
from headrace.local_stack import RedisServer
from headrace.types import PartitionWrite, StateChunk, TopicPartition, ViewWrite

P0 = TopicPartition("flights.departures.v1", 0)
P1 = TopicPartition("flights.departures.v1", 1)


class Subject(Protocol):
    """A store under test, and what may happen to it."""

    def store(self, app: str) -> StateStore:
        """Another client of the same store."""

    def states(self, app: str, partition: TopicPartition, view: str) -> dict[bytes, bytes]:
        """All states of a view, seen from behind."""

    def flush(self) -> None:
        """Forget everything."""

    def remember(self) -> None:
        """Keep what is there now for `go_back`."""

    def go_back(self) -> None:
        """Lose everything since `remember`."""

    def go_away(self) -> None:
        """Be out of reach."""

    def come_back(self) -> None:
        """Be there again, with everything that was."""


class MemorySubject:
    """The store in memory; its clients are one object."""

    def __init__(self) -> None:
        self._stores: dict[str, MemoryStore] = {}
        self._snapshots: dict[str, Snapshot] = {}

    def store(self, app: str) -> StateStore:
        """The one store of the app."""
        return self._stores.setdefault(app, MemoryStore())

    def states(self, app: str, partition: TopicPartition, view: str) -> dict[bytes, bytes]:
        """All states of a view."""
        return self._stores[app].states(partition, view)

    def flush(self) -> None:
        """Forget everything."""
        for store in self._stores.values():
            store.flush()

    def remember(self) -> None:
        """Take snapshots."""
        self._snapshots = {app: store.snapshot() for app, store in self._stores.items()}

    def go_back(self) -> None:
        """Restore them."""
        for app, store in self._stores.items():
            store.restore(self._snapshots[app])

    def go_away(self) -> None:
        """Switch it away."""
        for store in self._stores.values():
            store.away = True

    def come_back(self) -> None:
        """Switch it on."""
        for store in self._stores.values():
            store.away = False


@dataclass(kw_only=True)
class RedisSubject:
    """A real server of this machine; one that is shared is not hurt."""

    server: RedisServer
    timeout_s: float = 2.0
    opened: list[RedisStore] = field(default_factory=list)

    def store(self, app: str) -> StateStore:
        """A client of its own."""
        store = RedisStore(app=app, url=self.server.url, timeout_s=self.timeout_s)
        self.opened.append(store)
        return store

    def states(self, app: str, partition: TopicPartition, view: str) -> dict[bytes, bytes]:
        """All states of a view."""
        store = RedisStore(app=app, url=self.server.url)
        self.opened.append(store)
        return store.states(partition, view)

    def ask(self, *words: str) -> object:
        """Send the server a command behind the store's back."""
        return ask(self.server, *words)

    def flush(self) -> None:
        """FLUSHALL."""
        self.ask("FLUSHALL")

    def remember(self) -> None:
        """Save a dump and put it aside."""
        self.ask("SAVE")
        shutil.copy(self._dump, self._kept)

    def go_back(self) -> None:
        """Start again from the dump that was put aside."""
        self.server.kill()
        shutil.copy(self._kept, self._dump)
        self.server.start()
        self.server.wait_ready()

    def go_away(self) -> None:
        """Stop in an orderly way, saving everything."""
        self.ask("SAVE")
        self.server.kill()

    def come_back(self) -> None:
        """Start again."""
        self.server.start()
        self.server.wait_ready()

    def close(self) -> None:
        """Close every client."""
        for store in self.opened:
            store.close()

    @property
    def _dump(self) -> Path:
        return self.server.folder / "dump.rdb"

    @property
    def _kept(self) -> Path:
        return self.server.folder / "kept.rdb"


def ask(server: RedisServer, *words: str) -> object:
    """Send a server one command."""
    wire = Wire(url=server.url, timeout_s=20)
    try:
        reply: object = wire.converse(b"", lambda conversation: conversation.one(packed(*(word.encode() for word in words))))
    finally:
        wire.close()
    return reply


def told(server: RedisServer, line: str, *words: str) -> bool:
    """Whether the answer to a command holds a line."""
    reply = ask(server, *words)
    assert isinstance(reply, bytes)
    return line.encode() in reply.splitlines()


def come_back(server: RedisServer) -> None:
    """Start a server and wait until it has loaded what it kept."""
    server.start()
    server.wait_ready()
    wait_until(partial(told, server, "loading:0", "INFO", "persistence"), what="the server has loaded its state", deadline_s=60)


def chunk(states: Mapping[bytes, bytes] | Sequence[tuple[bytes, bytes]]) -> StateChunk:
    """Packed states as the fold hands them over."""
    pairs = list(states.items()) if isinstance(states, Mapping) else list(states)
    sizes = [len(state) for _, state in pairs]
    return StateChunk(
        keys=[key for key, _ in pairs],
        buffer=np.frombuffer(b"".join(state for _, state in pairs), dtype=np.uint8),
        bounds=np.cumsum([0, *sizes], dtype=np.int64),
    )


def view_write(view: str, start: int, end: int, *states: Mapping[bytes, bytes], delete: Sequence[bytes] = ()) -> ViewWrite:
    """A write of one view, a chunk for each table of states."""
    return ViewWrite(view=view, start=start, end=end, chunks=[chunk(table) for table in states], deletions=list(delete))


def write(*views: ViewWrite, partition: TopicPartition = P0, watermark_ms: int = 1_000) -> PartitionWrite:
    """A write of a partition."""
    return PartitionWrite(partition=partition, watermark_ms=watermark_ms, views=list(views))


def ready(store: StateStore, owner: bytes, starts: Mapping[str, int], partition: TopicPartition = P0, topic_id: str = "topic-1") -> None:
    """Claim a partition and let its views stand at a start."""
    store.claim(partition, list(starts), owner)
    assert store.reset(partition, starts, owner, topic_id) is ApplyResult.OK


def heads(store: StateStore, views: Sequence[str], partition: TopicPartition = P0) -> dict[str, tuple[int | None, int | None]]:
    """Where views stand: offset and watermark."""
    found = store.read(partition, views, []).heads
    return {view: (head.offset, head.watermark_ms) for view, head in found.items()}
