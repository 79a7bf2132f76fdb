"""LightGBM's models exported: each trap shown on the converter alone, then healed; scores equal to the library's."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType, Int64TensorType

from headrace.errors import DefinitionError
from headrace.predict.agreement import differences
from headrace.predict.export import export_lightgbm
from headrace.predict.export.compared import ZERO
from headrace.predict.export.trees import float32_below
from tests.unit.predict.fitted import NAMES, boosted, history, inputs, operator_sets, outputs, quiet, scored, unseen

TOLERANCE = 1e-6


def raw(model: Any, **wishes: Any) -> bytes:
    """What the converter gives for float32 rows, ZipMap off unless wished otherwise."""
    wishes = {"initial_types": [("features", FloatTensorType([None, len(NAMES)]))], "zipmap": False, **wishes}
    return bytes(quiet(lambda: convert_lightgbm(model, **wishes)).SerializeToString())


def predicted(booster: lightgbm.Booster, rows: Any) -> Any:
    """What LightGBM itself gives."""
    return booster.predict(rows.astype(np.float64))


def thresholds(booster: lightgbm.Booster) -> dict[int, list[float]]:
    """What its trees compare each feature with, in double; not the border that it draws around zero."""
    found: dict[int, list[float]] = {}

    def walk(node: dict[str, Any]) -> None:
        if "threshold" in node:
            if abs(node["threshold"]) > ZERO:
                found.setdefault(node["split_feature"], []).append(node["threshold"])
            walk(node["left_child"])
            walk(node["right_child"])

    for tree in booster.dump_model()["tree_info"]:
        walk(tree["tree_structure"])
    return found


def test_probabilities_are_a_tensor_and_the_only_output() -> None:
    """By itself the converter gives probabilities as a list of dicts, and one label for any number of rows; the export a tensor alone."""
    alone = onnx.ModelProto.FromString(raw(boosted(), zipmap=True))
    assert [one.name for one in alone.graph.output] == ["label", "probabilities"]
    assert alone.graph.output[1].type.HasField("sequence_type")
    assert outputs(raw(boosted()))[0] == ("label", TensorProto.INT64, [1])
    exported = export_lightgbm(boosted(), NAMES)
    assert outputs(exported) == [("probabilities", TensorProto.FLOAT, [None, 2])]
    assert [node.op_type for node in onnx.ModelProto.FromString(exported).graph.node] == ["TreeEnsembleClassifier", "Identity", "Mul"]


def test_input_is_float32_and_named() -> None:
    """The converter takes the type and name of input that it is told, integers too; the export has float32 `features`."""
    wrong = raw(boosted(), initial_types=[("input", Int64TensorType([None, len(NAMES)]))])
    assert inputs(wrong) == [("input", TensorProto.INT64, [None, 4])]
    assert inputs(export_lightgbm(boosted(), NAMES)) == [("features", TensorProto.FLOAT, [None, 4])]


def test_operator_sets_are_listed_once() -> None:
    """Both sets are listed, once, in versions that every onnxruntime knows."""
    assert operator_sets(export_lightgbm(boosted(), NAMES)) == [("", 9), ("ai.onnx.ml", 1)]


def test_exporting_twice_gives_the_same_bytes() -> None:
    """By itself the converter draws a name for the graph; two exports of a model are one file."""
    assert raw(boosted()) != raw(boosted())
    assert export_lightgbm(boosted(), NAMES) == export_lightgbm(boosted(), NAMES)


@pytest.mark.parametrize("absent", [False, True])
def test_rows_on_a_threshold_go_the_way_they_went_in_training(absent: bool) -> None:  # noqa: FBT001 - pytest hands it over
    """By itself the converter rounds thresholds to the nearest float32, so rows that hold it go the other way; the export is exact."""
    booster, draw = boosted(absent), np.random.default_rng(6)
    of_feature = thresholds(booster)
    rows = np.column_stack([draw.choice(np.array(of_feature[place], dtype=np.float32), 1_000) for place in range(len(NAMES))])
    trained = predicted(booster, rows)
    alone = differences(scored(raw(booster), rows, output="probabilities"), trained)
    assert (alone > 0.01).sum() > 50
    exported = differences(scored(export_lightgbm(booster, NAMES), rows, output="probabilities"), trained)
    assert exported.max() < TOLERANCE


def test_counts_that_are_mostly_zero_are_exported() -> None:
    """LightGBM parts zeros from the rest at 1e-35, which no row stands on: such a model is no stranger to the export."""
    draw = np.random.default_rng(9)
    rows = draw.poisson(0.3, (1_500, len(NAMES))).astype(np.float64)
    booster = lightgbm.train({"objective": "binary", "num_threads": 1, "verbose": -1}, lightgbm.Dataset(rows, rows.sum(axis=1) % 2), 20)
    assert any(0 < abs(node) < ZERO for node in booster.trees_to_dataframe()["threshold"].dropna())
    exported = scored(export_lightgbm(booster, NAMES), rows.astype(np.float32), output="probabilities")
    assert differences(exported, predicted(booster, rows)).max() < TOLERANCE


def test_the_float32_below_decides_as_the_threshold_does() -> None:
    """For any threshold in double, float32 numbers around it compare alike with it and with the largest float32 not above it."""
    draw = np.random.default_rng(7)
    limits = np.concatenate([draw.normal(size=1_000) * 10.0 ** draw.integers(-30, 30, 1_000), [0.0, 1e-35, 1.5, np.inf, -np.inf]])
    below = float32_below(limits)
    assert np.array_equal(below, below.astype(np.float32))
    near = limits.astype(np.float32)
    for numbers in (near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))):
        assert np.array_equal(numbers.astype(np.float64) <= limits, numbers.astype(np.float64) <= below)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize(
    ("parameters", "output"),
    [
        ({}, "probabilities"),
        ({"boosting": "dart"}, "probabilities"),
        ({"objective": "regression"}, "variable"),
        ({"objective": "quantile", "alpha": 0.9}, "variable"),
    ],
    ids=["binary", "dart", "regression", "quantile"],
)
def test_a_thousand_rows_score_as_the_library_scores_them(parameters: dict[str, Any], output: str, absent: bool) -> None:  # noqa: FBT001 - as above
    """1,000 unseen rows within 1e-6, of the largest score where that is a quantity, with and without absent values."""
    booster, rows = boosted(absent, **parameters), unseen(absent=absent)
    trained = predicted(booster, rows)
    scale = 1.0 if output == "probabilities" else np.abs(trained).max()
    assert differences(scored(export_lightgbm(booster, NAMES), rows, output=output), trained).max() < TOLERANCE * scale


@pytest.mark.parametrize(("alias", "name"), [("l2", "regression"), ("mae", "regression_l1"), ("mean_squared_error", "regression")])
def test_objectives_by_any_of_their_names(alias: str, name: str) -> None:
    """By itself the converter refuses what LightGBM calls by another name; the export knows them by one."""
    booster = boosted(objective=alias)
    with pytest.raises(NotImplementedError, match=f"Unsupported LightGbm objective: '{alias}'"):
        raw(booster)
    rows = unseen(absent=True)
    trained = predicted(boosted(objective=name), rows)
    assert differences(scored(export_lightgbm(booster, NAMES), rows, output="variable"), trained).max() < TOLERANCE * np.abs(trained).max()


def test_estimators_and_their_labels() -> None:
    """By itself the converter cannot do truth values as labels; the export takes estimators with labels of any kind."""
    past, rows = history(absent=True), unseen(absent=True)
    for labels in (past.late.astype(bool), np.where(past.late, "late", "in time")):
        fitted = lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1).fit(past.rows, labels)
        if labels.dtype == bool:
            with pytest.raises(AttributeError, match="encode"):
                raw(fitted)
        index = int(np.flatnonzero(fitted.classes_ == labels[0])[0])
        trained = predicted(fitted.booster_, rows)
        exported = scored(export_lightgbm(fitted, NAMES), rows, output="probabilities", index=index)
        assert differences(exported, trained if index else 1 - trained).max() < TOLERANCE


def test_three_classes_and_an_early_end() -> None:
    """Probabilities of several classes, of the best round where training stopped early."""
    past, rows = history(absent=True), unseen(absent=True)
    classes = past.late + (past.delay > 20)
    told = {"objective": "multiclass", "num_class": 3, "learning_rate": 0.9, "num_threads": 1, "verbose": -1}
    train, seen = lightgbm.Dataset(past.rows[:1_000], classes[:1_000]), lightgbm.Dataset(past.rows[1_000:], classes[1_000:])
    stopping: list[Any] = [lightgbm.early_stopping(3, verbose=False)]
    booster = lightgbm.train(told, train, 100, valid_sets=[seen], callbacks=stopping, keep_training_booster=True)
    assert booster.best_iteration < booster.current_iteration()
    exported, trained = export_lightgbm(booster, NAMES), predicted(booster, rows)
    for index in range(3):
        assert differences(scored(exported, rows, output="probabilities", index=index), trained[:, index]).max() < TOLERANCE


def test_categories_are_exported() -> None:
    """A feature of categories, known ones, unknown ones and absent, scores as in LightGBM."""
    past, draw = history(absent=True), np.random.default_rng(8)
    rows, unknown = past.rows.copy(), unseen(absent=True)
    rows[:, 2] = draw.integers(0, 30, len(rows))
    late = (past.late + (rows[:, 2] % 3 == 0) > 0).astype(np.int64)
    unknown[:, 2] = draw.integers(0, 33, len(unknown))
    unknown[::7, 2] = np.nan
    told = {"objective": "binary", "min_data_per_group": 10, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(told, lightgbm.Dataset(rows, late, categorical_feature=[2]), 20)
    exported = scored(export_lightgbm(booster, NAMES), unknown, output="probabilities")
    assert differences(exported, predicted(booster, unknown)).max() < TOLERANCE


@pytest.mark.parametrize(
    "parameters",
    [
        {"zero_as_missing": True},
        {"sigmoid": 2.0},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
        {"objective": "regression", "linear_tree": True},
    ],
    ids=["zero as missing", "another sigmoid", "random forest", "linear leaves"],
)
def test_what_the_converter_gets_wrong_is_refused_with_both_numbers(parameters: dict[str, Any]) -> None:
    """By itself the converter says nothing and gives other scores; the export is refused, with both numbers."""
    booster = boosted(absent="linear_tree" not in parameters, **parameters)
    rows = unseen()
    rows[::3, 2] = 0
    output = "variable" if "objective" in parameters else "probabilities"
    assert (differences(scored(raw(booster), rows, output=output), predicted(booster, rows)) > 0.01).sum() > 50
    with pytest.raises(
        DefinitionError, match=r"gets this model wrong: it gives -?[\d.]+ where the library gives -?[\d.]+, and \d+ of 512 rows"
    ):
        export_lightgbm(booster, NAMES)


def test_names_it_was_trained_with_must_be_the_features() -> None:
    """A booster that knows names refuses others, by the first that differs; one that made them up takes any."""
    past = history()
    told = {"objective": "binary", "num_threads": 1, "verbose": -1}
    named = lightgbm.train(told, lightgbm.Dataset(past.rows, past.late, feature_name=list(NAMES)), 5)
    with pytest.raises(DefinitionError, match="the model knows feature 1 as 'distance', feature_names has 'hour'"):
        export_lightgbm(named, ("delay", "hour", "distance", "congestion"))
    assert export_lightgbm(named, NAMES)
