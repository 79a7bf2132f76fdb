"""Who runs a slot: what a worker that was fenced finds in the store."""

from __future__ import annotations

import pytest

from headrace.apps.worker import Worker
from headrace.errors import TransientError
from headrace.features.memory_store import MemoryStore
from headrace.takeover import identity_of

OLDER, OURS, NEWER = (identity_of("a machine", started_ms) for started_ms in (1, 2, 3))


def worker() -> Worker:
    """One that knows its slot and itself, and has nothing else."""
    made = object.__new__(Worker)
    made._slot, made._identity = "0", OURS
    return made


@pytest.mark.parametrize("there", [None, OLDER, OURS])
def test_where_nobody_came_after_us_we_announce_ourselves(there: str | None) -> None:
    """A store that was emptied or set back knows nobody, or somebody older: the next to be fenced must see us."""
    store = MemoryStore()
    if there is not None:
        store.announce("0", there)
    assert worker()._newer_holder(store) is None
    assert store.holder("0") == OURS


def test_who_came_after_us_is_named_and_stays() -> None:
    """The newer one keeps the slot."""
    store = MemoryStore()
    store.announce("0", NEWER)
    assert worker()._newer_holder(store) == NEWER
    assert store.holder("0") == NEWER


def test_a_store_that_is_away_names_nobody() -> None:
    """Then it cannot be told; who asks decides what that means."""
    store = MemoryStore()
    store.away = True
    with pytest.raises(TransientError):
        worker()._newer_holder(store)
