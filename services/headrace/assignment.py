"""Which partitions are ours and how far each one is.

A partition that is assigned, or in doubt, is *claimed*: in an executor, beside the loop, so that live partitions never wait for it. Claim
the store with a fresh nonce first, then ask the group for the committed offset (an older owner's apply can no longer land in between), then
decide by the table of `recovery`. Whatever is away meanwhile is tried again after a pause that doubles up to `RETRY_MAX_MS`; nothing of
the partition flows until then, so "Redis is away" needs no code of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from headrace import recovery
from headrace.consume.record_source import RecordSource
from headrace.crashes import Begun, CrashWatch
from headrace.errors import FatalError, PartitionGivenUp, PartitionMoved, TransientError
from headrace.executor import Executor, Outcome
from headrace.features.applier import Applier
from headrace.features.state_store import ApplyResult, StateStore
from headrace.forgotten import erased_again
from headrace.recovery import Found, Phase, Plan
from headrace.timeline import Timeline
from headrace.types import Delivery, Drain, PartitionWrite, RecordBatch, TopicPartition, Work

RETRY_MIN_MS, RETRY_MAX_MS = 50, 2_000


class Path(Protocol):
    """What happens to records between poll and publish; keeps the entity states in memory."""

    def views(self, topic: str) -> Sequence[str]:
        """The fingerprints of the views that are filled from a source topic."""

    def span_ms(self, topic: str) -> int | None:
        """How far below the watermark an event can still matter; None for a historical source."""

    def start(self, partition: TopicPartition, plan: Plan) -> None:
        """Begin with a partition whose state stands as the plan says."""

    def go_live(self, partition: TopicPartition, watermark_ms: int | None) -> None:
        """Scoring begins here; the committed watermark, where known, is the watermark."""

    def drop(self, partition: TopicPartition) -> None:
        """Forget everything about a partition."""

    def applied(self, partition: TopicPartition, offset: int) -> None:
        """The store holds everything below offset."""

    def entities(self) -> Mapping[str, int]:
        """Entities in memory, by source topic."""

    def replay(self, batch: RecordBatch, timeline: Timeline) -> None:
        """Fold records whose predictions are already committed."""

    def awaited(self, topic: str, epochs: Mapping[str, str]) -> str | None:
        """Why a partition cannot be scored yet that was last scored by these epochs; None where it can. From any thread."""

    def switched(self, live: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Between two batches: take up what has changed about who scores; gives those of these partitions that do not know it yet."""

    def score(
        self,
        batches: Sequence[RecordBatch],
        ends: Mapping[TopicPartition, int],
        begins: Mapping[TopicPartition, int],
        timeline: Timeline,
    ) -> Work:
        """Fold and score records; `ends` are the positions behind this batch of every partition in it, replayed ones included; in front of
        `begins` others score from now on.
        """

    def unpacked(self) -> int:
        """How many positions and states have moved since the last pack."""

    def pack(self) -> list[PartitionWrite]:
        """Everything folded since the last pack, for the store: to be called before a later batch is folded."""


@dataclass(slots=True, kw_only=True, eq=False)
class Partition:
    """An assigned partition."""

    phase: Phase
    position: int = 0
    seen_end: int = 0
    """Where the log ended when a poll last came there."""
    plan: Plan | None = None
    owner: bytes = b""
    task: Outcome[tuple[Plan, Begun]] | None = None
    retry_at_ms: int = 0
    pause_ms: int = RETRY_MIN_MS
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """A drain, sorted: what is only folded, what is scored, and the position behind each partition in it."""

    replay: list[RecordBatch]
    live: list[RecordBatch]
    ends: dict[TopicPartition, int]
    arrived: list[TopicPartition]
    """Partitions whose catch-up ends with this drain."""
    begins: dict[TopicPartition, int]
    """Where live partitions stood before it that do not know yet who scores now."""


class Assignment:
    """The partitions of this worker."""

    def __init__(
        self,
        *,
        source: RecordSource,
        store: StateStore,
        applier: Applier,
        path: Path,
        crashes: CrashWatch,
        executor: Executor,
        now_ms: Callable[[], int],
        delivery: Delivery,
        say: Callable[..., None],
    ) -> None:
        """`say(event, **fields)` gets one line for everything an operator wants to know."""
        self._source = source
        self._store = store
        self._applier = applier
        self.path = path
        self._crashes = crashes
        self._executor = executor
        self._now_ms = now_ms
        self._delivery = delivery
        self._say = say
        self.partitions: dict[TopicPartition, Partition] = {}

    def add(self, names: Iterable[TopicPartition]) -> None:
        """These are ours from now on."""
        for name in names:
            self.partitions[name] = Partition(phase=Phase.CLAIMING)

    def release(self, names: Sequence[TopicPartition]) -> None:
        """Give these up in order: whoever has them next need not think that we died."""
        self._crashes.release(names)
        self.remove(names)

    def remove(self, names: Iterable[TopicPartition]) -> None:
        """These are ours no more; nothing of them is kept."""
        for name in names:
            self.partitions.pop(name, None)
            self._crashes.drop(name)
            self._forget(name)

    def _forget(self, name: TopicPartition) -> None:
        self._applier.drop(name)
        self.path.drop(name)

    def recover(self, names: Iterable[TopicPartition]) -> None:
        """Memory, store and log may no longer agree about these: drop what is in memory and claim them again."""
        for name in names:
            mine = self.partitions.get(name)
            if mine is None or mine.phase is Phase.GIVEN_UP:
                continue
            mine.phase = recovery.move(mine.phase, Phase.CLAIMING)
            mine.task = None
            self._source.pause(name)
            self._crashes.stop(name)
            self._forget(name)

    def due(self) -> bool:
        """Whether a claim is to be started now."""
        now_ms = self._now_ms()
        return any(mine.phase is Phase.CLAIMING and mine.task is None and now_ms >= mine.retry_at_ms for mine in self.partitions.values())

    def turn(self) -> None:
        """Start the claims that are due and let the partitions whose claim is settled flow."""
        for name, mine in self.partitions.items():
            if mine.phase is not Phase.CLAIMING:
                continue
            if mine.task is None and self._now_ms() >= mine.retry_at_ms:
                mine.owner = secrets.token_bytes(16)
                mine.task = self._executor.submit(self._claim, name, mine.owner)
            if mine.task is not None and mine.task.done():
                self._settle(name, mine)
        if self.partitions and all(mine.phase is Phase.GIVEN_UP for mine in self.partitions.values()):
            raise FatalError("no partition can be served: " + "; ".join(sorted(mine.trouble for mine in self.partitions.values())))

    def claiming(self) -> bool:
        """Whether some partition is neither flowing nor given up."""
        return any(mine.phase is Phase.CLAIMING for mine in self.partitions.values())

    def wary(self) -> bool:
        """Whether records go down the path one by one."""
        return any(max(mine.position, mine.seen_end) < self._crashes.wary_until(name) for name, mine in self.partitions.items())

    def waiting(self) -> Mapping[TopicPartition, int]:
        """How many records of each partition were read and wait."""
        return self._source.waiting()

    def sort(self, drain: Drain) -> Sorted:
        """Drop what is not ours to read, and tell what is only folded from what is scored."""
        answer = Sorted(replay=[], live=[], ends={}, arrived=[], begins={})
        begins = {name: mine.position for name, mine in self.partitions.items() if mine.phase is Phase.LIVE}
        for batch in drain.batches:
            self._sort_batch(batch, answer)
        for name, end in drain.ends.items():
            mine = self.partitions.get(name)
            if mine is not None:
                mine.seen_end = end
            if mine is not None and mine.phase is Phase.CATCHING_UP and mine.plan is not None and end >= mine.plan.live_from:
                mine.position = answer.ends[name] = max(mine.position, mine.plan.live_from)
                self._arrive(name, mine, answer)
        begins |= {name: plan.live_from for name in answer.arrived if (plan := self.partitions[name].plan) is not None}
        for name in self.path.switched(begins):
            answer.begins[name] = begins[name]
            answer.ends.setdefault(name, begins[name])
        return answer

    def _sort_batch(self, batch: RecordBatch, answer: Sorted) -> None:
        """Sort one topic's records."""
        replayed: list[np.ndarray] = []
        scored: list[np.ndarray] = []
        for number in np.unique(batch.partitions).tolist():
            name = TopicPartition(batch.topic, number)
            mine = self.partitions.get(name)
            if mine is None or mine.plan is None or mine.phase not in (Phase.CATCHING_UP, Phase.LIVE):
                continue
            rows = np.flatnonzero(batch.partitions == number)
            offsets = batch.offsets[rows]
            if offsets[0] < mine.position:
                raise FatalError(
                    f"{name.topic}-{name.partition}: the log gave offset {offsets[0]} again, expected {mine.position} or later"
                )
            mine.position = answer.ends[name] = int(offsets[-1]) + 1
            if mine.phase is Phase.LIVE:
                scored.append(rows)
                continue
            split = int(np.searchsorted(offsets, mine.plan.live_from))
            replayed.append(rows[:split])
            if split < len(rows) or mine.position >= mine.plan.live_from:
                scored.append(rows[split:])
                self._arrive(name, mine, answer)
        for parts, batches in ((replayed, answer.replay), (scored, answer.live)):
            rows = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
            if len(rows):
                batches.append(batch if len(rows) == len(batch) else batch.select(rows))

    def _arrive(self, name: TopicPartition, mine: Partition, answer: Sorted) -> None:
        mine.phase = recovery.move(mine.phase, Phase.LIVE)
        answer.arrived.append(name)

    def go_live(self, names: Iterable[TopicPartition]) -> None:
        """The replay of these is folded: from here on they are scored."""
        for name in names:
            plan = self.partitions[name].plan
            if plan is not None:
                self.path.go_live(name, plan.live_watermark_ms)
                self._say("partition caught up", partition=name, events=plan.live_from - plan.start)

    def _settle(self, name: TopicPartition, mine: Partition) -> None:
        """Take the answer of a claim."""
        task, mine.task = mine.task, None
        if task is None:
            return
        try:
            plan, begun = task.result()
        except (TransientError, PartitionMoved) as away:
            mine.trouble = str(away)
            mine.retry_at_ms = self._now_ms() + mine.pause_ms
            mine.pause_ms = min(2 * mine.pause_ms, RETRY_MAX_MS)
            self._say("partition waits", partition=name, reason=mine.trouble, retry_in_ms=mine.pause_ms)
            return
        except PartitionGivenUp as refusal:
            mine.trouble = str(refusal)
            mine.phase = recovery.move(mine.phase, Phase.GIVEN_UP)
            self._say("partition given up", partition=name, reason=mine.trouble)
            return
        mine.plan, mine.position, mine.trouble, mine.pause_ms = plan, plan.start, "", RETRY_MIN_MS
        self._applier.own(name, mine.owner, plan.starts)
        self._crashes.watch(name, begun)
        self.path.start(name, plan)
        if plan.start < plan.live_from:
            mine.phase = recovery.move(mine.phase, Phase.CATCHING_UP)
            self._say("partition catches up", partition=name, start=plan.start, live_from=plan.live_from, rebuilt=sorted(plan.resets))
        else:
            mine.phase = recovery.move(mine.phase, Phase.LIVE)
            self.path.go_live(name, plan.live_watermark_ms)
            self._say("partition live", partition=name, offset=plan.start)
        self._source.start_at(name, plan.start)

    def _claim(self, name: TopicPartition, owner: bytes) -> tuple[Plan, Begun]:
        """Runs in the executor: claim, then ask, then decide; drops what must be rebuilt, and looks who died here before.

        The number of partitions is written down with every claim, so look-ups know it again as soon as anything is kept in a store that was
        emptied, and hear of partitions that were added.
        """
        self._insist_on(name, owner)
        claim = self._store.claim(name, self.path.views(name.topic), owner)
        committed = self._source.committed(name)
        topic_id = self._source.topic_id(name.topic)
        partitions = self._source.partitions(name.topic)
        self._store.set_partitions(name.topic, partitions)
        found = Found(
            partition=name,
            heads=claim.heads,
            state_topic_id=claim.topic_id,
            topic_id=topic_id,
            partitions=partitions,
            committed=committed,
            log=self._source.log_range(name),
        )
        rebuild_ms = recovery.rebuild_time_ms(found, self.path.span_ms(name.topic)) if recovery.must_rebuild(found) else None
        rebuild_offset = None
        if rebuild_ms is not None:
            rebuild_offset = self._source.offset_at(name, rebuild_ms)
            found = replace(found, log=self._source.log_range(name))  # asked once more: retention may have come in between
        plan = recovery.decide(found, self._delivery, rebuild_ms=rebuild_ms, rebuild_offset=rebuild_offset)
        waits_for = self.path.awaited(name.topic, plan.epochs)
        if waits_for is not None:
            raise TransientError(f"{name.topic}-{name.partition}: {waits_for}")
        self._insist_on(name, owner)
        if plan.resets and self._store.reset(name, plan.resets, owner, topic_id, plan.live_from) is not ApplyResult.OK:
            raise PartitionMoved(f"{name.topic}-{name.partition}: claimed by another worker")
        begun = self._crashes.begin(name, owner, claim.note, start=plan.start, committed=plan.live_from, end=found.log.end)
        kept = {view: head for view, head in claim.heads.items() if view not in plan.resets}
        for write in erased_again(self._store, name, kept, begun.erased) if begun.erased else ():
            if self._store.apply(owner, write) is not ApplyResult.OK:
                raise PartitionMoved(f"{name.topic}-{name.partition}: claimed by another worker")
        return plan, begun

    def _insist_on(self, name: TopicPartition, owner: bytes) -> None:
        """Claim nothing that was taken from us while the claim waited: its new owner would be fenced for nothing."""
        mine = self.partitions.get(name)
        if mine is None or mine.owner != owner:
            raise PartitionMoved(f"{name.topic}-{name.partition}: not ours any more")
