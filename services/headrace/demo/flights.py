"""The demo application: whether the flight that has just left will arrive more than 15 minutes late.

One event per departure from New York's three airports in 2013, keyed by the aircraft. The features are what the aircraft has been
through over the last 6, 24 and 72 hours, how the airport and the airline are doing just now, and what is known of the flight itself.
"""

from __future__ import annotations

from pathlib import Path

import headrace as hr
from headrace.demo.events import LATE_MINUTES

AIRPORTS = ("EWR", "JFK", "LGA")
CARRIERS = ("UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN")
"""The nine largest of sixteen airlines; each is a feature of its own, 0 or 1."""
MODEL = Path(__file__).with_name("late_arrival.onnx")
SECOND_MODEL = Path(__file__).with_name("late_arrival_2.onnx")
ALONE_MODEL = Path(__file__).with_name("aircraft_alone.onnx")


class Departure(hr.Event):
    """A flight has left the gate. Delays are minutes against the timetable, below 0 when early; `distance` is miles.

    `scheduled_hour` and `scheduled_weekday` (0 is Monday) are those of the clock at the airport; `planned_minutes` is how far the clock
    at the destination is ahead of that by the timetable, so it knows flight time, time zones and slack at once.
    """

    flight_id: str
    tail: str
    carrier: str
    origin: str
    dest: str
    departed_at: hr.EventTime
    dep_delay: float
    distance: float
    scheduled_hour: int
    scheduled_weekday: int
    planned_minutes: int


class Arrival(hr.Event):
    """A flight has arrived."""

    flight_id: str
    arrived_at: hr.EventTime
    arr_delay: float


DELAYED = (hr.col("dep_delay") > LATE_MINUTES).alias("delayed")

departures = hr.Source("flights.departures.v1", Departure, key="tail", time="departed_at", lateness="2h")

aircraft = hr.FeatureView(
    "aircraft",
    version=1,
    entity="tail",
    source=departures,
    features=[
        hr.count(over=["6h", "24h", "72h"]),
        hr.mean("dep_delay", over=["6h", "24h", "72h"]),
        hr.max("dep_delay", over=["6h", "24h", "72h"]),
        hr.share(DELAYED, over=["6h", "24h", "72h"]),
        hr.last("dep_delay"),
        hr.seconds_since_last(),
    ],
)

airport = hr.FeatureView(
    "airport",
    version=1,
    entity="origin",
    source=departures,
    features=[
        hr.count(over="1h"),
        hr.mean("dep_delay", over=["1h", "3h"]),
        hr.share(DELAYED, over=["1h", "3h"]),
    ],
)

airline = hr.FeatureView(
    "airline",
    version=1,
    entity="carrier",
    source=departures,
    features=[
        hr.mean("dep_delay", over=["3h", "24h"]),
        hr.share(DELAYED, over=["3h", "24h"]),
    ],
)

OF_THE_FLIGHT = [
    hr.col("dep_delay"),
    hr.col("distance"),
    hr.col("scheduled_hour"),
    hr.col("scheduled_weekday"),
    hr.col("planned_minutes"),
    *((hr.col("origin") == name).alias(f"from_{name.lower()}") for name in AIRPORTS),
    *((hr.col("carrier") == name).alias(f"by_{name.lower()}") for name in CARRIERS),
]


def _late_arrival(model: str | None) -> hr.Pipeline:
    return hr.Pipeline(
        "late_arrival",
        views=[aircraft, airport, airline],
        event_features=OF_THE_FLIGHT,
        predictions="flights.late_arrival.predictions.v1",
        model=model,
        outcomes=hr.Outcomes("flights.arrivals.v1", Arrival, join="flight_id", value=hr.col("arr_delay") > LATE_MINUTES, within="24h"),
    )


late_arrival = _late_arrival(str(MODEL))

app = hr.App("flights", pipelines=[late_arrival])

app_with_registry = hr.App("flights", pipelines=[_late_arrival(None)])
"""The same with versions that come and go: what `headrace demo` replays. The one above is served by a worker as it is, nobody has to
register anything first.
"""

aircraft_alone = hr.Pipeline(
    "aircraft_alone",
    views=[aircraft],
    event_features=OF_THE_FLIGHT,
    predictions="flights.aircraft_alone.predictions.v1",
    model=str(ALONE_MODEL),
)
"""The same without airport and airline. It is not served: the report scores with it what was published, and shows what they are worth."""
