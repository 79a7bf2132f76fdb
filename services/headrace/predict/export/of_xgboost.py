"""XGBoost to ONNX."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from headrace.predict.agreement import TOLERANCE
from headrace.predict.attached_rows import Rows
from headrace.predict.export.compared import compared
from headrace.predict.export.finish import INPUT, OPSET, checked_names, converting

_WHAT = "export_xgboost"


def export_xgboost(estimator: Any, feature_names: Sequence[str], *, rows: object = None, tolerance: float = TOLERANCE) -> bytes:  # noqa: ANN401 - a Booster or an estimator
    """A fitted Booster, XGBClassifier or XGBRegressor as ONNX: `probabilities` [n, classes], or `variable` [n, 1] of a regression.

    It holds the trees that its own `predict` uses: of an estimator that stopped early those up to the best round, of a Booster all. The
    export is compared with XGBoost itself on `rows`, or on drawn ones. Raises `DefinitionError`.
    """
    with converting(_WHAT):
        import xgboost  # noqa: PLC0415 - only who exports needs it
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415
        from onnxmltools.convert.xgboost.convert import convert  # noqa: PLC0415

        booster = _booster(estimator)
        names = checked_names(feature_names, booster.feature_names, booster.num_features(), _WHAT)
        booster.feature_names = None  # the converter wants f0, f1 ...
        types = [(INPUT, FloatTensorType([None, len(names)]))]
        converted = convert(_wrapped(booster, xgboost), name="exported", initial_types=types, target_opset=OPSET)
    scores = getattr(estimator, "predict_proba", getattr(estimator, "inplace_predict", estimator.predict))

    def library(values: Rows) -> Any:  # noqa: ANN401 - as above
        return scores(values, validate_features=False)

    return compared(converted, names, library, rows=rows, absent=True, tolerance=tolerance, what=_WHAT)


def _booster(estimator: Any) -> Any:  # noqa: ANN401 - as above
    """A copy of the trees that its own `predict` uses."""
    booster = estimator.get_booster() if hasattr(estimator, "get_booster") else estimator
    best = booster.attr("best_iteration") if booster is not estimator else None
    found = booster.copy() if best is None else booster[: int(best) + 1]
    found.set_attr(best_iteration=None, best_score=None)  # the converter would cut once more
    return found


def _wrapped(booster: Any, xgboost: Any) -> Any:  # noqa: ANN401 - as above
    """The booster as the estimator of its objective: of a bare booster the converter guesses it."""
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    classes = objective.startswith(("binary:", "multi:", "reg:logistic")) and objective != "binary:logitraw"
    found = xgboost.XGBClassifier() if classes else xgboost.XGBRegressor()
    found.load_model(booster.save_raw("json"))
    return found
