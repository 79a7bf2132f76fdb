"""How good scores are, beside scikit-learn and numbers told by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    precision_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)

from headrace.training.grading import NEVER_SURE, calibration, probability_grades, value_grades


def test_four_events_told_by_hand() -> None:
    """0.9 and 0.6 of true events, 0.6 and 0.1 of false ones, a threshold of 0.6."""
    found = probability_grades(np.array([0.9, 0.6, 0.6, 0.1]), np.array([1.0, 1.0, 0.0, 0.0]), 0.6)
    assert found["auc"] == (1 + 1 + 0.5 + 1) / 4
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.36 + 0.01) / 4)
    assert found["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(0.4) + math.log(0.9)) / 4)
    assert (found["precision"], found["recall"]) == (2 / 3, 1.0)
    assert value_grades(np.array([1.0, 5.0]), np.array([2.0, 2.0])) == {"mae": 2.0, "rmse": math.sqrt(5)}


def test_probabilities_are_graded_as_by_scikit_learn(seed: int) -> None:
    """All five figures, with ties and probabilities of exactly 0 and 1."""
    draw = np.random.default_rng(seed)
    outcome = (draw.random(500) < 0.3).astype(np.float64)
    scores = np.clip(np.round(0.4 * outcome + draw.normal(0.3, 0.3, 500), 2), 0, 1)
    assert {0.0, 1.0} <= set(scores.tolist())
    found = probability_grades(scores, outcome, 0.5)
    assert found["auc"] == pytest.approx(roc_auc_score(outcome, scores), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(outcome, np.clip(scores, NEVER_SURE, 1 - NEVER_SURE)), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(outcome, scores), abs=1e-12)
    assert found["precision"] == pytest.approx(precision_score(outcome, scores >= 0.5), abs=1e-12)
    assert found["recall"] == pytest.approx(recall_score(outcome, scores >= 0.5), abs=1e-12)


def test_values_are_graded_as_by_scikit_learn(seed: int) -> None:
    """Both figures."""
    draw = np.random.default_rng(seed)
    scores, outcome = draw.normal(size=(2, 300))
    found = value_grades(scores, outcome)
    assert found["mae"] == pytest.approx(mean_absolute_error(outcome, scores), abs=1e-12)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(outcome, scores), abs=1e-12)


def test_what_cannot_be_told_is_not_a_number() -> None:
    """Precision without a yes, recall without a true event, AUC of one kind, and everything of nothing."""
    of_false = probability_grades(np.array([0.1, 0.2]), np.zeros(2), 0.5)
    assert {name for name, value in of_false.items() if math.isnan(value)} == {"auc", "precision", "recall"}
    assert all(map(math.isnan, probability_grades(np.empty(0), np.empty(0), 0.5).values()))
    assert all(map(math.isnan, value_grades(np.empty(0), np.empty(0)).values()))


def test_tenths_of_probabilities() -> None:
    """0.1 begins the second tenth, 1.0 belongs to the last, and empty ones are left out."""
    found = calibration(np.array([0.0, 0.05, 0.1, 0.95, 1.0]), np.array([0.0, 1.0, 1.0, 0.0, 1.0]))
    assert [(one.rows, one.observed) for one in found] == [(2, 0.5), (1, 1.0), (2, 0.5)]
    assert [one.predicted for one in found] == pytest.approx([0.025, 0.1, 0.975])
