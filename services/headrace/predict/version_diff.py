"""How two versions of a pipeline's model differ: signature, card, golden rows (pure).

A version is compared by what it says of itself. What its scores are like is compared on the golden rows of both: the rows that one was
stamped with, scored by the other too, where both take the same features in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.predict.attached_rows import Rows
from headrace.predict.scores import Model
from headrace.predict.signature import ViewVersion
from headrace.predict.versions import Version
from headrace.types import Float64s

Golden = tuple[Rows, Float64s]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in which two versions differ; None on the side that lacks it."""

    what: str
    one: object
    other: object


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenDifference:
    """What the golden rows of one version become in another."""

    rows_of: str
    """The version that carries them."""
    scored_by: str
    rows: int
    mean_apart: float | None
    """How far the scores are from those that go with the rows; None where none of them has both."""
    most_apart: float | None
    without_score: int
    """Rows that the other gives no score for."""


def differences(one: Version, other: Version) -> list[Difference]:
    """What differs in signature and card; nothing where only the weights do."""
    a, b = one.signature, other.signature
    found = [*_features(a.features, b.features), *_views(a.views, b.views)]
    for what in ("event_features", "output", "kind", "class_index", "dtype"):
        found += _unless_same(what, getattr(a, what), getattr(b, what))
    found += _tables("card", one.card or {}, other.card or {})
    return [*found, *_tables("lineage", one.lineage or {}, other.lineage or {})]


def golden_difference(one: Version, golden: Golden, other: Version, model: Model) -> GoldenDifference:
    """The golden rows of one version, scored by another, whose model takes the same features."""
    rows, expected = golden
    scores = model.score(rows.astype(np.float64)).scores
    apart = np.abs(scores - expected)
    there = apart[np.isfinite(apart)]
    return GoldenDifference(
        rows_of=one.version,
        scored_by=other.version,
        rows=len(rows),
        mean_apart=float(there.mean()) if len(there) else None,
        most_apart=float(there.max()) if len(there) else None,
        without_score=int(np.count_nonzero(~np.isfinite(scores))),
    )


def _features(one: Sequence[str], other: Sequence[str]) -> list[Difference]:
    gone = [Difference(what=f"feature {name}", one=place, other=None) for place, name in enumerate(one) if name not in other]
    new = [Difference(what=f"feature {name}", one=None, other=place) for place, name in enumerate(other) if name not in one]
    kept, there = [name for name in one if name in other], [name for name in other if name in one]
    order = next(([a, b] for a, b in zip(kept, there, strict=True) if a != b), None)
    moved = [] if order is None else [Difference(what="order of features, from", one=order[0], other=order[1])]
    return [*gone, *new, *moved]


def _views(one: Sequence[ViewVersion], other: Sequence[ViewVersion]) -> list[Difference]:
    a, b = ({view.name: f"version {view.version}, {view.fingerprint[:16]}" for view in views} for views in (one, other))
    return _tables("view", a, b)


def _tables(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    names = [*one, *(name for name in other if name not in one)]
    return [found for name in names for found in _unless_same(f"{what} {name}", one.get(name), other.get(name))]


def _unless_same(what: str, one: object, other: object) -> list[Difference]:
    if isinstance(one, dict) and isinstance(other, dict):
        return _tables(what, one, other)
    return [] if one == other else [Difference(what=what, one=one, other=other)]
