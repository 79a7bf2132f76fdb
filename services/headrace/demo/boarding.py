"""The demo's second application: whether a flight will arrive more than 15 minutes late, said when it boards.

Its own delay is not known then. What is known is what recent departures did to its aircraft, its airport and its airline: the same views
that score departures, kept by stages of this app and looked up when the flight boards, a quarter of an hour before its scheduled departure.
Not at that minute: 56 % of the flights leave before it, and the aircraft's view would tell that this one has; 0.1 % leave before boarding.
"""

from __future__ import annotations

from pathlib import Path

import headrace as hr
from headrace.demo.flights import AIRPORTS, CARRIERS, aircraft, airline, airport

MODEL = Path(__file__).with_name("before_departure.onnx")
BARE_MODEL = Path(__file__).with_name("by_timetable.onnx")
BOARDS_MINUTES = 15
"""How long before its scheduled departure a flight boards."""


class Boarding(hr.Event):
    """A flight boards; the fields are those of a departure, as far as they are known."""

    flight_id: str
    tail: str
    carrier: str
    origin: str
    dest: str
    boards_at: hr.EventTime
    distance: float
    scheduled_hour: int
    scheduled_weekday: int
    planned_minutes: int


boardings = hr.Source("flights.boardings.v1", Boarding, key="tail", time="boards_at", lateness="2h")

OF_THE_TIMETABLE = [
    hr.col("distance"),
    hr.col("scheduled_hour"),
    hr.col("scheduled_weekday"),
    hr.col("planned_minutes"),
    *((hr.col("origin") == name).alias(f"from_{name.lower()}") for name in AIRPORTS),
    *((hr.col("carrier") == name).alias(f"by_{name.lower()}") for name in CARRIERS),
]

before_departure = hr.Pipeline(
    "before_departure",
    source=boardings,
    look_up=hr.LookUp(aircraft, airport, airline, stale_after="30m", wait="1s"),
    event_features=OF_THE_TIMETABLE,
    predictions="flights.before_departure.predictions.v1",
    model=str(MODEL),
)

app = hr.App("boarding", pipelines=[before_departure])

by_timetable = hr.Pipeline(
    "by_timetable",
    source=boardings,
    event_features=OF_THE_TIMETABLE,
    predictions="flights.by_timetable.predictions.v1",
    model=str(BARE_MODEL),
)
"""The same without anything that rolls. It is not served: the report scores with it what was published, to show what views are worth."""
