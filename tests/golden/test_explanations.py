"""Contributions beside those of the `shap` package, kept in `explanations/` with the script that asked it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.predict.additive import Link
from headrace.predict.attached_rows import background_in
from headrace.predict.explain import Explainer, load_explained
from headrace.predict.onnx_model import OnnxModel

HERE = Path(__file__).parent / "explanations"
WITHIN = 1e-5
KEPT: dict[str, Any] = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
EXPECTED, FEATURES = KEPT["models"], tuple(KEPT["features"])


def explained(name: str) -> tuple[OnnxModel, Explainer]:
    """A model that is kept, and what explains it."""
    model = load_explained((HERE / f"{name}.onnx").read_bytes(), FEATURES)
    assert isinstance(model.explainer, Explainer)
    return model, model.explainer


def rows_of(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The rows that were explained."""
    return np.array(EXPECTED[name]["rows"], dtype=np.float64)


def test_seven_kinds_of_three_libraries_are_kept() -> None:
    """Binary models and regressions of scikit-learn, LightGBM and XGBoost, with missing values in some, and each file has its row."""
    assert {path.stem for path in HERE.glob("*.onnx")} == set(EXPECTED)
    assert {name.partition("-")[0] for name in EXPECTED} == {"sklearn", "lightgbm", "xgboost"}
    assert len({name.partition("-regression")[0] for name in EXPECTED}) >= 7
    with_gaps = {name for name in EXPECTED if np.isnan(rows_of(name)).any()}
    assert {"lightgbm", "lightgbm-regression", "xgboost", "xgboost-regression", "sklearn-logistic-imputed-scaled"} <= with_gaps


@pytest.mark.parametrize("name", EXPECTED)
def test_contributions_are_those_of_shap(name: str) -> None:
    """Every contribution and the mean are within 1e-5 of what shap gives for the library's own model over the same background."""
    _, explainer = explained(name)
    assert explainer.mean == pytest.approx(EXPECTED[name]["mean"], abs=WITHIN)
    found = explainer.contributions(rows_of(name))
    np.testing.assert_allclose(found, np.array(EXPECTED[name]["contributions"]), rtol=0, atol=WITHIN)


@pytest.mark.parametrize("name", EXPECTED)
def test_contributions_add_up_to_the_margin(name: str) -> None:
    """Base and contributions are within 1e-5 of the margin that the library itself gives, and lead to the score that onnxruntime gives."""
    model, explainer = explained(name)
    rows = rows_of(name)
    margins = explainer.mean + explainer.contributions(rows).sum(axis=1)
    np.testing.assert_allclose(margins, np.array(EXPECTED[name]["margins"]), rtol=0, atol=WITHIN)
    scores = model.score(rows).scores
    np.testing.assert_allclose(explainer.score(margins), scores, rtol=0, atol=WITHIN)
    np.testing.assert_allclose(explainer.margin(explainer.score(margins)), margins, rtol=0, atol=1e-9)


def test_units_are_said() -> None:
    """Contributions to a boosted probability are log-odds, to that of a forest probabilities, to a Poisson mean its logarithm."""
    units = {name: explained(name)[1].link for name in ("lightgbm", "sklearn-random-forest", "lightgbm-poisson", "sklearn-logistic")}
    assert list(units.values()) == [Link.LOGIT, Link.IDENTITY, Link.LOG, Link.LOGIT]


@pytest.mark.parametrize("name", ["lightgbm", "xgboost-regression", "sklearn-logistic-imputed-scaled"])
def test_a_row_has_the_same_bits_in_any_batch(name: str) -> None:
    """Contributions do not depend on the other rows of a batch, in no bit."""
    _, explainer = explained(name)
    rows = rows_of(name)
    whole = explainer.contributions(rows)
    alone = np.concatenate([explainer.contributions(rows[[place]]) for place in range(len(rows))])
    assert whole.tobytes() == alone.tobytes()


def test_missing_directions_decide() -> None:
    """LightGBM's file says for some nodes that NaN goes to the true side and for others not; a row of NaN has the library's margin."""
    _, explainer = explained("lightgbm")
    background = background_in(OnnxModel.load(HERE / "lightgbm.onnx", FEATURES).metadata)
    assert background is not None
    assert np.isnan(background).any()
    nothing = np.full((1, len(FEATURES)), np.nan)
    model, _ = explained("lightgbm")
    margins = explainer.mean + explainer.contributions(nothing).sum(axis=1)
    assert explainer.score(margins) == pytest.approx(model.score(nothing).scores, abs=WITHIN)
