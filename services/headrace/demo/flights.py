"""The demo application: whether the flight that has just left will arrive more than 15 minutes late.

One event per departure from New York's three airports in 2013, keyed by the aircraft. The features are what the aircraft has been
through over the last 6, 24 and 72 hours, and what is known of the flight itself.
"""

from __future__ import annotations

from pathlib import Path

import headrace as hr
from headrace.demo.events import LATE_MINUTES

AIRPORTS = ("EWR", "JFK", "LGA")
CARRIERS = ("UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN")
"""The nine largest of sixteen airlines; each is a feature of its own, 0 or 1."""
MODEL = Path(__file__).with_name("late_arrival.onnx")


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
        hr.share((hr.col("dep_delay") > LATE_MINUTES).alias("delayed"), over=["6h", "24h", "72h"]),
        hr.last("dep_delay"),
        hr.seconds_since_last(),
    ],
)

late_arrival = hr.Pipeline(
    "late_arrival",
    views=[aircraft],
    event_features=[
        "dep_delay",
        "distance",
        "scheduled_hour",
        "scheduled_weekday",
        "planned_minutes",
        *((hr.col("origin") == airport).alias(f"from_{airport.lower()}") for airport in AIRPORTS),
        *((hr.col("carrier") == carrier).alias(f"by_{carrier.lower()}") for carrier in CARRIERS),
    ],
    predictions="flights.late_arrival.predictions.v1",
    model=str(MODEL),
    outcomes=hr.Outcomes("flights.arrivals.v1", Arrival, join="flight_id", value=hr.col("arr_delay") > LATE_MINUTES, within="24h"),
)

app = hr.App("flights", pipelines=[late_arrival])
