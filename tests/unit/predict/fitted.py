"""Rows, and models fitted to them by the libraries that engineers use, for tests of what is exported."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray

from headrace.predict import onnx_file
from headrace.predict.attached_rows import Rows
from headrace.predict.onnx_model import OnnxModel
from headrace.types import Float64s
from tests.unit.predict.small_models import signature

NAMES = ("delay", "distance", "hour", "congestion")
OUTSIDE = 1_000


class History(NamedTuple):
    """Rows as a training frame holds them, whether a flight was late, and by how much."""

    rows: Float64s
    late: NDArray[np.int64]
    delay: Float64s


@cache
def history(*, absent: bool = False, seed: int = 3, count: int = 1_500) -> History:
    """Rows of four features that differ in size, a tenth of their values absent if so wished."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(count, len(NAMES))) * [10, 300, 5, 0.1] + [5, 900, 12, 0]
    late = (rows[:, 0] + 20 * rows[:, 3] * rows[:, 2] + draw.normal(size=count) * 5 > 5).astype(np.int64)
    delay = rows[:, 0] + 0.01 * rows[:, 1] + draw.normal(size=count)
    if absent:
        rows[draw.random(rows.shape) < 0.1] = np.nan
    return History(rows, late, delay)


def unseen(*, absent: bool = False) -> Rows:
    """A thousand float32 rows that nothing was trained on."""
    rows: Rows = history(absent=absent, seed=4, count=OUTSIDE).rows.astype(np.float32)
    return rows


def boosted(absent: bool = True, trees: int = 30, **parameters: Any) -> lightgbm.Booster:  # noqa: FBT001, FBT002 - a part of what is fitted
    """LightGBM trees; binary unless another objective is given."""
    told = {"objective": "binary", "num_leaves": 15, "num_threads": 1, "deterministic": True, "seed": 1, "verbose": -1, **parameters}
    past = history(absent=absent)
    label = past.late if told["objective"] == "binary" else past.delay
    return lightgbm.train(told, lightgbm.Dataset(past.rows, label), num_boost_round=trees)


def quiet(convert: Callable[[], Any]) -> Any:
    """What a converter gives, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return convert()


def scored(model: bytes, rows: Rows, *, output: str, index: int = 1, names: Sequence[str] = NAMES) -> Float64s:
    """The scores of an exported model, as the path computes them."""
    stamped = onnx_file.with_metadata(model, signature(features=tuple(names), output=output, class_index=index).to_metadata())
    found = OnnxModel.load(stamped, names).score(rows.astype(np.float64))
    assert found.refused == []
    return found.scores


def inputs(model: bytes) -> list[tuple[str, int, list[int | None]]]:
    """The inputs of a file: name, element type, axes; None is free."""
    return [_declared(one) for one in onnx.ModelProto.FromString(model).graph.input]


def outputs(model: bytes) -> list[tuple[str, int, list[int | None]]]:
    """The outputs of a file, in the same way."""
    return [_declared(one) for one in onnx.ModelProto.FromString(model).graph.output]


def operator_sets(model: bytes) -> list[tuple[str, int]]:
    """(domain, version), as listed."""
    return [(one.domain, one.version) for one in onnx.ModelProto.FromString(model).opset_import]


def _declared(one: onnx.ValueInfoProto) -> tuple[str, int, list[int | None]]:
    tensor = one.type.tensor_type
    return one.name, tensor.elem_type, [axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim]
