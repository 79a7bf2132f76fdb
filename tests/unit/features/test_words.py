from __future__ import annotations

from collections.abc import Callable

import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.features.aggregation import CATALOGUE, Declaration
from tests.laws.readings import SOURCE
from tests.unit.features.folding import Folded
from tests.unit.features.naive import Happening

NOON_MS = 1_700_000_000_000


def view_of(*features: Declaration) -> hr.FeatureView:
    """A view of sensors."""
    return hr.FeatureView("v", entity="sensor", source=SOURCE, features=features)


def test_every_entry_has_its_word() -> None:
    """What is in the catalogue is a public word of the same name, with a line of documentation and a code that no other kind has."""
    assert all(callable(getattr(hr, entry.name)) and getattr(hr, entry.name).__doc__ for entry in CATALOGUE)
    codes = {entry.code: entry.of for entry in CATALOGUE}
    assert all(codes[entry.code] == entry.of for entry in CATALOGUE)


def test_names() -> None:
    """Names say what was declared beside value and window."""
    found = view_of(
        hr.quantile("y", 0.5, over="1h"),
        hr.quantile("y", 0.999, over="1h"),
        hr.top_k("word", 2, ["a", "b"], over=["1h", "2h"]),
        hr.mode("word", ["a"], over="1h"),
        hr.decayed_sum("y", half_life=["1h", "6h"]),
        hr.lag("y", 3),
        hr.change("y"),
        hr.streak(hr.col("y") > 1, over="1h"),
        hr.distinct("word", over="1h", where=hr.col("ok")),
        hr.ratio("p50_y_1h", "p99_9_y_1h"),
        hr.difference("lag3_y", "change_y", name="odd"),
    )
    assert found.feature_names == (
        "p50_y_1h",
        "p99_9_y_1h",
        "top1_word_1h",
        "top2_word_1h",
        "top1_word_2h",
        "top2_word_2h",
        "mode_word_1h",
        "decayed_sum_y_1h",
        "decayed_sum_y_6h",
        "lag3_y",
        "change_y",
        "streak_y_gt_1_1h",
        "distinct_word_where_ok_1h",
        "p50_y_1h_over_p99_9_y_1h",
        "odd",
    )
    assert found.longest_window_ms == 32 * 6 * 3_600_000


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: hr.quantile("y", 1.5, over="1h"), "from 0 to 1"),
        (lambda: hr.quantile("y", 0.5, over="1h", error=0), "must be from 0.001"),
        (lambda: hr.quantile("y", 0.5, over="1h", smallest=5, largest=1), "must lie below"),
        (lambda: hr.distinct("y", over="1h", exact=0), "from 1 to 4096"),
        (lambda: hr.lag("y", 0), "from 1 to 100"),
        (lambda: hr.mode("word", [], over="1h"), "1 to 64 values"),
        (lambda: hr.mode("word", ["a", "a"], over="1h"), "different values"),
        (lambda: hr.mode("word", ["a", 1.0], over="1h"), "all of them texts"),
        (lambda: hr.mode("word", [f"{one}" for one in range(65)], over="1h"), "1 to 64 values"),
        (lambda: hr.mode("y", ["a"], over="1h"), "y is number, which is never one of 'a'"),
        (lambda: hr.top_k("word", 4, ["a", "b"], over="1h"), "from 1 to 3"),
        (lambda: hr.decayed_sum("y", half_life=[]), "holds none"),
        (lambda: hr.decayed_sum("y", half_life=["1h", "2h"], horizon="4h"), "is for one half-life"),
        (lambda: hr.streak(hr.col("y"), over="1h"), "needs a condition; write for example hr.streak"),
        (lambda: hr.first("word", over="1h"), "needs a number; word is text"),
        (lambda: hr.ratio("cuont_1h", "count_1h"), "'cuont_1h', which is no feature before it; there is count_1h"),
        (lambda: hr.ratio("count_1h", "count_1h", name="no name"), "must be letters"),
    ],
)
def test_what_cannot_work_is_refused(declare: Callable[[], Declaration], says: str) -> None:
    """A declaration that makes no sense is refused where it is written, with the field and what would do."""
    with pytest.raises(DefinitionError, match=says):
        view_of(hr.count(over="1h"), declare())


def test_derived_features() -> None:
    """A ratio and a difference are made of the numbers beside them; what is no finite number is the declared empty value."""
    view = view_of(
        hr.sum("y", over="10s"), hr.count(over="10s"), hr.ratio("sum_y_10s", "count_10s", name="pace"), hr.difference("pace", "count_10s"),
        hr.ratio("count_10s", "sum_y_10s", name="other", empty=-1),
    )  # fmt: skip
    log = [
        Happening(entity="a", time_ms=NOON_MS + at, columns={"x": 0.0, "y": y, "ok": 1.0, "word": None}) for at, y in ((0, 0.0), (1, 3.0))
    ]
    assert Folded([view], log).values.tolist() == [[0.0, 1.0, 0.0, -1.0, -1.0], [3.0, 2.0, 1.5, -0.5, 2 / 3]]


def test_options_are_part_of_the_fingerprint() -> None:
    """Whatever is declared decides about the state: a changed option is another view."""
    variants = [
        hr.quantile("y", 0.5, over="1h"),
        hr.quantile("y", 0.5, over="1h", error=0.02),
        hr.quantile("y", 0.5, over="1h", largest=1e6),
        hr.distinct("y", over="1h"),
        hr.distinct("y", over="1h", exact=10),
        hr.mode("y", [1.0], over="1h"),
        hr.mode("y", [1.0, 2.0], over="1h"),
        hr.decayed_sum("y", half_life="1h", horizon="2h"),
        hr.decayed_sum("y", half_life="30m", horizon="2h"),
    ]
    assert len({view_of(one).fingerprint for one in variants}) == len(variants)


def test_what_features_share() -> None:
    """Quantiles of one precision share their bins, lags their events, decays of one half-life their weights."""
    view = view_of(
        hr.quantile("y", 0.5, over="1h"), hr.quantile("y", 0.9, over="1h"), hr.lag("y", 1, over="1h"), hr.lag("y", 7, over="1h"),
        hr.change("y", over="1h"),
        hr.decayed_sum("y", half_life="1m"), hr.decayed_mean("y", half_life="1m"), hr.decayed_count(half_life="1m"),
        hr.mode("y", [0.5], over="1h"), hr.top_k("y", 2, [0.5], over="1h"),
    )  # fmt: skip
    assert sorted(lane.name for lane in view.lanes) == ["bins", "bins", "decay", "recent"]
    assert [lane.most for lane in view.lanes if lane.name == "recent"] == [8]
