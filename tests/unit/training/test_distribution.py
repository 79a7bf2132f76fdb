"""How values are spread, and how they go with an outcome, beside what others say of the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from headrace.training.distribution import SHARES, association, distribution

NAN = math.nan


def test_figures_are_those_of_the_values_that_are_there() -> None:
    """Absent and infinite values are counted and are in no figure; a declared default is counted as one."""
    found = distribution(np.array([NAN, 1.0, 0.0, math.inf, 3.0, 0.0, NAN]), default=0.0)
    assert (found.rows, found.absent, found.infinite, found.defaults) == (7, 2, 1, 2)
    assert (found.mean, found.least, found.most) == (1.0, 0.0, 3.0)
    assert found.quantiles == tuple(np.quantile([1.0, 0.0, 3.0, 0.0], SHARES).tolist())
    assert sum(found.counts) == 4


@pytest.mark.parametrize("values", [[], [NAN, NAN], [2.5], [2.5, 2.5, NAN]])
def test_nothing_and_one_value_are_no_trouble(values: list[float]) -> None:
    """Without values all figures are absent; values that never change have one bar."""
    found = distribution(np.array(values), outcome=np.ones(len(values)))
    there = [value for value in values if not math.isnan(value)]
    assert found.counts == ((len(there),) if there else ())
    assert math.isnan(found.mean) == (not there)
    assert found.outcome is not None
    assert math.isnan(found.outcome.value)


def test_outliers_do_not_flatten_the_bars(seed: int) -> None:
    """The bars lie between the quantiles of 1 and 99 %; what is further out is in the outermost ones."""
    values = np.random.default_rng(seed).normal(size=5_000)
    values[0] = 1e12
    found = distribution(values)
    assert found.edges[-1] < 10
    assert (sum(found.counts), found.most) == (5_000, 1e12)


def test_what_goes_with_zero_and_one_is_the_auc(seed: int) -> None:
    """The AUC with ties, and Pearson's correlation, over rows that have both."""
    draw = np.random.default_rng(seed)
    outcome = (draw.random(400) < 0.3).astype(np.float64)
    values = np.round(outcome + draw.normal(size=400), 1)
    values[::7], outcome[::11] = NAN, NAN
    both = ~np.isnan(values) & ~np.isnan(outcome)
    found = association(values, outcome)
    assert (found.measure, found.rows) == ("AUC", int(both.sum()))
    assert found.value == pytest.approx(roc_auc_score(outcome[both], values[both]), abs=1e-12)
    assert found.pearson == pytest.approx(stats.pearsonr(values[both], outcome[both]).statistic, abs=1e-12)


def test_what_goes_with_numbers_is_the_correlation_of_ranks(seed: int) -> None:
    """Spearman's correlation with ties."""
    draw = np.random.default_rng(seed)
    values = np.round(draw.normal(size=300), 1)
    outcome = np.exp(values) + draw.normal(size=300)
    found = association(values, outcome)
    assert found.measure == "Spearman"
    assert found.value == pytest.approx(stats.spearmanr(values, outcome).statistic, abs=1e-12)
