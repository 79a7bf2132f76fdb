"""The .onnx as a file: metadata in, tensors outside found."""

from __future__ import annotations

import builtins
from typing import Any

import onnx
import pytest

from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from tests.unit.predict import small_models


def test_metadata_is_added_and_replaced_and_the_rest_stays() -> None:
    """An entry of the same name is written over, others stay, and the graph is untouched."""
    before = onnx_file.with_metadata(small_models.linear(), {"a": "1", "b": "2"})
    after = onnx_file.with_metadata(before, {"b": "3"})
    parsed = onnx.ModelProto.FromString(after)
    assert {entry.key: entry.value for entry in parsed.metadata_props} == {"a": "1", "b": "3"}
    assert parsed.graph == onnx.ModelProto.FromString(small_models.linear()).graph


def test_stamping_twice_gives_the_same_bytes() -> None:
    """The same entries over the same model give the same file, so its sha256 is stable."""
    once = onnx_file.with_metadata(small_models.linear(), {"a": "1"})
    assert onnx_file.with_metadata(once, {"a": "1"}) == once


def test_order_of_operator_sets_does_not_change_the_bytes() -> None:
    """A converter that lists operator sets in another order gives the same file once stamped."""
    model = onnx.ModelProto.FromString(small_models.linear())
    sets = [(entry.domain, entry.version) for entry in model.opset_import]
    del model.opset_import[:]
    for domain, version in reversed(sets):
        model.opset_import.add(domain=domain, version=version)
    assert onnx_file.with_metadata(model.SerializeToString(), {}) == onnx_file.with_metadata(small_models.linear(), {})


def test_tensor_outside_the_file_is_found_in_a_subgraph() -> None:
    """External data hidden in the branch of an If is found by name."""
    assert "hidden" in onnx_file.external_tensors(small_models.outside_in_a_subgraph())


def test_tensor_outside_the_file_is_found_in_a_function() -> None:
    """External data hidden in a constant of a local function is found by name."""
    model = onnx.ModelProto.FromString(small_models.linear())
    tensor = small_models.weights("in_function", [1.0])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    model.functions.append(onnx.helper.make_function("local", "f", [], ["c"], [constant], [onnx.helper.make_opsetid("", 17)]))
    assert onnx_file.external_tensors(model.SerializeToString()) == ["in_function"]


def test_whole_model_has_no_tensor_outside() -> None:
    """A model that keeps everything inside is not accused."""
    assert onnx_file.external_tensors(small_models.picking()) == []


def test_bytes_that_are_no_model_are_refused() -> None:
    """Random bytes are a DefinitionError, not a protobuf exception."""
    with pytest.raises(DefinitionError, match="not an ONNX file"):
        onnx_file.external_tensors(b"\xff\xff\xff not a model")


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where onnx is not installed, what needs it names the package."""
    real = builtins.__import__

    def without_onnx(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "onnx":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(DefinitionError, match="pip install onnx"):
        onnx_file.output_names(b"")


def test_structure_counts_what_stands_in_graphs_and_functions() -> None:
    """Operators are counted in branches and functions, ONNX's own domain is one however it is written, and depths are measured."""
    model = onnx.ModelProto.FromString(small_models.outside_in_a_subgraph())
    inner = onnx.helper.make_node("Identity", ["x"], ["y"], domain="ai.onnx")
    first = onnx.helper.make_function("mine", "first", ["x"], ["y"], [inner], [onnx.helper.make_opsetid("", 17)])
    call = onnx.helper.make_node("first", ["x"], ["y"], domain="mine")
    second = onnx.helper.make_function("mine", "second", ["x"], ["y"], [call], [onnx.helper.make_opsetid("mine", 1)])
    model.functions.extend([second, first])
    found = onnx_file.structure(model.SerializeToString(), 100)
    assert found.operators == {("", "If"): 1, ("", "MatMul"): 2, ("", "Identity"): 1, ("mine", "first"): 1}
    assert found.functions == {("mine", "first"), ("mine", "second")}
    assert (found.calls_deep, found.graphs_deep, found.whole) == (2, 1, True)
    assert found.external == ("hidden", "hidden")
    assert found.nodes == 3
    assert found.operator_sets == (("", 17), ("ai.onnx.ml", 3), ("mine", 1), ("", 17))


def test_functions_in_a_circle_are_infinitely_deep() -> None:
    """A chain of calls that comes back to itself has no depth, beside one that has."""
    model = onnx.ModelProto.FromString(small_models.linear())
    for name, callee in (("a", "b"), ("b", "c"), ("c", "b"), ("d", "e"), ("e", "none")):
        node = onnx.helper.make_node(callee, ["x"], ["y"], domain="mine")
        model.functions.append(onnx.helper.make_function("mine", name, ["x"], ["y"], [node], []))
    assert onnx_file.structure(model.SerializeToString(), 100).calls_deep == float("inf")
    del model.functions[:3]
    assert onnx_file.structure(model.SerializeToString(), 100).calls_deep == 2


def test_counting_ends_where_nobody_looks_further() -> None:
    """A file with more nodes than are looked at is an error of its own."""
    with pytest.raises(onnx_file.TooManyNodes, match="more than 3 nodes"):
        onnx_file.structure(small_models.picking() + small_models.linear(), 3)


def test_checker_finds_what_is_invalid() -> None:
    """A valid model has nothing wrong; of an invalid one the first line is told."""
    assert onnx_file.invalid(small_models.linear()) is None
    broken = onnx.ModelProto.FromString(small_models.linear())
    broken.graph.node[0].input[1] = "nowhere"
    assert "nowhere" in (onnx_file.invalid(broken.SerializeToString()) or "")
