"""Flights whose features are of three entities: an app of two hops, in memory."""

from __future__ import annotations

import json
import random

import numpy as np

import headrace as hr
from headrace.parts import Limits
from headrace.predict.scores import Scores
from headrace.testing import Driver
from headrace.types import Float64s

START_MS = 1_700_000_000_000
TOPIC, PREDICTIONS = "departures.v1", "late.predictions.v1"
BY_ORIGIN, BY_CARRIER = "flights.late.by-origin.v1", "flights.late.by-carrier.v1"
PARTITIONS = 3


class Departure(hr.Event):
    """The contract of the source."""

    tail: str
    origin: str
    carrier: str
    at: hr.EventTime
    delay: float


departures = hr.Source(TOPIC, Departure, key="tail", time="at", lateness="10m", max_ahead="5m")
aircraft = hr.FeatureView("aircraft", entity="tail", source=departures, features=[hr.count(over="1h"), hr.mean("delay", over="3h")])
airport = hr.FeatureView("airport", entity="origin", source=departures, features=[hr.sum("delay", over="1h"), hr.seconds_since_last()])
airline = hr.FeatureView("airline", entity="carrier", source=departures, features=[hr.mean("delay", over=["1h", "6h"])])
app = hr.App(
    "flights",
    pipelines=[
        hr.Pipeline("late", views=[airport, aircraft, airline], event_features=["delay"], predictions=PREDICTIONS, publish_features=True)
    ],
)


class Model:
    """A mix of its features; nothing for a delay of more than 190."""

    name, version = "late", "1"

    def score(self, values: Float64s) -> Scores:
        """Their sum."""
        refused = [(row, "too much") for row in np.flatnonzero(values[:, -1] > 190).tolist()]
        return Scores(scores=np.nansum(values, axis=1) / 7, refused=refused)


MODELS = {"late": Model()}


def fly(driver: Driver, draw: random.Random, count: int) -> None:
    """Send so many flights: some late, some bad, one in forty without an airport."""
    for number in range(count):
        driver.advance(draw.choice([0, 500, 60_000, 240_000]))
        fields: dict[str, object] = {
            "tail": f"N{draw.randrange(12)}",
            "origin": "" if number % 40 == 7 else f"A{draw.randrange(4)}",
            "carrier": draw.choice(["AA", "UA", "DL"]),
            "at": driver.clock.now_ms() - draw.choice([0, 0, 0, 20_000, 1_200_000]),
            "delay": draw.uniform(-20, 200),
        }
        value = b"{" if number % 29 == 0 else json.dumps(fields).encode()
        driver.send_bytes(TOPIC, key=str(fields["tail"]).encode(), value=value, timestamp_ms=driver.clock.now_ms())


def started(draw: random.Random) -> Driver:
    """The engine, before anything was sent."""
    del draw
    return Driver(app, models=MODELS, partitions=PARTITIONS, now_ms=START_MS, limits=Limits(max_batch=16, refused_share=1.0))
