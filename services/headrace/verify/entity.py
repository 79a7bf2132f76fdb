"""One entity: is its state in the store the one of the log, and if not, make it so.

Mending takes the partition from its worker for a moment. The right state is known for every offset the store may stand at before the
partition is claimed; then it is written by compare-and-set at exactly the offset where the claim found the store, which does not move. The
worker is fenced by that, drops what it had in memory, claims again and reads the mended state. If it was quicker, we try again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.consume.record_reader import RecordReader
from headrace.crashes import condemned_offsets
from headrace.definition import App
from headrace.errors import PartitionMoved, TransientError
from headrace.features.retained_view import Kept
from headrace.features.same import same_kept
from headrace.features.state_store import ApplyResult, StateStore
from headrace.forgotten import erasures_in
from headrace.source import Source
from headrace.types import PartitionWrite, StateChunk, TopicPartition, ViewHead, ViewWrite
from headrace.verify.findings import Findings
from headrace.verify.rest import another_state
from headrace.verify.scope import facts_of
from headrace.verify.state import EntityFold, Told
from headrace.verify.subject import Subject

ATTEMPTS = 20
PAUSE_MS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An entity in one view: where the store stands, what it holds and what the log gives."""

    view: Kept
    head: ViewHead
    stored: bytes | None
    folded: bytes | None

    def same(self) -> bool:
        """Whether they are equal for every window there is."""
        as_of_ms = (self.head.watermark_ms or 0) - self.view.source.lateness_ms
        return self.stored == self.folded or same_kept(self.view, self.stored, self.folded, as_of_ms)


class EntityState:
    """The state of an entity of a source, `key` being the key of its records."""

    def __init__(
        self, app: App, subject: Subject, store: StateStore, source: Source, *, name: TopicPartition, key: bytes, told: Told
    ) -> None:
        self._app, self._subject, self._store = app, subject, store
        self._name, self._key = name, key
        self._views = {view.fp: view for view in app.kept_of(source)}
        stands = self._stands()
        self._fold = EntityFold(app, subject, source, name, key, told=told)
        self._reader: RecordReader = subject.reader()
        try:
            self._fold.reach(self._reader, stands)
        except BaseException:
            self.close()
            raise

    def look(self) -> list[Seen]:
        """Store and log in one instant, whoever is at work."""
        for _ in range(ATTEMPTS):
            self._follow()
            found = self._store.read(self._name, list(self._views), [self._key])
            versions = self._versions(found.heads)
            if versions is not None:
                self._insist_that_none_was_condemned()
                return [
                    Seen(view=view, head=found.heads[fp], stored=found.states[fp][0], folded=versions[fp])
                    for fp, view in self._views.items()
                ]
            self._subject.pause(PAUSE_MS)
        raise TransientError(f"{self._text()} moves faster than it can be read; run the command again when there is less to do")

    def check(self, findings: Findings) -> list[Seen]:
        """I4 for this entity."""
        seen = self.look()
        for one in seen:
            findings.checked["entities"] += 1
            if not one.same():
                findings.add(another_state(self._name, one.view, self._key, one.folded, one.stored))
        return seen

    def mend(self) -> list[Seen]:
        """Write what the log gives; tells what was there before."""
        for _ in range(ATTEMPTS):
            before = self.look()
            owner = secrets.token_bytes(16)
            heads = self._store.claim(self._name, list(self._views), owner).heads
            versions = self._versions(heads)
            self._insist_that_none_was_condemned()
            if versions is not None and self._write(owner, heads, versions):
                return before
            self._subject.pause(PAUSE_MS)
        raise TransientError(
            f"{self._text()} was claimed by its worker {ATTEMPTS} times in between; run the command again when there is less to do, or "
            "stop the worker for it"
        )

    def close(self) -> None:
        """End everything."""
        self._reader.close()
        self._fold.close()

    def _write(self, owner: bytes, heads: Mapping[str, ViewHead], versions: Mapping[str, bytes | None]) -> bool:
        """Write every view where it stands; false as soon as the partition is not ours any more."""
        for fp, head in heads.items():
            state, offset = versions[fp], head.offset or 0
            packed = b"" if state is None else state
            chunk = StateChunk(
                keys=[self._key], buffer=np.frombuffer(packed, dtype=np.uint8), bounds=np.array([0, len(packed)], dtype=np.int64)
            )
            write = ViewWrite(
                view=fp, start=offset, end=offset, chunks=[] if state is None else [chunk], deletions=[self._key] if state is None else []
            )
            answer = self._store.apply(owner, PartitionWrite(partition=self._name, watermark_ms=head.watermark_ms or 0, views=[write]))
            if answer is not ApplyResult.OK:
                return False
        return True

    def _stands(self) -> int:
        """Where the view that is furthest behind stands."""
        heads = self._store.read(self._name, list(self._views), ()).heads
        return min(self._offset(head) for head in heads.values())

    def _offset(self, head: ViewHead) -> int:
        if head.offset is None or head.watermark_ms is None:
            raise PartitionMoved(
                f"the store has no state of {self._text()} yet: a worker that serves it folds it whole, and `headrace state verify` tells "
                "when that is done"
            )
        return head.offset

    def _versions(self, heads: Mapping[str, ViewHead]) -> Mapping[str, bytes | None] | None:
        """What the log gives where each view stands; None where it was not folded that far."""
        found: dict[str, bytes | None] = {}
        for fp, head in heads.items():
            versions = self._fold.at(self._offset(head))
            if versions is None:
                return None
            found[fp] = versions[fp]
        return found

    def _insist_that_none_was_condemned(self) -> None:
        """The fold reads ahead of what is committed, where a record may still be condemned. Raises `TransientError` if one was."""
        facts = facts_of(self._app, self._subject)
        if condemned_offsets(facts).get(self._name, []) != self._fold.left_out:
            raise TransientError(f"a record of {self._text()} was condemned meanwhile (CRASH_LOOP); run the command again")
        if erasures_in(facts).get(self._name, []) != self._fold.erased:
            raise TransientError(f"an entity of {self._text()} was forgotten meanwhile; run the command again")

    def _follow(self) -> None:
        self._fold.follow(self._reader, self._reader.log_range(self._name).end)

    def _text(self) -> str:
        return f"{self._name.topic}-{self._name.partition}"
