"""An export beside the library it came from: refused where they do not agree.

Rows are drawn where trees decide: on their thresholds, one float32 to either side, at zero, and about as far out as the thresholds are
spread; a tenth of the values is absent where the model takes that. The draw is the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.predict.agreement import SHARE, differences
from headrace.predict.attached_rows import MOST_GOLDEN, Rows
from headrace.predict.export.finish import INPUT, finished
from headrace.predict.given_rows import float32_rows, float_rows, spread
from headrace.predict.onnx_file import with_metadata
from headrace.predict.signature import OutputKind, Signature
from headrace.types import Float64s

if TYPE_CHECKING:
    import onnx

DRAWN = 512
ABSENT = 0.1
ZERO = 1e-30
"""What is smaller is drawn as zero: LightGBM parts zeros from the rest at 1e-35, and takes what is between for zero."""
_TINY = 1e-12

Library = Callable[[Rows], Any]
"""Scores of float32 rows by the library that trained the model: [rows], or [rows, classes]."""


def compared(
    converted: onnx.ModelProto, names: Sequence[str], library: Library, *, rows: object, absent: bool, tolerance: float, what: str
) -> bytes:
    """The finished export, proved to score as the library does. Raises `DefinitionError` with the row that differs most and both numbers.

    `rows` are what it is compared on, drawn if None; `absent` tells whether the model takes rows with absent values.
    """
    output = converted.graph.output[-1].name
    exported = finished(converted, names, output)
    chosen = _chosen(rows, names) if rows is not None else _drawn(converted, len(names), absent=absent)
    trained = np.asarray(library(chosen), dtype=np.float64).reshape(len(chosen), -1)
    # Where scores do not come in classes, differences are measured against the size of each.
    # The second of two classes is all of it; where the library gives one number it is that of the second.
    for index in [1] if trained.shape[1] <= 2 else range(trained.shape[1]):  # noqa: PLR2004 - as just said
        expected = trained[:, min(index, trained.shape[1] - 1)]
        found = _scores(exported, names, output, index, chosen)
        size = np.abs(expected)
        off = differences(found, expected) / (1.0 if trained.shape[1] > 1 else np.maximum(size, max(float(np.median(size)), _TINY)))
        apart = off > tolerance
        if apart.mean() > SHARE:
            row = int(np.argmax(off))
            absent_alone = ", all of them with absent values (impute those in the pipeline)" if _absent(chosen[apart]).all() else ""
            raise DefinitionError(
                f"{what}: the converter gets this model wrong: it gives {found[row]:.9g} where the library gives {expected[row]:.9g}, and "
                f"{int(apart.sum())} of {len(off)} rows differ by more than {tolerance:g}{absent_alone}; train it without the option that "
                "the converter does not know (a random forest, another treatment of absent values, linear leaves, a link function), or "
                "give rows= of the real kind if those that were drawn are far from anything it has seen"
            )
    return exported


def _chosen(given: object, names: Sequence[str]) -> Rows:
    rows = float32_rows(float_rows(given, names, "rows"), names, "rows")
    chosen: Rows = rows[spread(len(rows), MOST_GOLDEN)]
    return chosen


def _absent(rows: Rows) -> NDArray[np.bool_]:
    return np.asarray(np.isnan(rows).any(axis=1))


def _scores(exported: bytes, names: Sequence[str], output: str, index: int, rows: Rows) -> Float64s:
    from headrace.predict.onnx_model import OnnxModel  # noqa: PLC0415 - the runtime is for those who score

    signature = Signature(
        name="exported",
        version="0",
        features=tuple(names),
        views=(),
        event_features="",
        output=output,
        kind=OutputKind.VALUE,
        class_index=index,
    )
    model = OnnxModel.load(with_metadata(exported, signature.to_metadata()), names)
    return model.score(rows.astype(np.float64)).scores


def _drawn(model: onnx.ModelProto, width: int, *, absent: bool) -> Rows:
    draw = np.random.default_rng(17)
    rows = draw.standard_normal((DRAWN, width)).astype(np.float32)
    for place, (values, categories) in _thresholds(model).items():
        found = np.array(sorted({value if abs(value) > ZERO else 0.0 for value in values}), dtype=np.float32)
        on = found[draw.integers(0, len(found), DRAWN)]
        if categories:
            sides = [on, on + 1, np.zeros_like(on)]
        else:
            far = found.mean() + 2 * max(float(np.std(found)), 1.0) * rows[:, place]
            sides = [np.nextafter(on, np.float32(-np.inf)), on, np.nextafter(on, np.float32(np.inf)), far, np.zeros_like(on)]
        rows[:, place] = np.stack(sides)[draw.integers(0, len(sides), DRAWN), np.arange(DRAWN)]
    if absent:
        rows[draw.random(rows.shape) < ABSENT] = np.nan
    return rows


def _thresholds(model: onnx.ModelProto) -> dict[int, tuple[set[float], bool]]:
    """What trees that look at the features themselves compare them with, by the feature's place; and whether those are categories."""
    found: dict[int, tuple[set[float], bool]] = {}
    for node in model.graph.node:
        if node.op_type.startswith("TreeEnsemble") and list(node.input) == [INPUT]:
            by_name = {attribute.name: attribute for attribute in node.attribute}
            modes, places, values = by_name["nodes_modes"].strings, by_name["nodes_featureids"].ints, by_name["nodes_values"].floats
            for mode, place, value in zip(modes, places, values, strict=True):
                if mode != b"LEAF" and np.isfinite(value):  # scikit-learn parts absent values from all others at infinity
                    found.setdefault(place, (set(), mode == b"BRANCH_EQ"))[0].add(value)
    return found
