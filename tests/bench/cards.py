"""The job that is measured, the same that other engines were given: 24 features of a card, scored by 100 trees.

Every measurement runs an app of its own (own group, topics, states); a worker is a process of its own and is told which app in the
environment (`JOB`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import headrace as hr
from headrace.features.aggregation import Declaration

JOB = "BENCH_JOB"
PARTITIONS = 4
WINDOWS = (("1m", "5s"), ("5m", "30s"), ("1h", "5m"), ("24h", "1h"))
"""Each with its pane: 58 panes in all."""
FURTHER = ("merchant", "device")
"""The entities behind the first hop, and behind the second."""
SPANS = {"1h": ("1m", "10m", "30m", "1h"), "24h": ("1h", "6h", "12h", "24h"), "30d": ("1d", "7d", "14d", "30d")}
"""Windows with the default panes, a sixtieth each: 244 in all. By the longest."""


class Payment(hr.Event):
    """A card was used. The fields that a model has no use for are in the records, but not in the contract."""

    event_id: str
    entity_id: str
    ts: hr.EventTime
    amount: float


class Purchase(Payment):
    """The same event where features of more than the card are wanted."""

    merchant: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What differs between the apps: their names, the model file, what a prediction carries."""

    name: str
    source: str
    model: str | None = None
    publish_features: bool = False
    span: str | None = None
    """Which of `SPANS`; None: `WINDOWS`."""
    hops: int = 0
    """How many entities of `FURTHER` have a feature too, each a stage of its own."""

    @property
    def predictions(self) -> str:
        """The prediction topic."""
        return f"{self.name}.predictions.v1"

    def to_text(self) -> str:
        """As the environment carries it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """The reverse."""
        return cls(**json.loads(text))


def app_of(job: Job) -> hr.App:
    """The app of a job."""
    payments = hr.Source(job.source, Purchase if job.hops else Payment, key="entity_id", time="ts", lateness="1m")
    features: list[Declaration] = []
    for window, pane in WINDOWS if job.span is None else [(window, None) for window in SPANS[job.span]]:
        features.append(hr.count(over=window, pane=pane))
        features += [declare("amount", over=window, pane=pane) for declare in (hr.sum, hr.mean, hr.min, hr.max, hr.std)]
    card = hr.FeatureView("card", version=1, entity="entity_id", source=payments, features=features)
    further = [hr.FeatureView(f"of_{name}", entity=name, source=payments, features=[hr.count(over="1h")]) for name in FURTHER[: job.hops]]
    pipeline = hr.Pipeline(
        "fraud", views=[card, *further], predictions=job.predictions, model=job.model, publish_features=job.publish_features
    )
    return hr.App(job.name, pipelines=[pipeline])
