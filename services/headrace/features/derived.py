"""Features that are computed of other features of the same view, once these are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.features.aggregation import RATIO
from headrace.features.view import FeatureView
from headrace.types import Float64s


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A ratio or difference of two columns."""

    code: int
    left: int
    right: int
    empty: float

    def of(self, values: Float64s) -> Float64s:
        """Its value for every row of [events, features]; `empty` where it is no finite number."""
        left, right = values[:, self.left], values[:, self.right]
        with np.errstate(all="ignore"):
            found = left / right if self.code == RATIO else left - right
        return np.where(np.isfinite(found), found, self.empty)


def derived_columns(views: Sequence[FeatureView]) -> list[tuple[Derived, int]]:
    """The derived features of views whose columns stand side by side, in an order in which each comes after what it is made of."""
    found: list[tuple[Derived, int]] = []
    column = 0
    for view in views:
        places = {name: column + place for place, name in enumerate(view.feature_names)}
        for feature in view.features:
            if feature.aggregation.of == "features":
                left, right = places[feature.options.left], places[feature.options.right]
                one = Derived(code=feature.aggregation.code, left=left, right=right, empty=feature.empty)
                found.append((one, places[feature.name]))
        column += len(view.features)
    return found
