"""The gate and models of three libraries: none of them is refused, and the faults of export that engineers make are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from skl2onnx import to_onnx
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headrace.predict.gate_codes import Code
from headrace.predict.signature import OutputKind
from tests.unit.predict.zoo import ROOMY, Animal, codes, draw, finished, look, walk
from tests.unit.predict.zoo_broken import BROKEN
from tests.unit.predict.zoo_good import GOOD
from tests.unit.predict.zoo_trained import TRAINED, boosted, classifier, history, scaled

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("animal", TRAINED, ids=lambda animal: f"{animal.kind}: {animal.name}")
def test_trained_model_is_not_refused(animal: Animal) -> None:
    """What three libraries fit and their converters write passes the whole gate, in a process of its own."""
    verdict = walk(animal._replace(rehearsal=draw(300, seed=12).astype(np.float64)))
    assert verdict.refusals == ()
    assert verdict.report["rehearsal"]["candidate"]["scored"] == 300


def test_the_good_part_of_the_zoo_is_large_enough() -> None:
    """At least 25 good models of at least six kinds, trees of three libraries among them."""
    kinds = {animal.kind for animal in (*TRAINED, *GOOD.animals)}
    assert len(TRAINED) >= 25
    assert len(kinds) >= 6
    assert {"trees of scikit-learn", "trees of LightGBM", "trees of XGBoost"} <= kinds


@pytest.mark.parametrize("animal", [*GOOD.animals, *BROKEN.animals], ids=str)
def test_a_process_of_its_own_comes_to_the_same_verdict(animal: Animal) -> None:
    """What the steps find in this process they find in a process with limits, too."""
    assert codes(walk(animal)) == ([] if animal.code is None else [animal.code])


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("discriminant analysis", lambda: classifier(LinearDiscriminantAnalysis())),
        ("random forest", lambda: boosted(objective="binary", boosting="rf", bagging_freq=1, bagging_fraction=0.6)),
    ],
)
def test_converters_that_are_wrong_are_found_out(name: str, build: Callable[[], bytes]) -> None:
    """skl2onnx takes a softmax of two where the analysis has a logistic function, onnxmltools the sum of LightGBM's forest as its mean."""
    verdict = look(Animal(name, build))
    assert codes(verdict) == [Code.GOLDEN_DIFFERENCE]
    assert "100 of 100 rows" in verdict.refusals[0].said


def test_operator_that_a_converter_needs_can_be_allowed() -> None:
    """Nearest neighbours are exported with a Scan: refused with the way to allow it, and good once it is allowed."""
    content = classifier(scaled(KNeighborsClassifier(7)))
    refused = look(Animal("neighbours", lambda: content))
    assert codes(refused) == [Code.OPERATOR]
    assert "GateLimits.operators" in refused.refusals[0].fix
    assert look(Animal("neighbours", lambda: content, limits=replace(ROOMY, operators=("Scan",)))).passed


def _exported(options: dict[str, object], sample: np.ndarray) -> bytes:
    trained = history()
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(trained.rows, trained.late)
    model = to_onnx(fitted, sample, options=options or None, target_opset=17).SerializeToString()
    golden = draw(100, seed=10)
    names = [output.name for output in onnx.ModelProto.FromString(model).graph.output]
    return finished(model, golden, fitted.predict_proba(golden)[:, 1], output=names[1], kind=OutputKind.PROBABILITY)


@pytest.mark.parametrize(
    ("options", "dtype", "code"),
    [
        pytest.param({}, np.float32, Code.OUTPUT_ZIPMAP, id="zipmap"),
        pytest.param({"zipmap": False}, np.float64, Code.INPUT_DTYPE, id="double"),
    ],
)
def test_converters_traps_are_refused(options: dict[str, object], dtype: type, code: Code) -> None:
    """ZipMap, which is a converter's default, and a float64 sample are refused with their codes."""
    content = _exported(options, history().rows[:1].astype(dtype))
    assert codes(look(Animal("trap", lambda: content, limits=ROOMY))) == [code]
