"""The delivery promise on one screen: one batch, one transaction, and the store after it.

    poll -> fold and score -> (the commit before becomes definite) -> begin, send, commit with offsets -> apply to the store

Every source offset below the committed one has, for a `read_committed` reader, exactly one prediction or dead letter, because predictions
and offsets are committed in one transaction; features are right, because the store is written only after a *definite* commit, by
compare-and-set on the offset, and a new owner folds what is missing. Whatever is not definite is never guessed: the producer is thrown
away, everything in memory is dropped, and every partition is claimed again (`assignment`, `recovery`).

Two freedoms this order leaves are taken. Under a backlog a commit is in flight, in a thread, while the next batch is polled, folded and
scored; nothing of that batch is sent before the commit is definite. And the store follows the commit (`features/applier`), several batches
at a time, never more than `max_store_delay` behind. Every transition here is a row of the table in `services/README.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.crashes import WARY_RECORDS
from headrace.errors import PartitionMoved, SlotTaken, TransientError
from headrace.executor import Outcome
from headrace.parts import Parts
from headrace.publish.record_sink import CommitResult
from headrace.timeline import Timeline
from headrace.types import Drain, PartitionWrite, TopicPartition, Work

IDLE_MS, BUSY_MS = 100, 5


class Loop:
    """Moves batches from the source to the sink; a `RebalanceListener`."""

    def __init__(self, parts: Parts) -> None:
        self._source, self._sink, self._commits = parts.source, parts.sink.sink, parts.commits
        self._fresh_sink, self._applier, self._assignment = parts.sink, parts.applier, parts.assignment
        self._path, self._watch, self._limits, self._taken_by = parts.path, parts.watch, parts.limits, parts.taken_by
        self._batches = parts.batches
        self._in_flight: tuple[Work, Timeline, Outcome[CommitResult]] | None = None
        self._stopping = False

    def stop(self) -> None:
        """End after the batch at hand; safe to call from a signal."""
        self._stopping = True

    def start(self, topics: Sequence[str]) -> None:
        """Join the group; `turn` does the rest."""
        self._source.start(topics, self)

    def run(self, topics: Sequence[str], *, leave: bool = False) -> None:
        """Serve until `stop`: the last batch is finished and applied. `leave` gives the partitions up at once instead of keeping them for
        a restart.
        """
        self.start(topics)
        try:
            while not self._stopping:
                self.turn()
            self._settle(list(self._assignment.partitions))
        finally:
            self._assignment.release(list(self._assignment.partitions))  # what ended us may have left something folded, not committed
            self._source.close(leave=leave)
            self._sink.close()

    def turn(self) -> None:
        """One batch, or one look whether there is one."""
        self._watch.tick(self._assignment)
        self._claim_what_is_due()
        timeline = self._watch.timeline()
        try:
            most = min(self._batches.records, WARY_RECORDS) if self._assignment.wary() else self._batches.records
            drain = self._source.poll(most, self._patience_ms())
        except TransientError as away:
            self._watch.say("broker away", reason=str(away))
            return
        timeline.mark("consume")
        if drain.broken:
            self._watch.say("position lost", partitions=drain.broken)
            self._finish_commit()
            self._assignment.recover(drain.broken)
        backlog = len(drain) >= self._limits.overlap_from
        try:
            work = self._fold_and_score(drain, timeline, backlog=backlog)
        except (TransientError, PartitionMoved) as trouble:
            if self._finish_commit():
                self._start_over(str(trouble), reopen=False)
            return
        if self._finish_commit():
            timeline.mark("wait")
            if work is not None:
                self._publish(work, timeline, backlog=backlog)
            else:
                self._applier.add(self._packed(backlog=False))
        if self._applier.overdue():
            self._applier.flush(list(self._assignment.partitions))

    def _claim_what_is_due(self) -> None:
        """Claim partitions that are new or in doubt; never while a commit is in flight, which could move the offset that is asked for."""
        if not self._fresh_sink.ready():
            return
        turned = self._applier.turn()
        for partition, offset in turned.applied.items():
            self._path.applied(partition, offset)
        if (turned.moved or self._assignment.due()) and not self._finish_commit():
            return
        self._assignment.recover(turned.moved)
        self._assignment.turn()

    def _fold_and_score(self, drain: Drain, timeline: Timeline, *, backlog: bool) -> Work | None:
        """Everything that happens to a batch inside this process; nothing leaves it."""
        found = self._assignment.sort(drain)
        for batch in found.replay:
            self._path.replay(batch, timeline)
            self._watch.say("replayed", events=len(batch))
        self._assignment.go_live(found.arrived)
        if not found.ends:
            return None
        work = self._path.score(found.live, found.ends, found.begins, timeline)
        work.writes = self._packed(backlog=backlog)
        timeline.mark("pack")
        return work

    def _packed(self, *, backlog: bool) -> list[PartitionWrite]:
        """What the store is to hear now, if anything; states are packed before a later event can be folded into them."""
        return self._path.pack() if self._applier.wants(self._path.unpacked(), backlog=backlog) else []

    def _publish(self, work: Work, timeline: Timeline, *, backlog: bool) -> None:
        """Send one batch and commit it; under a backlog the commit stays in flight."""
        if not work.positions:
            self._store(work, timeline)
            return
        self._batches.begin()
        try:
            self._sink.begin()
            group = self._source.group()
            for records in work.outputs:
                self._sink.send(records)
        except TransientError as trouble:
            self._batches.failed(work.records())
            self._not_committed(self._sink.abort(), str(trouble))
            return
        timeline.mark("produce")
        self._in_flight = (work, timeline, self._commits.submit(self._sink.commit, work.positions, group))
        if not backlog:
            self._finish_commit()

    def _finish_commit(self) -> bool:
        """Wait until the commit in flight is definite. False: it did not happen or nobody knows, and everything in memory was dropped."""
        if self._in_flight is None:
            return True
        (work, timeline, outcome), self._in_flight = self._in_flight, None
        result = outcome.result()
        if result is not CommitResult.COMMITTED:
            self._batches.failed(work.records())
            self._not_committed(result, f"transaction {result.value}")
            return False
        self._batches.committed()
        self._watch.transaction(result)
        self._store(work, timeline)
        return True

    def _settle(self, partitions: Sequence[TopicPartition]) -> None:
        """Between two batches: finish the commit in flight, and bring the store of these partitions up to it."""
        self._finish_commit()
        self._applier.add(self._path.pack())
        self._applier.flush(partitions)

    def _not_committed(self, result: CommitResult, reason: str) -> None:
        """A transaction was aborted, or nobody knows: never guess, never resend."""
        self._watch.transaction(result)
        if result is CommitResult.FENCED and (other := self._taken_by()) is not None:
            raise SlotTaken(f"our slot is now run by {other}; this worker ends. Give each worker a slot of its own")
        self._start_over(reason, reopen=result is not CommitResult.ABORTED)

    def _store(self, work: Work, timeline: Timeline) -> None:
        """The batch is definite: let the store follow."""
        timeline.mark("commit")
        self._applier.add(work.writes)
        self._watch.committed(work, timeline)

    def _start_over(self, reason: str, *, reopen: bool) -> None:
        """Drop everything in memory and claim every partition again, with a new producer if the old one may hold something."""
        self._watch.say("starting over", reason=reason)
        if reopen:
            self._fresh_sink.throw_away()
        self._assignment.recover(list(self._assignment.partitions))

    def _patience_ms(self) -> int:
        """How long to wait for a first record: not at all while a commit is in flight, hardly while something else is."""
        if self._in_flight is not None:
            return 0
        if self._assignment.claiming() or not self._applier.idle():
            return BUSY_MS
        return self._limits.store_every_ms if self._path.unpacked() else IDLE_MS

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Inside poll: claim them from the next turn on."""
        self._watch.rebalanced("assigned", partitions)
        self._assignment.add(partitions)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Inside poll: finish what is in flight for them; their records in the drain at hand are dropped by `Assignment.sort`."""
        self._watch.rebalanced("revoked", partitions)
        self._settle(partitions)
        self._assignment.release(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Inside poll: they may be somebody else's already; write nothing more for them."""
        self._watch.rebalanced("lost", partitions)
        self._assignment.remove(partitions)
