"""What holds only when everything is at rest: no lag, no open transaction, and a store that equals the fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from headrace.definition import App
from headrace.features.retained_view import Kept
from headrace.features.same import same_kept
from headrace.features.state_store import StateStore
from headrace.types import Position, TopicPartition
from headrace.verify.findings import Findings, Kind, Violation
from headrace.verify.scope import Scope, lags
from headrace.verify.shelf import Shelf
from headrace.verify.subject import Subject

Pairs = tuple[Sequence[bytes], Sequence[bytes | None], Sequence[bytes | None]]
"""Entities, their states in the store, and those of the fold."""


def check_rest(app: App, subject: Subject, scope: Scope, findings: Findings, *, live: bool) -> None:
    """I5. Where workers may be at work (`live`) it is not checked."""
    if live:
        findings.not_checked["I5"] = "workers may be at work (--live)"
        return
    reader = subject.reader()
    try:
        for name, position in scope.committed.items():
            end = reader.log_range(name).end
            if lags(reader, name, position.offset, end):
                _add(findings, Kind.LAG, name, app.name, f"group {app.name} at the end, {end}", str(position.offset), position.offset)
        for name, stable in scope.open.items():
            _add(
                findings,
                Kind.OPEN,
                name,
                "results",
                f"no open transaction, the end is {scope.until[name]}",
                f"one from {stable} on",
                stable,
            )
        for name in scope.committed:
            written, stable = subject.written_end(name), reader.log_range(name).end
            if stable < written:
                _add(findings, Kind.OPEN, name, "source", f"no open transaction, the end is {written}", f"one from {stable} on", stable)
    finally:
        reader.close()


class StateCheck:
    """I4: offset and watermark of each view and partition, and the state of every entity."""

    def __init__(self, app: App, subject: Subject, shelf: Shelf, findings: Findings) -> None:
        self._app, self._subject, self._shelf, self._findings = app, subject, shelf, findings

    def run(self, scope: Scope, watermarks: Mapping[TopicPartition, int], *, whole: bool) -> None:
        """Compare the store with the fold. `whole`: the fold went up to the committed offset."""
        store = self._subject.store
        if store is None or not whole:
            self._findings.not_checked["I4"] = "no store was given" if store is None else "the fold ends before the committed offset (--to)"
            return
        moving = 0
        for reads in self._app.inputs:
            for name in scope.partitions[reads.topic]:
                position = scope.committed[name]
                if self._subject.committed(name) != position:
                    moving += 1
                    continue
                wanted_ms = watermarks[name]
                if scope.starts[name] < scope.ends[name] and position.watermark_ms not in (None, wanted_ms):
                    self._head(name, "the group", position, f"watermark {wanted_ms}", str(position.watermark_ms))
                for view in self._app.kept_of(reads):
                    self._check(store, name, view, Position(offset=position.offset, watermark_ms=wanted_ms))
        if moving:
            self._findings.not_checked["I4"] = f"{moving} partitions moved on meanwhile, so their state was not compared"

    def _check(self, store: StateStore, name: TopicPartition, view: Kept, wanted: Position) -> None:
        """One view of one partition."""
        head = store.read(name, [view.fp], ()).heads[view.fp]
        if head.offset != wanted.offset and not (head.offset is None and wanted.offset == 0):
            self._head(name, view.name, wanted, f"offset {wanted.offset}", str(head.offset))
            return
        if head.watermark_ms is not None and head.watermark_ms != wanted.watermark_ms:
            self._head(name, view.name, wanted, f"watermark {wanted.watermark_ms}", str(head.watermark_ms))
        as_of_ms = (wanted.watermark_ms or 0) - view.source.lateness_ms
        self._findings.checked["partitions"] += 1
        for keys, stored, folded in self._pairs(store, name, view):
            self._findings.checked["entities"] += len(keys)
            for key, theirs, ours in zip(keys, stored, folded, strict=True):
                if theirs != ours and not same_kept(view, theirs, ours, as_of_ms):
                    self._findings.add(another_state(name, view, key, ours, theirs))

    def _pairs(self, store: StateStore, name: TopicPartition, view: Kept) -> Iterator[Pairs]:
        """Every entity that the fold or the store knows, with both states: first those of the fold, then those only the store has."""
        for page in self._shelf.pages(name, view.fp):
            keys = [key for key, _ in page]
            yield keys, store.read(name, [view.fp], keys).states[view.fp], [state for _, state in page]
        cursor, more = 0, True
        while more:
            found = store.scan(name, view.fp, cursor)
            folded = self._shelf.states(name, view.fp, found.keys)
            alone = [place for place, state in enumerate(folded) if state is None]
            if alone:
                yield [found.keys[place] for place in alone], [found.states[place] for place in alone], [None] * len(alone)
            cursor = found.cursor
            more = cursor != 0

    def _head(self, name: TopicPartition, of: str, at: Position, expected: str, found: str) -> None:
        _add(self._findings, Kind.HEAD, name, of, expected, found, at.offset)


def another_state(name: TopicPartition, view: Kept, key: bytes, ours: bytes | None, theirs: bytes | None) -> Violation:
    """An entity whose state in the store is not the fold's."""
    entity = key.decode(errors="backslashreplace")
    return Violation(kind=Kind.STATE, **name._asdict(), entity=entity, of=view.name, expected=_size(ours), found=_size(theirs))


def _size(state: bytes | None) -> str:
    return "no state" if state is None else f"another state of {len(state)} bytes"


def _add(  # noqa: PLR0917 - the columns of one line
    findings: Findings, kind: Kind, name: TopicPartition, of: str, expected: str, found: str, offset: int
) -> None:
    findings.add(Violation(kind=kind, **name._asdict(), offset=offset, of=of, expected=expected, found=found))
