"""What only the store in memory can do; the port's promises are in tests/contract/store."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.errors import TransientError
from headrace.features.memory_store import MemoryStore
from headrace.features.state_store import ApplyResult, StateStore
from headrace.types import PartitionWrite, StateChunk, TopicPartition, ViewWrite

P0 = TopicPartition("flights", 0)
OWNER = b"owner-1"


def chunk_of(states: dict[bytes, bytes]) -> StateChunk:
    bounds = np.cumsum([0, *(len(state) for state in states.values())], dtype=np.int64)
    return StateChunk(keys=list(states), buffer=np.frombuffer(b"".join(states.values()), dtype=np.uint8).copy(), bounds=bounds)


def write_of(start: int, end: int, states: dict[bytes, bytes]) -> PartitionWrite:
    view = ViewWrite(view="v1", start=start, end=end, chunks=[chunk_of(states)], deletions=[])
    return PartitionWrite(partition=P0, watermark_ms=1_000 + end, views=[view])


def claimed_store() -> MemoryStore:
    store = MemoryStore()
    store.claim(P0, ["v1"], OWNER)
    store.reset(P0, {"v1": 0}, OWNER, "topic-id")
    return store


def test_it_is_a_state_store() -> None:
    """The store in memory has the whole port, as the type checker sees it."""
    store: StateStore = MemoryStore()
    assert store.check() == []


def test_later_changes_of_a_buffer_do_not_leak() -> None:
    """What was applied stays as it was when the caller uses its buffer again."""
    store = claimed_store()
    write = write_of(0, 5, {b"a": b"state"})
    assert store.apply(OWNER, write) is ApplyResult.OK
    write.views[0].chunks[0].buffer[:] = 0
    assert store.read(P0, ["v1"], [b"a"]).states["v1"] == [b"state"]


def test_restore_rolls_everything_back_together() -> None:
    """A restored snapshot brings back states, offset, watermark and owner of one instant, and can be restored again."""
    store = claimed_store()
    store.apply(OWNER, write_of(0, 5, {b"a": b"one"}))
    snapshot = store.snapshot()
    for _ in range(2):
        store.apply(OWNER, write_of(5, 9, {b"a": b"two", b"b": b"new"}))
        store.claim(P0, ["v1"], b"owner-2")
        store.restore(snapshot)
        found = store.read(P0, ["v1"], [b"a", b"b"])
        assert found.owner == OWNER
        assert (found.heads["v1"].offset, found.heads["v1"].watermark_ms) == (5, 1_005)
        assert found.states["v1"] == [b"one", None]


def test_flush_forgets_owners_too() -> None:
    """After a flush nobody owns a partition and an apply is fenced."""
    store = claimed_store()
    store.flush()
    assert store.apply(OWNER, write_of(0, 5, {b"a": b"x"})) is ApplyResult.FENCED
    assert store.read(P0, ["v1"], [b"a"]).owner is None


def test_away_does_nothing_and_says_so() -> None:
    """While the store is away every call raises TransientError and changes nothing."""
    store = claimed_store()
    store.away = True
    with pytest.raises(TransientError, match="away"):
        store.apply(OWNER, write_of(0, 5, {b"a": b"x"}))
    with pytest.raises(TransientError):
        store.check()
    store.away = False
    assert store.read(P0, ["v1"], [b"a"]).states["v1"] == [None]


def test_hooks_stand_around_every_atomic_step() -> None:
    """The scheduler is called by name before and after each step, in the order in which they were asked for."""
    seen: list[str] = []
    store = MemoryStore(pause=lambda step: seen.append(f"<{step}"), after=lambda step: seen.append(f"{step}>"))
    store.claim(P0, ["v1"], OWNER)
    store.reset(P0, {"v1": 0}, OWNER, "topic-id")
    store.read(P0, ["v1"], [b"a"])
    store.apply(OWNER, write_of(0, 1, {}))
    assert seen == ["<claim", "claim>", "<reset", "reset>", "<read", "read>", "<apply", "apply>"]


def test_a_lost_reply_is_a_done_step() -> None:
    """A fault raised after a step reaches the caller although the write is there: sent again it is BEHIND."""
    store = claimed_store()

    def lose(_step: str) -> None:
        raise TransientError("reply lost")

    store.after = lose
    with pytest.raises(TransientError, match="reply lost"):
        store.apply(OWNER, write_of(0, 5, {b"a": b"x"}))
    store.after = lambda _step: None
    assert store.apply(OWNER, write_of(0, 5, {b"a": b"x"})) is ApplyResult.BEHIND


def test_somebody_else_may_run_inside_a_pause() -> None:
    """A claim that slips in while an apply is paused fences it: the pause stands before the step, not inside it."""
    store = claimed_store()

    def claim_meanwhile(step: str) -> None:
        if step == "apply":
            store.claim(P0, ["v1"], b"owner-2")

    store.pause = claim_meanwhile
    assert store.apply(OWNER, write_of(0, 5, {b"a": b"x"})) is ApplyResult.FENCED


def test_states_and_forget_go_behind_the_port() -> None:
    """Tests can list the states of a view and delete some by hand; offsets do not move."""
    store = claimed_store()
    store.apply(OWNER, write_of(0, 5, {b"a": b"1", b"b": b"2"}))
    store.forget(P0, "v1", [b"a", b"unknown"])
    assert store.states(P0, "v1") == {b"b": b"2"}
    assert store.states(P0, "v2") == {}
