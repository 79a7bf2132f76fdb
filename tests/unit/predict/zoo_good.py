"""The good part of the zoo, made by hand: each answers as its few lines of numpy beside it do, and none may be refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from headrace.predict.attached_rows import Rows
from headrace.predict.signature import OutputKind
from tests.unit.predict.zoo import ROOMY, WIDTH, Zoo, draw, finished, graph, node, value

GOOD = Zoo()

ROWS = draw()
W = np.array([[0.31], [-0.02], [0.05], [0.11]])
B = -1.5
MEAN, SPREAD = np.array([[4.0, 8.0, 16.0, 20.0]]), np.array([[2.0, 20.0, 11.0, 11.0]])
HIDDEN = np.random.default_rng(11).normal(size=(WIDTH, 16)) / 4
LAST = np.random.default_rng(12).normal(size=(16, 1)) / 4
PROBABILITY = {"kind": OutputKind.PROBABILITY}

Floats = NDArray[np.float64]


def sigmoid(z: Floats) -> Floats:
    """The logistic function."""
    found: Floats = 1 / (1 + np.exp(-z))
    return found


def scaled(rows: Rows) -> Floats:
    """Rows less their means, over their spreads."""
    found: Floats = (rows.astype(np.float64) - MEAN) / SPREAD
    return found


@GOOD.add("linear")
def linear() -> bytes:
    """A linear regression."""
    nodes = [node("MatMul", "X w", "z"), node("Add", "z b", "score")]
    return finished(graph(nodes, tensors={"w": W, "b": np.array([B])}), ROWS, (ROWS @ W + B)[:, 0])


@GOOD.add("linear")
def logistic() -> bytes:
    """A logistic regression, one column."""
    nodes = [node("Gemm", "X w b", "z"), node("Sigmoid", "z", "score")]
    return finished(graph(nodes, tensors={"w": W, "b": np.array([B])}), ROWS, sigmoid(ROWS @ W + B)[:, 0], **PROBABILITY)


@GOOD.add("linear")
def softmax_of_two() -> bytes:
    """A classifier with a column a class."""
    nodes = [node("MatMul", "X w", "z"), node("Softmax", "z", "score", axis=1)]
    both = np.concatenate((W, -W), axis=1)
    model = graph(nodes, tensors={"w": both}, outputs=[value("score", [None, 2])])
    return finished(model, ROWS, sigmoid(-2 * ROWS @ W)[:, 0], **PROBABILITY)


@GOOD.add("linear")
def linear_regressor_of_ml() -> bytes:
    """The operator LinearRegressor."""
    regressor = node("LinearRegressor", "X", "score", domain="ai.onnx.ml", coefficients=W[:, 0].tolist(), intercepts=[B])
    return finished(graph([regressor]), ROWS, (ROWS @ W + B)[:, 0])


@GOOD.add("linear")
def flat_output() -> bytes:
    """Scores without a second axis."""
    nodes = [node("MatMul", "X w", "z"), node("Squeeze", "z axis", "score")]
    model = graph(nodes, tensors={"w": W, "axis": np.array([1])}, outputs=[value("score", [None])])
    return finished(model, ROWS, (ROWS @ W)[:, 0])


@GOOD.add("linear")
def double_output() -> bytes:
    """Scores in float64."""
    nodes = [node("MatMul", "X w", "z"), node("Cast", "z", "score", to=TensorProto.DOUBLE)]
    return finished(graph(nodes, tensors={"w": W}, outputs=[value("score", [None, 1], TensorProto.DOUBLE)]), ROWS, (ROWS @ W)[:, 0])


@GOOD.add("linear")
def batch_axis_with_a_name() -> bytes:
    """The free axis is called N."""
    model = graph([node("MatMul", "X w", "score")], tensors={"w": W}, inputs=[value("X", ["N", WIDTH])], outputs=[value("score", ["N", 1])])
    return finished(model, ROWS, (ROWS @ W)[:, 0])


@GOOD.add("pipeline with scaler")
def scaler_and_logistic() -> bytes:
    """Scaling by Sub and Div, then a logistic regression."""
    nodes = [node("Sub", "X mean", "c"), node("Div", "c spread", "s"), node("MatMul", "s w", "z"), node("Sigmoid", "z", "score")]
    model = graph(nodes, tensors={"mean": MEAN, "spread": SPREAD, "w": W})
    return finished(model, ROWS, sigmoid(scaled(ROWS) @ W)[:, 0], **PROBABILITY)


@GOOD.add("pipeline with scaler")
def scaler_of_ml() -> bytes:
    """The operator Scaler in front of LinearRegressor."""
    nodes = [
        node("Scaler", "X", "s", domain="ai.onnx.ml", offset=MEAN[0].tolist(), scale=(1 / SPREAD[0]).tolist()),
        node("LinearRegressor", "s", "score", domain="ai.onnx.ml", coefficients=W[:, 0].tolist(), intercepts=[B]),
    ]
    return finished(graph(nodes), ROWS, (scaled(ROWS) @ W + B)[:, 0])


@GOOD.add("pipeline with scaler")
def imputer_in_front() -> bytes:
    """Missing values become means, so a row with NaN has a score."""
    rows = ROWS.copy()
    rows[::3, 1] = np.nan
    nodes = [
        node("Imputer", "X", "full", domain="ai.onnx.ml", imputed_value_floats=MEAN[0].tolist(), replaced_value_float=float("nan")),
        node("MatMul", "full w", "score"),
    ]
    return finished(graph(nodes, tensors={"w": W}), rows, (np.where(np.isnan(rows), MEAN, rows) @ W)[:, 0])


@GOOD.add("neural net")
def two_layers() -> bytes:
    """A multi-layer perceptron over scaled features."""
    nodes = [
        node("Sub", "X mean", "c"),
        node("Div", "c spread", "s"),
        node("Gemm", "s w1 b1", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r w2", "z"),
        node("Sigmoid", "z", "score"),
    ]
    model = graph(nodes, tensors={"mean": MEAN, "spread": SPREAD, "w1": HIDDEN, "b1": np.full(16, 0.1), "w2": LAST})
    wanted = sigmoid(np.maximum(scaled(ROWS) @ HIDDEN + 0.1, 0) @ LAST)[:, 0]
    return finished(model, ROWS, wanted, **PROBABILITY)


@GOOD.add("neural net")
def normalised_layer() -> bytes:
    """Normalisation over the features of each row, which is not one over rows."""
    nodes = [
        node("ReduceMean", "X", "m", axes=[1], keepdims=1),
        node("Sub", "X m", "c"),
        node("Mul", "c c", "q"),
        node("ReduceMean", "q", "v", axes=[1], keepdims=1),
        node("Sqrt", "v", "d"),
        node("Add", "d tiny", "e"),
        node("Div", "c e", "n"),
        node("MatMul", "n w", "score"),
    ]
    centred = ROWS.astype(np.float64) - ROWS.mean(axis=1, keepdims=True)
    wanted = centred / (np.sqrt((centred**2).mean(axis=1, keepdims=True)) + 1e-3) @ W
    return finished(graph(nodes, tensors={"tiny": np.array(1e-3), "w": W}), ROWS, wanted[:, 0])


@GOOD.add("neural net")
def convolution() -> bytes:
    """A convolution over the features as a sequence, reshaped with a free batch axis."""
    nodes = [
        node("Reshape", "X as_sequence", "s"),
        node("Conv", "s k", "c", kernel_shape=[2]),
        node("Tanh", "c", "t"),
        node("ReduceSum", "t axis", "score", keepdims=0),
    ]
    kernel = np.array([[[0.01, -0.02]]])
    model = graph(nodes, tensors={"as_sequence": np.array([-1, 1, WIDTH]), "k": kernel, "axis": np.array([2])})
    wanted = np.tanh(ROWS[:, :-1] * 0.01 - ROWS[:, 1:] * 0.02).sum(axis=1)
    return finished(model, ROWS, wanted)


@GOOD.add("neural net")
def embedding() -> bytes:
    """A category looked up in a table, whatever number comes in."""
    nodes = [
        node("Gather", "X zero", "first", axis=1),
        node("Clip", "first least most", "kept"),
        node("Cast", "kept", "place", to=TensorProto.INT64),
        node("Clip", "place first_place last_place", "safe"),
        node("Gather", "table safe", "score", axis=0),
    ]
    table = np.linspace(0, 1, 12)
    tensors = {"zero": np.array([0]), "least": np.array(0.0), "most": np.array(11.0), "table": table}
    tensors |= {"first_place": np.array(0), "last_place": np.array(11)}
    return finished(graph(nodes, tensors=tensors), ROWS, table[np.clip(ROWS[:, 0], 0, 11).astype(int)], **PROBABILITY)


@GOOD.add("neural net")
def attention() -> bytes:
    """A softmax over the features of each row."""
    nodes = [node("Mul", "X tiny", "t"), node("Softmax", "t", "a", axis=1), node("Mul", "a X", "m"), node("ReduceSum", "m axis", "score")]
    weights = np.exp(ROWS.astype(np.float64) * 0.05)
    wanted = (weights / weights.sum(axis=1, keepdims=True) * ROWS).sum(axis=1)
    return finished(graph(nodes, tensors={"tiny": np.array(0.05), "axis": np.array([1])}), ROWS, wanted)


@GOOD.add("trees by hand")
def two_stumps() -> bytes:
    """Two trees of one split, the first of which sends missing values to the right."""
    rows = ROWS.copy()
    rows[::4, 1] = np.nan
    trees = node(
        "TreeEnsembleRegressor",
        "X",
        "score",
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 0, 1, 2],
        nodes_featureids=[1, 0, 0, 3, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        nodes_values=[7.5, 0.0, 0.0, 20.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 0, 0, 2, 0, 0],
        nodes_missing_value_tracks_true=[0] * 6,
        target_treeids=[0, 0, 1, 1],
        target_nodeids=[1, 2, 1, 2],
        target_ids=[0] * 4,
        target_weights=[0.1, 0.4, 0.05, 0.25],
    )
    wanted = np.where(rows[:, 1] <= 7.5, 0.1, 0.4) + np.where(rows[:, 3] <= 20, 0.05, 0.25)
    return finished(graph([trees]), rows, wanted, **PROBABILITY)


@GOOD.add("with functions")
def functions_in_functions() -> bytes:
    """Functions of a domain of its own, one calling the other, as some exporters write them."""
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    double = helper.make_function("mine", "double", ["x"], ["y"], [node("Add", "x x", "y")], sets[:1])
    twice = helper.make_function(
        "mine", "twice", ["x"], ["y"], [node("double", "x", "h", domain="mine"), node("double", "h", "y", domain="mine")], sets
    )
    nodes = [node("MatMul", "X w", "z"), node("twice", "z", "score", domain="mine")]
    model = graph(nodes, tensors={"w": W}, functions=[double, twice], sets=[("", 17), ("mine", 1)])
    return finished(model, ROWS, (4 * ROWS @ W)[:, 0])


@GOOD.add("with a branch", limits=replace(ROOMY, operators=("If",)))
def branch_that_was_allowed() -> bytes:
    """An If whose name is on the list of what is allowed."""
    yes = helper.make_graph([node("MatMul", "X w", "y")], "yes", [], [value("y", [None, 1])])
    no = helper.make_graph([node("Identity", "none", "n")], "no", [], [value("n", [1, 1])])
    model = graph(
        [node("If", "sure", "score", then_branch=yes, else_branch=no)],
        tensors={"w": W, "none": np.zeros((1, 1)), "sure": np.ones((), dtype=bool)},
    )
    return finished(model, ROWS, (ROWS @ W)[:, 0])


@GOOD.add("linear")
def label_beside_probabilities() -> bytes:
    """Two outputs, the second of which is the score, the label declared as [1] though the batch is free: so LightGBM's converter does."""
    nodes = [node("MatMul", "X w", "z"), node("Softmax", "z", "probabilities", axis=1), node("ArgMax", "z", "label", axis=1, keepdims=0)]
    outputs = [value("label", [1], TensorProto.INT64), value("probabilities", [None, 2])]
    model = graph(nodes, tensors={"w": np.concatenate((W, -W), axis=1)}, outputs=outputs)
    return finished(model, ROWS, sigmoid(-2 * ROWS @ W)[:, 0], output="probabilities", **PROBABILITY)


@GOOD.add("linear")
def operator_set_listed_twice() -> bytes:
    """The same domain stands twice in the list of operator sets, as converters leave it."""
    model = graph([node("MatMul", "X w", "score")], tensors={"w": W}, sets=[("", 17), ("ai.onnx.ml", 3), ("ai.onnx.ml", 3)])
    return finished(model, ROWS, (ROWS @ W)[:, 0])


@GOOD.add("linear")
def operator_sets_that_nobody_uses() -> bytes:
    """Domains of a runtime are listed, and no node is of them, as tf2onnx leaves it."""
    model = graph([node("MatMul", "X w", "score")], tensors={"w": W}, sets=[("", 17), ("com.microsoft", 1), ("ai.onnx.training", 1)])
    return finished(model, ROWS, (ROWS @ W)[:, 0])
