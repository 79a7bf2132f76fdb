"""AUC, Brier score, log loss, reliability and the opponent, against answers worked out by hand or by slow obvious code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.demo.evaluation import Bin, auc, calibration_error, quality, reliability, share_by_delay

SCORED = st.lists(st.tuples(st.integers(0, 6).map(lambda step: step / 6), st.booleans()), min_size=1, max_size=40)


@given(SCORED)
def test_auc_is_the_share_of_pairs_in_the_right_order(scored: list[tuple[float, bool]]) -> None:
    """For every true and every false event: 1 if the true one scores higher, half if they tie."""
    pairs = [(a > b) + (a == b) / 2 for a, is_true in scored if is_true for b, other in scored if not other]
    found = auc(np.array([score for score, _ in scored]), np.array([is_true for _, is_true in scored]))
    assert found == pytest.approx(sum(pairs) / len(pairs)) if pairs else math.isnan(found)


def test_constant_scores_rank_nothing() -> None:
    """A constant has AUC one half."""
    assert auc(np.full(4, 0.3), np.array([True, False, True, False])) == 0.5


def test_quality_by_hand() -> None:
    """Brier score and log loss of two events."""
    found = quality(np.array([0.75, 0.5]), np.array([True, False]))
    assert found.auc == 1.0
    assert found.brier == pytest.approx((0.0625 + 0.25) / 2)
    assert found.log_loss == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)


def test_wrong_certainty_costs_much_but_not_everything() -> None:
    """A probability of exactly 0 for a true event gives a finite log loss."""
    assert quality(np.array([0.0, 0.0]), np.array([True, False])).log_loss == pytest.approx(-math.log(1e-6) / 2, rel=1e-6)


def test_reliability_counts_means_and_shares_by_bin() -> None:
    """Each score lies in the bin that starts at or below it, 1.0 in the last; empty bins are left out."""
    found = reliability(np.array([0.0, 0.0625, 0.1, 1.0]), np.array([False, True, True, True]))
    assert found == [
        Bin(low=0.0, high=0.1, events=2, predicted=0.03125, observed=0.5),
        Bin(low=0.1, high=0.2, events=1, predicted=0.1, observed=1.0),
        Bin(low=0.9, high=1.0, events=1, predicted=1.0, observed=1.0),
    ]


def test_calibration_error_is_weighted_by_events() -> None:
    """Nine events off by 0.1 and one off by 0.5 are off by 0.14."""
    bins = [Bin(low=0, high=0.1, events=9, predicted=0.1, observed=0.2), Bin(low=0.9, high=1, events=1, predicted=1, observed=0.5)]
    assert calibration_error(bins) == pytest.approx(0.14)


def test_share_by_delay_is_the_share_among_known_events_of_the_same_five_minutes() -> None:
    """A delay gets the share of its five minutes; beyond what is known it gets that of the nearest below."""
    delay = np.array([-3.0, -1.0, 2.0, 4.0, 10.0, 14.0])
    true = np.array([False, False, False, True, True, True])
    assert share_by_delay(delay, true, np.array([-60.0, -5.0, 0.0, 4.9, 7.0, 12.0, 500.0])).tolist() == [0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0]


@given(st.lists(st.tuples(st.integers(-20, 200), st.booleans()), min_size=1, max_size=60))
def test_share_by_delay_never_falls(known: list[tuple[int, bool]]) -> None:
    """Ranking by the opponent's probability never contradicts ranking by delay, and the mean share is kept."""
    delay, true = np.array([float(minutes) for minutes, _ in known]), np.array([is_true for _, is_true in known])
    shares = share_by_delay(delay, true, np.sort(delay))
    assert (np.diff(shares) >= 0).all()
    assert share_by_delay(delay, true, delay).mean() == pytest.approx(true.mean())
