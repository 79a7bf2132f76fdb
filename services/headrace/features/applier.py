"""The store follows the log: committed states are applied behind the loop, in order, several batches merged into one apply.

What is added here was committed in Kafka before; so the store is never ahead of the commit, and whatever is lost on the way is folded
again by the next owner's catch-up. One apply is in flight at a time, in the store's executor; what is added meanwhile is merged: a later
state of an entity replaces the earlier one, because it is written after it. Reads go through the same executor, so they follow the
applies already handed over, and are only believed if the partition is still ours and stands where we left it.

A partition that has been quiet for `LOOK_EVERY_MS` is looked at, so that a store that forgot something behind our back is noticed without
an event. Any answer but OK means that memory and store no longer agree; the partition is then named in `turn` and must be recovered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headrace.errors import PartitionMoved, TransientError
from headrace.executor import Executor, Outcome
from headrace.features.state_store import ApplyResult, StateStore
from headrace.types import PartitionWrite, StatesPage, StoredStates, TopicPartition

LOOK_EVERY_MS = 5_000


@dataclass(slots=True, kw_only=True, eq=False)
class _Owned:
    """A partition of ours: the nonce we claimed it with, where its views stand in the store, and what waits to be applied."""

    owner: bytes
    applied: dict[str, int]
    waiting: PartitionWrite | None = None
    waiting_since_ms: int = 0
    seen_ms: int = 0
    """When the store was last known to stand where we left it."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Flight:
    """One call of the store executor: the writes it carries and whose they are."""

    writes: list[tuple[_Owned, PartitionWrite]]
    outcome: Outcome[list[ApplyResult | TransientError]]


@dataclass(slots=True, kw_only=True, eq=False)
class _Look:
    """Another: whether the store still stands where we left it."""

    partition: TopicPartition
    owned: _Owned
    expected: dict[str, int]
    outcome: Outcome[StoredStates]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """What happened to applies: the partitions whose store no longer agrees with memory, and up to where the store holds the others."""

    moved: list[TopicPartition]
    applied: dict[TopicPartition, int]


class Applier:
    """Applies committed states behind the loop and reads states for it."""

    def __init__(
        self,
        *,
        store: StateStore,
        executor: Executor,
        now_ms: Callable[[], int],
        max_delay_ms: int,
        every_ms: int,
        enough: int,
        count: Callable[[str], None],
    ) -> None:
        """`every_ms` and `enough`: see `wants`; `count(result)` gets each apply's result."""
        self._store = store
        self._executor = executor
        self._now_ms = now_ms
        self._half_delay_ms = max_delay_ms // 2
        self._every_ms = min(every_ms, self._half_delay_ms)
        self._enough = enough
        self._wanted_ms = 0
        self._count = count
        self._owned: dict[TopicPartition, _Owned] = {}
        self._flight: _Flight | None = None
        self._look: _Look | None = None
        self._turned = Turned(moved=[], applied={})

    def own(self, partition: TopicPartition, owner: bytes, applied: Mapping[str, int]) -> None:
        """The partition was claimed with `owner` and its views stand at `applied`; without views there is nothing to apply."""
        if not applied:
            return
        self._owned[partition] = _Owned(owner=owner, applied=dict(applied), seen_ms=self._now_ms())

    def drop(self, partition: TopicPartition) -> None:
        """Forget the partition and what waits for it; an apply in flight may still happen or not."""
        self._owned.pop(partition, None)

    def wants(self, states: int, *, backlog: bool) -> bool:
        """Whether to be given the states folded since it last wanted any; there are so many, positions included.

        Every write costs the store, and so does every state. Caught up, it wants them every `every_ms`. Under a backlog the same entities
        come again and again and nobody waits for what they were a moment ago: then it wants them when they are `enough`, or when half of
        the allowed delay is over (the other half is for those that wait here).
        """
        now_ms = self._now_ms()
        pause_ms = self._half_delay_ms if backlog and states < self._enough else self._every_ms
        if states == 0 or now_ms - self._wanted_ms < pause_ms:
            return False
        self._wanted_ms = now_ms
        return True

    def add(self, writes: Iterable[PartitionWrite]) -> None:
        """Apply these states, whose batch is committed; those of a partition that is not ours any more are ignored."""
        for write in writes:
            owned = self._owned.get(write.partition)
            if owned is None:
                continue
            if owned.waiting is None:
                owned.waiting, owned.waiting_since_ms = write, self._now_ms()
            else:
                owned.waiting = _merged(owned.waiting, write)

    def turn(self) -> Turned:
        """Collect what has been applied, hand over what waits; tells what has happened since the last turn."""
        if self._flight is not None and self._flight.outcome.done():
            self._collect()
        if self._flight is None:
            self._launch(list(self._owned))
        self._look_around()
        turned, self._turned = self._turned, Turned(moved=[], applied={})
        return turned

    def flush(self, partitions: Sequence[TopicPartition]) -> None:
        """Wait until everything added for these partitions is applied, or known not to be."""
        self._collect()
        self._launch(partitions)
        self._collect()

    def overdue(self) -> bool:
        """Whether the store is further behind than allowed, so that the loop must wait for it."""
        now_ms = self._now_ms()
        return any(owned.waiting is not None and now_ms - owned.waiting_since_ms > self._half_delay_ms for owned in self._owned.values())

    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return self._flight is None and all(owned.waiting is None for owned in self._owned.values())

    def read(self, partition: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        """The stored states of entities per view; raises `PartitionMoved` unless the partition is ours and stands where we left it."""
        owned = self._owned.get(partition)
        if owned is None:
            raise PartitionMoved(f"{partition.topic}-{partition.partition}: an apply was refused, so it is to be claimed again")
        answer: StoredStates = self._executor.submit(self._store.read, partition, list(owned.applied), keys).result()
        self._collect()
        if self._owned.get(partition) is not owned or not self._agrees(owned, owned.applied, answer):
            raise PartitionMoved(f"{partition.topic}-{partition.partition}: the store no longer stands at {owned.applied} under our claim")
        return answer.states

    def scan(self, partition: TopicPartition, view: str, cursor: int) -> StatesPage:
        """A page of the stored states of a view, behind all applies already handed over."""
        page: StatesPage = self._executor.submit(self._store.scan, partition, view, cursor).result()
        return page

    def _agrees(self, owned: _Owned, expected: Mapping[str, int], answer: StoredStates) -> bool:
        """Whether the store stands where we left it."""
        owned.seen_ms = self._now_ms()
        return answer.owner == owned.owner and {view: head.offset for view, head in answer.heads.items()} == expected

    def _look_around(self) -> None:
        """Look at a quiet partition once in a while."""
        if self._look is not None and self._look.outcome.done():
            look, self._look = self._look, None
            try:
                agrees = self._agrees(look.owned, look.expected, look.outcome.result())
            except TransientError:
                return
            if not agrees and self._owned.get(look.partition) is look.owned:
                self._refuse(look.partition)
        if self._look is None and self._flight is None:
            now_ms = self._now_ms()
            for partition, owned in self._owned.items():
                if now_ms - owned.seen_ms >= LOOK_EVERY_MS:
                    outcome = self._executor.submit(self._store.read, partition, list(owned.applied), ())
                    self._look = _Look(partition=partition, owned=owned, expected=dict(owned.applied), outcome=outcome)
                    return

    def _refuse(self, partition: TopicPartition) -> None:
        """Memory and store no longer agree."""
        self.drop(partition)
        self._turned.moved.append(partition)

    def _launch(self, partitions: Sequence[TopicPartition]) -> None:
        writes: list[tuple[_Owned, PartitionWrite]] = []
        for partition in partitions:
            owned = self._owned.get(partition)
            if owned is not None and owned.waiting is not None:
                writes.append((owned, owned.waiting))
                owned.waiting = None
        if writes:
            self._flight = _Flight(writes=writes, outcome=self._executor.submit(self._apply, writes))

    def _apply(self, writes: list[tuple[_Owned, PartitionWrite]]) -> list[ApplyResult | TransientError]:
        """Runs in the store's executor."""
        results: list[ApplyResult | TransientError] = []
        for owned, write in writes:
            try:
                results.append(self._store.apply(owned.owner, write))
            except TransientError as away:
                results.append(away)
        return results

    def _collect(self) -> None:
        """Wait for the apply in flight, if any, and take its results."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        for (owned, write), result in zip(flight.writes, flight.outcome.result(), strict=True):
            self._count(result.value if isinstance(result, ApplyResult) else "unknown")
            if self._owned.get(write.partition) is not owned:
                continue
            if result is ApplyResult.OK:
                owned.applied.update({view.view: view.end for view in write.views})
                owned.seen_ms = self._now_ms()
                self._turned.applied[write.partition] = min(owned.applied.values())
            else:
                self._refuse(write.partition)


def _merged(first: PartitionWrite, then: PartitionWrite) -> PartitionWrite:
    """Both writes as one: from the first's start to the last's end; what the later one writes was not deleted, what it deletes was not
    written.
    """
    views = {view.view: view for view in first.views}
    for later in then.views:
        earlier = views.get(later.view)
        if earlier is None:
            views[later.view] = later
            continue
        written = {key for chunk in later.chunks for key in chunk.keys} if earlier.deletions else set()
        earlier.chunks.extend(later.chunks)
        earlier.deletions = [key for key in earlier.deletions if key not in written] + later.deletions
        earlier.end = later.end
    return PartitionWrite(partition=first.partition, watermark_ms=then.watermark_ms, views=list(views.values()))
