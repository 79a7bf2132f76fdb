"""New and changed views, filled from the log beside the workers that serve the old ones.

A view with another definition has another fingerprint, so its state stands beside the old one under a name of its own. Here it is folded
from the log up to the offset the group has committed, and written as a worker would write it: under a claim of these views alone, page by
page, by compare-and-set on the offset. The workers at work own other views and notice nothing. What is written is a valid state at every
moment: a filling that was ended goes on where it stood, and workers with the new definitions, started one after another, find it a few
events behind their commits, fold those, and go on. Their claim fences the filling, which then is done.

So predictions do not wait for the log to be folded. Without a filling they would: a partition goes live when all its views stand at the
committed offset.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from headrace import recovery
from headrace.consume.record_reader import RecordReader
from headrace.crashes import condemned_offsets, rows_at
from headrace.definition import App
from headrace.errors import PartitionMoved
from headrace.features.resident import ResidentStates
from headrace.features.retained_view import Kept, RetainedView
from headrace.features.state_store import ApplyResult, StateStore
from headrace.forgotten import erasures_in, leaves_out
from headrace.paths import decoder_of, span_ms
from headrace.recovery import Found, Plan
from headrace.source import Source
from headrace.types import Delivery, Position, TopicPartition, ViewHead
from headrace.verify.scope import facts_of, stable_position
from headrace.verify.subject import Subject

AT_ONCE = 16_384
"""States that are written together."""
NEAR = 1_000
"""A filling is done when so few events are left: a worker folds them in an instant."""
EVENTS_A_SECOND = 200_000
"""What to expect of a fold; measured: 290,000 to 340,000 on one core with Redis beside it."""

Told = Callable[[int, int], None]
"""Hears how many events are folded, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What filling a partition reads: the records from `start` up to the committed offset."""

    partition: TopicPartition
    start: int
    end: int


def extents(app: App, subject: Subject, source: Source, views: Sequence[Kept]) -> list[Extent]:
    """How much of the log new states of these views are folded from. Raises `PartitionGivenUp` where it does not reach back."""
    with closing(subject.reader()) as reader:
        found = []
        for name in reader.partitions(source.topic):
            committed = stable_position(app, subject, name)
            plan = _plan(subject, reader, name, views, committed, {view.fp: ViewHead(offset=None, watermark_ms=None) for view in views})
            found.append(Extent(partition=name, start=plan.start, end=plan.live_from))
        return found


def to_fill(app: App, subject: Subject, changed: Collection[str], new: Collection[str]) -> dict[str, int]:
    """By view among `changed`: how many events it is filled from, all partitions together. Topics in `new` have no commits yet."""
    return {
        view.name: sum(one.end - one.start for one in extents(app, subject, reads, [view]))
        for reads in app.inputs
        if reads.topic not in new
        for view in app.views_of(reads)
        if view.name in changed
    }


def unfilled(app: App, subject: Subject, store: StateStore, source: Source, name: TopicPartition) -> list[Kept]:
    """The views of a partition whose state is not there, or so far behind the commits that a worker would be missed while it catches up."""
    committed = stable_position(app, subject, name).offset
    views = app.kept_of(source)
    heads = store.read(name, [view.fp for view in views], ()).heads
    return [view for view in views if (offset := heads[view.fp].offset) is None or offset < committed - NEAR]


class Filling:
    """Fills views of one partition. `told` hears how far it is, after every batch."""

    def __init__(
        self,
        app: App,
        subject: Subject,
        store: StateStore,
        source: Source,
        name: TopicPartition,
        views: Sequence[Kept],
        *,
        told: Told,
    ) -> None:
        self._app, self._subject, self._store, self._name, self._views, self._told = app, subject, store, name, tuple(views), told
        self._owner = secrets.token_bytes(16)
        fields = frozenset().union(*(view.fields for view in views))
        self._decoder = decoder_of(app, source, fields=fields)
        self._states = ResidentStates(
            views=[view for view in views if not isinstance(view, RetainedView)],
            retained=[view for view in views if isinstance(view, RetainedView)],
            read=self._read,
        )
        self._ends: dict[str, int] = {}
        self._folded = 0

    def run(self) -> bool:
        """Fold up to the committed offset, until few events are left; False when a worker has taken the views over meanwhile."""
        try:
            return self._run()
        except PartitionMoved:
            if self._store.read(self._name, [view.fp for view in self._views], ()).owner == self._owner:
                raise
            return False

    def _run(self) -> bool:
        with closing(self._subject.reader()) as reader:
            heads = self._store.claim(self._name, [view.fp for view in self._views], self._owner).heads
            committed = stable_position(self._app, self._subject, self._name)
            plan = _plan(self._subject, reader, self._name, self._views, committed, heads)
            topic_id = self._subject.topic_id(self._name.topic)
            if plan.resets and self._reset(plan, topic_id) is not ApplyResult.OK:
                return False
            self._states.start(self._name, plan.starts, plan.watermark_ms, empty=len(plan.resets) == len(self._views))
            self._ends = dict(plan.starts)
            position = plan.start
            while True:
                if not self._fold(reader, position, committed.offset, plan.start):
                    return False
                position, committed = committed.offset, stable_position(self._app, self._subject, self._name)
                if committed.offset - position <= NEAR:
                    return True

    def _reset(self, plan: Plan, topic_id: str) -> ApplyResult:
        return self._store.reset(self._name, plan.resets, self._owner, topic_id, plan.live_from)

    def _fold(self, reader: RecordReader, start: int, end: int, first: int) -> bool:
        """Fold one stretch of the log and write what comes of it."""
        facts = facts_of(self._app, self._subject)
        left_out = {self._name: condemned_offsets(facts).get(self._name, [])}
        erased = erasures_in(facts).get(self._name)
        self._states.leave_out(self._name, leaves_out(self._name.topic, erased) if erased else None)
        for batch in reader.batches({self._name: start}, {self._name: end}) if start < end else ():
            kept = np.flatnonzero(~rows_at(batch, left_out))
            self._states.fold(self._decoder.decode(batch if len(kept) == len(batch) else batch.select(kept)).events)
            at = int(batch.offsets[-1]) + 1
            self._told(at - first, end - first)
            if self._states.touched() >= AT_ONCE and not self._write(at):
                return False
        return self._write(end)

    def _write(self, end: int) -> bool:
        """Bring the store up to an offset; False when the views are somebody else's."""
        for write in self._states.pack({self._name: end}):
            answer = self._store.apply(self._owner, write)
            if answer is ApplyResult.FENCED:
                return False
            if answer is ApplyResult.BEHIND:
                raise PartitionMoved(
                    f"the store forgot what was filled of {_text(self._name)}; run the command again, it goes on from there"
                )
        self._states.applied(self._name, end)
        self._ends = dict.fromkeys(self._ends, end)
        return True

    def _read(self, partition: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        """States that are not in memory; believed only where the store stands where we left it."""
        found = self._store.read(partition, [view.fp for view in self._views], keys)
        if found.owner != self._owner or {view: head.offset for view, head in found.heads.items()} != self._ends:
            raise PartitionMoved(f"the views of {_text(partition)} were claimed, or the store forgot some of them, while they were filled")
        return found.states


def _plan(
    subject: Subject,
    reader: RecordReader,
    name: TopicPartition,
    views: Sequence[Kept],
    committed: Position,
    heads: Mapping[str, ViewHead],
) -> Plan:
    """Where the fold begins: what a worker would decide that finds these heads."""
    found = Found(
        partition=name,
        heads=heads,
        state_topic_id=None,
        topic_id=subject.topic_id(name.topic),
        partitions=len(reader.partitions(name.topic)),
        committed=committed,
        log=reader.log_range(name),
    )
    rebuild_ms = recovery.rebuild_time_ms(found, span_ms(views[0].source, views)) if recovery.must_rebuild(found) else None
    rebuild_offset = None if rebuild_ms is None else reader.offset_at(name, rebuild_ms)
    if rebuild_offset is not None:
        found = replace(found, log=reader.log_range(name))  # asked once more: retention may have come in between
    return recovery.decide(found, Delivery.EXACTLY_ONCE, rebuild_ms=rebuild_ms, rebuild_offset=rebuild_offset)


def _text(name: TopicPartition) -> str:
    return f"{name.topic}-{name.partition}"
