"""Golden rows: what a version must answer for some rows, computed when it is stamped, beside what the trained model answered.

All rows that are given are scored and compared; up to 1,000 are kept, the one that differs most among them. What is kept as their scores is
the trained model's answer where that is given, so the gate sees the same difference again on the machine where it examines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.errors import DefinitionError
from headrace.predict.agreement import agreed
from headrace.predict.attached_rows import MOST_GOLDEN, golden_entries
from headrace.predict.given_rows import float32_rows, spread
from headrace.predict.signature import OutputKind, Signature
from headrace.types import Float64s

_A_LITTLE = 1e-6


def golden_of(bare: bytes, signature: Signature, rows: Float64s, trained: object, tolerance: float) -> dict[str, str]:
    """The entries of golden rows; all of them are compared where the trained model's scores are given, 1,000 are kept, with the worst."""
    from headrace.predict.onnx_model import OnnxModel  # noqa: PLC0415 - the runtime is for those who score

    narrow = float32_rows(rows, signature.features, "golden_rows")
    found = _scores(OnnxModel.load(bare, signature.features), rows, signature)
    if trained is None:
        chosen = spread(len(rows), MOST_GOLDEN)
        return golden_entries(narrow[chosen], found[chosen])
    expected = _column(trained, len(rows), signature.class_index)
    agreement = agreed(found, expected, signature.kind, tolerance)
    chosen = np.union1d(spread(len(rows), MOST_GOLDEN - 1), [agreement.row])
    return agreement.entries() | golden_entries(narrow[chosen], expected[chosen])


def _scores(model: Any, rows: Float64s, signature: Signature) -> Float64s:  # noqa: ANN401 - an OnnxModel, which is loaded lazily
    given = model.score(rows)
    for row, why in given.refused:
        raise DefinitionError(f"golden_rows: {why} for row {row}; leave the row out, or export a model that has an answer for it")
    outside = np.flatnonzero((given.scores < -_A_LITTLE) | (given.scores > 1 + _A_LITTLE))
    if signature.kind is OutputKind.PROBABILITY and len(outside):
        raise DefinitionError(
            f"golden_rows: output {signature.output!r} gives {given.scores[outside[0]]:.9g} for row {outside[0]}, which is no probability; "
            "stamp it with kind='value', or name the output of probabilities with output="
        )
    scores: Float64s = given.scores
    return scores


def _column(trained: object, count: int, class_index: int) -> Float64s:
    """The trained model's scores of the class that is served."""
    try:
        scores = np.asarray(trained, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DefinitionError(f"golden_scores are no numbers ({error}); give what the trained model predicts for golden_rows") from error
    match scores.shape:
        case (n,) if n == count:
            found = scores
        case (n, 1) if n == count:
            found = scores[:, 0]
        case (n, classes) if n == count and 0 <= class_index < classes:
            found = scores[:, class_index]
        case shape:
            raise DefinitionError(f"golden_scores has shape {list(shape)} for {count} golden rows; give one score a row, or one a class")
    for row in np.flatnonzero(~np.isfinite(found)).tolist():
        raise DefinitionError(f"golden_scores: that of row {row} is {found[row]}; leave the row out of both")
    return found
