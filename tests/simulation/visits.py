"""The app of the simulation and the records it is fed: small windows, so that a short log is longer than what a rebuild needs."""

from __future__ import annotations

import json
import random

import numpy as np

import headrace as hr
from headrace.predict.scores import Scores
from headrace.types import Float64s

TOPIC, PREDICTIONS = "visits", "visit.predictions"
PARTITIONS = 2
START_MS = 1_700_000_000_000
POISON, POISON_AT_HOP = b'"poison"', b'"poison at hop"'
"""A record with it takes the process with it that decodes it (`world.World.assemble`): at the source, or not before the hop."""
WHERE = ("attic", "barn", "cellar", "dairy", "eaves")
REMEMBERED_MS = 28_000
"""How far below the watermark an event can matter to the views below: lateness, max_ahead, the longest window and the longest pane."""


class Visit(hr.Event):
    """The contract of the simulated source."""

    who: str
    where: str
    at: hr.EventTime
    seq: int


visits = hr.Source(TOPIC, Visit, key="who", time="at", lateness="2s", max_ahead="1s")
recent = hr.FeatureView(
    "recent",
    entity="who",
    source=visits,
    features=[
        hr.count(over=["5s", "20s"]),
        hr.sum("seq", over="20s", pane="5s"),
        hr.mean(hr.col("seq") * hr.col("seq") / 7.0, over=["5s", "20s"]),
        hr.std("seq", over="20s"),
        hr.last("seq"),
        hr.seconds_since_last(),
    ],
)
brief = hr.FeatureView("brief", entity="who", source=visits, features=[hr.count(over="1s"), hr.sum("seq", over="1s")])
app = hr.App("sim", pipelines=[hr.Pipeline("visit", views=[recent, brief], predictions=PREDICTIONS)])

crowd = hr.FeatureView(
    "crowd",
    entity="where",
    source=visits,
    features=[hr.count(over=["5s", "20s"]), hr.mean("seq", over="20s"), hr.max("seq", over="5s"), hr.seconds_since_last()],
)
chained = hr.App("chain", pipelines=[hr.Pipeline("visit", views=[brief, crowd], predictions=PREDICTIONS)])
"""The same visits in two stages: of who comes, then of where."""


class SumModel:
    """A model that is nothing but arithmetic."""

    name, version = "sum", "1"

    def score(self, values: Float64s) -> Scores:
        """The sum of what is there."""
        return Scores(scores=np.nansum(values, axis=1), refused=[])


def make_records(seed: int, count: int) -> list[tuple[int, bytes, bytes, int]]:
    """(partition, key, value, timestamp) of a small log: four entities, some events out of order, some late, a few refused,
    over about twice the time that a rebuild must look back.
    """
    draw = random.Random(seed)
    answer = []
    now_ms = START_MS
    for seq in range(count):
        now_ms += draw.choice([0, 40, 300, 700, 2_500] if seq % 9 else [9_000])
        entity = draw.randrange(4)
        at_ms = now_ms - draw.choice([0, 0, 0, 0, 900, 2_600, -1_000])
        value = json.dumps({"who": f"e{entity}", "where": WHERE[seq * seq % 5], "at": at_ms, "seq": seq}).encode()
        if draw.random() < 0.05:
            value = b"{"
        elif seq == count // 3 and seed % 4 == 0:
            value = value[:-1] + b', "x": ' + (POISON if seed % 8 == 0 else POISON_AT_HOP) + b"}"
        answer.append((entity % PARTITIONS, f"e{entity}".encode(), value, now_ms))
    return answer
