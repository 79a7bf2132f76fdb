"""An app whose models come from a registry in memory, and the engineers who move them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from onnx import helper

import headrace as hr
from headrace.apps.model_commands import Done, ModelCommands
from headrace.apps.model_desk import Desk, Examine
from headrace.clock import ManualClock
from headrace.consume.facts import Facts
from headrace.control_log import ControlLog
from headrace.memory_log import Hook, MemoryControl, MemoryLog, MemoryReader, go_on
from headrace.models import signature_of
from headrace.predict import onnx_file
from headrace.predict.artifacts import MemoryArtifacts
from headrace.predict.attached_rows import golden_entries
from headrace.predict.gate import Verdict, examine
from headrace.predict.registry import Role
from headrace.predict.signature import Signature
from headrace.types import TopicPartition
from tests.unit.predict import small_models

START_MS = 1_700_000_000_000


class Payment(hr.Event):
    """The contract of the source."""

    card: str
    at: hr.EventTime
    amount: float


payments = hr.Source("payments.v1", Payment, key="card", time="at")
spending = hr.FeatureView("spending", entity="card", source=payments, features=[hr.count(over="1h")])
fraud = hr.Pipeline("fraud", views=[spending], event_features=["amount"], predictions="fraud.v1")
pinned = hr.Pipeline("limits", views=[spending], predictions="limits.v1", model="models/limits.onnx")
app = hr.App("cards", pipelines=[fraud, pinned])

CONTROL = TopicPartition(app.control, 0)


def passes(*_: object, **__: object) -> Verdict:
    """A gate that lets everything pass, at once."""
    return Verdict(refusals=(), report={})


class Office:
    """A control topic in memory, and a desk for everybody who works on it."""

    def __init__(self, app: hr.App = app) -> None:
        self.app = app
        self.clock = ManualClock(START_MS)
        self.log = MemoryLog(self.clock)
        self.log.create_topic(app.control, 1)
        self.log.create_topic(app.facts, 1)
        self.artifacts = MemoryArtifacts()
        self._ids = 0

    def desk(self, by: str = "ann@desk", *, pause: Hook = go_on) -> ModelCommands:
        """The desk of somebody, who has read nothing yet."""
        return ModelCommands(
            self.app,
            self.control(),
            MemoryControl(self.log, app.control, pause=pause),
            self.artifacts,
            by=by,
            now_ms=self.now_ms,
            new_id=self._id,
        )

    def open(self, by: str = "ann@desk", *, gate: Examine = examine) -> Desk:
        """The same with what it is decided by."""
        return Desk(self.app, self.desk(by), lambda: MemoryReader(self.log), MemoryControl(self.log, self.app.facts), gate=gate)

    def control(self) -> ControlLog:
        """The control topic as a new reader finds it."""
        return ControlLog(app.control, Facts(app.control, lambda: MemoryReader(self.log), self.log.end_offset))

    def served(self, features: dict[str, float]) -> None:
        """Publish a prediction with these features."""
        value = {"id": "payments.v1-0-0-fraud", "entity": "c", "event_time": 1, "score": 0.5, "late": False, "scored_at": 1}
        value |= {"model": {"name": "fraud", "version": "1", "role": "champion"}, "features": features}
        self.log.append(fraud.predictions, 0, b"c", json.dumps(value).encode())

    def now_ms(self) -> int:
        """A clock that goes on when it is looked at."""
        self.clock.advance(1_000)
        return self.clock.now_ms()

    def kept(self) -> int:
        """How many records the control topic holds."""
        return len(self.log.read(CONTROL))

    def _id(self) -> str:
        self._ids += 1
        return f"{self._ids:032x}"


def signature(version: str) -> Signature:
    """The signature of a version for the pipeline as it is."""
    return signature_of(fraud, version=version, output="score")


def file_of(
    version: str,
    *,
    pipeline: hr.Pipeline = fraud,
    factor: float = 1.0,
    card: Mapping[str, object] | None = None,
    golden: bool = True,
) -> bytes:
    """A stamped model that gives factor * (2 * count + 3 * amount), with golden rows of that."""
    rows = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 5.0]], dtype=np.float32)
    content = small_models.graph_bytes(
        [helper.make_node("MatMul", ["X", "w"], ["score"], name="weigh")],
        [small_models.output("score", [None, 1])],
        tensors=[small_models.weights("w", [[2 * factor], [3 * factor]])],
    )
    entries = signature_of(pipeline, version=version, output="score", kind="value").to_metadata()
    if golden:
        entries |= golden_entries(rows, factor * (rows.astype(np.float64) @ np.array([2.0, 3.0])))
    if card is not None:
        entries["headrace.card"] = json.dumps(card)
    return onnx_file.with_metadata(content, entries)


def registered(desk: ModelCommands, version: str, content: str = "") -> Done:
    """Register a version."""
    return desk.carry_out(desk.register((content or f"model {version}").encode(), signature(version), card={"owner": "ann"}))


def moved(desk: ModelCommands, version: str, to: Role, *, share: float | None = None) -> Done:
    """Move a version."""
    return desk.carry_out(desk.move("fraud", version, to, share=share))


def promoted(desk: ModelCommands, version: str) -> Done:
    """Register, shadow and promote a version."""
    registered(desk, version)
    moved(desk, version, Role.SHADOW)
    return moved(desk, version, Role.CHAMPION)
