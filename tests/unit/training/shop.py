"""A shop whose payments are scored: an app with outcomes, a model, and a log with everything in it that can go wrong."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

import headrace as hr
from headrace.crashes import crash_fact
from headrace.predict.scores import Scores
from headrace.testing import Driver
from headrace.types import Float64s, TopicPartition

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000


class Payment(hr.Event):
    """The contract of the source."""

    id: str
    card: str
    at: hr.EventTime
    amount: float = Field(json_schema_extra={"unit": "EUR"})
    pieces: int | None = None
    online: bool
    shop: str | None = None


class Chargeback(hr.Event):
    """What turned out to be true."""

    id: str
    known_at: hr.EventTime
    disputed: float


payments = hr.Source("payments.v1", Payment, key="card", time="at", lateness="10m", max_ahead="1h")
spending = hr.FeatureView(
    "spending",
    entity="card",
    source=payments,
    features=[
        hr.count(over=["1h", "6h"]),
        hr.mean("amount", over=["1h", "6h"]),
        hr.std("amount", over="6h"),
        hr.max("amount", over="6h", where=hr.col("online") == True),  # noqa: E712 - an expression, not a truth
        hr.last("amount"),
        hr.seconds_since_last(),
    ],
)
chargebacks = hr.Outcomes("chargebacks.v1", Chargeback, join="id", value=hr.col("disputed") > 0, within="1h")
fraud = hr.Pipeline(
    "fraud",
    views=[spending],
    event_features=["amount", "pieces", (hr.col("shop") == "books").alias("books")],
    predictions="fraud.v1",
    outcomes=chargebacks,
)
app = hr.App("cards", pipelines=[fraud])


class Counting:
    """A model that adds up what is there."""

    name, version = "counting", "1"

    def score(self, values: Float64s) -> Scores:
        """The sum of each row."""
        return Scores(scores=np.nansum(values, axis=1), refused=[])


def rows(count: int = 300, *, seed: int = 1, disorder: bool = False) -> list[dict[str, Any]]:
    """Payments of seven cards, in the order of time or out of it; each has an id of its own."""
    draw = random.Random(seed)
    time_ms = START_MS
    found: list[dict[str, Any]] = []
    for number in range(count):
        time_ms += draw.choice([1, 1_000, 40_000, 7 * MINUTE_MS])
        back = draw.choice([0, 0, 0, 1, 300_000, 900_000]) if disorder else 0
        found.append(
            {
                "id": f"p{number}",
                "card": f"card-{draw.randrange(7)}",
                "at": time_ms - back,
                "amount": round(draw.lognormvariate(2, 1), 2),
                "pieces": draw.choice([None, 1, 2, 30]),
                "online": draw.random() < 0.5,
                "shop": draw.choice([None, "books", "food"]),
            }
        )
    return found


def table(found: list[dict[str, Any]]) -> pa.Table:
    """Payments as a table."""
    return pa.Table.from_pylist(found)


def driven(count: int = 300, *, disorder: bool = True) -> Driver:
    """The engine with a log of late events, unless told otherwise, and bad records, on two partitions."""
    driver = Driver(app, models={"fraud": Counting()}, partitions=2, now_ms=START_MS)
    for number, row in enumerate(rows(count, disorder=disorder)):
        driver.send("payments.v1", **row)
        if number % 50 == 7:
            driver.send_bytes("payments.v1", key=b"card-1", value=b"{")
            driver.send_bytes("payments.v1", key=b"card-2", value=b'{"id":"x","card":"card-3"}')
    return driver


def condemn(driver: Driver, partition: int, offset: int) -> None:
    """Write down that a record was condemned."""
    driver.log.append(app.facts, 0, None, crash_fact(TopicPartition("payments.v1", partition), offset))


def bits(values: Float64s) -> list[list[int]]:
    """The numbers as the bits they are, every NaN as the same one."""
    plain = np.ascontiguousarray(np.where(np.isnan(values), math.nan, values))
    return [[int(one) for one in row] for row in plain.view(np.int64)]
