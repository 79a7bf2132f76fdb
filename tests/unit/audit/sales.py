"""An app with every kind of feature, a run of it, and what somebody with a mistake in his code would have served in its place.

What is served with a mistake comes from the engine's own fold, fed with what the mistake makes of events or definitions; never from the
recomputations of the audit.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import headrace as hr
from headrace.audit.auditing import Audit
from headrace.audit.findings import Findings
from headrace.decode.decoder import Decoder
from headrace.definition import Pipeline
from headrace.features.training import event_vectors
from headrace.memory_log import MemoryReader
from headrace.memory_log.reader import MemoryFeed
from headrace.predict.scores import Scores
from headrace.testing import Driver
from headrace.types import Float64s, Record, RecordBatch, TopicPartition
from headrace.verify.subject import Subject
from tests.audit import batch_of

START_MS = 1_700_000_000_000
PARTITIONS, EVENTS, SHOPS = 2, 700, 14
SOURCE, PREDICTIONS = "sales.v1", "demand.v1"


class Sale(hr.Event):
    """The contract of the source."""

    shop: str
    at: hr.EventTime
    amount: float | None = None
    weight: float
    pieces: int | None = None
    article: str | None = None
    paid: bool | None = None


sales = hr.Source(SOURCE, Sale, key="shop", time="at", lateness="20m", max_ahead="5m")


def pipeline(
    *,
    version: int = 1,
    zone: str = "America/New_York",
    reach_m: int = 0,
    amount: hr.Expression | None = None,
    source: hr.Source = sales,
) -> Pipeline:
    """The app's pipeline; or that of somebody who wrote something else: windows longer by so many minutes, another amount."""
    money = hr.col("amount") if amount is None else amount.alias("amount")
    minutes = [60 + reach_m, 360 + 6 * reach_m]
    over = [f"{length}m" for length in minutes]
    panes = {"60": "1m", "360": "6m"}

    def both(word: Callable[..., object], *value: object, **more: object) -> list[object]:
        return [word(*value, over=window, pane=pane, **more) for window, pane in zip(over, panes.values(), strict=True)]

    declared = [
        *both(hr.count),
        *both(hr.sum, money),
        *both(hr.mean, "weight"),
        *both(hr.std, "weight"),
        *both(hr.max, money),
        *both(hr.share, hr.col("paid")),
        *both(hr.distinct, "article"),
        *both(hr.quantile, "weight", 0.5),
        hr.mean(money, over=over[1], pane="6m", where=hr.hour("at", tz=zone) >= 12),
        hr.decayed_sum("weight", half_life="30m", horizon="6h"),
        hr.last(money, over="6h"),
        hr.lag("weight", n=2, over="6h"),
        hr.change("weight", over="6h"),
        hr.seconds_since_last(over="6h"),
        hr.mode("article", ["tea", "milk"], over="6h", pane="6m"),
        hr.streak(hr.col("weight") > 5, over="6h", pane="6m"),
    ]
    recent = hr.FeatureView("recent", version=version, entity="shop", source=source, features=declared)  # type: ignore[arg-type]
    habits = hr.FeatureView(
        "habits",
        entity="shop",
        source=source,
        features=[
            hr.z_score("weight", over="6h", pane="6m"),
            hr.sum("weight", over="6h", pane="6m"),
            hr.count(over="6h", pane="6m"),
            hr.ratio("sum_weight_6h", "count_6h"),
        ],
    )
    hours = hr.hour("at", tz=zone).alias("hour")
    return hr.Pipeline("demand", views=[recent, habits], event_features=["amount", "weight", hours], predictions=PREDICTIONS)


PIPELINE = pipeline()
app = hr.App("shops", pipelines=[PIPELINE])


class Model:
    """A model that answers a mix of its features, and nothing for some."""

    name, version = "demand", "1"

    def score(self, values: Float64s) -> Scores:
        refused = [(row, "too heavy") for row in np.flatnonzero(values[:, -2] > 9.9).tolist()]
        return Scores(scores=np.nansum(values, axis=1) / 7, refused=refused)


def run() -> Driver:
    """A run of sales, some of them bad, refused, out of order or late, that was killed and rolled back on the way."""
    draw = random.Random(11)
    driver = Driver(app, models={"demand": Model()}, partitions=PARTITIONS, now_ms=START_MS)
    for number in range(EVENTS):
        driver.advance(draw.choice([1_000, 20_000, 60_000, 200_000]))
        late_ms = draw.choice([0, 0, 0, 0, 30_000, 600_000, 1_199_000, 2_000_000, 5_000_000])
        shop = f"shop-{draw.randrange(SHOPS)}"
        value = {
            "shop": shop,
            "at": driver.clock.now_ms() - late_ms,
            "amount": draw.choice([None, 0.0, draw.uniform(1, 500), draw.uniform(1, 500)]),
            "weight": draw.uniform(0.1, 10),
            "pieces": draw.choice([None, 0, draw.randrange(9)]),
            "article": draw.choice([None, "tea", "milk", "bread"]),
            "paid": draw.choice([None, True, False]),
        }
        written = b"{" if number % 97 == 0 else json.dumps(value).encode()
        driver.send_bytes(SOURCE, key=shop.encode(), value=written, timestamp_ms=driver.clock.now_ms())
        if number in {150, 420}:
            driver.crash(before="apply")
        if number % 90 == 89:
            driver.run()
    driver.roll_back_state()
    driver.run()
    return driver


# ------------------------------------------------------------------------------------------------- what is served

Place = tuple[int, int]
Served = Mapping[Place, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True)
class Sold:
    """An event of the log."""

    record: Record
    event: dict[str, object]

    @property
    def place(self) -> Place:
        """Partition and offset."""
        return self.record.partition, self.record.offset

    def with_fields(self, **fields: object) -> Sold:
        """The same with other fields."""
        event = {**self.event, **fields}
        return Sold(replace(self.record, value=json.dumps(event).encode()), event)


def sold(driver: Driver) -> list[Sold]:
    """All events of the log, partition by partition."""
    records = [record for number in range(PARTITIONS) for record in driver.log.read(TopicPartition(SOURCE, number))]
    return [Sold(record, json.loads(record.value or b"")) for record in records if record.value != b"{"]


def folded(events: Sequence[Sold], of: Pipeline = PIPELINE) -> dict[Place, dict[str, float | None]]:
    """What the engine's fold makes of these events, under the names of the app; of an event that comes twice the first vector."""
    decoded = Decoder(of.source).decode(batch_of([one.record for one in events]))
    assert not decoded.refused
    values = event_vectors(of, [decoded.events]).values
    found: dict[Place, dict[str, float | None]] = {}
    for one, row in zip(events, values.tolist(), strict=True):
        vector = {name: None if number != number else number for name, number in zip(PIPELINE.feature_names, row, strict=True)}  # noqa: PLR0124
        found.setdefault(one.place, vector)
    return found


class ServedReader(MemoryReader):
    """A reader of a log in which predictions carry other features; those that are not named are not there."""

    def __init__(self, driver: Driver, served: Served | None) -> None:
        super().__init__(driver.log)
        self._served = served

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> MemoryFeed:
        feed = super().feed(starts, ends)
        take = feed.take

        def told() -> list[RecordBatch]:
            found = []
            for batch in take():
                records = list(batch.records())
                if batch.topic == PREDICTIONS and self._served is not None:
                    records = [other for record in records for other in self._with(record, self._served)]
                if records:
                    found.append(batch_of(records))
            return found

        feed.take = told  # type: ignore[method-assign]
        return feed

    @staticmethod
    def _with(record: Record, served: Served) -> list[Record]:
        value = json.loads(record.value or b"")
        _, partition, offset, _ = value["id"].rsplit("-", 3)
        features = served.get((int(partition), int(offset)))
        return [] if features is None else [replace(record, value=json.dumps({**value, "features": features}).encode())]


def subject_of(driver: Driver, served: Served | None = None) -> Subject:
    """The ports of a driver's log."""
    return Subject(
        reader=lambda: ServedReader(driver, served),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(app.name, name),
        topic_id=driver.log.topic_id,
        store=driver.store,
        now_ms=lambda: driver.clock.monotonic_ns() // 1_000_000,
        pause=driver.clock.advance,
    )


def audited(driver: Driver, served: Served | None = None, *, share: float = 1.0) -> Findings:
    """The findings about a driver's log, in which `served` was served."""
    return Audit(app, subject_of(driver, served), share=share).more()
