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
    found = holds.astype(np.float64)
    for values in of:
        if not uniform(values):
            found[absent(values)] = np.nan
        elif absent(values[:1]).all():
            found[:] = np.nan
    return found


def constant(value: Scalar, length: int) -> Column:
    """A column of one value, without a copy of it for each row."""
    if isinstance(value, str):
        return np.broadcast_to(np.array(value, dtype=np.object_), (length,))
    return np.broadcast_to(np.array(value, dtype=np.float64), (length,))


def uniform(values: Column) -> bool:
    """Whether all rows are known to hold one value, as those of a constant do; there is at least one."""
    return values.strides == (0,) and len(values) > 0
