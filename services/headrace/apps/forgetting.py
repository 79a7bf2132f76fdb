"""`headrace state forget`: one entity's state is taken away, and every later fold knows of it (`forgotten.py`).

A worker keeps states in memory and would write this one back, and its predictions up to its next look at the store would still know it. So
nobody may be at work; and that is made sure of in an order that leaves no gap:

    claim the partition    a worker that was there before cannot write any more
    ask for the members    there is none: whoever was there is gone, whoever comes claims after us
    ask for the offset     X: every prediction below it is out; nobody is there to make another
    the store stands at X  else a worker died behind its commit, and must come up to it first
    write                  by compare-and-set under our claim, at X: refused if a worker came meanwhile, and then nothing has happened
    remember               the fact, with X

Limit: if Kafka goes away before the last step, the state is gone and the fact is not there; the command says so, and writes it when it is
run again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headrace.definition import App
from headrace.errors import FatalError, PartitionMoved, TransientError
from headrace.features.retained_view import Kept
from headrace.features.state_store import ApplyResult, StateStore
from headrace.forgotten import Erasure, forgotten_fact, token_of
from headrace.source import Source
from headrace.types import PartitionWrite, TopicPartition, ViewHead, ViewWrite
from headrace.verify.scope import stable_position
from headrace.verify.subject import Subject

LOOK_MS = 250

Members = Callable[[], Sequence[str]]
"""Who is in the app's group now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was taken away in one partition."""

    partition: TopicPartition
    offset: int
    states: Mapping[str, int]
    """By view: the bytes that its state had; views that had none of it are not among them."""


class Forgetting:
    """Takes entities' states away. `remember` writes a fact; `members` names who is at work."""

    def __init__(self, app: App, subject: Subject, store: StateStore, *, members: Members, remember: Callable[[bytes], None]) -> None:
        self._app, self._subject, self._store, self._members, self._remember = app, subject, store, members, remember

    def wait_for_nobody(self, wait_ms: int) -> None:
        """Wait until the group has no members. A member that ended in order is one until its session is over. Raises `FatalError`."""
        deadline_ms = self._subject.now_ms() + wait_ms
        while members := self._members():
            if self._subject.now_ms() >= deadline_ms:
                raise FatalError(
                    f"{len(members)} workers are members of group {self._app.name} ({', '.join(members)}): they hold states in memory and "
                    "would write this one back; end them (SIGTERM; one started with --leave gives its place up at once), run the command "
                    "again, then start them"
                )
            self._subject.pause(LOOK_MS)

    def forget(self, source: Source, name: TopicPartition, entity: str) -> Forgotten:
        """Take the state of an entity of a source or hop away. Raises `FatalError`, `PartitionMoved`, `TransientError`."""
        views = {view.fp: view for view in self._app.kept_of(source)}
        owner = secrets.token_bytes(16)
        heads = self._store.claim(name, list(views), owner).heads
        self.wait_for_nobody(0)
        offset = stable_position(self._app, self._subject, name).offset
        self._insist(name, views, heads, offset)
        key = entity.encode()
        before = self._store.read(name, list(views), [key]).states
        for write in _writes(name, heads, key):
            if self._store.apply(owner, write) is not ApplyResult.OK:
                raise PartitionMoved(f"{_text(name)} was claimed by a worker that has just started: end it and run the command again")
        self._note(name, Erasure(offset=offset, token=token_of(name.topic, entity)))
        found = {view.name: state for fp, view in views.items() if (state := before[fp][0]) is not None}
        return Forgotten(partition=name, offset=offset, states={view: len(state) for view, state in found.items()})

    def _insist(self, name: TopicPartition, views: Mapping[str, Kept], heads: Mapping[str, ViewHead], offset: int) -> None:
        for fp, head in heads.items():
            if head.offset not in {None, offset}:
                raise FatalError(
                    f"{_text(name)}: the state of view {views[fp].name} stands at offset {head.offset}, and {offset} is committed: "
                    "a worker was killed before it wrote the rest; start one, let it catch up, end it by SIGTERM, and run the command again"
                )

    def _note(self, name: TopicPartition, erasure: Erasure) -> None:
        try:
            self._remember(forgotten_fact(name, erasure))
        except TransientError as away:
            raise FatalError(
                f"the state in {_text(name)} is gone, but the fact that says so was not written ({away}): run the command again before any "
                "worker starts, or `headrace verify` and a rebuild will not know of it"
            ) from away


def _writes(name: TopicPartition, heads: Mapping[str, ViewHead], key: bytes) -> list[PartitionWrite]:
    """The deletions, each view written where it stands; views of one watermark, which is all of them mostly, in one go."""
    writes: list[PartitionWrite] = []
    for fp, head in heads.items():
        if head.offset is None or head.watermark_ms is None:
            continue  # nothing is kept in it
        write = next((one for one in writes if one.watermark_ms == head.watermark_ms), None)
        if write is None:
            write = PartitionWrite(partition=name, watermark_ms=head.watermark_ms, views=[])
            writes.append(write)
        write.views.append(ViewWrite(view=fp, start=head.offset, end=head.offset, chunks=[], deletions=[key]))
    return writes


def _text(name: TopicPartition) -> str:
    return f"{name.topic}-{name.partition}"
