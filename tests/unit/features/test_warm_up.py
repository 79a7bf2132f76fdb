from __future__ import annotations

from typing import Any

from headrace.features import entries, kernel, other_lanes, retained_bytes, state
from headrace.features.warm_up import warm_up
from tests.laws.readings import EVERYTHING, SMALL
from tests.laws.test_corrections import Corrections, noisy, retained
from tests.laws.test_duckdb import log_of
from tests.unit.features.folding import Folded

ENTRIES: list[Any] = [kernel.fold, kernel.place, kernel.release, kernel.move, kernel.empty_rows, other_lanes.fold, state.pack, state.parse]


def test_nothing_is_compiled_later() -> None:
    """After the warm-up no view, batch or size of state makes the compiler work again: each entry point has one signature."""
    warm_up([EVERYTHING])
    assert [len(one.signatures) for one in ENTRIES] == [1] * len(ENTRIES)
    Folded([EVERYTHING, SMALL], log_of(1)[:600], range(50, 600, 50), capacity=5)
    assert [len(one.signatures) for one in ENTRIES] == [1] * len(ENTRIES)


def test_nor_for_corrections() -> None:
    """The same where events are retained: told again, packed, read back and given up."""
    ours = [*ENTRIES, entries.walk, retained_bytes.copy_stretches]
    warm_up([EVERYTHING], corrections=True)
    before = [len(one.signatures) for one in ours]
    found = Corrections(retained(most=3), noisy(1, 60), [10, 20, 41], forgetful=True)
    assert found.told
    assert [len(one.signatures) for one in ours] == before
