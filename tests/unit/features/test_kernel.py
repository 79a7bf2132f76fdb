from __future__ import annotations

import math
from inspect import unwrap
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.features.blocks import capacity_of
from headrace.features.kernel import finish, merge
from tests.laws.readings import EVERYTHING, SOURCE
from tests.laws.test_duckdb import log_of
from tests.unit.features.folding import Folded
from tests.unit.features.naive import Happening

NOON_MS = 1_700_000_000_000
SHAPE = SimpleNamespace(needs=15)


def test_block_sizes() -> None:
    """Blocks grow by a half and by a third in turn."""
    assert [unwrap(capacity_of)(size) for size in range(10)] == [2, 3, 4, 6, 8, 12, 16, 24, 32, 48]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(0, 30))
def test_variance_of_parts(numbers: list[float], cut: int) -> None:
    """The merge of two parts has the moments of the whole: never by a difference of squares."""

    def amount(part: list[float]) -> tuple[float, ...]:
        whole: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
        for number in part:
            whole = unwrap(merge)(whole, (1.0, number, 0.0, number, number), SHAPE)
        return whole

    parts = [amount(part) for part in (numbers[:cut], numbers[cut:]) if part]
    whole = parts[0] if len(parts) == 1 else unwrap(merge)(*parts, SHAPE)
    assert whole[0] == len(numbers)
    assert whole[1] == pytest.approx(math.fsum(numbers), abs=1e-6)
    assert whole[2] == pytest.approx(float(np.var(numbers)) * len(numbers), rel=1e-9, abs=1e-6)
    assert whole[3:] == (min(numbers), max(numbers))


def test_small_variance_on_a_large_mean() -> None:
    """A billion plus a thousandth: the deviation is right to four digits, where a difference of squares has none."""
    view = hr.FeatureView("v", entity="sensor", source=SOURCE, features=[hr.std("y", over="1m")])
    numbers = [1e9 + step * 1e-3 for step in range(100)]
    log = [
        Happening(entity="a", time_ms=NOON_MS + step * 100, columns={"x": 0.0, "y": number, "ok": 1.0, "word": "a"})
        for step, number in enumerate(numbers)
    ]
    assert Folded([view], log).values[-1, 0] == pytest.approx(float(np.std(np.array(numbers) - 1e9)), rel=1e-4)


def test_overflow_is_absent() -> None:
    """A window whose sum is more than a float holds is absent, not infinite; it comes back when the numbers have left."""
    view = hr.FeatureView(
        "v", entity="sensor", source=SOURCE, features=[hr.sum("y", over="1m"), hr.std("y", over="1m"), hr.max("y", over="1m")]
    )
    times = [0, 1, 2, 200_000]
    log = [
        Happening(entity="a", time_ms=NOON_MS + at, columns={"x": 0.0, "y": y, "ok": 1.0, "word": "a"})
        for at, y in zip(times, [1e308, 1e308, 1e308, 5.0], strict=True)
    ]
    values = Folded([view], log).values
    assert np.isnan(values[1:3, 0]).all()
    assert values[:, 2].tolist() == [1e308, 1e308, 1e308, 5.0]
    assert values[3].tolist() == [5.0, 0.0, 5.0]


def test_unknown_code() -> None:
    """A code that no aggregation has finishes as absent."""
    assert math.isnan(unwrap(finish)(99, (1.0, 1.0, 1.0, 1.0, 1.0), 0.0, 1.0, 0.0))


def test_repeatable(seed: int) -> None:
    """The same log folded again gives the same bits, and so does one whose entities are renamed."""
    log = log_of(seed)[:800]
    renamed = [Happening(entity=f"other {one.entity}", time_ms=one.time_ms, partition=one.partition, columns=one.columns) for one in log]
    first = Folded([EVERYTHING], log).values
    assert np.array_equal(first, Folded([EVERYTHING], log).values, equal_nan=True)
    assert np.array_equal(first, Folded([EVERYTHING], renamed).values, equal_nan=True)
