from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.features.aggregation import Declaration
from headrace.features.state import unpack_state
from headrace.features.streams import BinForm, HashForm
from headrace.types import TopicPartition
from tests.laws.readings import SOURCE
from tests.unit.features.folding import TOPIC, Folded
from tests.unit.features.naive import Happening

NOON_MS = 1_700_000_000_000


def readings(numbers: Sequence[float], *, every_ms: int = 1) -> list[Happening]:
    """Events of one sensor, one after the other."""
    return [
        Happening(entity="a", time_ms=NOON_MS + place * every_ms, columns={"x": number, "y": number, "ok": 1.0, "word": f"{number:g}"})
        for place, number in enumerate(numbers)
    ]


def view_of(*features: Declaration) -> hr.FeatureView:
    """A view of sensors."""
    return hr.FeatureView("v", entity="sensor", source=SOURCE, features=features)


@given(st.floats(1e-6, 1e12), st.floats(0.001, 0.5), st.booleans())
def test_bin_bound(value: float, error: float, negative: bool) -> None:  # noqa: FBT001 - drawn
    """The middle of a value's bin is off by at most the declared share of it, for any error and on both sides of zero."""
    value = -value if negative else value
    (found,) = Folded([view_of(hr.quantile("y", 0.5, over="1m", error=error))], readings([value])).values[-1]
    assert abs(found - value) <= error * abs(value) * (1 + 1e-12)


def test_bins_are_in_order() -> None:
    """A larger value never has a smaller bin, at powers of two, at zero and beyond both ends."""
    form = BinForm.of(0.01, 1e-3, 1e3)
    values = np.array([-1e9, -1e3, -2.0, -1.0, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.5, np.nextafter(1.0, 0.0), 1.0, 2.0, 1e3, 1e9])
    bins = form.numbers(values)
    assert (np.diff(bins) >= 0).all()
    assert bins[[5, 6, 7]].tolist() == [0.0, 0.0, 0.0]
    assert bins[0] == bins[1] == -bins[-1] == -bins[-2]
    assert np.abs(bins).max() <= form.count // 2


def test_quantile_of_many(seed: int) -> None:
    """Of ten thousand values each quantile lies within its bound, whatever their distribution."""
    draw = random.Random(seed)
    numbers = [draw.choice([draw.lognormvariate(0, 3), -draw.expovariate(1.0), draw.gauss(1e6, 1.0), 0.0]) for _ in range(10_000)]
    shares = (0.0, 0.01, 0.5, 0.9, 0.999, 1.0)
    view = view_of(*(hr.quantile("y", q, over="1m", pane="1m") for q in shares))
    found = Folded([view], readings(numbers)).values[-1]
    for q, one in zip(shares, found, strict=True):
        value = sorted(numbers)[math.floor(q * (len(numbers) - 1))]
        assert abs(one - value) <= max(0.01 * abs(value), 1e-6)


def test_distinct_error(seed: int) -> None:
    """Beyond `exact` the standard error is 1 / sqrt(exact - 1): in sixty counts none is five of it off, and their mean square fits."""
    exact, errors = 64, []
    for run in range(60):
        draw = random.Random(f"{seed} {run}")
        many = draw.randrange(1_000, 3_000)
        view = view_of(hr.distinct("y", over="1m", exact=exact, pane="20s"))
        (found,) = Folded([view], readings([draw.random() for _ in range(many)], every_ms=10)).values[-1]
        errors.append((found / many - 1) * math.sqrt(exact - 1))
    assert max(map(abs, errors)) < 5
    assert 0.5 < math.sqrt(sum(error**2 for error in errors) / len(errors)) < 1.6


@pytest.mark.parametrize("field", ["y", "word"])
def test_distinct_slides(field: str) -> None:
    """Values leave the count when they leave the window, also those that were given up for smaller hashes and seen again."""
    view = view_of(hr.distinct(field, over="10s", exact=20, pane="1s"))
    draw = random.Random(7)
    numbers = [float(draw.randrange(60)) if 2_000 < place < 4_000 else float(draw.randrange(15)) for place in range(6_000)]
    log = readings(numbers, every_ms=10)
    found = Folded([view], log).values[:, 0]
    for event in range(0, 6_000, 7):
        oldest = log[event].time_ms // 1_000 - 10
        many = len({numbers[one] for one in range(event + 1) if log[one].time_ms // 1_000 >= oldest})
        assert found[event] == many if many <= 20 else abs(found[event] / many - 1) < 5 / math.sqrt(19)


def test_memory_does_not_grow(seed: int) -> None:
    """Ten times as many events cost no more bytes, and never more than was announced."""
    view = view_of(
        hr.distinct("y", over="1m", exact=32, pane="20s"),
        hr.quantile("y", 0.9, over="1m", pane="20s"),
        hr.mode("word", ["1", "2"], over="1m", pane="20s"),
        hr.lag("y", 5),
        hr.streak(hr.col("y") > 0.5, over="1m"),
        hr.first("y", over="1m"),
        hr.decayed_mean("y", half_life="5s"),
    )
    draw = random.Random(seed)
    sizes = []
    for count, every_ms in ((2_000, 50), (20_000, 5)):
        folded = Folded([view], readings([draw.random() + 0.5 for _ in range(count)], every_ms=every_ms))
        sizes.append(len(folded.store.states[TopicPartition(TOPIC, 0), view.fp][b"a"]))
    assert sizes[1] < 1.3 * sizes[0]
    assert max(sizes) <= view.bytes_per_entity()["total"]


def test_sparse_entity_is_small() -> None:
    """Ten events a day, one group of moments, six windows up to 48 h: at most 600 bytes in the mean."""
    windows = ["1h", "3h", "6h", "12h", "24h", "48h"]
    view = view_of(hr.count(over=windows), hr.mean("y", over=windows), hr.max("y", over=windows), hr.std("y", over=windows))
    draw = random.Random(11)
    sizes = []
    for _ in range(60):
        times_ms = sorted(draw.randrange(5 * 86_400_000) for _ in range(50))
        log = [
            Happening(entity="a", time_ms=NOON_MS + at_ms, columns={"x": 1.0, "y": draw.gauss(0, 1), "ok": 1.0, "word": None})
            for at_ms in times_ms
        ]
        sizes.append(len(Folded([view], log).store.states[TopicPartition(TOPIC, 0), view.fp][b"a"]))
    assert sum(sizes) / len(sizes) <= 600


def test_cells_are_sorted_in_the_store(seed: int) -> None:
    """What is packed reads back in its order: bins by number, then pane; hashes by hash."""
    draw = random.Random(seed)
    view = view_of(hr.distinct("y", over="1m", exact=8, pane="10s"), hr.quantile("y", 0.5, over="1m", pane="10s"))
    folded = Folded([view], readings([draw.gauss(0, 2) for _ in range(500)], every_ms=100))
    lanes = unpack_state(view, folded.store.states[TopicPartition(TOPIC, 0), view.fp][b"a"]).lanes
    for lane, cells in zip(view.lanes, lanes, strict=True):
        found = [(cell.kept[0], cell.number) for cell in cells]
        assert found == sorted(found), lane
        assert len(found) > 8


def test_hashes_are_for_ever() -> None:
    """The hash of a text and of a number is the same on every machine and in every version: states hold them."""
    texts = np.array(["a", "", "ä", None], dtype=object)
    assert HashForm().numbers(texts)[:3].tolist() == [7128065739670391.0, 8011147086339971.0, 1826129497149522.0]
    assert HashForm().numbers(np.array([0.0, -0.0, 1.5])).tolist() == [7956156453446585.0, 7956156453446585.0, 7559512642974284.0]
    assert math.isnan(HashForm().numbers(texts)[3])
