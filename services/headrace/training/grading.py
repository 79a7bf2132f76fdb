"""How good scores are where it is known what came true. Pure, numpy only.

    probabilities   AUC       the chance that a true event scores above a false one, ties counting half
                    log loss  mean of -log(probability given to what came true); a probability is kept 1.2e-7 from 0 and 1, as near as
                              float32 comes to 1, or one wrong certainty would make it infinite
                    Brier     mean squared distance of probability and truth
                    precision, recall   of the events that are decided yes, how many are true; of the true ones, how many are decided yes
    values          MAE, RMSE  mean distance from what came true, and the root of the mean of its square

NaN where there is nothing to tell it from: precision without a yes, recall without a true event, AUC without both kinds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.training.distribution import auc_of, ranks_of
from headrace.types import Float64s

NEVER_SURE = float(np.finfo(np.float32).eps)
BINS = 10

Grades = Mapping[str, float]
"""Figures by name, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The events whose probability lies in a tenth: how many, the mean of their probabilities, and the share that came true."""

    rows: int
    predicted: float
    observed: float


def probability_grades(scores: Float64s, outcome: Float64s, threshold: float) -> Grades:
    """Of probabilities and outcomes of 0 and 1; the answer is yes from `threshold` on."""
    if not len(scores):
        return dict.fromkeys(("auc", "log_loss", "brier", "precision", "recall"), math.nan)
    true, yes = outcome == 1, scores >= threshold
    sure = np.clip(scores, NEVER_SURE, 1 - NEVER_SURE)
    hits = float((true & yes).sum())
    return {
        "auc": auc_of(ranks_of(scores), true),
        "log_loss": float(-np.mean(np.where(true, np.log(sure), np.log1p(-sure)))),
        "brier": float(np.mean((scores - outcome) ** 2)),
        "precision": hits / float(yes.sum()) if yes.any() else math.nan,
        "recall": hits / float(true.sum()) if true.any() else math.nan,
    }


def value_grades(scores: Float64s, outcome: Float64s) -> Grades:
    """Of values and what they turned out to be."""
    if not len(scores):
        return dict.fromkeys(("mae", "rmse"), math.nan)
    return {"mae": float(np.mean(np.abs(scores - outcome))), "rmse": math.sqrt(float(np.mean((scores - outcome) ** 2)))}


def calibration(scores: Float64s, outcome: Float64s) -> list[Bin]:
    """Probabilities in ten bins of equal width; empty ones are left out."""
    place = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    found = []
    for number in np.unique(place).tolist():
        inside = place == number
        found.append(Bin(rows=int(inside.sum()), predicted=float(scores[inside].mean()), observed=float(outcome[inside].mean())))
    return found
