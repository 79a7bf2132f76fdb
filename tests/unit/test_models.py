"""`stamp()`: the signature of a pipeline into a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper

import headrace as hr
from headrace.errors import DefinitionError, SignatureMismatch
from headrace.models import signature_of, stamp
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.signature import OutputKind, check
from tests.unit.predict import small_models


class Payment(hr.Event):
    """A payment."""

    card: str
    paid_at: hr.EventTime
    amount: float


SOURCE = hr.Source("payments.v1", Payment, key="card", time="paid_at")


def pipeline(window: str = "1h", *, amount: hr.Expression | str = "amount") -> hr.Pipeline:
    """One view feature and one event feature."""
    view = hr.FeatureView("card", entity="card", source=SOURCE, features=[hr.mean("amount", over=[window])])
    return hr.Pipeline("fraud", views=[view], event_features=[amount], predictions="fraud.v1")


def test_stamped_model_carries_the_pipeline_and_fits_it() -> None:
    """What stamp() writes, load() and check() accept, name by name."""
    stamped = stamp(small_models.linear(), pipeline(), version="7", kind="value")
    model = OnnxModel.load(stamped, pipeline().feature_names)
    check(model.signature, pipeline())
    assert model.signature == signature_of(pipeline(), version="7", output="score", kind="value")
    assert (model.name, model.version, model.signature.kind) == ("fraud", "7", OutputKind.VALUE)
    assert model.signature.features == ("card.mean_amount_1h", "amount")


def test_stamping_is_repeatable(tmp_path: Path) -> None:
    """From bytes or from a path, stamping twice gives the same bytes."""
    path = tmp_path / "m.onnx"
    path.write_bytes(small_models.linear())
    assert stamp(path, pipeline(), version="1") == stamp(small_models.linear(), pipeline(), version="1")
    assert stamp(stamp(path, pipeline(), version="1"), pipeline(), version="1") == stamp(path, pipeline(), version="1")


def test_another_window_under_the_same_model_is_refused() -> None:
    """A view whose window changed gives other names, and the first of them is named."""
    model = OnnxModel.load(stamp(small_models.linear(), pipeline(), version="1"), pipeline().feature_names)
    with pytest.raises(SignatureMismatch, match=r"feature 0 is 'card\.mean_amount_1h' in the model and 'card\.mean_amount_2h' there"):
        check(model.signature, pipeline("2h"))


def test_another_meaning_under_the_same_name_is_refused() -> None:
    """An event feature that hides another expression behind the old name is found by its fingerprint."""
    model = OnnxModel.load(stamp(small_models.linear(), pipeline(), version="1"), pipeline().feature_names)
    with pytest.raises(SignatureMismatch, match="an event feature has the same name but computes something else"):
        check(model.signature, pipeline(amount=(hr.col("amount") / 100).alias("amount")))


def test_output_must_be_named_where_there_are_several() -> None:
    """Several outputs and no name is an error that lists them; `probabilities` is taken by itself."""
    two = small_models.graph_bytes(
        [helper.make_node("Identity", ["X"], ["a"]), helper.make_node("Identity", ["X"], ["b"])],
        [small_models.output("a", [None, 2]), small_models.output("b", [None, 2])],
    )
    with pytest.raises(DefinitionError, match=r"output is None, the file has a, b: name one with output="):
        stamp(two, pipeline(), version="1")
    with pytest.raises(DefinitionError, match=r"output is 'c', the file has a, b"):
        stamp(two, pipeline(), version="1", output="c")
    assert OnnxModel.load(stamp(two, pipeline(), version="1", output="b"), pipeline().feature_names).signature.output == "b"


def test_missing_file_is_a_definition_error() -> None:
    """A path that is not there is named."""
    with pytest.raises(DefinitionError, match=r"nowhere\.onnx"):
        stamp("nowhere.onnx", pipeline(), version="1")


def test_models_are_reached_without_their_libraries() -> None:
    """`headrace.models` loads no runtime, converter or library of models before one is needed."""
    libraries = ("onnx", "onnxruntime", "onnxmltools", "skl2onnx", "sklearn", "lightgbm", "xgboost", "pandas", "pyarrow", "redis", "numba")
    code = f"import sys, headrace as hr; hr.models.stamp; print([name for name in {libraries} if name in sys.modules])"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}).stdout == "[]\n"
