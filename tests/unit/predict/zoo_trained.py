"""The trained part of the zoo: what scikit-learn, LightGBM and XGBoost fit and their converters write. None may be refused.

XGBoost is not among the packages of the tests, so two small files of it lie in `exported/`: 12 trees of depth 3 by XGBoost 3.2 as
onnxmltools 1.16 converts them, with the scores that XGBoost gave as golden ones, for rows of which the classifier's miss values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, LogisticRegression, PoissonRegressor, QuantileRegressor, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier

from headrace.predict.attached_rows import Rows
from headrace.predict.signature import OutputKind
from tests.unit.predict.zoo import WIDTH, Animal, draw, finished

EXPORTED = Path(__file__).parent / "exported"
SEED = 5


class Trained(NamedTuple):
    """Rows, whether a flight was late, and by how much."""

    rows: Rows
    late: NDArray[np.int64]
    delay: NDArray[np.float64]


@cache
def history() -> Trained:
    """What all of them are trained on."""
    generator = np.random.default_rng(SEED)
    rows = draw(1_500, seed=9)
    late = (generator.random(len(rows)) < 1 / (1 + np.exp(-(rows[:, 1] - 10) / 12))).astype(np.int64)
    return Trained(rows, late, rows @ np.array([1.0, 2.0, 3.0, 0.5]) + generator.normal(size=len(rows)))


@cache
def holed(count: int, seed: int) -> Rows:
    """Rows of which every seventh value is missing."""
    rows = draw(count, seed=seed)
    rows[np.random.default_rng(seed).random(rows.shape) < 1 / 7] = np.nan
    return rows


def classifier(estimator: Any, *, missing: bool = False) -> bytes:
    """A fitted classifier of scikit-learn, exported."""
    trained, golden = history(), holed(100, 10) if missing else draw(100, seed=10)
    rows = holed(len(trained.rows), 9) if missing else trained.rows
    fitted = estimator.fit(rows, trained.late)
    model = to_onnx(fitted, trained.rows[:1], options={"zipmap": False}, target_opset=17).SerializeToString()
    return finished(model, golden, fitted.predict_proba(golden)[:, 1], output="probabilities", kind=OutputKind.PROBABILITY)


def regressor(estimator: Any) -> bytes:
    """A fitted regressor of scikit-learn, exported."""
    trained, golden = history(), draw(100, seed=10)
    fitted = estimator.fit(trained.rows, trained.delay)
    model = to_onnx(fitted, trained.rows[:1], target_opset=17).SerializeToString()
    return finished(model, golden, fitted.predict(golden).ravel(), output="variable")


def regressor_of_counts() -> bytes:
    """A Poisson regression behind a scaler."""
    trained, golden = history(), draw(100, seed=10)
    fitted = scaled(PoissonRegressor()).fit(trained.rows, np.maximum(np.round(trained.delay / 50), 0))
    model = to_onnx(fitted, trained.rows[:1], target_opset=17).SerializeToString()
    return finished(model, golden, fitted.predict(golden), output="variable")


def boosted(**parameters: Any) -> bytes:
    """A booster of LightGBM trained on rows with missing values, exported."""
    trained, golden = history(), holed(100, 10)
    outcome = trained.late if parameters["objective"] == "binary" else trained.delay
    parameters |= {"verbosity": -1, "num_threads": 1, "seed": SEED, "deterministic": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(holed(len(trained.rows), 9), outcome), num_boost_round=40)
    initial = [("X", FloatTensorType([None, WIDTH]))]
    model = convert_lightgbm(booster, initial_types=initial, zipmap=False, target_opset=15).SerializeToString()
    names = [output.name for output in onnx.ModelProto.FromString(model).graph.output]
    kind = OutputKind.PROBABILITY if "probabilities" in names else OutputKind.VALUE
    output = "probabilities" if "probabilities" in names else names[0]
    return finished(model, golden, np.asarray(booster.predict(golden)), output=output, kind=kind)


def exported(name: str) -> bytes:
    """A file that lies here."""
    return (EXPORTED / name).read_bytes()


def scaled(estimator: Any) -> Any:
    """An estimator behind a scaler."""
    return make_pipeline(StandardScaler(), estimator)


_NET: dict[str, Any] = {"hidden_layer_sizes": (16, 8), "random_state": SEED, "max_iter": 200, "tol": 0.05, "n_iter_no_change": 2}

_VOTERS = [("bayes", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=3))]

_KINDS: dict[str, dict[str, Callable[[], bytes]]] = {
    "linear": {
        "logistic regression": lambda: classifier(LogisticRegression(max_iter=500)),
        "stochastic gradient descent": lambda: classifier(SGDClassifier(loss="modified_huber", random_state=SEED)),
        "quantile regression": lambda: regressor(QuantileRegressor(alpha=0.01)),
        "ridge": lambda: regressor(Ridge()),
        "elastic net": lambda: regressor(ElasticNet()),
    },
    "trees of scikit-learn": {
        "decision tree": lambda: classifier(DecisionTreeClassifier(max_depth=6, random_state=SEED)),
        "random forest": lambda: classifier(RandomForestClassifier(30, max_depth=8, random_state=SEED, n_jobs=1)),
        "gradient boosting": lambda: classifier(GradientBoostingClassifier(n_estimators=40, random_state=SEED)),
        "extra trees": lambda: regressor(ExtraTreesRegressor(20, max_depth=8, random_state=SEED, n_jobs=1)),
        "boosted stumps": lambda: classifier(AdaBoostClassifier(n_estimators=15, random_state=SEED)),
    },
    "trees of LightGBM": {
        "binary": lambda: boosted(objective="binary", num_leaves=15),
        "regression": lambda: boosted(objective="regression", num_leaves=15),
        "sampled by gradients": lambda: boosted(objective="binary", data_sample_strategy="goss", num_leaves=15),
        "dart": lambda: boosted(objective="binary", boosting="dart", num_leaves=7),
    },
    "trees of XGBoost": {
        "classifier": lambda: exported("xgboost_classifier.onnx"),
        "regressor": lambda: exported("xgboost_regressor.onnx"),
    },
    "neural nets": {
        "perceptron": lambda: classifier(scaled(MLPClassifier(**_NET))),
        "perceptron for a value": lambda: regressor(scaled(MLPRegressor(**{**_NET, "tol": 50.0}))),
        "tanh": lambda: classifier(scaled(MLPClassifier(**_NET, activation="tanh"))),
    },
    "pipelines with scalers": {
        "scaler and logistic regression": lambda: classifier(scaled(LogisticRegression())),
        "imputer, scaler and trees": lambda: classifier(
            make_pipeline(SimpleImputer(), StandardScaler(), GradientBoostingClassifier(n_estimators=20, random_state=SEED)), missing=True
        ),
        "robust scaler and ridge": lambda: regressor(make_pipeline(RobustScaler(), Ridge())),
        "polynomials": lambda: regressor(make_pipeline(MinMaxScaler(), PolynomialFeatures(2), Ridge())),
        "scaler and counts": regressor_of_counts,
    },
    "others": {
        "naive Bayes": lambda: classifier(scaled(GaussianNB())),
        "support vectors": lambda: regressor(scaled(SVR())),
        "vote": lambda: classifier(VotingClassifier(_VOTERS, voting="soft", flatten_transform=False)),
    },
}


TRAINED = [Animal(name, build, kind) for kind, builds in _KINDS.items() for name, build in builds.items()]
