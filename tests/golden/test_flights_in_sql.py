"""T50 on real events: features of 200,000 flights, folded, and asked of DuckDB in SQL that knows nothing of the fold."""

from __future__ import annotations

from typing import Any

import duckdb
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import headrace as hr
from headrace.demo.events import read_departures
from headrace.demo.flights import CARRIERS, departures
from headrace.features.resident import ResidentStates
from headrace.features.streams import BinForm
from headrace.types import NO_WATERMARK_MS, EventBatch, Float64s, RecordBatch, StatesPage, TopicPartition

FLIGHTS = 200_000

VIEW = hr.FeatureView(
    "aircraft",
    entity="tail",
    source=departures,
    features=[
        hr.count(over="24h", pane="1h"),
        hr.sum("dep_delay", over="24h", pane="1h"),
        hr.mean("dep_delay", over="24h", pane="1h"),
        hr.std("dep_delay", over="24h", pane="1h"),
        hr.min("dep_delay", over="24h", pane="1h"),
        hr.max("dep_delay", over="24h", pane="1h"),
        hr.share(hr.col("dep_delay") > 15, over="24h", pane="1h"),
        hr.first("distance", over="24h", pane="1h"),
        hr.distinct("dest", over="24h", pane="1h"),
        hr.quantile("dep_delay", 0.5, over="24h", pane="1h"),
        hr.quantile("dep_delay", 0.9, over="24h", pane="1h"),
        hr.mode("carrier", CARRIERS, over="24h", pane="1h"),
        hr.decayed_sum("distance", half_life="6h", horizon="24h", pane="1h"),
        hr.lag("dep_delay", 1, over="24h"),
        hr.change("dep_delay", over="24h"),
        hr.last("dep_delay", over="24h"),
    ],
)

ASKED = """
    with seen as (
        select flights.*, lag(delay) over past as before, lag(at_ms) over past as before_ms
        from flights window past as (partition by tail order by off)
    ), pairs as (
        select seen.off as event, seen.at_ms as as_of_ms, seen.delay as own, seen.before, seen.before_ms, one.*
        from seen join flights as one
            on one.tail = seen.tail and one.off <= seen.off and one.at_ms // 3600000 >= seen.at_ms // 3600000 - 24
    )
    select
        count(*) as f1, sum(delay) as f2, avg(delay) as f3, stddev_pop(delay) as f4, min(delay) as f5, max(delay) as f6,
        avg((delay > 15)::double) as f7, arg_min(distance, off) as f8, count(distinct dest) as f9,
        list_sort(list(delay))[1 + floor(0.5 * (count(*) - 1))::int] as f10,
        list_sort(list(delay))[1 + floor(0.9 * (count(*) - 1))::int] as f11,
        list_sort(list_transform(
            map_entries(histogram(carrier_place)), lambda one: {'many': -one.value::int, 'place': one.key}
        ))[1].place as f12,
        sum(distance * pow(2, (at_ms - as_of_ms) / 21600000.0)) as f13,
        any_value(case when before_ms > as_of_ms - 86400000 then before end) as f14,
        any_value(case when before_ms > as_of_ms - 86400000 then own - before end) as f15,
        any_value(case when before_ms > as_of_ms - 86400000 then before end) as f16
    from pairs group by event order by event
"""


@pytest.fixture(scope="module")
def flights() -> dict[str, NDArray[Any]]:
    """The first flights of the year, in the order of their departure."""
    year = read_departures(limit=FLIGHTS)
    events = msgspec.json.Decoder(Flight)
    rows = [events.decode(value) for value in year.values]
    return {
        "off": np.arange(FLIGHTS),
        "at_ms": year.departed_ms,
        "tail": np.array([row.tail for row in rows], dtype=object),
        "delay": np.array([row.dep_delay for row in rows]),
        "distance": np.array([row.distance for row in rows]),
        "dest": np.array([row.dest for row in rows], dtype=object),
        "carrier": np.array([row.carrier for row in rows], dtype=object),
    }


class Flight(msgspec.Struct):
    """What is read of an event."""

    tail: str
    dest: str
    carrier: str
    dep_delay: float
    distance: float


def folded(flights: dict[str, NDArray[Any]]) -> Float64s:
    """The vectors as a worker computes them."""
    partition = TopicPartition(departures.topic, 0)
    nothing = StatesPage(cursor=0, keys=[], states=[])
    states = ResidentStates(views=[VIEW], read=lambda _, keys: {VIEW.fp: [None] * len(keys)}, scan=lambda *_: nothing, capacity=10_000)
    states.start(partition, {VIEW.fp: 0}, NO_WATERMARK_MS)
    found = []
    for begin in range(0, FLIGHTS, 16_384):
        some = {name: column[begin : begin + 16_384] for name, column in flights.items()}
        count = len(some["off"])
        batch = EventBatch(
            records=RecordBatch(
                topic=departures.topic,
                partitions=np.zeros(count, dtype=np.int32),
                offsets=some["off"],
                timestamps_ms=some["at_ms"],
                keys=[None] * count,
                values=[None] * count,
                headers=[None] * count,
            ),
            rows=np.arange(count),
            entities=some["tail"].tolist(),
            event_times_ms=some["at_ms"],
            columns={"dep_delay": some["delay"], "distance": some["distance"], "dest": some["dest"], "carrier": some["carrier"]},
        )
        found.append(states.fold(batch).values)
    return np.concatenate(found)


def test_sql_agrees_about_real_flights(flights: dict[str, NDArray[Any]]) -> None:
    """Counts, extremes, distinct values, quantiles and frequent ones are equal, other numbers within 1e-9, for every one of 200,000."""
    database = duckdb.connect()
    place = " ".join(f"when '{carrier}' then {number}" for number, carrier in enumerate(CARRIERS))
    database.execute(f"create table flights as select *, case carrier {place} else {len(CARRIERS)} end as carrier_place from flights")
    asked = database.sql(ASKED).fetchnumpy()
    values = folded(flights)
    assert len(values) == FLIGHTS
    for feature, column, found in zip(VIEW.features, asked.values(), values.T, strict=True):
        expected = np.ma.filled(column.astype(np.float64), np.nan)
        if isinstance(feature.form, BinForm):
            expected, found = feature.form.numbers(expected), feature.form.numbers(found)  # noqa: PLW2901 - compared by their bins
        if feature.aggregation.name in {"sum", "mean", "std", "share", "decayed_sum"}:
            near = 1e-6 if feature.aggregation.name == "std" else 1e-9
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=near, err_msg=feature.name)
        else:
            assert np.array_equal(found, expected, equal_nan=True), feature.name
