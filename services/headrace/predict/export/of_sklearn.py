"""scikit-learn to ONNX: estimators and pipelines of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.predict.agreement import TOLERANCE
from headrace.predict.attached_rows import Rows
from headrace.predict.export.compared import Library, compared
from headrace.predict.export.finish import INPUT, ML_OPSET, OPSET, checked_names, converting
from headrace.predict.export.trees import Convert, Learned, healed

_WHAT = "export_sklearn"


def export_sklearn(estimator: Any, feature_names: Sequence[str], *, rows: object = None, tolerance: float = TOLERANCE) -> bytes:  # noqa: ANN401 - scikit-learn has no types
    """A fitted estimator or pipeline as ONNX: `probabilities` [n, classes], `scores` [n, 1] of an outlier detector, `variable` [n, 1] else.

    The export is compared with the estimator itself on `rows`, or on drawn ones. Raises `DefinitionError`.
    """
    with converting(_WHAT):
        from skl2onnx import convert_sklearn  # noqa: PLC0415 - only who exports needs it
        from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

        names = checked_names(feature_names, getattr(estimator, "feature_names_in_", None), int(estimator.n_features_in_), _WHAT)
        converted = convert_sklearn(
            estimator,
            name="exported",
            initial_types=[(INPUT, FloatTensorType([None, len(names)]))],
            options={"zipmap": False} if hasattr(estimator, "predict_proba") else None,
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            custom_conversion_functions=_mending_trees(),
        )
    library = _library(estimator)
    absent = _takes_absent(library, len(names))
    return compared(converted, names, library, rows=rows, absent=absent, tolerance=tolerance, what=_WHAT)


def _library(estimator: Any) -> Library:  # noqa: ANN401 - as above
    by_worth = ("predict_proba", "decision_function", "predict")
    scores = next(getattr(estimator, name) for name in by_worth if hasattr(estimator, name))

    def library(rows: Rows) -> Any:  # noqa: ANN401 - as above
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names, where it was trained on a frame
            return scores(rows.astype(np.float64))

    return library


def _takes_absent(library: Library, width: int) -> bool:
    try:
        library(np.full((2, width), np.nan, dtype=np.float32))
    except ValueError:
        return False
    return True


def _mending_trees() -> dict[type, Convert]:
    """The converters of the estimators that may have learned where absent values go, mended."""
    from skl2onnx._supported_operators import sklearn_operator_name_map  # noqa: PLC0415 - as above
    from skl2onnx.common._registration import get_converter  # noqa: PLC0415
    from sklearn import ensemble, tree  # noqa: PLC0415

    kinds: Mapping[type, Callable[[Any], dict[int, Learned]]] = {
        tree.DecisionTreeClassifier: _of_a_tree,
        tree.DecisionTreeRegressor: _of_a_tree,
        tree.ExtraTreeClassifier: _of_a_tree,
        tree.ExtraTreeRegressor: _of_a_tree,
        ensemble.RandomForestClassifier: _of_a_forest,
        ensemble.RandomForestRegressor: _of_a_forest,
        ensemble.ExtraTreesClassifier: _of_a_forest,
        ensemble.ExtraTreesRegressor: _of_a_forest,
        ensemble.HistGradientBoostingClassifier: _of_histograms,
        ensemble.HistGradientBoostingRegressor: _of_histograms,
    }
    return {kind: healed(get_converter(sklearn_operator_name_map[kind]), learned) for kind, learned in kinds.items()}


def _of_a_tree(estimator: Any) -> dict[int, Learned]:  # noqa: ANN401 - as above
    return {0: Learned(absent_left=estimator.tree_.missing_go_to_left.astype(bool))}


def _of_a_forest(estimator: Any) -> dict[int, Learned]:  # noqa: ANN401 - as above
    return {place: _of_a_tree(one)[0] for place, one in enumerate(estimator.estimators_)}


def _of_histograms(estimator: Any) -> dict[int, Learned]:  # noqa: ANN401 - as above
    trees = [one for round_ in estimator._predictors for one in round_]  # noqa: SLF001 - it has them nowhere else
    return {
        place: Learned(absent_left=one.nodes["missing_go_to_left"].astype(bool), thresholds=one.nodes["num_threshold"].astype(np.float64))
        for place, one in enumerate(trees)
    }
