"""The store follows the commit."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.clock import ManualClock
from headrace.errors import PartitionMoved
from headrace.executor import InlineExecutor, Outcome
from headrace.features.applier import LOOK_EVERY_MS, Applier
from headrace.features.memory_store import MemoryStore
from headrace.types import PartitionWrite, StateChunk, TopicPartition, ViewWrite

PARTITION = TopicPartition("events", 0)
OWNER = b"0123456789abcdef"


class LaterExecutor(InlineExecutor):
    """Runs calls when it is told to, or when somebody waits for them."""

    def __init__(self) -> None:
        self.queued: list[_Later] = []

    def submit(self, call: object, /, *arguments: object) -> Outcome[object]:
        """Queue a call."""
        self.queued.append(_Later(self, call, arguments))
        return self.queued[-1]

    def run(self) -> None:
        """Run what is queued, in order."""
        for one in self.queued:
            one.run()
        self.queued.clear()


class _Later:
    def __init__(self, executor: LaterExecutor, call: object, arguments: tuple[object, ...]) -> None:
        self._executor, self._call, self._arguments = executor, call, arguments
        self._outcome: Outcome[object] | None = None

    def run(self) -> None:
        if self._outcome is None:
            self._outcome = InlineExecutor().submit(self._call, *self._arguments)  # type: ignore[arg-type]

    def done(self) -> bool:
        return self._outcome is not None

    def result(self) -> object:
        self._executor.run()
        assert self._outcome is not None
        return self._outcome.result()


class World:
    """An applier over a store in memory that holds one view up to offset 0."""

    def __init__(self, executor: InlineExecutor | None = None) -> None:
        self.store = MemoryStore()
        self.clock = ManualClock()
        self.results: list[str] = []
        self.store.claim(PARTITION, ["v"], OWNER)
        self.store.reset(PARTITION, {"v": 0}, OWNER, "topic-id")
        self.applier = Applier(
            store=self.store,
            executor=executor or InlineExecutor(),
            now_ms=lambda: self.clock.monotonic_ns() // 1_000_000,
            max_delay_ms=1_000,
            every_ms=50,
            enough=100,
            count=self.results.append,
        )
        self.applier.own(PARTITION, OWNER, {"v": 0})

    def states(self) -> dict[bytes, bytes]:
        """What the store holds."""
        return self.store.states(PARTITION, "v")


def write(start: int, end: int, *, states: dict[bytes, bytes], deletions: tuple[bytes, ...] = ()) -> PartitionWrite:
    """One batch's states."""
    packed = list(states.values())
    chunk = StateChunk(
        keys=list(states),
        buffer=np.frombuffer(b"".join(packed), np.uint8),
        bounds=np.cumsum([0, *map(len, packed)]).astype(np.int64),
    )
    view = ViewWrite(view="v", start=start, end=end, chunks=[chunk] if packed else [], deletions=list(deletions))
    return PartitionWrite(partition=PARTITION, watermark_ms=end, views=[view])


def test_batches_are_merged_while_an_apply_is_in_flight() -> None:
    """What comes while an apply runs waits and goes out as one, the later state over the earlier."""
    executor = LaterExecutor()
    world = World(executor)
    world.applier.add([write(0, 1, states={b"a": b"1"})])
    world.applier.turn()
    world.applier.add([write(1, 2, states={b"a": b"2", b"b": b"2"})])
    world.applier.add([write(2, 3, states={b"b": b"3"})])
    assert world.applier.turn().applied == {}
    executor.run()
    assert world.applier.turn().applied == {PARTITION: 1}
    executor.run()
    assert world.applier.turn().applied == {PARTITION: 3}
    assert world.states() == {b"a": b"2", b"b": b"3"}
    assert world.results == ["ok", "ok"]


def test_a_state_written_after_its_deletion_stays() -> None:
    """Merging keeps the order of a deletion and a later state of the same entity, and of a state and its later deletion."""
    executor = LaterExecutor()
    world = World(executor)
    world.applier.add([write(0, 1, states={b"a": b"1", b"b": b"1"})])
    world.applier.turn()
    world.applier.add([write(1, 2, states={}, deletions=(b"a",))])
    world.applier.add([write(2, 3, states={b"a": b"new"})])
    world.applier.add([write(3, 4, states={}, deletions=(b"b",))])
    world.applier.flush([PARTITION])
    assert world.states() == {b"a": b"new"}


def test_a_refused_apply_gives_the_partition_up_to_be_claimed_again() -> None:
    """Another claim fences us: the partition is named once and nothing more is written for it."""
    world = World()
    world.store.claim(PARTITION, ["v"], b"somebody else...")
    world.applier.add([write(0, 1, states={b"a": b"1"})])
    assert world.applier.turn().moved == []
    assert world.applier.turn().moved == [PARTITION]
    world.applier.add([write(1, 2, states={b"a": b"2"})])
    assert world.applier.turn().moved == []
    assert (world.states(), world.results) == ({}, ["fenced"])


def test_a_store_that_is_away_leaves_the_outcome_unknown() -> None:
    """An apply without an answer is never repeated."""
    world = World()
    world.store.away = True
    world.applier.add([write(0, 1, states={b"a": b"1"})])
    world.applier.turn()
    assert world.applier.turn().moved == [PARTITION]
    assert world.results == ["unknown"]


def test_a_read_is_believed_only_where_the_store_stands_as_we_left_it() -> None:
    """A read follows the applies handed over; after a roll-back it raises."""
    world = World()
    before = world.store.snapshot()
    world.applier.add([write(0, 1, states={b"a": b"1"})])
    world.applier.turn()
    assert world.applier.read(PARTITION, [b"a", b"b"]) == {"v": [b"1", None]}
    world.store.restore(before)
    with pytest.raises(PartitionMoved):
        world.applier.read(PARTITION, [b"a"])


def test_a_quiet_partition_is_looked_at() -> None:
    """A store that forgot something while nothing happened is noticed within a few seconds."""
    world = World()
    before = world.store.snapshot()
    world.applier.add([write(0, 1, states={b"a": b"1"})])
    world.applier.turn()
    world.store.restore(before)
    assert world.applier.turn().moved == []
    world.clock.advance(LOOK_EVERY_MS)
    world.applier.turn()
    assert world.applier.turn().moved == [PARTITION]


def test_the_loop_is_told_to_wait_for_a_store_that_falls_behind() -> None:
    """States that wait longer than half of max_store_delay make the applier overdue; the other half may have passed before they came."""
    world = World(LaterExecutor())
    world.applier.add([write(0, 1, states={b"a": b"1"})])
    world.applier.turn()
    world.applier.add([write(1, 2, states={b"a": b"2"})])
    world.clock.advance(500)
    assert not world.applier.overdue()
    world.clock.advance(1)
    assert world.applier.overdue()
    world.applier.flush([PARTITION])
    assert world.applier.idle()


@pytest.mark.parametrize(("states", "backlog", "pause_ms"), [(1, False, 50), (500, False, 50), (99, True, 500), (100, True, 50)])
def test_states_are_wanted_after_a_pause(states: int, backlog: bool, pause_ms: int) -> None:  # noqa: FBT001
    """Caught up, and for many states, the pause is the short one; few states under a backlog wait half of the allowed delay."""
    world = World()
    world.clock.advance(1_000)
    assert world.applier.wants(states, backlog=backlog)
    world.clock.advance(pause_ms - 1)
    assert not world.applier.wants(states, backlog=backlog)
    world.clock.advance(1)
    assert not world.applier.wants(0, backlog=backlog)
    assert world.applier.wants(states, backlog=backlog)
