from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.expression import zone
from headrace.predict.scores import Scores
from headrace.testing import Driver
from headrace.types import Float64s

NOON_IN_NEW_YORK_MS = 1_363_017_600_000
"""Monday, 11 March 2013, 12:00, the day after the clock was set."""


class Departure(hr.Event):
    """A flight has left; the airport's place is not always known."""

    flight_id: str
    origin: str
    carrier: str | None = None
    departed_at: hr.EventTime
    scheduled_at: hr.EventTime | None = None
    lat: float | None = None
    lon: float | None = None


departures = hr.Source("departures.v1", Departure, key="origin", time="departed_at", historical=True)
km = hr.haversine_km("lat", "lon", 40.639751, -73.778925).alias("km")


class Nothing:
    """A model that answers 0."""

    name, version = "nothing", "1"

    def score(self, values: Float64s) -> Scores:
        """Zero for every event."""
        return Scores(scores=np.zeros(len(values)), refused=[])


def view(tz: str = "America/New_York") -> hr.FeatureView:
    """Aggregations over every new expression."""
    return hr.FeatureView(
        "origin",
        entity="origin",
        source=departures,
        features=[
            hr.count(over="3h", where=hr.hour("departed_at", tz=tz) >= 12),
            hr.share(hr.weekday("departed_at", tz=tz).isin([0]).alias("monday"), over="3h"),
            hr.max(km, over="3h"),
            hr.sum(hr.mapped("carrier", {"AA": 1, "UA": 10}, other=100), over="3h"),
            hr.last(hr.hashed("carrier", buckets=64)),
        ],
    )


def pipeline(**changed: hr.FeatureView) -> hr.Pipeline:
    """A pipeline whose event features are those expressions, too."""
    return hr.Pipeline(
        "late",
        views=[changed.get("view", view())],
        event_features=[
            hr.hour("departed_at", tz="America/New_York"),
            hr.weekday("scheduled_at", tz="Asia/Tokyo"),
            km,
            hr.mapped("carrier", {"AA": 1, "UA": 10}, other=-1, absent=-2),
            hr.hashed("carrier", buckets=64),
        ],
        predictions="late.v1",
    )


def sent(*events: Departure) -> list[dict[str, float | None]]:
    """The features of the predictions of some events."""
    driver = Driver(hr.App("flights", pipelines=[pipeline()]), models={"late": Nothing()}, now_ms=NOON_IN_NEW_YORK_MS)
    for event in events:
        driver.send(departures.topic, event)
    return [one["features"] for one in driver.results("late")]


def test_from_an_event_to_its_features() -> None:
    """An event time is an input like any number, on its way through decoding, aggregations and event features."""
    at_noon, before_noon = sent(
        Departure(
            flight_id="1",
            origin="JFK",
            carrier="AA",
            departed_at=NOON_IN_NEW_YORK_MS,
            scheduled_at=NOON_IN_NEW_YORK_MS - 3_600_000,
            lat=33.942536,
            lon=-118.408075,
        ),
        Departure(flight_id="2", origin="JFK", departed_at=NOON_IN_NEW_YORK_MS - 1),
    )
    assert at_noon == {
        "origin.count_where_hour_departed_at_ge_12_3h": 1.0,
        "origin.share_monday_3h": 1.0,
        "origin.max_km_3h": 3974.205451628946,
        "origin.sum_mapped_carrier_3h": 1.0,
        "origin.last_hashed_carrier": None,
        "hour_departed_at": 12.0,
        "weekday_scheduled_at": 1.0,
        "km": 3974.205451628946,
        "mapped_carrier": 1.0,
        "hashed_carrier": 5.0,
    }
    assert before_noon == {
        **at_noon,
        "origin.last_hashed_carrier": 5.0,
        "hour_departed_at": 11.0,
        "weekday_scheduled_at": None,
        "km": None,
        "mapped_carrier": -2.0,
        "hashed_carrier": None,
    }


def test_changed_rules_are_another_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a time zone decides about state or vectors, its rules are in the fingerprint; elsewhere they are not."""
    before, plain = view(), hr.FeatureView("v", entity="origin", source=departures, features=[hr.count(over="1h")])
    assert view().fingerprint == before.fingerprint
    assert view("Europe/London").fingerprint != before.fingerprint
    other_rules = zone._rules("America/Bogota")
    monkeypatch.setattr(zone, "_rules", lambda _: other_rules)
    zone.zone_of.cache_clear()
    try:
        changed, with_changed_event_feature = view(), pipeline(view=plain).fingerprint
    finally:
        monkeypatch.undo()
        zone.zone_of.cache_clear()
    assert changed.fingerprint != before.fingerprint
    assert with_changed_event_feature != pipeline(view=plain).fingerprint


def test_wrong_fields_are_refused_where_they_are_declared() -> None:
    """A view or pipeline that maps a number by texts, or asks for the hour of a text, names the feature and the fix."""
    with pytest.raises(DefinitionError, match=r"FeatureView\('v'\): last_hashed_lat: hashed\(lat, buckets=8\) needs text"):
        hr.FeatureView("v", entity="origin", source=departures, features=[hr.last(hr.hashed("lat", buckets=8), over="1h")])
    with pytest.raises(DefinitionError, match=r"event feature hour_carrier: hour\(carrier, tz='UTC'\) needs numbers"):
        hr.Pipeline("p", views=[view()], event_features=[hr.hour("carrier", tz="UTC")], predictions="p.v1")
    with pytest.raises(DefinitionError, match="the event has no field 'latitude'"):
        hr.Pipeline("p", views=[view()], event_features=[hr.haversine_km("latitude", "lon", 0, 0)], predictions="p.v1")
