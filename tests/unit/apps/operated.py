"""An app at work in memory, and what its operators do to its state."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

import headrace as hr
from headrace.apps.snapshots import plan, restore, save
from headrace.features.snapshot_file import SnapshotFile, SnapshotWriter
from headrace.memory_log import MemoryReader
from headrace.parts import Limits
from headrace.predict.scores import Scores
from headrace.testing import Driver
from headrace.types import Float64s, TopicPartition
from headrace.verify.findings import Findings
from headrace.verify.state import StateVerification
from headrace.verify.subject import Subject

START_MS = 1_700_000_000_000
SOURCE = "payments.v1"
NAMES = [TopicPartition(SOURCE, number) for number in range(2)]


class Payment(hr.Event):
    """The contract of the source."""

    card: str
    at: hr.EventTime
    amount: float


payments = hr.Source(SOURCE, Payment, key="card", time="at", lateness="1m", max_ahead="5m")
spending = hr.FeatureView("spending", entity="card", source=payments, features=[hr.count(over="1h"), hr.sum("amount", over="1h")])
habits = hr.FeatureView("habits", entity="card", source=payments, features=[hr.max("amount", over="2h")])
fewer = hr.FeatureView("habits", entity="card", source=payments, features=[hr.min("amount", over="2h")])


def app_of(*views: hr.FeatureView, name: str = "cards") -> hr.App:
    """An app with these views."""
    return hr.App(name, pipelines=[hr.Pipeline("fraud", views=[*views], event_features=["amount"], predictions="fraud.v1")])


class Model:
    """A model that gives the mean of what it is given."""

    name, version = "fraud", "1"

    def score(self, values: Float64s) -> Scores:
        return Scores(scores=np.nanmean(values, axis=1), refused=[])


class Run:
    """An app at work, and what its operators see of it."""

    def __init__(self, seed: int, app: hr.App | None = None) -> None:
        self.rng = random.Random(seed)
        self.app = app or app_of(spending, habits)
        self.driver = Driver(
            self.app, models={"fraud": Model()}, partitions=2, now_ms=START_MS, limits=Limits(max_batch=16, resident_entities=64)
        )
        self.store = self.driver.store
        self.subject = Subject(
            reader=lambda: MemoryReader(self.driver.log),
            written_end=self.driver.log.end_offset,
            committed=lambda name: self.driver.log.committed(self.app.name, name),
            topic_id=self.driver.log.topic_id,
            store=self.store,
            now_ms=lambda: self.driver.clock.monotonic_ns() // 1_000_000,
            pause=self.driver.clock.advance,
        )
        self._busy = False

    def send(self, count: int) -> None:
        """Some payments of 200 cards."""
        for _ in range(count):
            self.driver.advance(self.rng.choice([0, 50, 1_000]))
            self.pay(f"card-{self.rng.randrange(200)}")

    def pay(self, card: str) -> None:
        """One payment of a card."""
        self.driver.send(SOURCE, Payment(card=card, at=self.driver.clock.now_ms(), amount=float(self.rng.randrange(1_000))))

    def work(self, step: str) -> None:
        """What a busy worker does before each step somebody else takes in the store: some more payments."""
        if not self._busy and step in {"scan", "read"} and self.rng.random() < 0.4:
            self._busy = True
            self.send(self.rng.randrange(40))
            self.driver.run()
            self._busy = False

    def save(self, path: Path, *, before_each: Callable[[str], None] = lambda _: None) -> list[str]:
        """Take a snapshot; `before_each` step of it something happens."""
        self.store.pause = before_each
        try:
            with SnapshotWriter(path, app=self.app.name, headrace="1", made_at="now") as writer:
                missing = save(self.app, self.subject, self.store, writer, NAMES, told=lambda *_: None)
                writer.finish()
        finally:
            self.store.pause = lambda _: None
        return missing

    def restore(self, path: Path, wanted: set[TopicPartition] | None = None) -> list[str]:
        """Restore it; tells what was left out."""
        with SnapshotFile(path) as file:
            found = plan(self.app, self.subject, file, wanted)
            for part, views in found.parts:
                erased = found.erased.get(part.partition, ())
                restore(self.subject, self.store, file, part, views, told=lambda *_: None, erased=erased)
        return found.changed

    def offsets(self) -> dict[TopicPartition, list[int | None]]:
        """Where the views stand."""
        return {name: [self.store.head(name, view.fp).offset for view in self.app.pipelines[0].views] for name in NAMES}

    def verified(self) -> Findings:
        """What `headrace state verify` says."""
        return StateVerification(self.app, self.subject, told=lambda *_: None).run(NAMES, rest_ms=0, keep=100)
