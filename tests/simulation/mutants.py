"""Weaker protocols, each a patch of a few lines to the real loop, log or store; the simulation must catch every one of them.

V1   state first, then Kafka; the store checks nothing
V2   state first, then Kafka, with the store's checks
V3   commit first, then the state, written blindly: neither owner nor offset is looked at, and a store that is ahead is taken
V4   V3, but the owner is looked at
V5   a commit of which nobody knows is taken for done
V6   a commit of which nobody knows is sent again
V7   offsets are taken from whoever sends them, of whatever generation
V8   the committed offset is told while a transaction holds it
V9   V7 and V8
V10  the records of a partition that was revoked inside the drain are still folded and sent, with fresh group metadata
V11  with a commit in flight, states are packed after the next batch was folded, not before
V12  a claim begins while a commit is in flight
V13  a worker that ends on an error stores what it folded and did not commit
V14  what was found old in the store is deleted, although an event has brought it back
V15  the watermark is not taken up where the owner before left it
V16  a rebuild begins one pane too late
V17  a rebuild begins with the committed watermark, and so takes old events for late ones
V18  a store that stands below the log's oldest record is to be caught up, not rebuilt

and, of chained stages:

V19  a new owner of a hop's partition knows its watermark, not those of the partitions that feed it
V20  what is late on a hop is told from the foremost of the partitions that feed it
V21  what a stage passes on goes out in a transaction of its own, before that of the offsets

and, of look-ups:

V22  a look-up reads what is being rebuilt as if it were whole
V23  a look-up says where the group stands, not the store

and, of corrections:

V24  the retained events of an entity are not read back from the store
V25  what is folded again, and not published, is not retained
V26  corrections of an event are not counted
V27  corrections go out in a transaction of their own, before that of the offsets

and, of roles that move:

V28  who scores is told in a transaction of its own, before that of the offsets
V29  whoever comes to a partition does not tell that others scored it before
V30  a switch is told from behind the first batch that it scores

The control is no mutant but the protocol with one belt less: nobody looks at the owner, only at the offsets. It must keep the promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import greenlet
import numpy as np

from headrace import recovery
from headrace.assignment import Partition
from headrace.errors import TransientError
from headrace.features import watermark
from headrace.features.applier import Applier
from headrace.features.memory_store import Cell, MemoryStore, _put
from headrace.features.retained import RetainedEvents
from headrace.features.state_store import ApplyResult, Ask, Looked
from headrace.features.sweep import StoreSweep
from headrace.loop import Loop
from headrace.memory_log import MemoryGroup, MemoryLog
from headrace.paths import Paths
from headrace.pipeline import SourcePath
from headrace.publish.record_sink import CommitResult
from headrace.recovery import Found, Plan
from headrace.timeline import Timeline
from headrace.types import NO_WATERMARK_MS, Corrected, Int64s, PartitionWrite, Position, RecordBatch, StoredStates, TopicPartition, Work

DECIDE = recovery.decide


Apply = Callable[[MemoryStore, bytes, PartitionWrite], ApplyResult]


@contextmanager
def v1_state_first_and_blindly() -> Iterator[None]:
    """The store hears of a batch before Kafka does, and believes everything."""
    with v2_state_first(), v3_blind_writes():
        yield


@contextmanager
def v2_state_first() -> Iterator[None]:
    """The store hears of a batch before Kafka does."""
    publish = Loop._publish

    def stored_first(self: Loop, work: Work, timeline: Timeline, *, backlog: bool) -> None:
        self._applier.add(work.writes)
        self._applier.flush(list(self._assignment.partitions))
        work.writes = []
        publish(self, work, timeline, backlog=backlog)

    with patch.object(Loop, "_packed", lambda self, **_: self._path.pack()), patch.object(Loop, "_publish", stored_first):
        yield


def taking(owned: Callable[[MemoryStore, bytes, PartitionWrite], bool]) -> Apply:
    """An apply that looks at nothing but the owner, or not even at that."""

    def apply(self: MemoryStore, owner: bytes, write: PartitionWrite) -> ApplyResult:
        if not owned(self, owner, write):
            return ApplyResult.FENCED
        for view in write.views:
            cell = self._cells.setdefault((write.partition, view.view), Cell(owner=owner))
            _put(cell.states, view)
            cell.offset, cell.watermark_ms = view.end, write.watermark_ms
        return ApplyResult.OK

    return apply


def never_ahead(found: Found, *arguments: Any, **options: Any) -> Plan:
    """Take a store that is ahead of the committed offset for one that stands there."""
    committed = found.committed
    if committed is not None:
        heads = {
            view: replace(head, offset=None if head.offset is None else min(head.offset, committed.offset))
            for view, head in found.heads.items()
        }
        found = replace(found, heads=heads)
    return DECIDE(found, *arguments, **options)


@contextmanager
def v3_blind_writes() -> Iterator[None]:
    """Neither owner nor offset is looked at, in reading and in writing."""
    with (
        patch.object(MemoryStore, "_apply", taking(lambda *_: True)),
        patch.object(Applier, "_agrees", lambda *_: True),
        patch.object(recovery, "decide", never_ahead),
    ):
        yield


@contextmanager
def v4_blind_writes_of_the_owner() -> Iterator[None]:
    """The owner is looked at, the offset is not."""

    def owned(self: MemoryStore, owner: bytes, write: PartitionWrite) -> bool:
        return self._owned(write.partition, [view.view for view in write.views], owner)

    def agrees(_: Applier, owned: Any, __: object, answer: StoredStates) -> bool:
        return bool(answer.owner == owned.owner)

    with (
        patch.object(MemoryStore, "_apply", taking(owned)),
        patch.object(Applier, "_agrees", agrees),
        patch.object(recovery, "decide", never_ahead),
    ):
        yield


class Done:
    """A commit whose answer is known."""

    def __init__(self, answer: CommitResult) -> None:
        self._answer = answer

    def done(self) -> bool:
        return True

    def result(self) -> CommitResult:
        return self._answer


def instead_of_unknown(answer: Callable[[Loop, Work], CommitResult]) -> AbstractContextManager[object]:
    """What becomes of a commit of which nobody knows."""
    finish = Loop._finish_commit

    def finish_otherwise(self: Loop) -> bool:
        if self._in_flight is not None:
            work, timeline, outcome = self._in_flight
            if outcome.result() is CommitResult.UNKNOWN:
                self._fresh_sink.throw_away()
                self._in_flight = (work, timeline, Done(answer(self, work) if self._fresh_sink.ready() else CommitResult.UNKNOWN))
        return finish(self)

    return patch.object(Loop, "_finish_commit", finish_otherwise)


@contextmanager
def v5_unknown_is_done() -> Iterator[None]:
    """No reply to a commit: it will have happened."""
    with instead_of_unknown(lambda *_: CommitResult.COMMITTED):
        yield


@contextmanager
def v6_unknown_is_sent_again() -> Iterator[None]:
    """No reply to a commit: it will not have happened."""

    def again(self: Loop, work: Work) -> CommitResult:
        try:
            self._sink.begin()
            for records in work.outputs:
                self._sink.send(records)
            return self._sink.commit(work.positions, self._source.group())
        except TransientError:
            return CommitResult.UNKNOWN

    with instead_of_unknown(again):
        yield


@contextmanager
def v7_no_generation_check() -> Iterator[None]:
    """The group takes offsets from former members too."""
    with patch.object(MemoryGroup, "accepts", lambda *_: True):
        yield


@contextmanager
def v8_unstable_offsets() -> Iterator[None]:
    """The committed offset is told although a transaction that is pending may move it."""

    def committed(self: MemoryLog, group: str, partition: TopicPartition) -> Position | None:
        return self.group(group).offsets.get(partition)

    with patch.object(MemoryLog, "committed", committed):
        yield


@contextmanager
def v9_neither_generation_nor_stability() -> Iterator[None]:
    """V7 and V8."""
    with v7_no_generation_check(), v8_unstable_offsets():
        yield


@contextmanager
def v10_revoked_records_are_sent() -> Iterator[None]:
    """A revoked partition is forgotten one turn too late."""
    late: dict[int, dict[TopicPartition, Partition]] = {}
    turn = Loop.turn

    def revoked(self: Loop, partitions: Sequence[TopicPartition]) -> None:
        self._settle(partitions)
        late.setdefault(id(self), {}).update({name: self._assignment.partitions[name] for name in partitions})

    def turn_late(self: Loop) -> None:
        found = late.pop(id(self), {})
        self._assignment.remove([name for name, mine in found.items() if self._assignment.partitions.get(name) is mine])
        turn(self)

    with patch.object(Loop, "revoked", revoked), patch.object(Loop, "turn", turn_late):
        yield


@contextmanager
def v11_states_are_packed_late() -> Iterator[None]:
    """What is handed to the store is packed when the commit is definite; by then the next batch may be folded."""
    store = Loop._store

    def not_packed(self: Loop, *, backlog: bool) -> list[PartitionWrite]:
        del self, backlog
        return []

    def store_packed(self: Loop, work: Work, timeline: Timeline) -> None:
        work.writes = self._path.pack()
        store(self, work, timeline)

    with patch.object(Loop, "_packed", not_packed), patch.object(Loop, "_store", store_packed):
        yield


@contextmanager
def v12_claims_do_not_wait_for_the_commit() -> Iterator[None]:
    """A claim may ask for the committed offset while our own commit is about to move it."""

    def claim(self: Loop) -> None:
        if self._fresh_sink.ready():
            self._assignment.recover(self._applier.turn().moved)
            self._assignment.turn()

    with patch.object(Loop, "_claim_what_is_due", claim):
        yield


@contextmanager
def v13_an_error_leaves_what_is_not_committed() -> Iterator[None]:
    """A worker that ends on an error gives its partitions back as if a batch had just ended: what it folded goes to the store."""

    def run(self: Loop, topics: Sequence[str], *, leave: bool = False) -> None:
        self.start(topics)
        try:
            while not self._stopping:
                self.turn()
        finally:
            self._source.close(leave=leave)
            self._sink.close()

    with patch.object(Loop, "run", run):
        yield


@contextmanager
def v14_what_came_back_is_deleted() -> Iterator[None]:
    """The sweep of the store does not hear that an entity is in memory again."""
    with patch.object(StoreSweep, "came_back", lambda *_: None):
        yield


@contextmanager
def v15_the_watermark_begins_anew() -> Iterator[None]:
    """A new owner knows how far the fold is, not how far event time has come."""

    def decide(*arguments: Any, **options: Any) -> Plan:
        return replace(DECIDE(*arguments, **options), watermark_ms=NO_WATERMARK_MS, live_watermark_ms=None)

    with patch.object(recovery, "decide", decide):
        yield


@contextmanager
def v16_rebuilds_begin_a_pane_too_late() -> Iterator[None]:
    """The pane that the longest window has begun to leave is taken for gone."""
    span_ms = Paths.span_ms

    def too_short(self: Paths, topic: str) -> int | None:
        whole = span_ms(self, topic)
        return None if whole is None else whole - max(view.longest_pane_ms for view in self._paths[topic].states.views)

    with patch.object(Paths, "span_ms", too_short):
        yield


@contextmanager
def v17_rebuilds_begin_with_the_committed_watermark() -> Iterator[None]:
    """Whatever is folded, the watermark is the committed one."""

    def decide(found: Found, *arguments: Any, **options: Any) -> Plan:
        plan = DECIDE(found, *arguments, **options)
        if not plan.resets or found.committed is None or found.committed.watermark_ms is None:
            return plan
        return replace(plan, watermark_ms=found.committed.watermark_ms)

    with patch.object(recovery, "decide", decide):
        yield


@contextmanager
def v18_nothing_is_too_old_to_catch_up() -> Iterator[None]:
    """Only a view without any state is rebuilt."""

    def without_state(found: Found) -> list[str]:
        return [view for view, head in found.heads.items() if head.offset is None]

    with patch.object(recovery, "must_rebuild", without_state):
        yield


@contextmanager
def v19_parts_of_a_watermark_are_forgotten() -> Iterator[None]:
    """A new owner takes the least of the watermarks for all of them."""

    def decide(*arguments: Any, **options: Any) -> Plan:
        plan = DECIDE(*arguments, **options)
        live_ms = plan.live_watermark_ms
        return replace(plan, watermark_ms=int(plan.watermark_ms), live_watermark_ms=None if live_ms is None else int(live_ms))

    with patch.object(recovery, "decide", decide):
        yield


@contextmanager
def v20_the_foremost_decides_what_is_late() -> Iterator[None]:
    """The watermark of a hop is that of the furthest partition that feeds it, so those that lag are late."""
    least = watermark._least

    def foremost(feeders: Int64s, marks_ms: Int64s, parts: Int64s) -> Int64s:
        found = least(feeders, marks_ms, parts)
        in_a_worker = getattr(greenlet.getcurrent(), "process", None) is not None  # the audit stays as it is
        return np.full_like(found, parts.max()) if in_a_worker else found

    with patch.object(watermark, "_least", foremost):
        yield


@contextmanager
def v21_hops_have_a_transaction_of_their_own() -> Iterator[None]:
    """The records of hops are committed first, then everything else with the offsets."""
    with in_two_transactions(".by-"):
        yield


@contextmanager
def v28_switches_have_a_transaction_of_their_own() -> Iterator[None]:
    """Facts are committed first, then everything else with the offsets."""
    with in_two_transactions(".facts."):
        yield


@contextmanager
def v29_who_comes_tells_nothing() -> Iterator[None]:
    """Whoever comes to a partition takes what was told of it for what scores now."""
    start = Paths.start

    def silent(self: Paths, partition: TopicPartition, plan: Plan) -> None:
        start(self, partition, plan)
        self._epochs[partition] = self._line_up.epochs(self._pipelines(partition.topic))

    with patch.object(Paths, "start", silent):
        yield


@contextmanager
def v30_switches_are_told_late() -> Iterator[None]:
    """A switch is said to hold from the end of the first batch on that it scored."""
    tell = Paths._tell
    score = Paths.score

    def late(
        self: Paths,
        batches: Sequence[RecordBatch],
        ends: Mapping[TopicPartition, int],
        begins: Mapping[TopicPartition, int],
        timeline: Timeline,
    ) -> Work:
        def told(self: Paths, name: TopicPartition, _: int, work: Work) -> None:
            tell(self, name, ends[name], work)

        with patch.object(Paths, "_tell", told):
            return score(self, batches, ends, begins, timeline)

    with patch.object(Paths, "score", late):
        yield


def in_two_transactions(mark: str) -> AbstractContextManager[object]:
    """What goes to topics with a mark in their names is committed first, then everything else with the offsets."""
    publish = Loop._publish

    def in_two(self: Loop, work: Work, timeline: Timeline, *, backlog: bool) -> None:
        first = [records for records in work.outputs if mark in records.topic]
        if first and self._finish_commit():
            try:
                self._sink.begin()
                for records in first:
                    self._sink.send(records)
                result = self._sink.commit({}, self._source.group())
            except TransientError as trouble:
                self._not_committed(self._sink.abort(), str(trouble))
                return
            if result is not CommitResult.COMMITTED:
                self._not_committed(result, f"the transaction of {mark}")
                return
        work.outputs = [records for records in work.outputs if mark not in records.topic]
        publish(self, work, timeline, backlog=backlog)

    return patch.object(Loop, "_publish", in_two)


@contextmanager
def v22_look_ups_read_what_is_not_whole() -> Iterator[None]:
    """Whatever part of a view there is, it is shown."""
    with patch.object(Cell, "looked_at", lambda self: self):
        yield


@contextmanager
def v23_look_ups_name_another_offset() -> Iterator[None]:
    """The head of a look-up is one record further than what was read."""
    looked = MemoryStore._looked

    def further(self: MemoryStore, ask: Ask) -> Looked:
        found = looked(self, ask)
        heads = {number: replace(head, offset=head.offset and head.offset + 1) for number, head in found.heads.items()}
        return replace(found, heads=heads)

    with patch.object(MemoryStore, "_looked", further):
        yield


@contextmanager
def v24_retained_events_are_not_read_back() -> Iterator[None]:
    """What an entity retained is gone once it was given up, or its worker died."""
    with patch.object(RetainedEvents, "load", lambda *_: None):
        yield


@contextmanager
def v25_a_catch_up_retains_nothing() -> Iterator[None]:
    """Events whose predictions are out already are folded into the views alone."""
    fold = RetainedEvents.fold
    replays: set[int] = set()
    replay = SourcePath.replay

    def replayed(self: SourcePath, batch: RecordBatch, timeline: Timeline) -> None:
        replays.update(map(id, self.states._retained))
        try:
            replay(self, batch, timeline)
        finally:
            replays.difference_update(map(id, self.states._retained))

    def folded(self: RetainedEvents, *arguments: Any) -> Any:
        return None if id(self) in replays else fold(self, *arguments)

    with patch.object(SourcePath, "replay", replayed), patch.object(RetainedEvents, "fold", folded):
        yield


@contextmanager
def v26_corrections_are_not_counted() -> Iterator[None]:
    """Each correction of an event is its first."""

    def first(self: RetainedEvents, *arguments: Any) -> Corrected | None:
        found = fold(self, *arguments)
        return None if found is None else replace(found, revisions=np.ones_like(found.revisions))

    fold = RetainedEvents.fold
    with patch.object(RetainedEvents, "fold", first):
        yield


@contextmanager
def v27_corrections_have_a_transaction_of_their_own() -> Iterator[None]:
    """Corrections are committed first, then everything else with the offsets."""
    with in_two_transactions(".corrections"):
        yield


@contextmanager
def control() -> Iterator[None]:
    """Nobody looks at the owner; the offsets alone decide what the store takes."""

    def agrees(self: Applier, owned: Any, expected: Mapping[str, int], answer: StoredStates) -> bool:
        owned.seen_ms = self._now_ms()
        return {view: head.offset for view, head in answer.heads.items()} == expected

    def there(self: MemoryStore, partition: TopicPartition, views: Iterable[str], _: bytes) -> bool:
        return all((partition, view) in self._cells for view in views)

    with patch.object(MemoryStore, "_owned", there), patch.object(Applier, "_agrees", agrees):
        yield


MUTANTS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "V1": v1_state_first_and_blindly,
    "V2": v2_state_first,
    "V3": v3_blind_writes,
    "V4": v4_blind_writes_of_the_owner,
    "V5": v5_unknown_is_done,
    "V6": v6_unknown_is_sent_again,
    "V7": v7_no_generation_check,
    "V8": v8_unstable_offsets,
    "V9": v9_neither_generation_nor_stability,
    "V10": v10_revoked_records_are_sent,
    "V11": v11_states_are_packed_late,
    "V12": v12_claims_do_not_wait_for_the_commit,
    "V13": v13_an_error_leaves_what_is_not_committed,
    "V14": v14_what_came_back_is_deleted,
    "V15": v15_the_watermark_begins_anew,
    "V16": v16_rebuilds_begin_a_pane_too_late,
    "V17": v17_rebuilds_begin_with_the_committed_watermark,
    "V18": v18_nothing_is_too_old_to_catch_up,
    "V19": v19_parts_of_a_watermark_are_forgotten,
    "V20": v20_the_foremost_decides_what_is_late,
    "V21": v21_hops_have_a_transaction_of_their_own,
    "V22": v22_look_ups_read_what_is_not_whole,
    "V23": v23_look_ups_name_another_offset,
    "V24": v24_retained_events_are_not_read_back,
    "V25": v25_a_catch_up_retains_nothing,
    "V26": v26_corrections_are_not_counted,
    "V27": v27_corrections_have_a_transaction_of_their_own,
    "V28": v28_switches_have_a_transaction_of_their_own,
    "V29": v29_who_comes_tells_nothing,
    "V30": v30_switches_are_told_late,
}
"""By name; the protocol itself passes the same schedules."""

APP_OF = {"V19": "chain", "V20": "chain", "V21": "chain", "V22": "look", "V23": "look"}
APP_OF |= dict.fromkeys(("V24", "V25", "V26", "V27"), "correct") | dict.fromkeys(("V28", "V29", "V30"), "roles")
"""The app that those need to be seen which one stage does not show."""
