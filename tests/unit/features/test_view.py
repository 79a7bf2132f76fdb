from __future__ import annotations

import math
from typing import Any

import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.features import aggregation, view
from headrace.features.aggregation import NEEDS_MAX, NEEDS_SQUARES, NEEDS_SUM, Declaration


class Departures(hr.Event):
    """A departure."""

    origin: str
    departed_at: hr.EventTime
    delay: float
    distance: float | None = None
    cancelled: bool


SOURCE = hr.Source("departures.v1", Departures, key="origin", time="departed_at")


def declared(*features: Declaration, name: str = "v", **changed: Any) -> hr.FeatureView:
    """A view of some features."""
    return hr.FeatureView(name, **{"entity": "origin", "source": SOURCE, "features": features, **changed})


def test_feature_names() -> None:
    """Names say aggregation, expression, filter and window as it was written."""
    found = declared(
        hr.count(over=["1h", "24h", 90_000]),
        hr.mean("delay", over="3h"),
        hr.share(hr.col("delay") > 15, over="3h"),
        hr.sum(hr.col("delay") * 60, over="1h", where=hr.col("cancelled")),
        hr.max((hr.col("delay") / hr.col("distance")).alias("pace"), over="1h"),
        hr.last("delay"),
        hr.seconds_since_last(where=hr.col("cancelled"), over="2h"),
    )
    assert found.feature_names == (
        "count_1h",
        "count_24h",
        "count_90s",
        "mean_delay_3h",
        "share_delay_gt_15_3h",
        "sum_delay_times_60_where_cancelled_1h",
        "max_pace_1h",
        "last_delay",
        "seconds_since_last_where_cancelled_2h",
    )
    assert found.fields == {"delay", "distance", "cancelled"}


def test_windows_and_panes() -> None:
    """Every window has its own pane; newest features have none, and default to the view's longest window."""
    found = declared(hr.count(over=["1h", "24h"]), hr.sum("delay", over="1h", pane="30m"), hr.last("delay"), hr.last("distance", over="2h"))
    assert [(one.window_ms, one.pane_ms) for one in found.features] == [
        (3_600_000, 60_000),
        (86_400_000, 1_440_000),
        (3_600_000, 1_800_000),
        (86_400_000, 0),
        (7_200_000, 0),
    ]
    assert (found.longest_window_ms, found.longest_pane_ms) == (86_400_000, 1_800_000)


def test_empty_values() -> None:
    """Empty counts and sums are 0, other features absent, unless the declaration says otherwise."""
    found = declared(
        hr.count(over="1h"),
        hr.sum("delay", over="1h"),
        hr.mean("delay", over="1h"),
        hr.min("delay", over="1h", empty=-1),
        hr.last("delay", empty=0),
    )
    assert [None if math.isnan(one.empty) else one.empty for one in found.features] == [0.0, 0.0, None, -1.0, 0.0]
    assert found.features[0].description.endswith("; 0 when empty")
    assert found.features[2].description.endswith("absent when empty")


def test_descriptions() -> None:
    """A feature explains itself, rounding included."""
    found = declared(hr.std("delay", over="3h", where=hr.col("cancelled")), hr.seconds_since_last())
    assert found.features[0].description == (
        "population standard deviation of delay in the last 3h (0 for a single event), of events with cancelled; "
        "the far end is rounded back by less than 3m; absent when empty"
    )
    assert (
        found.features[1].description == "seconds since the newest event before this one, absent if not in the last 3h; absent when empty"
    )


def test_lanes_are_shared() -> None:
    """Features of one value, filter, window and pane share a lane with all that any of them needs; a count joins a field always there."""
    found = declared(
        hr.count(over="1h"),
        hr.mean("delay", over="1h"),
        hr.std("delay", over="1h"),
        hr.max("delay", over="1h"),
        hr.mean(hr.col("delay").alias("coarse"), over="1h", pane="30m"),
        hr.mean("delay", over="1h", where=hr.col("cancelled")),
        hr.count(over="1h", where=hr.col("cancelled"), pane="30m"),
        hr.sum("distance", over="3h"),
        hr.count(over="3h"),
        hr.last("delay", over="1h"),
        hr.last("delay", over="2h"),
    )
    assert [(one.window_ms, one.pane_ms, one.needs) for one in found.lanes] == [
        (3_600_000, 60_000, NEEDS_SUM | NEEDS_SQUARES | NEEDS_MAX),
        (3_600_000, 1_800_000, NEEDS_SUM),
        (3_600_000, 60_000, NEEDS_SUM),
        (3_600_000, 1_800_000, 0),
        (10_800_000, 180_000, NEEDS_SUM),
        (10_800_000, 180_000, 0),
    ]
    assert found.places == (0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0)
    (cell,) = found.newest_cells
    assert (cell.window_ms, cell.keeps_value) == (7_200_000, True)


def test_events_that_may_lack_a_field_are_counted_apart() -> None:
    """Of events without a field that the contract has in all of them, nothing is counted by it; the features are the same."""
    found = declared(hr.count(over="1h"), hr.mean("delay", over="1h"))
    other = found.lacking({"delay"})
    assert (len(found.lanes), len(other.lanes), other.places) == (1, 2, (0, 1))
    assert [repr(stream.value) for stream in other.streams] == ["None", "delay"]
    assert other.features == found.features
    assert len(found.lacking({"distance"}).lanes) == 1
    assert found.fields == {"delay"}


def test_fingerprint_is_stable() -> None:
    """The fingerprint of a fixed definition never changes: if this fails, stored states and published predictions lost their name."""
    found = declared(hr.count(over="1h"), hr.mean("delay", over="3h", where=hr.col("cancelled")), hr.last("delay"))
    assert found.fingerprint == "81f41df7c0adec8bd46abd615678aed5e25de7217a9f5071a0bb867cd84083f6"
    assert found.fp == found.fingerprint[:16]


def test_fingerprint_covers_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever decides about state or values gives another fingerprint; what does not, the same."""

    def source(**changed: Any) -> hr.Source:
        return hr.Source("departures.v1", Departures, **{"key": "origin", "time": "departed_at", **changed})

    plain = declared(hr.mean("delay", over="1h"))
    assert declared(hr.mean(hr.col("delay"), over=[3_600_000], pane="1m")).fingerprint == plain.fingerprint
    others = [
        declared(hr.mean("delay", over="2h")),
        declared(hr.mean("delay", over="1h", pane="2m")),
        declared(hr.mean("delay", over="1h", empty=0)),
        declared(hr.mean("delay", over="1h", where=hr.col("cancelled"))),
        declared(hr.mean("distance", over="1h")),
        declared(hr.std("delay", over="1h")),
        declared(hr.mean("delay", over="1h"), hr.count(over="1h")),
        declared(hr.mean("delay", over="1h"), name="w"),
        declared(hr.mean("delay", over="1h"), version=2),
        declared(hr.mean("delay", over="1h"), source=source(lateness="1h")),
        declared(hr.mean("delay", over="1h"), source=source(max_ahead="1h")),
        declared(hr.mean("delay", over="1h"), source=source(historical=True)),
    ]
    monkeypatch.setattr(view, "FOLD_VERSION", aggregation.FOLD_VERSION + 1)
    others.append(declared(hr.mean("delay", over="1h")))
    assert others[-1].fingerprint
    monkeypatch.undo()
    monkeypatch.setattr(view, "STATE_LAYOUT_VERSION", 200)
    others.append(declared(hr.mean("delay", over="1h")))
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("features", "changed", "says"),
    [
        ([], {}, "has no features"),
        ([hr.count(over="1h")], {"name": "1st"}, "a name is up to 100 letters"),
        ([hr.count(over="1h")], {"version": 0}, "version=0 must be a whole number from 1 on"),
        ([hr.count(over="1h")], {"entity": "carrier"}, "entity='carrier' is no field of Departures"),
        ([hr.count(over="1h")], {"entity": "delay"}, "entity='delay' must be declared as str, never optional"),
        ([hr.count(over="1h"), hr.count(over=["2h", "1h"])], {}, "declares 'count_1h' twice"),
        ([hr.mean("gate", over="1h")], {}, "mean_gate: the event has no field 'gate'"),
        ([hr.mean("origin", over="1h")], {}, "mean_origin needs a number; origin is text"),
        ([hr.share(hr.col("delay"), over="1h")], {}, r"share_delay needs a condition; write for example hr.share\(delay > 0"),
        ([hr.count(over="1h", where=hr.col("delay"))], {}, "where=delay is no condition"),
        ([hr.count(over="1h", pane="7m")], {}, "count: a pane of 420000 ms does not divide"),
        ([hr.last("delay")], {}, "last_delay needs over=: the view has no window"),
    ],
)
def test_refused_views(features: list[Declaration], changed: dict[str, Any], says: str) -> None:
    """A view names the feature that is wrong and the fix."""
    with pytest.raises(DefinitionError, match=rf"^FeatureView\(.*{says}"):
        declared(*features, **changed)


def test_refused_declarations() -> None:
    """What is wrong without a view is refused without one."""
    with pytest.raises(DefinitionError, match=r"hr.count: over=\[\] holds no window"):
        hr.count(over=[])
    with pytest.raises(DefinitionError, match=r"hr.mean: over is 'long'"):
        hr.mean("delay", over="long")
    with pytest.raises(DefinitionError, match=r"hr.mean: pane is 0 ms"):
        hr.mean("delay", over="1h", pane=0)
    with pytest.raises(DefinitionError, match="empty=inf is no value"):
        hr.mean("delay", over="1h", empty=math.inf)
