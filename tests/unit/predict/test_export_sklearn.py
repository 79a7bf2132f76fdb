"""scikit-learn's models exported: each trap shown on the converter alone, then healed; scores equal to the library's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto
from skl2onnx import convert_sklearn, to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from headrace.errors import DefinitionError
from headrace.predict.agreement import differences
from headrace.predict.export import export_sklearn
from headrace.types import Float64s
from tests.unit.predict.fitted import NAMES, history, inputs, operator_sets, outputs, quiet, scored, unseen

TREES, NETWORK = 1e-6, 1e-5
"""How far scores may be off: trees and linear models by the rounding of their sums, a network by that of its layers."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small fits on one thread: several that wait for one another are many times slower where cores are busy."""
    with threadpool_limits(1):
        yield


def late(estimator: Any, *, absent: bool = False) -> Any:
    """A classifier fitted to the history."""
    past = history(absent=absent)
    return estimator.fit(past.rows, past.late)


def raw(estimator: Any, **wishes: Any) -> bytes:
    """What the converter gives for a float32 sample, ZipMap off, in an operator set that every onnxruntime knows."""
    types = [("features", FloatTensorType([None, len(NAMES)]))]
    wishes = {"options": {"zipmap": False} if hasattr(estimator, "predict_proba") else None, "target_opset": 15, **wishes}
    return bytes(quiet(lambda: convert_sklearn(estimator, initial_types=types, **wishes)).SerializeToString())


def test_probabilities_are_a_tensor_and_the_only_output() -> None:
    """By itself the converter gives labels, and probabilities as a list of dicts; the export gives a tensor of them alone."""
    fitted = late(LogisticRegression(max_iter=1_000))
    alone = onnx.ModelProto.FromString(raw(fitted, options=None))
    assert "ZipMap" in [node.op_type for node in alone.graph.node]
    assert [one.name for one in alone.graph.output] == ["output_label", "output_probability"]
    assert alone.graph.output[1].type.HasField("sequence_type")
    exported = export_sklearn(fitted, NAMES)
    assert outputs(exported) == [("probabilities", TensorProto.FLOAT, [None, 2])]
    assert "ZipMap" not in [node.op_type for node in onnx.ModelProto.FromString(exported).graph.node]


def test_input_is_float32_and_named_whatever_it_was_trained_on() -> None:
    """A float64 sample makes a double model whose input has the converter's name; the export takes float32 `features`."""
    fitted = late(make_pipeline(StandardScaler(), LogisticRegression()))
    alone = quiet(lambda: to_onnx(fitted, history().rows[:1], options={"zipmap": False})).SerializeToString()
    assert inputs(alone) == [("X", TensorProto.DOUBLE, [None, 4])]
    assert inputs(export_sklearn(fitted, NAMES)) == [("features", TensorProto.FLOAT, [None, 4])]


def test_a_model_of_a_frame_has_one_input() -> None:
    """A DataFrame as sample gives an input a column; a model that was trained on one is exported with one, and knows its names."""
    past = history()
    frame = pd.DataFrame(past.rows, columns=list(NAMES))
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, past.late)
    alone = quiet(lambda: to_onnx(fitted, frame[:1].astype("float32"), options={"zipmap": False})).SerializeToString()
    assert [name for name, _, _ in inputs(alone)] == list(NAMES)
    assert inputs(export_sklearn(fitted, NAMES)) == [("features", TensorProto.FLOAT, [None, 4])]
    with pytest.raises(DefinitionError, match="the model knows feature 0 as 'delay', feature_names has 'distance'; train it in that order"):
        export_sklearn(fitted, ("distance", "delay", "hour", "congestion"))


def test_operator_sets_are_listed_once_and_known_to_old_runtimes() -> None:
    """By itself the converter takes newer operators than onnxruntime 1.20 knows, and lists a domain twice; the export does neither."""
    fitted = late(make_pipeline(StandardScaler(), LogisticRegression()))
    alone = quiet(lambda: to_onnx(fitted, history().rows[:1].astype(np.float32), options={"zipmap": False})).SerializeToString()
    main = [version for domain, version in operator_sets(alone) if domain == ""]
    assert len(main) == 2
    assert max(main) > 21  # the last that onnxruntime 1.20 promises
    assert operator_sets(export_sklearn(fitted, NAMES)) == [("", 15), ("ai.onnx.ml", 1)]


def test_exporting_twice_gives_the_same_bytes() -> None:
    """By itself the converter draws a name for the graph; two exports of a model are one file."""
    fitted = late(RandomForestClassifier(5, random_state=0), absent=True)
    assert raw(fitted) != raw(fitted)
    assert export_sklearn(fitted, NAMES) == export_sklearn(fitted, NAMES)


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, random_state=0),
        ExtraTreesClassifier(20, random_state=0),
        BaggingClassifier(n_estimators=5, random_state=0),
        CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=2),
    ],
    ids=["forest", "extra trees", "bagged trees", "calibrated forest"],
)
def test_absent_values_go_where_trees_learned(estimator: Any) -> None:
    """By itself the converter sends every absent value to the right; the export sends it where scikit-learn does."""
    fitted, rows = late(estimator, absent=True), unseen(absent=True)
    trained = fitted.predict_proba(rows)[:, 1]
    alone = differences(scored(raw(fitted), rows, output="probabilities"), trained)
    assert (alone > 0.05).sum() > 50
    exported = differences(scored(export_sklearn(fitted, NAMES), rows, output="probabilities"), trained)
    assert exported.max() < TREES


@pytest.mark.parametrize("absent", [False, True])
def test_gradient_boosting_of_histograms_is_exported(absent: bool) -> None:  # noqa: FBT001 - pytest hands it over
    """By itself the converter cannot do these at all; the export scores as they do, absent values included."""
    fitted, rows = late(HistGradientBoostingClassifier(max_iter=30, random_state=0), absent=absent), unseen(absent=absent)
    with pytest.raises(ValueError, match="Unable to create node 'TreeEnsembleClassifier'"):
        raw(fitted)
    exported = differences(scored(export_sklearn(fitted, NAMES), rows, output="probabilities"), fitted.predict_proba(rows)[:, 1])
    assert exported.max() < TREES


def test_rows_on_a_threshold_go_the_way_they_went_in_training() -> None:
    """The nearest float32 to a threshold may be above it; the export takes the one below, so a row that holds it goes right, as it did."""
    past = history()
    fitted = HistGradientBoostingRegressor(max_iter=30, random_state=0).fit(past.rows, past.delay)
    nodes = np.concatenate([tree.nodes for trees in fitted._predictors for tree in trees])
    inner = nodes[~nodes["is_leaf"].astype(bool)]
    nearest = inner["num_threshold"].astype(np.float32)
    above = nearest.astype(np.float64) > inner["num_threshold"]
    assert above.sum() > 100
    rows = unseen()[: above.sum()]
    rows[np.arange(len(rows)), inner["feature_idx"][above]] = nearest[above]
    exported = scored(export_sklearn(fitted, NAMES), rows, output="variable")
    trained = fitted.predict(rows.astype(np.float64))
    assert differences(exported, trained).max() < 1e-4 * np.abs(trained).max()
    assert len(set(np.round(trained, 6))) > 50


KINDS: dict[str, tuple[Callable[[], Any], bool, float]] = {
    "linear": (lambda: LogisticRegression(max_iter=1_000), False, TREES),
    "scaled linear": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), False, TREES),
    "imputed": (lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), True, TREES),
    "boosted": (lambda: GradientBoostingClassifier(n_estimators=20, random_state=0), False, TREES),
    "forest": (lambda: RandomForestClassifier(20, random_state=0), True, TREES),
    "scaled forest": (lambda: make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)), True, TREES),
    "network": (lambda: make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=400, random_state=0)), False, NETWORK),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_rows_score_as_the_library_scores_them(kind: str) -> None:
    """Classifiers of all kinds: probabilities of 1,000 unseen rows within 1e-6, of a network within 1e-5."""
    make, absent, tolerance = KINDS[kind]
    fitted, rows = late(make(), absent=absent), unseen(absent=absent)
    exported = scored(export_sklearn(fitted, NAMES), rows, output="probabilities")
    assert differences(exported, fitted.predict_proba(rows.astype(np.float64))[:, 1]).max() < tolerance


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), RandomForestRegressor(10, random_state=0), DecisionTreeRegressor(random_state=0)],
    ids=["linear", "forest", "tree"],
)
def test_regressions_score_as_the_library_scores_them(estimator: Any) -> None:
    """Regressors: 1,000 unseen rows within 1e-6 of the largest score, in an output [rows, 1]."""
    past, rows = history(), unseen()
    fitted = estimator.fit(past.rows, past.delay)
    exported = export_sklearn(fitted, NAMES)
    assert outputs(exported) == [("variable", TensorProto.FLOAT, [None, 1])]
    trained: Float64s = fitted.predict(rows.astype(np.float64))
    assert differences(scored(exported, rows, output="variable"), trained).max() < TREES * np.abs(trained).max()


def test_classes_by_any_name_and_number() -> None:
    """Text labels, truth values and three classes all give probabilities in the order of `classes_`."""
    past, rows = history(absent=True), unseen(absent=True)
    for labels in (np.where(past.late, "late", "in time"), past.late.astype(bool), past.late + (past.delay > 20)):
        fitted = RandomForestClassifier(10, random_state=0).fit(past.rows, labels)
        exported, trained = export_sklearn(fitted, NAMES), fitted.predict_proba(rows)
        for index in range(trained.shape[1]):
            assert differences(scored(exported, rows, output="probabilities", index=index), trained[:, index]).max() < TREES


def test_what_the_converter_gets_wrong_is_refused_with_both_numbers() -> None:
    """IsolationForest's trees know absent values, which nobody puts back: refused, and it says that only rows with absent values differ."""
    fitted = IsolationForest(n_estimators=10, random_state=0).fit(history().rows)
    with pytest.raises(
        DefinitionError, match=r"it gives -?0\.\d+ where the library gives -?0\.\d+, and \d+ of 512 .* all of them with absent"
    ):
        export_sklearn(fitted, NAMES)
    exported = export_sklearn(fitted, NAMES, rows=unseen())
    assert outputs(exported)[0][0] == "scores"
    assert differences(scored(exported, unseen(), output="scores"), fitted.decision_function(unseen().astype(np.float64))).max() < TREES


def test_what_cannot_be_converted_says_why() -> None:
    """A converter's own error becomes one line that says what to do."""

    class Doubling(LogisticRegression):  # type: ignore[misc]
        """An estimator that no converter knows."""

    with pytest.raises(
        DefinitionError, match=r"export_sklearn: the converter cannot do this model \(MissingShapeCalculator: .*golden_scores"
    ):
        export_sklearn(late(Doubling(max_iter=1_000)), NAMES)


def test_another_number_of_features_is_refused() -> None:
    """Names that are not as many as the model's features, none at all, or one text, are refused."""
    fitted = late(LogisticRegression(max_iter=1_000))
    with pytest.raises(DefinitionError, match="the model takes 4 features, feature_names has 3"):
        export_sklearn(fitted, NAMES[:3])
    for none in ((), "delay"):
        with pytest.raises(DefinitionError, match=r"give pipeline\.feature_names"):
            export_sklearn(fitted, none)
