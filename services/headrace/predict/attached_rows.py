"""Rows that travel inside an .onnx file: golden ones with the scores they must give, and a background to explain scores against (pure).

Each is a numpy array as `.npy` in base64 under a key of its own in `metadata_props`, so that what a version must answer, and what its
contributions are measured from, is part of its artifact and of its sha256.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import SignatureMismatch
from headrace.types import Float64s

GOLDEN_ROWS, GOLDEN_SCORES, BACKGROUND = "headrace.golden_rows", "headrace.golden_scores", "headrace.background"
MOST_GOLDEN, MOST_BACKGROUND = 1_000, 100

Rows = NDArray[np.float32]
"""[rows, features], in the order of the signature; NaN where a feature has no value."""


def golden_entries(rows: Rows, scores: Float64s) -> dict[str, str]:
    """The entries for `metadata_props` of golden rows and what the model must make of them."""
    return {GOLDEN_ROWS: _text(rows.astype(np.float32)), GOLDEN_SCORES: _text(scores.astype(np.float64))}


def background_entries(rows: Rows) -> dict[str, str]:
    """The entries of a background."""
    return {BACKGROUND: _text(rows.astype(np.float32))}


def golden_in(metadata: Mapping[str, str]) -> tuple[Rows, Float64s] | None:
    """Golden rows [rows, features] and their scores; None where the file carries none. Raises `SignatureMismatch` for what is none."""
    if GOLDEN_ROWS not in metadata:
        return None
    rows: Rows = _array(metadata, GOLDEN_ROWS, np.float32, 2)
    scores: Float64s = _array(metadata, GOLDEN_SCORES, np.float64, 1)
    if len(rows) != len(scores):
        raise SignatureMismatch(f"the model carries {len(rows)} golden rows and {len(scores)} scores: {_STAMP_AGAIN}")
    return rows, scores


def background_in(metadata: Mapping[str, str]) -> Rows | None:
    """The background rows; None where the file carries none. Raises `SignatureMismatch` for what is none."""
    if BACKGROUND not in metadata:
        return None
    rows: Rows = _array(metadata, BACKGROUND, np.float32, 2)
    return rows


_STAMP_AGAIN = "stamp it again with `headrace.models.stamp()`"


def _text(rows: NDArray[np.generic]) -> str:
    found = io.BytesIO()
    np.save(found, np.ascontiguousarray(rows), allow_pickle=False)
    return base64.b64encode(found.getvalue()).decode()


def _array(metadata: Mapping[str, str], key: str, dtype: type[np.generic], dimensions: int) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(io.BytesIO(base64.b64decode(metadata.get(key, ""), validate=True)), allow_pickle=False)
    except (ValueError, EOFError, OSError, binascii.Error) as error:
        raise SignatureMismatch(f"{key!r} in the model's metadata_props cannot be read ({type(error).__name__}): {_STAMP_AGAIN}") from error
    if found.dtype != dtype or found.ndim != dimensions:
        raise SignatureMismatch(f"{key!r} in the model's metadata_props is {found.dtype} {list(found.shape)}: {_STAMP_AGAIN}")
    return found
