"""The states of an app into a file and back, while workers are at work.

Saving stops nobody. A page of states says nothing about its instant, and a partition that is busy never stands still; so a partition is
scanned as it moves, and what the scan may have seen in the wrong moment is read again:

    low     where the store stood before the scan
    scan    every state, each as of some offset at or above low
    then    entities with a record from low on are read again, nearer and nearer to where the store is, and at last all that are left
            in one read that also tells where the store stands: there the file stands too. An entity without a record since low has not
            changed. For that last read the records just above are known beforehand, so it needs no luck.

Only who owns the partition is expected to stay; if that changes somebody may have begun anew, and so do we.

An old file is always a valid start: a worker that finds the store behind its commits folds the difference. So restoring only has to
be whole: states are put aside under a name of their own, and take the place of what was there in one step, under a claim that fences
the worker. It claims again by itself. What breaks before that step changes nothing; what is left aside is dropped by the next restore.

Limits: during a restore the store holds a partition twice; with a snapshot taken under a backlog the log is read as far as the worker moves
meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from headrace.consume.record_reader import RecordReader
from headrace.definition import App
from headrace.errors import SnapshotRefused, TransientError
from headrace.features.snapshot_file import Page, Part, SnapshotFile, SnapshotWriter
from headrace.features.state_store import ApplyResult, StateStore, aside
from headrace.forgotten import Erasure, erasures_in, token_of
from headrace.types import NO_WATERMARK_MS, PartitionWrite, StateChunk, TopicPartition, ViewHead, ViewWrite
from headrace.verify.scope import facts_of, stable_position
from headrace.verify.subject import Subject

ATTEMPTS = 20
"""How often a partition is begun anew, or taken from its worker."""
LOOK_AHEAD, MOST_AHEAD = 1_000, 64_000
"""How many records above the store's offset are looked at before the last read: at first, and at most."""
ROUNDS = 50
"""How often the store is looked at again before a view is begun anew."""
PAUSE_MS = 100
MOST_KEY_BYTES = 256
BEGIN = -(1 << 62)
"""Where a view that is put aside begins; each page is one further."""

Told = Callable[[str, int], None]
"""Hears of a partition and how many states of it are through."""


# ------------------------------------------------------------------------------------------------------------------- save


def save(
    app: App, subject: Subject, store: StateStore, writer: SnapshotWriter, wanted: Sequence[TopicPartition], *, told: Told
) -> list[str]:
    """Write the states of partitions into a file; tells of which there are none."""
    missing = []
    with closing(subject.reader()) as reader:
        for name in wanted:
            views = {view.fp: view.name for reads in app.inputs if reads.topic == name.topic for view in app.kept_of(reads)}
            heads = store.read(name, list(views), ()).heads
            views = {view: title for view, title in views.items() if heads[view].offset is not None}
            if not views:
                missing.append(_text(name))
                continue
            for _ in range(ATTEMPTS):
                if _saved(name, subject.topic_id(name.topic), views, store=store, reader=reader, writer=writer, told=told):
                    break
                subject.pause(PAUSE_MS)
            else:
                raise TransientError(
                    f"{_text(name)} changed hands {ATTEMPTS} times while it was saved, so there is no file; wait until the workers have "
                    "settled (/readyz), then run the command again"
                )
    return missing


def _saved(
    name: TopicPartition,
    topic_id: str,
    views: Mapping[str, str],
    *,
    store: StateStore,
    reader: RecordReader,
    writer: SnapshotWriter,
    told: Told,
) -> bool:
    """Save one partition, a view after the other: each stands where it stands. If it changed hands, nothing of it is in the file."""
    writer.begin(name, topic_id, views)
    heads = {}
    states = 0

    def write(view: str, keys: Sequence[bytes], found: Sequence[bytes | None]) -> None:
        nonlocal states
        writer.states(view, keys, found)
        states += len(keys)
        told(_text(name), states)

    for view in views:
        head = _Saving(name, view, store, reader, write).run()
        if head is None:
            writer.undo()
            return False
        heads[view] = head
    writer.end(heads)
    return True


Write = Callable[[str, Sequence[bytes], Sequence[bytes | None]], None]


class _Saving:
    """One view of a partition on its way into a file."""

    def __init__(self, name: TopicPartition, view: str, store: StateStore, reader: RecordReader, write: Write) -> None:
        self._name, self._view, self._store, self._reader, self._write = name, view, store, reader, write
        self._owner: bytes | None = None
        self._low = 0
        """What is written is right but for entities with a record at or above this."""
        self._seen = 0
        """The furthest it was seen; a store that goes back was changed under our hands."""

    def run(self) -> ViewHead | None:
        """Save it; where it stands in the file, or None if it changed hands."""
        found = self._store.read(self._name, [self._view], ())
        offset = found.heads[self._view].offset
        if offset is None:
            return None
        self._owner, self._low, self._seen = found.owner, offset, offset
        cursor, more = 0, True
        while more:
            page = self._store.scan(self._name, self._view, cursor)
            self._write(self._view, page.keys, page.states)
            cursor = page.cursor
            more = cursor != 0
        return self._follow()

    def _follow(self) -> ViewHead | None:
        """Read again what may have changed since, nearer and nearer, until one read holds the rest."""
        ahead = LOOK_AHEAD
        for _ in range(ROUNDS):
            at = self._read(())
            if at is None or at.offset is None:
                return None
            if at.offset - self._low > ahead:
                for keys in self._touched(self._low, at.offset):
                    if self._read(keys) is None:
                        return None
                self._low = at.offset
                continue
            end = min(self._reader.log_range(self._name).end, at.offset + ahead)
            keys = list(dict.fromkeys(key for some in self._touched(self._low, end) for key in some))
            head = self._read(keys)
            if head is None:
                return None
            if head.offset is not None and head.offset <= end:
                return head
            ahead = min(2 * ahead, MOST_AHEAD)
        return None

    def _read(self, keys: Sequence[bytes]) -> ViewHead | None:
        """Write the states of entities as they are now, and tell where the view stands with them; None if it changed hands."""
        found = self._store.read(self._name, [self._view], keys)
        head = found.heads[self._view]
        if found.owner != self._owner or head.offset is None or head.offset < self._seen:
            return None
        self._seen = head.offset
        self._write(self._view, keys, found.states[self._view])
        return head

    def _touched(self, start: int, end: int) -> Iterator[list[bytes]]:
        """The keys of the records from start up to end, a list for each batch."""
        if start < end:
            for batch in self._reader.batches({self._name: start}, {self._name: end}):
                yield list({key for key in batch.keys if key is not None and 0 < len(key) <= MOST_KEY_BYTES})


# ---------------------------------------------------------------------------------------------------------------- restore


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What of a file is restored."""

    parts: list[tuple[Part, list[str]]]
    """Partitions, each with the views that the app still has."""
    changed: list[str]
    """What is left out, and why."""
    erased: Mapping[TopicPartition, Sequence[Erasure]]
    """Who was forgotten, and where: what the file still holds of them is left out, too."""


def plan(app: App, subject: Subject, file: SnapshotFile, wanted: Collection[TopicPartition] | None) -> Plan:
    """What can be restored. Raises `SnapshotRefused` with all that speaks against it; nothing is changed then."""
    if file.app != app.name:
        raise SnapshotRefused(f"the file holds states of app {file.app}, not of {app.name}: nothing was changed")
    topics = {part.partition.topic for part in file.parts}
    lacking = sorted(set(wanted or ()) - {part.partition for part in file.parts})
    against = [f"{_text(name)} is not in the file" for name in lacking]
    found = Plan(parts=[], changed=[], erased=erasures_in(facts_of(app, subject)))
    with closing(subject.reader()) as reader:
        there = {name for topic in topics if reader.exists(topic) for name in reader.partitions(topic)}
        for part in file.parts:
            if wanted is not None and part.partition not in wanted:
                continue
            views = {view.fp for reads in app.inputs if reads.topic == part.partition.topic for view in app.kept_of(reads)}
            ours = [view for view in part.views if view in views]
            found.changed.extend(
                f"view {name} of {_text(part.partition)} is left out: the app has no view with fingerprint {view} any more, so the state "
                "of the changed one is folded from the log"
                for view, name in part.views.items()
                if view not in views
            )
            if ours:
                why = _against(app, subject, reader, part, ours) if part.partition in there else f"there is no {_text(part.partition)}"
                against += [why] if why else []
                found.parts.append((part, ours))
    if against:
        raise SnapshotRefused(
            "nothing was changed: "
            + "; ".join(against)
            + "; `--partition` restores others alone, `headrace state rebuild` has the state folded from the log instead"
        )
    return found


def _against(app: App, subject: Subject, reader: RecordReader, part: Part, views: Collection[str]) -> str | None:
    """What speaks against restoring a partition."""
    name = part.partition
    topic_id = subject.topic_id(name.topic)
    if part.topic_id != topic_id:
        return (
            f"topic {name.topic} was deleted and made again since the snapshot (its id is {topic_id}, it was {part.topic_id}): the states "
            "are of other events"
        )
    offsets = [part.heads[view].offset or 0 for view in views]
    committed = stable_position(app, subject, name).offset
    if max(offsets) > committed:
        return (
            f"{_text(name)} would stand at offset {max(offsets)}, beyond the committed offset {committed}: its features would hold "
            "events that are not scored yet"
        )
    start = reader.log_range(name).start
    if min(offsets) < start:
        return (
            f"the snapshot of {_text(name)} stands at offset {min(offsets)} and the log begins at {start}: the events in between are gone, "
            "so no worker could go on from it"
        )
    return None


def restore(
    subject: Subject,
    store: StateStore,
    file: SnapshotFile,
    part: Part,
    views: Sequence[str],
    *,
    told: Told,
    erased: Sequence[Erasure] = (),
) -> None:
    """Give views of a partition the states of a file, all in one step at the end. The claim fences the worker, which claims again.

    `erased`: who was forgotten in this partition.
    """
    name, owner = part.partition, secrets.token_bytes(16)
    names = [aside(view) for view in views]
    store.claim(name, names, owner)
    try:
        _done(store.reset(name, dict.fromkeys(names, BEGIN), owner, part.topic_id), name)
        _put_aside(store, file, part, views, owner, (told, erased))
        _take_place(subject, store, part, views, owner)
    except _SomebodyElse:
        raise
    except BaseException:
        store.drop(name, names)
        raise


def _take_place(subject: Subject, store: StateStore, part: Part, views: Sequence[str], owner: bytes) -> None:
    """The one step in which what is aside becomes the state; a worker that claims in between is quick, but not always quicker."""
    name = part.partition
    for _ in range(ATTEMPTS):
        store.claim(name, views, owner)
        answer = store.adopt(name, {view: part.heads[view].offset or 0 for view in views}, owner)
        if answer is ApplyResult.OK:
            return
        if answer is ApplyResult.BEHIND or store.read(name, [aside(view) for view in views], ()).owner != owner:
            _done(answer, name)
        subject.pause(PAUSE_MS)
    raise TransientError(f"{_text(name)} was claimed by its worker {ATTEMPTS} times in between; it is as it was, run the command again")


def _put_aside(
    store: StateStore, file: SnapshotFile, part: Part, views: Sequence[str], owner: bytes, heard: tuple[Told, Sequence[Erasure]]
) -> None:
    """Every page is a step of its own; the last lets the view stand where it will. `heard`: who is told, and who was forgotten."""
    told, erased = heard
    at = dict.fromkeys(views, BEGIN)
    states = 0
    for page in _remembered(file, part, erased):
        if page.view in at:
            start = at[page.view]
            at[page.view] += 1
            _step(store, part, page.view, (start, start + 1), owner, page)
            states += len(page.keys)
            told(_text(part.partition), states)
    for view, start in at.items():
        _step(store, part, view, (start, part.heads[view].offset or 0), owner, None)


def _remembered(file: SnapshotFile, part: Part, erased: Sequence[Erasure]) -> Iterator[Page]:
    """The pages without what was forgotten where the file stands, or later."""
    for page in file.pages(part):
        due = {one.token for one in erased if one.offset >= (part.heads[page.view].offset or 0)} if page.view in part.heads else set()
        if not due:
            yield page
            continue
        gone = [token_of(part.partition.topic, key.decode()) in due for key in page.keys]
        yield replace(page, states=[None if left_out else state for state, left_out in zip(page.states, gone, strict=True)])


def _step(store: StateStore, part: Part, view: str, move: tuple[int, int], owner: bytes, page: Page | None) -> None:
    watermark_ms = part.heads[view].watermark_ms
    write = PartitionWrite(
        partition=part.partition,
        watermark_ms=NO_WATERMARK_MS if watermark_ms is None else watermark_ms,
        views=[
            ViewWrite(
                view=aside(view),
                start=move[0],
                end=move[1],
                chunks=[] if page is None else [_chunk(page)],
                deletions=[] if page is None else [key for key, state in zip(page.keys, page.states, strict=True) if state is None],
            )
        ],
    )
    _done(store.apply(owner, write), part.partition)


def _chunk(page: Page) -> StateChunk:
    held = [(key, state) for key, state in zip(page.keys, page.states, strict=True) if state is not None]
    return StateChunk(
        keys=[key for key, _ in held],
        buffer=np.frombuffer(b"".join(state for _, state in held), dtype=np.uint8),
        bounds=np.cumsum([0, *(len(state) for _, state in held)], dtype=np.int64),
    )


class _SomebodyElse(TransientError):
    """What is aside is not ours any more, and not ours to drop."""


def _done(answer: ApplyResult, name: TopicPartition) -> None:
    if answer is ApplyResult.FENCED:
        raise _SomebodyElse(f"somebody else restores {_text(name)} at the same time: run the command again when they are done")
    if answer is ApplyResult.BEHIND:
        raise TransientError(f"the store lost some of what was put aside for {_text(name)}; it is as it was, run the command again")


def _text(name: TopicPartition) -> str:
    return f"{name.topic}-{name.partition}"
