"""The example of the design, as an engineer writes it: this file is only type-checked."""

from __future__ import annotations

from typing import assert_type

import headrace as hr


class Departure(hr.Event):
    """The contract of the source topic."""

    flight_id: str
    origin: str
    carrier: str
    departed_at: hr.EventTime
    dep_delay: float
    distance: float | None = None


class Arrival(hr.Event):
    """The contract of the topic of outcomes."""

    flight_id: str
    arr_delay: float


departures = hr.Source("flights.departures.v1", Departure, key="origin", time="departed_at", lateness="2h")

origin_activity = hr.FeatureView(
    "origin_activity",
    version=1,
    entity="origin",
    source=departures,
    features=[
        hr.count(over=["1h", "3h", "24h"]),
        hr.mean("dep_delay", over=["1h", "3h", "24h"]),
        hr.std("dep_delay", over=10_800_000, pane="6m"),
        hr.sum(hr.col("distance") / 1_000, over="24h", where=hr.col("carrier") == "UA", empty=0),
        hr.min("dep_delay", over="3h"),
        hr.max("dep_delay", over="3h"),
        hr.share(hr.col("dep_delay") > 15, over="3h"),
        hr.share((hr.col("dep_delay") > 15) & ~hr.col("carrier").isin(["UA", "AA"]), over="3h"),
        hr.last(hr.col("dep_delay").clip(-60, 600).alias("delay")),
        hr.seconds_since_last(),
    ],
)

late_arrival = hr.Pipeline(
    "late_arrival",
    views=[origin_activity],
    event_features=[
        "dep_delay",
        hr.col("distance").log1p(),
        hr.hour("departed_at", tz="America/New_York"),
        hr.weekday(hr.col("departed_at"), tz="America/New_York"),
        hr.mapped("origin", {"EWR": 0, "JFK": 1}, other=-1),
        hr.hashed("carrier", buckets=64, absent=-1),
    ],
    predictions="flights.late_arrival.predictions.v1",
    model="models/late_arrival.onnx",
    outcomes=hr.Outcomes("flights.arrivals.v1", Arrival, join="flight_id", value=hr.col("arr_delay") > 15, within="24h"),
)

app = hr.App("flights", pipelines=[late_arrival])

assert_type(Departure(flight_id="1", origin="EWR", carrier="UA", departed_at=0, dep_delay=1.0).departed_at, int)
assert_type(hr.col("dep_delay") > 15, hr.Expression)
assert_type(hr.col("carrier") == "UA", hr.Expression)
assert_type(1 - hr.col("dep_delay"), hr.Expression)
assert_type(hr.haversine_km("lat", hr.col("lon"), 40.6, -73), hr.Expression)
assert_type(origin_activity.feature_names, tuple[str, ...])
assert_type(origin_activity.fingerprint, str)
assert_type(app.sources, tuple[hr.Source, ...])

features = hr.Features("redis://127.0.0.1:6379/0", app=app)
assert_type(features.get("origin_activity", "JFK").values["count_1h"], float)
assert_type(features.get_many("origin_activity", ["JFK", "LGA"], as_of_ms=0)[0].staleness_ms, int | None)

# What a type checker must refuse; `warn_unused_ignores` makes each line an error once it no longer is one.
hr.Topic("flights")  # type: ignore[attr-defined]
hr.mean("dep_delay")  # type: ignore[call-arg]
hr.mean("dep_delay", over=1.5)  # type: ignore[arg-type]
hr.count("dep_delay", over="1h")  # type: ignore[misc]
hr.share("dep_delay", over="1h")  # type: ignore[arg-type]
hr.hour("departed_at")  # type: ignore[call-arg]
hr.hashed("carrier", buckets="64")  # type: ignore[arg-type]
hr.Source("flights", dict, key="origin", time="departed_at")  # type: ignore[arg-type]
hr.FeatureView("v", entity="origin", source=departures, features=["count"])  # type: ignore[list-item]
hr.Features("redis://127.0.0.1:6379/0")  # type: ignore[call-arg]
features.get("origin_activity", b"JFK")  # type: ignore[arg-type]
hr.col("carrier") + "UA"  # type: ignore[operator]
