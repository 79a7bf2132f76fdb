"""How good scores are: ranking (AUC), sharpness (Brier, log loss) and calibration (reliability table). Pure, numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.types import Bools, Float64s

BINS = 10
DELAY_BIN_MINUTES = 5.0
NEVER_SURE = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one wrong certainty does not make the log loss infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What one predictor reaches on one set of outcomes."""

    auc: float
    brier: float
    log_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The events whose score lay in [low, high): how many, their mean score, and the share that turned out true."""

    low: float
    high: float
    events: int
    predicted: float
    observed: float


def auc(scores: Float64s, true: Bools) -> float:
    """The chance that a true event scores above a false one, ties counting half. NaN where there are not both kinds."""
    positives = int(true.sum())
    negatives = len(true) - positives
    if not positives or not negatives:
        return float("nan")
    _, kind, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    mean_rank = last - (sizes - 1) / 2
    rank_sum = float(mean_rank[kind[true]].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def quality(probabilities: Float64s, true: Bools) -> Quality:
    """AUC, Brier score and log loss of probabilities."""
    clipped = np.clip(probabilities, NEVER_SURE, 1 - NEVER_SURE)
    return Quality(
        auc=auc(probabilities, true),
        brier=float(np.mean((probabilities - true) ** 2)),
        log_loss=float(-np.mean(np.where(true, np.log(clipped), np.log1p(-clipped)))),
    )


def reliability(probabilities: Float64s, true: Bools) -> list[Bin]:
    """Ten bins of equal width; empty ones are left out."""
    place = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    return [
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            events=int(inside.sum()),
            predicted=float(probabilities[inside].mean()),
            observed=float(true[inside].mean()),
        )
        for number in range(BINS)
        if (inside := place == number).any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error: by how much predicted and observed shares differ, weighted by events."""
    events = sum(found.events for found in bins)
    return sum(found.events * abs(found.predicted - found.observed) for found in bins) / events


def share_by_delay(known_delay: Float64s, known_true: Bools, delay: Float64s) -> Float64s:
    """The opponent: departure delay alone. Each delay gets the share of true events that delays of its five minutes had among those known.

    A share never falls as the delay grows: neighbours that fall are pooled (isotonic regression), so ranking by it is ranking by delay.
    """
    place = np.floor(known_delay / DELAY_BIN_MINUTES)
    places, index = np.unique(place, return_inverse=True)
    totals = np.bincount(index).astype(np.float64)
    shares = _never_falling(np.bincount(index, weights=known_true) / totals, totals)
    asked = np.searchsorted(places, np.floor(delay / DELAY_BIN_MINUTES), side="right") - 1
    return shares[np.maximum(asked, 0)]


def _never_falling(values: Float64s, weights: Float64s) -> Float64s:
    """Pool adjacent violators (Ayer et al. 1955)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (left, left_weight, left_count), (right, right_weight, right_count) = pools[-2:]
            both = left_weight + right_weight
            pools[-2:] = [((left * left_weight + right * right_weight) / both, both, left_count + right_count)]
    return np.repeat([value for value, _, _ in pools], [count for _, _, count in pools])
