"""What a model does to a row before it weighs it or walks its trees, column by column (pure).

Such steps are followed from the model's input as long as each column is made of one feature: scaling, filling gaps, picking and joining
columns. Every step is done in float32, as onnxruntime does it, so that comparisons behind it fall as they do there. A step that mixes
features (a norm, a projection, products of features) cannot be told apart by feature, and is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.predict.onnx_file import Graph, Operator

Float32s = NDArray[np.float32]
_FLOAT32 = 1
"""The number of float32 among ONNX's types."""


class Columns(NamedTuple):
    """Columns that a step gives, and for each the feature it is made of."""

    values: Float32s
    features: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preparation:
    """The steps between the model's input and one of its tensors."""

    steps: tuple[Operator, ...]
    """In their order."""
    constants: Mapping[str, NDArray[Any]]
    fed: str
    gives: str

    def columns(self, rows: Float32s) -> Columns:
        """What the steps make of rows."""
        known = {self.fed: Columns(rows, tuple(range(rows.shape[1])))}
        with np.errstate(all="ignore"):
            for operator in self.steps:
                known[operator.outputs[0]] = _STEPS[operator.kind](operator, known, self.constants)
        return known[self.gives]


def preparation(graph: Graph, gives: str) -> Preparation:
    """The steps that lead from the model's one input to the tensor `gives`. Raises `DefinitionError` for one that mixes features."""
    if len(graph.inputs) != 1:
        raise DefinitionError(f"it has {len(graph.inputs)} inputs, and what can be explained has one")
    made_by = {output: operator for operator in graph.operators for output in operator.outputs}
    wanted, needed = [gives], set[str]()
    while wanted:
        name = wanted.pop()
        if name in {*graph.inputs, *needed}:
            continue
        operator = made_by.get(name)
        if operator is None or operator.kind not in _STEPS or not _known(operator):
            what = f"tensor {name!r}" if operator is None else operator.kind
            raise DefinitionError(f"its {what} stands in front of what is explained; columns can be prepared there by {', '.join(_STEPS)}")
        needed.add(name)
        wanted += [one for one in operator.inputs if one and one not in graph.tensors]
    steps = tuple(operator for operator in graph.operators if needed.intersection(operator.outputs))
    return Preparation(steps=steps, constants=graph.tensors, fed=graph.inputs[0], gives=gives)


def _known(operator: Operator) -> bool:
    """Whether a step that could do something else does what is known of it here."""
    said = operator.settings
    match operator.kind:
        case "Cast":
            return bool(said.get("to") == _FLOAT32)
        case "Concat" | "Gather":
            return said.get("axis", 0) in {1, -1}
        case _:
            return True


Step = Callable[[Operator, Mapping[str, Columns], Mapping[str, NDArray[Any]]], Columns]


def _same(operator: Operator, known: Mapping[str, Columns], _: Mapping[str, NDArray[Any]]) -> Columns:
    return known[operator.inputs[0]]


def _scale(operator: Operator, known: Mapping[str, Columns], _: Mapping[str, NDArray[Any]]) -> Columns:
    values, features = known[operator.inputs[0]]
    said = operator.settings
    return Columns((values - said["offset"]) * said["scale"], features)


def _fill(operator: Operator, known: Mapping[str, Columns], _: Mapping[str, NDArray[Any]]) -> Columns:
    values, features = known[operator.inputs[0]]
    sought = np.float32(operator.settings.get("replaced_value_float", 0.0))
    gaps = np.isnan(values) if np.isnan(sought) else values == sought
    return Columns(np.where(gaps, operator.settings["imputed_value_floats"], values).astype(np.float32), features)


def _arithmetic(operator: Operator, known: Mapping[str, Columns], constants: Mapping[str, NDArray[Any]]) -> Columns:
    """Columns and a constant a column."""
    sides = [known[name] if name in known else constants[name] for name in operator.inputs]
    (columns,) = (side for side in sides if isinstance(side, Columns))
    one, other = (side.values if isinstance(side, Columns) else side.astype(np.float32) for side in sides)
    made: Float32s = _ARITHMETIC[operator.kind](one, other)
    if made.shape != columns.values.shape:
        raise ValueError(f"{operator.kind} changes the shape of its columns")
    return Columns(made, columns.features)


def _pick(operator: Operator, known: Mapping[str, Columns], constants: Mapping[str, NDArray[Any]]) -> Columns:
    values, features = known[operator.inputs[0]]
    places = constants[operator.inputs[1]].reshape(-1).tolist()
    return Columns(values[:, places], tuple(features[place] for place in places))


def _join(operator: Operator, known: Mapping[str, Columns], _: Mapping[str, NDArray[Any]]) -> Columns:
    parts = [known[name] for name in operator.inputs]
    return Columns(np.concatenate([part.values for part in parts], axis=1), tuple(one for part in parts for one in part.features))


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}

_STEPS: dict[str, Step] = {
    "Identity": _same,
    "Cast": _same,
    "Scaler": _scale,
    "Imputer": _fill,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
    "ArrayFeatureExtractor": _pick,
    "Gather": _pick,
    "Concat": _join,
}


def checked(preparation_: Preparation, width: int) -> Sequence[int]:
    """The feature of each column that comes out, for rows of `width` features. Raises `DefinitionError` for steps that do not fit."""
    try:
        return preparation_.columns(np.zeros((2, width), dtype=np.float32)).features
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DefinitionError(f"the steps in front of what is explained cannot be followed ({error}): export it again") from error
