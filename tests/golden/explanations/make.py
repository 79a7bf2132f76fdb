"""Makes what is kept in this folder: small models of three libraries, and what `shap` says of their scores.

    python -m venv /tmp/shap && /tmp/shap/bin/pip install shap==0.51.0 xgboost-cpu==3.2.0 lightgbm onnxmltools skl2onnx scikit-learn onnx
    PYTHONPATH=. /tmp/shap/bin/python -m tests.golden.explanations.make

Each model is an .onnx with its background inside; `expected.json` holds rows, and of each the margin that the library itself gives and the
contributions that `shap` gives, interventional over the same background. shap and XGBoost are needed here only, not to run the tests.
Where features are missing, trees are LightGBM's and XGBoost's: skl2onnx 1.20 leaves out which side scikit-learn's trees send NaN to, so
such a file scores otherwise than the model; and so does one of LightGBM with `zero_as_missing`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import shap
import xgboost
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from headrace.predict import onnx_file
from headrace.predict.attached_rows import background_entries
from headrace.predict.signature import OutputKind, Signature

HERE = Path(__file__).parent
FEATURES = ("count", "delay", "legs", "share", "age")
BACKGROUND, ROWS, TREES, LEAVES, DEPTH = 100, 25, 12, 8, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A model: its file, the output that is its score, and the library's own margins and contributions."""

    content: bytes
    output: str
    mean: float
    margins: NDArray[np.float64]
    contributions: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """What models are trained on, and explained for."""

    values: NDArray[np.float32]
    late: NDArray[np.int64]
    delay: NDArray[np.float64]

    @property
    def background(self) -> NDArray[np.float32]:
        """The first rows."""
        return self.values[:BACKGROUND]

    @property
    def rows(self) -> NDArray[np.float32]:
        """The next ones."""
        return self.values[BACKGROUND : BACKGROUND + ROWS]


def sample(*, gaps: bool) -> Sample:
    """Features of made-up flights, some of them missing."""
    draw = np.random.default_rng(20_130_101)
    values = draw.normal(size=(1_000, len(FEATURES))).astype(np.float32)
    values[:, 2] = np.round(values[:, 2])
    delay = values[:, 0] + values[:, 1] * values[:, 2] + 0.3 * np.abs(values[:, 3])
    late = (delay > 0.2).astype(np.int64)
    if gaps:
        values[draw.random(values.shape) < 0.1] = np.nan
    return Sample(values=values, late=late, delay=delay.astype(np.float64))


def of_sklearn(model: Any, *, gaps: bool = False, regression: bool = False, linear: bool = False) -> Made:
    """A model of scikit-learn; a pipeline's last step is what shap explains, over what the steps before it give."""
    given = sample(gaps=gaps)
    model.fit(given.values, given.delay if regression else given.late)
    converted = to_onnx(model, given.values[:1], options=None if regression else {"zipmap": False})
    prepare: Callable[[Any], Any] = model[:-1].transform if hasattr(model, "steps") else lambda rows: rows
    last = model[-1] if hasattr(model, "steps") else model
    if linear:
        explainer = shap.LinearExplainer(last, prepare(given.background))
    else:
        explainer = shap.TreeExplainer(last, data=prepare(given.background), feature_perturbation="interventional")
    contributions, mean = np.asarray(explainer.shap_values(prepare(given.rows))), np.atleast_1d(explainer.expected_value)
    if contributions.ndim == 3:  # a column for each class
        contributions = contributions[:, :, 1]
    margins = model.predict(given.rows) if regression else model.predict_proba(given.rows)[:, 1]
    if not regression and hasattr(model, "decision_function"):
        margins = model.decision_function(given.rows)
    return Made(
        content=bytes(converted.SerializeToString()),
        output="variable" if regression else "probabilities",
        mean=float(mean[-1]),
        margins=np.asarray(margins, dtype=np.float64),
        contributions=contributions,
    )


def of_lightgbm(objective: str, **more: Any) -> Made:
    """A booster of LightGBM, which is told by the features that are missing, too."""
    given, binary = sample(gaps=True), objective == "binary"
    wanted = given.late if binary else np.abs(given.delay)
    parameters = {"objective": objective, "num_leaves": LEAVES, "num_threads": 1, "deterministic": True, "verbose": -1, **more}
    booster = lightgbm.train(parameters, lightgbm.Dataset(given.values, wanted), TREES)
    explainer = shap.TreeExplainer(booster, data=given.background, feature_perturbation="interventional")
    converted = convert_lightgbm(booster, name="late", initial_types=inputs(), zipmap=False, target_opset=15)
    return Made(
        content=bytes(converted.SerializeToString()),
        output="probabilities" if binary else "variable",
        mean=float(explainer.expected_value),
        margins=np.asarray(booster.predict(given.rows, raw_score=True), dtype=np.float64),
        contributions=np.asarray(explainer.shap_values(given.rows)),
    )


def of_xgboost(*, regression: bool) -> Made:
    """A model of XGBoost, which is told by the features that are missing, too."""
    given = sample(gaps=True)
    kind = xgboost.XGBRegressor if regression else xgboost.XGBClassifier
    model = kind(n_estimators=TREES, max_depth=DEPTH, n_jobs=1).fit(given.values, given.delay if regression else given.late)
    explainer = shap.TreeExplainer(model, data=given.background, feature_perturbation="interventional")
    return Made(
        content=bytes(convert_xgboost(model, initial_types=inputs(), target_opset=15).SerializeToString()),
        output="variable" if regression else "probabilities",
        mean=float(np.atleast_1d(explainer.expected_value)[-1]),
        margins=model.predict(given.rows, output_margin=True).astype(np.float64),
        contributions=np.asarray(explainer.shap_values(given.rows)),
    )


def inputs() -> list[tuple[str, Any]]:
    """What the converters of onnxmltools want to know."""
    return [("features", FloatTensorType([None, len(FEATURES)]))]


def models() -> dict[str, Callable[[], Made]]:
    """What is made, by name."""
    trees = {"n_estimators": TREES, "max_depth": DEPTH, "random_state": 0}
    imputed = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    return {
        "sklearn-random-forest": lambda: of_sklearn(RandomForestClassifier(**trees)),
        "sklearn-random-forest-regression": lambda: of_sklearn(RandomForestRegressor(**trees), regression=True),
        "sklearn-extra-trees": lambda: of_sklearn(ExtraTreesClassifier(**trees)),
        "sklearn-decision-tree": lambda: of_sklearn(DecisionTreeClassifier(max_depth=6, random_state=0)),
        "sklearn-gradient-boosting": lambda: of_sklearn(GradientBoostingClassifier(**trees)),
        "sklearn-gradient-boosting-regression": lambda: of_sklearn(GradientBoostingRegressor(**trees), regression=True),
        "sklearn-logistic": lambda: of_sklearn(LogisticRegression(), linear=True),
        "sklearn-logistic-imputed-scaled": lambda: of_sklearn(imputed, gaps=True, linear=True),
        "sklearn-linear": lambda: of_sklearn(LinearRegression(), regression=True, linear=True),
        "sklearn-ridge-scaled": lambda: of_sklearn(make_pipeline(StandardScaler(), Ridge()), regression=True, linear=True),
        "lightgbm": lambda: of_lightgbm("binary"),
        "lightgbm-regression": lambda: of_lightgbm("regression"),
        "lightgbm-poisson": lambda: of_lightgbm("poisson"),
        "xgboost": lambda: of_xgboost(regression=False),
        "xgboost-regression": lambda: of_xgboost(regression=True),
    }


def short(number: float) -> float:
    """Ten digits of it: a hundred thousand times finer than what is compared."""
    return float(f"{number:.10g}")


def main() -> None:
    """Write every model, and what is expected of each."""
    expected: dict[str, Any] = {"shap": shap.__version__, "features": FEATURES, "models": {}}
    for name, make in models().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # converters and shap warn of their own dependencies
            made = make()
        gaps = name.startswith(("lightgbm", "xgboost")) or "imputed" in name
        given = sample(gaps=gaps)
        kind = OutputKind.PROBABILITY if made.output == "probabilities" else OutputKind.VALUE
        signature = Signature(name="late", version="1", features=FEATURES, views=(), event_features="", output=made.output, kind=kind)
        content = onnx_file.with_metadata(made.content, {**signature.to_metadata(), **background_entries(given.background)})
        (HERE / f"{name}.onnx").write_bytes(content)
        expected["models"][name] = {
            "rows": [[None if np.isnan(value) else value for value in row] for row in given.rows.astype(np.float64).tolist()],
            "mean": short(made.mean),
            "margins": [short(margin) for margin in made.margins.tolist()],
            "contributions": [[short(one) for one in row] for row in made.contributions.tolist()],
        }
    lines = json.dumps(expected, separators=(",", ":")).replace('},"', '},\n"')
    (HERE / "expected.json").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
