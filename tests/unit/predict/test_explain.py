"""Contributions beside the definition of a Shapley value, worked out by scoring every mix of rows; and what is refused, by name."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from headrace.errors import DefinitionError
from headrace.predict import leaf_sets, onnx_file
from headrace.predict.additive import form_of
from headrace.predict.explain import Explainer, load_explained
from headrace.predict.onnx_model import OnnxModel
from headrace.types import Float64s
from tests.unit.predict.small_models import weights
from tests.unit.predict.tree_files import Forest, Rows, grow, names, rows_at_random, signature, tree_file

FEATURES = 5


def by_definition(model: OnnxModel, explainer: Explainer, background: Rows, row: Float64s) -> Float64s:
    """Shapley values from the model's own scores of all mixes of a row and the background, taken back to margins."""
    count = len(row)
    worth: dict[frozenset[int], float] = {}
    for size in range(count + 1):
        for chosen in combinations(range(count), size):
            mixed = background.astype(np.float64)
            mixed[:, list(chosen)] = row[list(chosen)]
            worth[frozenset(chosen)] = float(explainer.margin(model.score(mixed).scores).mean())
    found = np.zeros(count)
    for one in range(count):
        for some, value in worth.items():
            if one not in some:
                share = math.factorial(len(some)) * math.factorial(count - len(some) - 1) / math.factorial(count)
                found[one] += share * (worth[some | {one}] - value)
    return found


def explained(content: bytes, features: int = FEATURES) -> tuple[OnnxModel, Explainer]:
    """The model and its explainer."""
    model = load_explained(content, names(features))
    assert isinstance(model.explainer, Explainer)
    return model, model.explainer


@pytest.mark.parametrize("number", range(8))
def test_trees_have_the_shapley_values_of_the_definition(number: int) -> None:
    """For ensembles at random, with every kind of branch, missing directions, NaN and infinities, every contribution is the defined one."""
    draw = np.random.default_rng(number)
    background = rows_at_random(draw, 12, FEATURES)
    model, explainer = explained(tree_file([grow(draw, FEATURES).operator(base_values=[0.25])], FEATURES, background))
    rows = rows_at_random(draw, 6, FEATURES).astype(np.float64)
    for row, found in zip(rows, explainer.contributions(rows), strict=True):
        np.testing.assert_allclose(found, by_definition(model, explainer, background, row), rtol=0, atol=2e-6)


def test_with_and_without_tables_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the table of a leaf is what is worked out where there is no room for one."""
    draw = np.random.default_rng(11)
    background = rows_at_random(draw, 100, FEATURES)
    content = tree_file([grow(draw, FEATURES, trees=20, depth=6).operator()], FEATURES, background)
    rows = rows_at_random(draw, 50, FEATURES).astype(np.float64)
    with_tables = explained(content)[1].contributions(rows)
    monkeypatch.setattr(leaf_sets, "MOST_TABLE_BYTES", 2_000)
    some = explained(content)[1].contributions(rows)
    monkeypatch.setattr(leaf_sets, "MOST_TABLE_BYTES", 0)
    assert with_tables.tobytes() == some.tobytes() == explained(content)[1].contributions(rows).tobytes()


@pytest.mark.parametrize(
    ("weigh", "more", "class_index"),
    [
        ("one class", {"post_transform": "LOGISTIC", "base_values": [0.5]}, 1),
        ("one class", {"post_transform": "LOGISTIC"}, 0),
        ("one class, none negative", {"post_transform": "NONE"}, 1),
        ("one class, none negative", {"post_transform": "NONE"}, 0),
        ("both classes", {"post_transform": "LOGISTIC"}, 1),
        ("both classes", {"post_transform": "SOFTMAX"}, 1),
        ("both classes", {"post_transform": "SOFTMAX"}, 0),
        ("both classes", {"post_transform": "NONE"}, 0),
    ],
)
def test_what_the_runtime_makes_of_two_classes(weigh: str, more: dict[str, object], class_index: int) -> None:
    """Whichever way a classifier gives its weights, its margins lead to the column that is the score."""
    draw = np.random.default_rng(3)
    forest = grow(draw, FEATURES, of=2 if weigh == "both classes" else 1)
    if weigh == "one class, none negative":
        forest.weights = [(tree, node, of, abs(weight)) for tree, node, of, weight in forest.weights]
    background = rows_at_random(draw, 8, FEATURES)
    operator = forest.operator("TreeEnsembleClassifier", **more)
    model, explainer = explained(tree_file([operator], FEATURES, background, width=2, class_index=class_index))
    rows = rows_at_random(draw, 20, FEATURES).astype(np.float64)
    margins = explainer.mean + explainer.contributions(rows).sum(axis=1)
    np.testing.assert_allclose(explainer.score(margins), model.score(rows).scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        explainer.contributions(rows[:1])[0], by_definition(model, explainer, background, rows[0]), rtol=0, atol=1e-5
    )


def test_prepared_columns_are_told_by_feature() -> None:
    """Columns that are filled, scaled, picked twice and joined in front of the trees are told by the feature they are made of."""
    draw = np.random.default_rng(5)
    forest = grow(draw, 4)
    steps = [
        helper.make_node(
            "Imputer", ["X"], ["filled"], domain="ai.onnx.ml", imputed_value_floats=[1.0, 2.0, 0.0], replaced_value_float=float("nan")
        ),
        helper.make_node("Scaler", ["filled"], ["scaled"], domain="ai.onnx.ml", offset=[0.5, 0.0, -1.0], scale=[2.0, 1.0, 0.5]),
        helper.make_node("Gather", ["scaled", "places"], ["picked"], axis=1),
        helper.make_node("ArrayFeatureExtractor", ["X", "last"], ["raw"], domain="ai.onnx.ml"),
        helper.make_node("Concat", ["picked", "raw"], ["columns"], axis=1),
    ]
    operator = forest.operator()
    operator.input[0] = "columns"
    tensors = (numpy_helper.from_array(np.array([2, 0, 0]), "places"), numpy_helper.from_array(np.array([1]), "last"))
    background = rows_at_random(draw, 10, 3)
    model, explainer = explained(tree_file([*steps, operator], 3, background, tensors=tensors), 3)
    rows = rows_at_random(draw, 5, 3).astype(np.float64)
    for row, found in zip(rows, explainer.contributions(rows), strict=True):
        np.testing.assert_allclose(found, by_definition(model, explainer, background, row), rtol=0, atol=2e-6)


def test_a_weighted_sum_behind_a_sigmoid() -> None:
    """A layer of PyTorch's or Keras's, Gemm and Sigmoid, is explained exactly in log-odds."""
    draw = np.random.default_rng(6)
    nodes = [
        helper.make_node("Gemm", ["X", "w", "b"], ["z"], transB=1, alpha=0.5, beta=2.0),
        helper.make_node("Sigmoid", ["z"], ["score"]),
    ]
    by = draw.normal(size=(1, 3)).astype(np.float32)
    background = draw.normal(size=(9, 3)).astype(np.float32)
    model, explainer = explained(tree_file(nodes, 3, background, tensors=(weights("w", by), weights("b", [0.125]))), 3)
    rows = draw.normal(size=(7, 3))
    expected = 0.5 * by[0].astype(np.float64) * (rows.astype(np.float32) - background.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(explainer.contributions(rows), expected, rtol=0, atol=1e-12)
    margins = explainer.mean + explainer.contributions(rows).sum(axis=1)
    np.testing.assert_allclose(explainer.score(margins), model.score(rows).scores, rtol=0, atol=1e-6)


def test_the_form_of_opset_5() -> None:
    """TreeEnsemble, which keeps leaves apart from branches, is read into the same arrays."""
    f32, uint8 = TensorProto.FLOAT, TensorProto.UINT8
    operator = helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=0,
        post_transform=0,
        tree_roots=[0, 2],
        nodes_modes=helper.make_tensor("modes", uint8, (3,), [0, 3, 1]),
        nodes_featureids=[0, 1, 2],
        nodes_splits=helper.make_tensor("splits", f32, (3,), [0.0, 1.0, -1.0]),
        nodes_truenodeids=[1, 0, 2],
        nodes_trueleafs=[0, 1, 1],
        nodes_falsenodeids=[2, 1, 3],
        nodes_falseleafs=[1, 1, 1],
        nodes_missing_value_tracks_true=[1, 0, 1],
        leaf_targetids=[0, 0, 0, 0],
        leaf_weights=helper.make_tensor("weights", f32, (4,), [1.0, -2.0, 4.0, 8.0]),
    )
    draw = np.random.default_rng(8)
    background = rows_at_random(draw, 10, 3)
    content = with_opset_5(tree_file([operator], 3, background))
    model, explainer = explained(content, 3)
    rows = rows_at_random(draw, 8, 3).astype(np.float64)
    for row, found in zip(rows, explainer.contributions(rows), strict=True):
        np.testing.assert_allclose(found, by_definition(model, explainer, background, row), rtol=0, atol=1e-6)


def with_opset_5(content: bytes) -> bytes:
    """The same file under the operators of ai.onnx.ml 5."""
    parsed = onnx.load_from_string(content)
    for entry in parsed.opset_import:
        if entry.domain == "ai.onnx.ml":
            entry.version = 5
    return bytes(parsed.SerializeToString())


# ------------------------------------------------------------------------------------------------------ refused


def one_branch(kind: str = "TreeEnsembleRegressor", **changes: object) -> NodeProto:
    """A tree of one branch and two leaves, of weights 1 and -1."""
    forest = Forest()
    root, one, other = forest.node(0, "BRANCH_LEQ"), forest.node(0, "LEAF"), forest.node(0, "LEAF")
    forest.join(0, root, one, other)
    forest.weigh(0, one, 1.0)
    forest.weigh(0, other, -1.0)
    return forest.operator(kind, **changes)


def layers() -> list[NodeProto]:
    """A network of two layers."""
    return [
        helper.make_node("MatMul", ["X", "w"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["bent"]),
        helper.make_node("MatMul", ["bent", "v"], ["score"]),
    ]


LAYERS = (weights("w", [[1, 2], [3, 4]]), weights("v", [[1], [1]]))


@pytest.mark.parametrize(
    ("nodes", "tensors", "why"),
    [
        (layers(), LAYERS, "its Relu stands in front of what is explained"),
        ([helper.make_node("ReduceSum", ["X"], ["score"], keepdims=1)], (), "its score comes from ReduceSum"),
        ([one_branch(post_transform="PROBIT")], (), "ends with PROBIT: no unit is known"),
        ([one_branch(aggregate_function="MAX")], (), "aggregated by MAX"),
        ([one_branch(nodes_truenodeids=[7, 0, 0])], (), "leads nowhere"),
        ([one_branch(nodes_featureids=[5, 0, 0])], (), "looks at column 5, and there are 2"),
        ([one_branch(nodes_modes=["BRANCH_MEMBER", "LEAF", "LEAF"])], (), "is a BRANCH_MEMBER"),
        ([one_branch(target_treeids=None)], (), "its TreeEnsembleRegressor is not whole"),
        ([one_branch("TreeEnsembleClassifier", post_transform="NONE")], (), "no probability comes of that"),
    ],
)
def test_what_cannot_be_explained_is_refused_by_name(nodes: list[NodeProto], tensors: tuple[TensorProto, ...], why: str) -> None:
    """The text names the model, what in it cannot be explained, and why."""
    with pytest.raises(DefinitionError, match=why):
        form_of(onnx_file.graph_of(tree_file(nodes, 2, tensors=tensors)), signature(2))


def test_a_path_of_too_many_features_is_refused() -> None:
    """A set of features of a path must fit into an integer."""
    forest = Forest()
    last = forest.node(0, "BRANCH_LEQ", 0)
    for column in range(1, 64):
        leaf = forest.node(0, "LEAF")
        forest.weigh(0, leaf, 1.0)
        deeper = forest.node(0, "BRANCH_LEQ", column)
        forest.join(0, last, leaf, deeper)
        last = deeper
    ends = forest.node(0, "LEAF"), forest.node(0, "LEAF")
    forest.join(0, last, *ends)
    with pytest.raises(DefinitionError, match="more than 63 different features"):
        form_of(onnx_file.graph_of(tree_file([forest.operator()], 64)), signature(64))


def test_a_model_without_a_background_is_refused() -> None:
    """The text says how to get one into the file."""
    with pytest.raises(DefinitionError, match=r"model 'trees' version 1 cannot be explained: it carries no background.*background=rows"):
        load_explained(tree_file([one_branch()], 2), names(2))


@pytest.mark.parametrize("shape", [(0, 2), (101, 2), (5, 3)])
def test_a_background_of_another_shape_is_refused(shape: tuple[int, int]) -> None:
    """It has 1 to 100 rows, and a column a feature."""
    with pytest.raises(DefinitionError, match="wanted are 1 to 100 rows of 2 features"):
        load_explained(tree_file([one_branch()], 2, np.zeros(shape, dtype=np.float32)), names(2))


def test_a_background_with_gaps_says_nothing_to_a_weighted_sum() -> None:
    """The mean of a feature that is missing is not known, so nothing could be measured from it."""
    background = np.array([[1, 2], [np.nan, 3]], dtype=np.float32)
    product = helper.make_node("MatMul", ["X", "w"], ["score"])
    with pytest.raises(DefinitionError, match="the background has rows without some of them"):
        load_explained(tree_file([product], 2, background, tensors=(weights("w", [[1], [2]]),)), names(2))


def test_sets_that_take_too_much_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says what to have less of."""
    monkeypatch.setattr(leaf_sets, "MOST_SET_BYTES", 40)
    background = rows_at_random(np.random.default_rng(1), 10, 2)
    with pytest.raises(DefinitionError, match=r"2 leaves and 10 background rows need .* fewer background rows"):
        load_explained(tree_file([one_branch()], 2, background), names(2))


@pytest.mark.parametrize(
    "damage",
    [
        {"target_weights": [1.0, -1.5]},
        {"nodes_modes": ["BRANCH_LT", "LEAF", "LEAF"]},
        {"nodes_missing_value_tracks_true": [1, 0, 0]},
        {"nodes_truenodeids": [2, 0, 0], "nodes_falsenodeids": [1, 0, 0]},
        {"base_values": [0.001]},
    ],
)
def test_a_file_that_is_read_otherwise_than_it_is_scored_is_refused(damage: dict[str, object]) -> None:
    """Where our reading of the nodes and the runtime's would differ, in a weight, a comparison or a side, nothing is explained."""
    background = np.array([[0, 1], [np.nan, 2], [-1, 0], [1, 1]], dtype=np.float32)
    scored = OnnxModel.load(tree_file([one_branch()], 2), names(2))
    Explainer._of(tree_file([one_branch()], 2), scored, background)
    with pytest.raises(DefinitionError, match="where onnxruntime gives"):
        Explainer._of(tree_file([one_branch("TreeEnsembleRegressor", **damage)], 2), scored, background)
