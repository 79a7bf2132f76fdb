"""What exporting has in common: packages that are missing, rows that are given, graphs that are finished."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict import onnx_file
from headrace.predict.attached_rows import golden_in
from headrace.predict.export import export_lightgbm, export_sklearn, export_xgboost
from headrace.predict.export.finish import exported_names, finished
from headrace.predict.onnx_model import OnnxModel
from tests.unit.predict import small_models
from tests.unit.predict.fitted import NAMES, boosted, history, unseen

EXPORTED = Path(__file__).parent / "exported"


@pytest.mark.parametrize(
    ("export", "package"),
    [(export_sklearn, "skl2onnx"), (export_lightgbm, "onnxmltools"), (export_xgboost, "xgboost"), (export_xgboost, "onnxmltools")],
)
def test_without_a_package_the_error_says_what_to_install(export: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a converter or the library is not installed, the error names it and the extra."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name=package)
        if name == "xgboost":
            return None
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DefinitionError, match=rf"needs the package {package}: pip install 'headrace\[export\]'"):
        export(None, NAMES)


def test_rows_that_are_given_are_compared() -> None:
    """Rows of the real kind take the place of drawn ones; they must be of the features."""
    booster = boosted(zero_as_missing=True)
    rows = unseen()
    rows[rows == 0] = 1
    assert export_lightgbm(booster, NAMES, rows=rows)  # no zero among them, so the converter's mistake does not show
    rows[::2, 1] = 0
    with pytest.raises(DefinitionError, match=r"\d+ of 1000 rows differ"):
        export_lightgbm(booster, NAMES, rows=rows)
    with pytest.raises(DefinitionError, match=r"rows has shape \[1000, 3\]; the pipeline has 4 features"):
        export_lightgbm(booster, NAMES, rows=rows[:, :3])


def test_a_few_rows_on_an_edge_do_not_refuse_a_model() -> None:
    """One row in a hundred may differ, as within rounding of an edge; one more is too many."""
    booster = boosted(zero_as_missing=True)
    rows = unseen()
    rows[:10, 1] = 0
    assert export_lightgbm(booster, NAMES, rows=rows)
    rows[:30, 1] = 0
    with pytest.raises(DefinitionError, match="differ by more than"):
        export_lightgbm(booster, NAMES, rows=rows)


def test_a_finished_graph_holds_what_leads_to_its_output() -> None:
    """Other outputs go, with the nodes and constants that lead to them alone; the features' names stay in the file."""
    both = small_models.graph_bytes(
        [
            helper.make_node("MatMul", ["X", "w"], ["score"]),
            helper.make_node("Add", ["X", "unused"], ["other"]),
            helper.make_node("Identity", ["other"], ["label"]),
        ],
        [small_models.output("label", [None, 2]), small_models.output("score", [None, 1])],
        tensors=[small_models.weights("w", [[2], [3]]), small_models.weights("unused", [1])],
    )
    given = onnx.ModelProto.FromString(both)
    given.opset_import.add(domain="", version=13)
    done = finished(given, small_models.FEATURES, "score")
    graph = onnx.ModelProto.FromString(done).graph
    assert ([node.op_type for node in graph.node], [one.name for one in graph.initializer]) == (["MatMul"], ["w"])
    assert [one.name for one in graph.output] == ["score"]
    assert exported_names(onnx_file.metadata(done)) == small_models.FEATURES
    assert [(one.domain, one.version) for one in onnx.ModelProto.FromString(done).opset_import] == [("", 17), ("ai.onnx.ml", 3)]


def test_names_that_cannot_be_read_are_refused() -> None:
    """What stands in the place of the exported features and is no list is damage."""
    assert exported_names({}) is None
    with pytest.raises(SignatureMismatch, match="export it again"):
        exported_names({"headrace.exported": "]"})
    assert exported_names({"headrace.exported": json.dumps(["a"])}) == ("a",)


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_what_was_exported_from_xgboost_scores_as_it_did(name: str) -> None:
    """XGBoost is not among the packages of the tests: two files that `export_xgboost` wrote of version 3.2 carry what it gave itself.

    A classifier that stopped early and knew its features by name, and a regression with a logarithm, on 1,000 rows with absent values.
    """
    content = (EXPORTED / f"export_xgboost_{name}.onnx").read_bytes()
    assert exported_names(onnx_file.metadata(content)) == NAMES
    found = golden_in(onnx_file.metadata(content))
    assert found is not None
    rows, trained = found
    assert (rows.shape, bool(np.isnan(rows).any())) == ((1_000, len(NAMES)), True)
    scores = OnnxModel.load(content, NAMES).score(rows.astype(np.float64)).scores
    assert np.abs(scores - trained).max() < 1e-6 * max(1.0, np.abs(trained).max())
    assert len(np.unique(trained)) > 50


def test_the_history_tells_late_from_in_time() -> None:
    """The rows that exports are tried on have both classes, absent values only where wished, and sizes that float32 rounds."""
    assert 0.2 < history().late.mean() < 0.8
    assert not np.isnan(history().rows).any()
    assert np.isnan(unseen(absent=True)).any()
    assert (history().rows.astype(np.float32).astype(np.float64) != history().rows).any()
