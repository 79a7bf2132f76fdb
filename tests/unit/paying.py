"""Cards that pay: an app whose features a probe does not change, the engine in memory, and look-ups in its store."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

import headrace as hr
from headrace.lookup import FeatureLookups
from headrace.predict.scores import Scores
from headrace.testing import Driver
from headrace.types import Float64s

NOON_MS = 1_700_000_000_000
TOPIC = "payments.v1"
SECOND_MS = 1_000
LAST = "last_amount_where_real_1h"


class Payment(hr.Event):
    """A payment, or a probe that adds nothing to any feature."""

    card: str
    paid_at: hr.EventTime
    amount: float
    real: bool


REAL = hr.col("real")


def app_over(*, name: str = "cards", historical: bool = False) -> hr.App:
    """An app with one view whose features a probe does not change."""
    source = hr.Source(TOPIC, Payment, key="card", time="paid_at", lateness="10s", max_ahead="5m", historical=historical)
    spending = hr.FeatureView(
        "spending",
        entity="card",
        source=source,
        features=[
            hr.count(over=["1m", "1h"], where=REAL),
            hr.sum("amount", over=["1m", "1h"], where=REAL),
            hr.mean("amount", over="1h", where=REAL),
            hr.std("amount", over="1h", where=REAL),
            hr.max("amount", over="1m", where=REAL),
            hr.last("amount", over="1h", where=REAL),
            hr.seconds_since_last(over="1h", where=REAL),
        ],
    )
    return hr.App(name, pipelines=[hr.Pipeline("fraud", views=[spending], predictions="cards.fraud.v1")])


APP = app_over()


class Zero:
    """A model that scores everything 0."""

    name, version = "zero", "1"

    def score(self, values: Float64s) -> Scores:
        """0 for each."""
        return Scores(scores=np.zeros(len(values)), refused=[])


class Cards:
    """The engine in memory, and look-ups in its store."""

    def __init__(self, *, historical: bool = False, partitions: int = 3) -> None:
        self.app = app_over(historical=historical)
        self.driver = Driver(self.app, models={"fraud": Zero()}, partitions=partitions, now_ms=NOON_MS)
        self.clock = self.driver.clock
        self.features = FeatureLookups(self.app, self.driver.store, now_ms=self.clock.now_ms)

    def pay(self, card: str, time_ms: int, amount: float, *, probe: bool = False) -> None:
        """Send an event and let it be done."""
        self.driver.send(TOPIC, timestamp_ms=self.clock.now_ms(), card=card, paid_at=time_ms, amount=amount, real=not probe)
        self.driver.run()

    def served(self) -> list[float | None]:
        """The features in the newest prediction."""
        found = max(self.driver.results("fraud"), key=lambda one: (one["event_time"], one["id"]))
        return list(found["features"].values())


def bare(values: Mapping[str, float]) -> list[float | None]:
    """Values as a prediction holds them."""
    return [None if math.isnan(value) else value for value in values.values()]
