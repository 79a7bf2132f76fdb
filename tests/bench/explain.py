"""`make bench-explain`: what contributions cost. No server: models of 24 features, 100 background rows, one thread. Asserts nothing.

Microseconds of processor time a row, the median of the repeats, which take turns: what the model's score costs in onnxruntime, what its
contributions cost in batches of 4,096 and of 256 and row by row, and what choosing the largest three and writing them costs. Beside it how
long an explainer takes to be made. Where the package `shap` is installed, what it takes for the same is told, too. Writes
build/explain.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from headrace.predict import onnx_file
from headrace.predict.attached_rows import background_entries
from headrace.predict.explain import Explainer, load_explained
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.signature import OutputKind, Signature
from headrace.publish.encoder import Encoder
from headrace.types import RecordBatch
from tests.bench.__main__ import BUILD, say

FEATURES, BACKGROUND, TRAINED = 24, 100, 20_000
BATCH, SMALL = 4_096, 256
SHAP_ROWS = 50
SEED = 11

Values = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A model under measurement."""

    content: bytes
    shap: Callable[[Values, Values], object]
    """Explains rows over a background by `shap`."""


def rows_of(count: int) -> tuple[Values, np.ndarray[Any, np.dtype[np.int64]]]:
    """Made-up rows, and a class that some of their features decide."""
    draw = np.random.default_rng(SEED)
    values = draw.normal(size=(count, FEATURES)).astype(np.float32)
    risk = values[:, 0] + values[:, 1] * values[:, 2] + np.sin(2 * values[:, 3]) + values[:, 4:10].sum(axis=1) / 3
    return values, (risk + draw.normal(size=count) > 0).astype(np.int64)


def stamped(content: bytes, background: Values) -> bytes:
    """With a signature and a background."""
    signature = Signature(
        name="risk",
        version="1",
        features=tuple(f"feature_{number}" for number in range(FEATURES)),
        views=(),
        event_features="",
        output="probabilities",
        kind=OutputKind.PROBABILITY,
    )
    return onnx_file.with_metadata(content, {**signature.to_metadata(), **background_entries(background)})


def subjects() -> dict[str, Subject]:
    """What is measured, by name."""
    values, classes = rows_of(TRAINED)
    background = values[:BACKGROUND]
    found = {}
    for trees, leaves in ((100, 8), (100, 31), (300, 31)):
        parameters = {"objective": "binary", "num_leaves": leaves, "num_threads": 1, "deterministic": True, "verbose": -1}
        booster = lightgbm.train(parameters, lightgbm.Dataset(values, classes), trees)
        initial = [("features", FloatTensorType([None, FEATURES]))]
        converted = convert_lightgbm(booster, name="risk", initial_types=initial, zipmap=False, target_opset=15)
        content = stamped(bytes(converted.SerializeToString()), background)
        found[f"LightGBM, {trees} trees of {leaves} leaves"] = Subject(content=content, shap=by_shap(booster))
    for name, model in (
        ("gradient boosting, 100 trees of depth 3", GradientBoostingClassifier(random_state=0)),
        ("random forest, 100 trees of depth 8", RandomForestClassifier(100, max_depth=8, random_state=0, n_jobs=1)),
        ("logistic regression", LogisticRegression()),
    ):
        model.fit(values[:4_000], classes[:4_000])
        converted = to_onnx(model, values[:1], options={"zipmap": False})
        found[name] = Subject(content=stamped(bytes(converted.SerializeToString()), background), shap=by_shap(model))
    return found


def by_shap(model: object) -> Callable[[Values, Values], object]:
    """What `shap` does for the library's own model."""

    def explained(background: Values, rows: Values) -> object:
        shap = import_module("shap")
        if isinstance(model, LogisticRegression):
            return shap.LinearExplainer(model, background).shap_values(rows)
        explainer = shap.TreeExplainer(model, data=background, feature_perturbation="interventional")
        return explainer.shap_values(rows, check_additivity=False)

    return explained


def each_us(call: Callable[[], object], rows: int) -> float:
    """Microseconds of processor time a row."""
    began_ns = time.process_time_ns()
    call()
    return (time.process_time_ns() - began_ns) / 1_000 / rows


def encoded(model: OnnxModel, contributions: np.ndarray[Any, np.dtype[np.float64]] | None) -> Callable[[], object]:
    """Writes a batch of predictions without features, with or without their three largest contributions."""
    encoder = Encoder(
        app="bench",
        source_topic="bench.v1",
        pipeline="risk",
        predictions="risk.v1",
        feature_names=model.signature.features,
        publish_features=False,
        model_name="risk",
        model_version="1",
        contributions=0 if contributions is None else 3,
        fingerprint="abc",
    )
    numbers = np.arange(BATCH)
    records = RecordBatch(
        topic="bench.v1",
        partitions=np.zeros(BATCH, dtype=np.int32),
        offsets=numbers,
        timestamps_ms=numbers + 1_700_000_000_000,
        keys=[b"key"] * BATCH,
        values=[b"{}"] * BATCH,
        headers=[None] * BATCH,
    )
    entities, late, scores = ["key"] * BATCH, np.zeros(BATCH, dtype=np.bool_), np.full(BATCH, 0.25)
    return lambda: encoder.encode(
        records, numbers, entities, records.timestamps_ms, late, scores, None, 1_700_000_000_000, contributions=contributions
    )


def measured(subject: Subject, turns: int) -> dict[str, float]:
    """Everything about one model."""
    began_s = time.perf_counter()
    model = load_explained(subject.content, [f"feature_{number}" for number in range(FEATURES)])
    made_s = time.perf_counter() - began_s
    explainer = model.explainer
    if not isinstance(explainer, Explainer):
        raise TypeError("the model is not explained")
    rows = rows_of(TRAINED)[0][-BATCH:]
    values = rows.astype(np.float64)
    contributions = explainer.contributions(values)
    plain, chosen = encoded(model, None), encoded(model, contributions)
    took: dict[str, list[float]] = {}
    for _ in range(turns):
        for what, microseconds in (
            ("score", each_us(lambda: model.score(values), BATCH)),
            ("contributions, 4,096 rows", each_us(lambda: explainer.contributions(values), BATCH)),
            ("contributions, 256 rows", each_us(lambda: explainer.contributions(values[:SMALL]), SMALL)),
            ("contributions, one row", each_us(lambda: [explainer.contributions(values[[row]]) for row in range(SMALL)], SMALL)),
            ("written without", each_us(plain, BATCH)),
            ("written with three", each_us(chosen, BATCH)),
        ):
            took.setdefault(what, []).append(microseconds)
    found = {what: statistics.median(some) for what, some in took.items()}
    found["made in ms"] = 1_000 * made_s
    if find_spec("shap") is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found["shap"] = each_us(lambda: subject.shap(rows[:BACKGROUND], rows[:SHAP_ROWS]), SHAP_ROWS)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench-explain ARGS=...", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="of each (%(default)s)")
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converters warn of their own dependencies
        wanted = subjects()
    written = {}
    for name, subject in wanted.items():
        found = written[name] = measured(subject, options.turns)
        say(name)
        for what, value in found.items():
            print(f"  {what:30} {value:10.2f} {'' if what == 'made in ms' else 'us a row'}")
    BUILD.mkdir(exist_ok=True)
    (BUILD / "explain.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
