"""What in an .onnx can be explained exactly: a sum over trees, or a weighted sum, between columns made of one feature and a link (pure).

    input --Preparation--> columns --trees or weights--> margin --link--> score

The margin is where contributions add up: log-odds in front of a logistic function, the logarithm of what Exp gives, else the score itself.
What the runtime makes of the weights of a classifier is no part of ONNX's text and was read off it: of two classes and weights for one,
the weight is the second class's probability if no weight is negative, whatever the transform says, else its margin.

What mixes features otherwise (layers of a network, kernels, the softmax of more than two classes) is refused by the operator's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.predict.onnx_file import Graph, Operator
from headrace.predict.prepared import Preparation, checked, preparation
from headrace.predict.signature import Signature
from headrace.predict.tree_nodes import Ensemble, TreeNodes, ensemble_of, laid_out
from headrace.types import Float64s

_TREES = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"})
_WEIGHTS = frozenset({"LinearClassifier", "LinearRegressor", "Gemm", "MatMul", "Add"})
_PASSES_ON = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Flatten"})
_TWO = 2


class Link(StrEnum):
    """In which units contributions add up."""

    IDENTITY = "score"
    """Those of the score."""
    LOGIT = "log-odds"
    """The score is a probability 1 / (1 + exp(-margin))."""
    LOG = "logarithm of the score"
    """The score is exp(margin)."""

    def margin(self, scores: Float64s) -> Float64s:
        """The margins that give these scores; infinite where a score is at the end of its range."""
        with np.errstate(divide="ignore", invalid="ignore"):
            match self:
                case Link.LOGIT:
                    return np.log(scores) - np.log1p(-scores)
                case Link.LOG:
                    return np.log(scores)
                case _:
                    return scores

    def score(self, margins: Float64s) -> Float64s:
        """The scores that these margins give."""
        with np.errstate(over="ignore"):
            match self:
                case Link.LOGIT:
                    return 1.0 / (1.0 + np.exp(-margins))
                case Link.LOG:
                    return np.exp(margins)
                case _:
                    return margins


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sum:
    """A weighted sum of columns."""

    prepared: Preparation
    features: tuple[int, ...]
    """Of which feature each column is made."""
    weights: Float64s
    bias: float
    link: Link


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trees:
    """A sum over trees."""

    prepared: Preparation
    nodes: TreeNodes
    bias: float
    link: Link


def form_of(graph: Graph, signature: Signature) -> Sum | Trees:
    """The form of the model's score. Raises `DefinitionError` for what cannot be explained, naming it and why."""
    operator, link, column = _behind(graph, signature)
    if operator.kind in _TREES:
        return _trees(graph, operator, link, column, len(signature.features))
    return _sum(graph, operator, link, column, len(signature.features))


def _behind(graph: Graph, signature: Signature) -> tuple[Operator, Link, int]:
    """The trees or the weighted sum that the output comes from, the link that stands behind them, and the column that is the score."""
    made_by = {output: operator for operator in graph.operators for output in operator.outputs}
    name, link, column = signature.output, Link.IDENTITY, signature.class_index
    while (operator := made_by.get(name)) is not None and operator.kind not in _TREES | _WEIGHTS:
        given = [one for one in operator.inputs if one and one not in graph.tensors]
        if operator.kind in _PASSES_ON or (operator.kind == "Mul" and len(given) == 1 and _is_one(graph, operator)):
            name = given[0]
        elif operator.kind in {"Sigmoid", "Exp"} and link is Link.IDENTITY:
            name, link = given[0], Link.LOGIT if operator.kind == "Sigmoid" else Link.LOG
        elif operator.kind == "Concat" and 0 <= column < len(given) == len(operator.inputs):
            name, column = given[column], 0
        else:
            break
    if operator is None or operator.kind not in _TREES | _WEIGHTS:
        what = f"{signature.output!r} itself" if operator is None else operator.kind
        raise DefinitionError(
            f"its score comes from {what}; what can be explained exactly comes from {', '.join(sorted(_TREES | _WEIGHTS - {'Add'}))}, with "
            "Sigmoid or Exp at most behind"
        )
    return operator, link, column


def _is_one(graph: Graph, operator: Operator) -> bool:
    return all(bool((graph.tensors[name] == 1).all()) for name in operator.inputs if name in graph.tensors)


# ------------------------------------------------------------------------------------------------------- trees


def _trees(graph: Graph, operator: Operator, link: Link, column: int, width: int) -> Trees:
    ensemble = ensemble_of(operator)
    weights, bias, transform = _of_column(ensemble, column)
    prepared = preparation(graph, operator.inputs[0])
    nodes = laid_out(ensemble, weights, checked(prepared, width))
    return Trees(prepared=prepared, nodes=nodes, bias=bias, link=_linked(transform, link, operator))


def _of_column(ensemble: Ensemble, column: int) -> tuple[Float64s, float, str]:
    """The weights that add up to the margin of a column of the output, what is added to them, and the transform behind."""
    weights, transform = ensemble.weights, ensemble.transform
    outputs = weights.shape[1]
    biases = ensemble.biases if len(ensemble.biases) == outputs else np.zeros(outputs)
    if outputs == 1:
        return weights[:, 0], float(ensemble.biases.sum()), transform
    if not 0 <= column < outputs:
        raise DefinitionError(f"its trees give {outputs} columns, and class_index is {column}: stamp it again with class_index=")
    if ensemble.classes == _TWO and len(ensemble.used) == 1:
        (used,) = ensemble.used
        bias = float(ensemble.biases[-1]) if len(ensemble.biases) else 0.0
        if ensemble.all_positive:
            return (weights[:, used], bias, "NONE") if column else (-weights[:, used], 1.0 - bias, "NONE")
        if transform == "NONE":
            raise DefinitionError(
                "its trees give two classes one weight, negative ones too, and no transform: no probability comes of that"
            )
        return (weights[:, used], bias, transform) if column else (-weights[:, used], -bias, transform)
    if transform in {"SOFTMAX", "SOFTMAX_ZERO"} and outputs == _TWO:
        other = 1 - column
        return weights[:, column] - weights[:, other], float(biases[column] - biases[other]), "LOGISTIC"
    return weights[:, column], float(biases[column]), transform


def _linked(transform: str, link: Link, operator: Operator) -> Link:
    """The link that a transform is, where no other one stands behind it."""
    if transform == "NONE":
        return link
    if transform == "LOGISTIC" and link is Link.IDENTITY:
        return Link.LOGIT
    why = "its score depends on the margins of all classes" if transform.startswith("SOFTMAX") else "no unit is known in which that adds up"
    raise DefinitionError(f"its {operator.kind} ends with {transform}: {why}")


# ------------------------------------------------------------------------------------------------ weighted sums


def _sum(graph: Graph, operator: Operator, link: Link, column: int, width: int) -> Sum:
    if operator.kind in {"LinearClassifier", "LinearRegressor"}:
        weights, biases, transform = _of_linear(operator)
        rows = operator.inputs[0]
    else:
        rows, weights, biases = _of_product(graph, operator)
        transform = "NONE"
    if weights.shape[1] == _TWO and transform in {"SOFTMAX", "SOFTMAX_ZERO"}:
        weights, biases, transform = weights - weights[:, ::-1], biases - biases[::-1], "LOGISTIC"
    chosen = 0 if weights.shape[1] == 1 else column
    if not 0 <= chosen < weights.shape[1]:
        raise DefinitionError(f"its weights give {weights.shape[1]} columns, and class_index is {column}: stamp it again with class_index=")
    prepared = preparation(graph, rows)
    features = tuple(checked(prepared, width))
    if len(features) != len(weights):
        raise DefinitionError(f"its {operator.kind} weighs {len(weights)} columns, and {len(features)} come to it: export it again")
    return Sum(
        prepared=prepared,
        features=features,
        weights=np.ascontiguousarray(weights[:, chosen]),
        bias=float(biases[chosen]),
        link=_linked(transform, link, operator),
    )


def _of_linear(operator: Operator) -> tuple[Float64s, Float64s, str]:
    """Weights [columns, outputs], biases [outputs] and the transform of an operator of ai.onnx.ml."""
    said = operator.settings
    flat = np.asarray(said.get("coefficients", ()), dtype=np.float64)
    biases = np.asarray(said.get("intercepts", ()), dtype=np.float64)
    outputs = len(biases) or int(said.get("targets", 1))
    if not len(flat) or len(flat) % outputs:
        raise DefinitionError(f"its {operator.kind} has {len(flat)} coefficients for {outputs} outputs: export it again")
    return flat.reshape(outputs, -1).T, biases if len(biases) else np.zeros(outputs), str(said.get("post_transform", "NONE"))


def _of_product(graph: Graph, operator: Operator) -> tuple[str, Float64s, Float64s]:
    """What is multiplied, by what, and what is added to it: Gemm, MatMul, or an Add behind one."""
    if operator.kind == "Add":
        made_by = {output: one for one in graph.operators for output in one.outputs}
        given = [name for name in operator.inputs if name not in graph.tensors]
        before = made_by.get(given[0]) if len(given) == 1 else None
        if before is None or before.kind not in {"MatMul", "Gemm"}:
            raise DefinitionError("its score is an Add of what is no product of columns and weights; that mixes features")
        rows, weights, biases = _of_product(graph, before)
        (added,) = (graph.tensors[name] for name in operator.inputs if name in graph.tensors)
        return rows, weights, biases + added.astype(np.float64).reshape(-1)
    said = operator.settings
    rows, by, *more = operator.inputs
    if by not in graph.tensors or (operator.kind == "Gemm" and said.get("transA", 0)):
        raise DefinitionError(f"its {operator.kind} does not multiply columns by weights that stand in the file")
    weights = _matrix(graph.tensors[by], turned=bool(said.get("transB", 0))) * float(said.get("alpha", 1.0))
    biases = np.zeros(weights.shape[1])
    if more and more[0]:
        if more[0] not in graph.tensors:
            raise DefinitionError(f"its {operator.kind} adds what does not stand in the file")
        biases = biases + graph.tensors[more[0]].astype(np.float64).reshape(-1) * float(said.get("beta", 1.0))
    return rows, weights, biases


def _matrix(tensor: NDArray[Any], *, turned: bool) -> Float64s:
    found = tensor.astype(np.float64)
    if found.ndim == 1:
        found = found.reshape(-1, 1)
    return found.T if turned else found
