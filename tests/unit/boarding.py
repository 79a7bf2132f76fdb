"""An app that scores one source by what another one did: flights at their scheduled departure, by what left lately from their airport."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import headrace as hr
from headrace.definition import LookUp
from headrace.parts import Limits
from headrace.predict.scores import Model, Scores
from headrace.testing import Driver
from headrace.types import Float64s

DEPARTURES, BOARDINGS, PREDICTIONS = "departures.v1", "boardings.v1", "late.v1"
PARTITIONS = 3
NOON_MS = 1_700_049_600_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
ORIGINS = ("EWR", "JFK", "LGA", "BOS", "ORD")


class Departure(hr.Event):
    """A flight left."""

    tail: str
    origin: str
    at: hr.EventTime
    delay: float


class Boarding(hr.Event):
    """A flight should leave now."""

    flight: str
    tail: str
    at: hr.EventTime
    miles: float
    origin: str | None = None


departures = hr.Source(DEPARTURES, Departure, key="tail", time="at", lateness="30m")
boardings = hr.Source(BOARDINGS, Boarding, key="flight", time="at", lateness="10m")

airport = hr.FeatureView(
    "airport",
    entity="origin",
    source=departures,
    features=[hr.count(over=["1h", "3h"]), hr.mean("delay", over="1h"), hr.last("delay"), hr.seconds_since_last()],
)
aircraft = hr.FeatureView("aircraft", entity="tail", source=departures, features=[hr.count(over="3h"), hr.max("delay", over="3h")])
flight = hr.FeatureView("flight", entity="flight", source=boardings, features=[hr.count(over="3h")])

seat = hr.FeatureView("seat", entity="tail", source=boardings, features=[hr.count(over="3h")])
"""Of a second entity of the boardings: a pipeline with this view has a hop."""


def app_that(look_up: LookUp, *, own: bool = True, hop: bool = False) -> hr.App:
    """The app with a look-up of these rules; without a view of its own if so wished, or with a second stage."""
    pipeline = hr.Pipeline(
        "late",
        source=boardings,
        views=[*([flight] if own else []), *([seat] if hop else [])],
        look_up=look_up,
        event_features=["miles"],
        predictions=PREDICTIONS,
    )
    return hr.App("boarding", pipelines=[pipeline])


app = app_that(hr.LookUp(airport, aircraft, stale_after="20m"))
patient = app_that(hr.LookUp(airport, aircraft, stale_after="20m", wait="10s"))


@dataclass(frozen=True)
class Sum:
    """A model that is nothing but arithmetic, and refuses what is far away."""

    name: str = "sum"
    version: str = "1"

    def score(self, values: Float64s) -> Scores:
        """The sum of what is there."""
        far = np.flatnonzero(values[:, -1] > 5_000)
        return Scores(scores=np.nansum(values, axis=1), refused=[(int(row), "too far") for row in far])


MODELS: Mapping[str, Model] = {"late": Sum()}


def started(of: hr.App = app, *, max_batch: int = 16, models: Mapping[str, Model] = MODELS) -> Driver:
    """A driver at noon."""
    return Driver(of, models=models, partitions=PARTITIONS, now_ms=NOON_MS, limits=Limits(max_batch=max_batch))


def leave(driver: Driver, origin: str, at_ms: int, delay: float, tail: str = "N1") -> None:
    """A departure."""
    driver.send(DEPARTURES, tail=tail, origin=origin, at=at_ms, delay=delay)


def board(driver: Driver, origin: str | None, at_ms: int, *, name: str = "F1", tail: str = "N1", miles: float = 100.0) -> None:
    """A boarding."""
    driver.send(BOARDINGS, flight=name, origin=origin, tail=tail, at=at_ms, miles=miles)


def traffic(driver: Driver, draw: random.Random, count: int) -> None:
    """So many events of both kinds, some minutes apart, some out of order, and now and then all of it is worked off."""
    for number in range(count):
        if draw.random() < 0.1:
            driver.run()
        driver.advance(draw.choice([1_000, MINUTE_MS, 4 * MINUTE_MS]))
        now_ms = driver.clock.now_ms()
        tail = f"N{draw.randrange(7)}"
        if draw.random() < 0.6:
            leave(driver, draw.choice(ORIGINS), now_ms - draw.choice([0, 0, 0, 9 * MINUTE_MS, 50 * MINUTE_MS]), draw.gauss(10, 30), tail)
        else:
            origin = None if number % 17 == 0 else draw.choice(ORIGINS)
            board(
                driver,
                origin,
                now_ms - draw.choice([0, 0, 8 * MINUTE_MS]),
                name=f"F{draw.randrange(9)}",
                tail=tail,
                miles=draw.choice([100.0, 700.0, 6_000.0]),
            )
