"""How the values of a feature are spread, and how they go with an outcome. Numpy alone.

With an outcome of 0 and 1 it is the AUC: the chance that a row whose outcome is 1 has the larger value of two, ties counting half; 0.5 says
nothing, 0 as much as 1. With any other it is Spearman's rank correlation, from -1 to 1. Beside it always Pearson's correlation, which sees
straight lines only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headrace.types import Bools, Float64s

BINS = 24
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles, between the least and the most."""
TAIL = 0.01
"""What lies further out on either side is drawn into the outermost bars, or one outlier would flatten all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """How values go with an outcome, over the `rows` that have both; NaN where one of them never changes."""

    measure: str
    """"AUC" or "Spearman"."""
    value: float
    pearson: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How values are spread. Figures are over those that are there and finite, NaN where there are none."""

    rows: int
    absent: int
    """Rows without a value (NaN)."""
    infinite: int
    defaults: int
    """Rows whose value is the one declared for empty windows, where that is a number; a window that is not empty may have it too."""
    mean: float
    least: float
    most: float
    quantiles: tuple[float, ...]
    """At `SHARES`."""
    edges: tuple[float, ...]
    """Of the bars; the outermost ones hold the tails, too."""
    counts: tuple[int, ...]
    outcome: Association | None = None


def distribution(values: Float64s, *, default: float = math.nan, outcome: Float64s | None = None) -> Distribution:
    """The spread of the values of a feature; `default`: what it is declared to be for empty windows; `outcome` of each row or NaN."""
    there = values[np.isfinite(values)]
    quantiles = np.quantile(there, (0, TAIL, *SHARES, 1 - TAIL, 1)) if len(there) else np.full(len(SHARES) + 4, np.nan)
    least, low, *middle, high, most = quantiles.tolist()
    edges, counts = _bars(there, low, high)
    return Distribution(
        rows=len(values),
        absent=int(np.isnan(values).sum()),
        infinite=int(np.isinf(values).sum()),
        defaults=int((values == default).sum()),
        mean=float(there.mean()) if len(there) else math.nan,
        least=least,
        most=most,
        quantiles=tuple(middle),
        edges=edges,
        counts=counts,
        outcome=None if outcome is None else association(values, outcome),
    )


def _bars(there: Float64s, low: float, high: float) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if not len(there):
        return (), ()
    if low == high:
        low, high = float(there.min()), float(there.max())
    if low == high:
        return (low, high), (len(there),)
    counts, edges = np.histogram(np.clip(there, low, high), bins=BINS, range=(low, high))
    return tuple(edges.tolist()), tuple(counts.tolist())


def association(values: Float64s, outcome: Float64s) -> Association:
    """How values go with an outcome, over the rows where both are finite."""
    both = np.isfinite(values) & np.isfinite(outcome)
    found, true = values[both], outcome[both]
    ranks = ranks_of(found)
    pearson = _correlation(found, true)
    if is_binary(true):
        return Association(measure="AUC", value=auc_of(ranks, true == 1), pearson=pearson, rows=len(found))
    return Association(measure="Spearman", value=_correlation(ranks, ranks_of(true)), pearson=pearson, rows=len(found))


def is_binary(outcome: Float64s) -> bool:
    """Whether an outcome is nothing but 0 and 1, where it is known."""
    known = outcome[np.isfinite(outcome)]
    return bool(((known == 0) | (known == 1)).all())


def auc_of(ranks: Float64s, true: Bools) -> float:
    """The AUC from the ranks of all, and which are true (Mann and Whitney 1947); NaN where not both kinds are there."""
    ones = int(true.sum())
    zeros = len(true) - ones
    if not ones or not zeros:
        return math.nan
    return float((ranks[true].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def ranks_of(values: Float64s) -> Float64s:
    """From 1 on; equal values have the mean of theirs."""
    _, kinds, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    mean_rank: Float64s = last - (sizes - 1) / 2
    return mean_rank[kinds]


def _correlation(first: Float64s, second: Float64s) -> float:
    if len(first) < 2:  # noqa: PLR2004 - a line needs two points
        return math.nan
    one, other = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / spread if spread > 0 else math.nan
