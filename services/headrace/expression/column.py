"""What a column is, and what absent means in one: NaN among numbers and conditions, None among texts."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headrace.types import Bools, Float64s

Kind = Literal["number", "boolean", "text"]
Scalar = bool | int | float | str
Column = Float64s | NDArray[np.object_]
Canonical = dict[str, object] | float | bool | str


def absent(values: Column) -> Bools:
    """Where there is no value."""
    if values.dtype == object:
        return np.asarray(values == None, dtype=np.bool_)  # noqa: E711 - element by element
    return np.isnan(values.astype(np.float64, copy=False))


def finite(values: Float64s) -> Float64s:
    """The same numbers; what is none is absent."""
    return np.where(np.isfinite(values), values, np.nan)


def truth(holds: Bools, *of: Column) -> Float64s:
    """A condition as 0 and 1, absent where any column it is a condition of is."""
    known = np.ones(len(holds), dtype=np.bool_)
    for values in of:
        known &= ~absent(values)
    return np.where(known, holds.astype(np.float64), np.nan)
