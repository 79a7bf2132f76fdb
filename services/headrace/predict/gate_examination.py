"""A file on its way through the gate: what is known of it so far, and the report that grows with every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.predict.attached_rows import Rows
from headrace.predict.gate_codes import Code, Refused, refusal
from headrace.predict.gate_limits import GateLimits
from headrace.predict.gate_request import Request
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.signature import OutputKind
from headrace.types import Float64s


@dataclass(slots=True, eq=False)
class Examination:
    """What the steps share; each may refuse, and leaves what it found in `report`."""

    request: Request
    report: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What an engineer should know and nothing is refused for."""
    loaded: OnnxModel | None = None
    golden: tuple[Rows, Float64s] | None = None
    ordinary: Rows = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    """Rows that a good model answers: those it carries and real ones, or, for want of any, made up."""
    beside: Rows = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    """Hostile rows for which it does not raise."""
    rehearsed: Float64s | None = None
    """Its scores of the rehearsal."""
    before_bytes: int | None = None
    """The memory in use before it was loaded."""

    @property
    def limits(self) -> GateLimits:
        """The figures it is examined with."""
        return self.request.limits

    @property
    def model(self) -> OnnxModel:
        """The model once it is loaded."""
        if self.loaded is None:
            raise RuntimeError("no step before this one loaded the model")
        return self.loaded

    def scale(self, scores: Float64s) -> float:
        """What a difference of scores is measured by: 1 for probabilities, else the largest of these."""
        there = np.abs(scores[np.isfinite(scores)])
        if self.model.signature.kind is OutputKind.PROBABILITY or not there.size:
            return 1.0
        return float(there.max()) or 1.0

    def refuse(self, code: Code, said: str, fix: str | None = None) -> Refused:
        """What a step raises to end the examination."""
        return Refused(refusal(code, said, fix))


def apart(one: Float64s, other: Float64s) -> Float64s:
    """How far scores are apart; 0 where neither is a number or both are the same infinity, infinity where only one is one."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(one - other)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    found: Float64s = np.where(same, 0.0, np.where(np.isnan(differences), np.inf, differences))
    return found


def plain(number: float) -> float | None:
    """A number as JSON has them."""
    return float(number) if math.isfinite(number) else None
