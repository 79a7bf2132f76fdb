from __future__ import annotations

from headrace.features import kernel, state
from headrace.features.warm_up import warm_up
from tests.laws.readings import EVERYTHING, SMALL
from tests.laws.test_duckdb import log_of
from tests.unit.features.folding import Folded


def test_nothing_is_compiled_later() -> None:
    """After the warm-up no view, batch or size of state makes the compiler work again: each entry point has one signature."""
    entries = [one for module in (kernel, state) for one in vars(module).values() if getattr(one, "_cache", None) is not None]
    warm_up()
    before = {one.__name__: len(one.signatures) for one in entries if one.signatures}
    log = log_of(1)[:600]
    Folded([EVERYTHING, SMALL], log, range(50, 600, 50), capacity=5)
    after = {one.__name__: len(one.signatures) for one in entries if one.signatures}
    assert {"fold", "place", "release", "move", "empty_rows", "pack", "parse"} <= before.keys()
    assert after == before
    assert set(after.values()) == {1}
