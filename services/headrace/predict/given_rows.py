"""Rows as people have them (arrays, pyarrow Tables, pandas and polars DataFrames, training frames), read as the model will be fed (pure).

Where columns have names they must be the features in order: a table whose columns stand in another order is what a model trained on the
wrong columns looks like. Columns that begin with an underscore are about the row (`_entity`, `_label`) and are left out. No library of
frames is imported: what is given brings its own. Limits: numbers and truth values only; a text that looks like a number is refused.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.predict.attached_rows import Rows
from headrace.predict.lineage import lineage_told_by
from headrace.types import Float64s, Int64s

_NUMERIC = "fiub"


def float_rows(given: object, names: Sequence[str], what: str) -> Float64s:
    """float64 [rows, features], NaN where there is no value; `what` names them in errors. Raises `DefinitionError`."""
    columns, column = _named(given)
    if column is None:
        return _of_array(given, names, what)
    wanted = [place for place, name in enumerate(columns) if not name.startswith("_")]
    _in_order([columns[place] for place in wanted], names, what)
    found = [_numbers(column(place), f"{what}: column {columns[place]!r}") for place in wanted]
    rows = np.column_stack(found) if found else np.empty((0, 0))
    return _some(rows, what)


def float32_rows(rows: Float64s, names: Sequence[str], what: str) -> Rows:
    """The same as float32. Raises `DefinitionError` where a value is infinite there."""
    with np.errstate(over="ignore"):
        found: Rows = rows.astype(np.float32)
    for row, place in np.argwhere(np.isinf(found)).tolist():
        raise DefinitionError(
            f"{what}: {names[place]!r} of row {row} is infinite as float32, which the model is fed with; leave the row out"
        )
    return found


def spread(count: int, most: int) -> Int64s:
    """Which rows stand for all: one from each of `most` equal stretches, its place there by a hash, so the same whenever it is asked."""
    if count <= most:
        return np.arange(count)
    edges = [place * count // most for place in range(most + 1)]
    return np.array([start + _drawn(place) % (end - start) for place, (start, end) in enumerate(itertools.pairwise(edges))])


def _drawn(place: int) -> int:
    return int.from_bytes(hashlib.sha256(str(place).encode()).digest()[:8])


def _named(given: Any) -> tuple[list[str], Callable[[int], Any] | None]:  # noqa: ANN401 - told apart by what it can do
    """The names of the columns, and what gives one by its place; None for what has no named columns."""
    if lineage_told_by(given) is not None:
        given = getattr(given, "features", given)  # of a training frame, the vector alone
    if hasattr(given, "column_names") and hasattr(given, "column"):
        return list(given.column_names), lambda place: given.column(place).to_numpy()
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        return [str(name) for name in given.columns], lambda place: given.iloc[:, place].to_numpy(na_value=np.nan)
    if hasattr(given, "columns") and hasattr(given, "to_series"):
        return list(given.columns), lambda place: given.to_series(place).to_numpy()
    return [], None


def _in_order(found: Sequence[str], names: Sequence[str], what: str) -> None:
    again = f"or give {what}[[*pipeline.feature_names]], if the model was trained on that order"
    for place, (wanted, given) in enumerate(zip(names, found, strict=False)):
        if wanted != given:
            raise DefinitionError(f"{what}: column {place} is {given!r}, the pipeline feeds {wanted!r} there; put them in order, {again}")
    if len(found) < len(names):
        raise DefinitionError(f"{what}: there is no column {names[len(found)]!r}; give all {len(names)} features of the pipeline, in order")
    if len(found) > len(names):
        raise DefinitionError(f"{what}: column {found[len(names)]!r} is no feature of the pipeline; leave it out, {again}")


def _of_array(given: Any, names: Sequence[str], what: str) -> Float64s:  # noqa: ANN401 - whatever numpy takes
    try:
        found = np.asarray(given)
    except ValueError as error:
        raise DefinitionError(f"{what} is no table of rows ({error}); give an array [rows, {len(names)}] or a table") from error
    rows = _numbers(found, what)
    if rows.ndim != 2 or rows.shape[1] != len(names):  # noqa: PLR2004 - rows and features
        raise DefinitionError(f"{what} has shape {list(rows.shape)}; the pipeline has {len(names)} features: give [rows, {len(names)}]")
    return _some(rows, what)


def _numbers(found: Any, what: str) -> Float64s:  # noqa: ANN401 - whatever a column is made of
    column: NDArray[Any] = np.asarray(found)
    if column.dtype.kind not in _NUMERIC:
        odd = {type(value).__name__ for value in column.ravel().tolist() if not _number(value)}
        if odd:
            raise DefinitionError(f"{what} holds {', '.join(sorted(odd))}, no numbers; features are numbers, NaN where there is no value")
        column = np.array([np.nan if value is None else float(value) for value in column.ravel().tolist()]).reshape(column.shape)
    return column.astype(np.float64)


def _number(value: object) -> bool:
    return value is None or isinstance(value, int | float | Decimal)


def _some(rows: Float64s, what: str) -> Float64s:
    if not len(rows):
        raise DefinitionError(f"{what} has no rows; give some, or leave it out")
    return rows
