"""The .onnx as a file: its metadata, its operators, and what it must not hold.

The `onnx` package is needed to write (`with_metadata`) and to look inside (`external_tensors`, `graph_of`), not to score:
`installed()` says whether it is there. Limits: the full gate (operators, domains, sizes, a child process with limits) comes before
registration, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError

if TYPE_CHECKING:
    import onnx

NEEDS_ONNX = "this needs the package onnx: pip install 'headrace[dev]' or pip install onnx"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operator:
    """One node of a graph; its attributes as plain numbers, texts and arrays."""

    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """What a file computes: operators in their order, and the tensors that stand in it, constants included."""

    operators: tuple[Operator, ...]
    tensors: Mapping[str, NDArray[Any]]
    inputs: tuple[str, ...]


def installed() -> bool:
    """Whether the `onnx` package can be imported here."""
    return find_spec("onnx") is not None


def with_metadata(model: bytes, entries: Mapping[str, str]) -> bytes:
    """The same model with `entries` in its `metadata_props`, over entries of the same name. Raises `DefinitionError`.

    The same model gives the same bytes: entries are listed by name, and operator sets by domain, as converters list those in any order.
    """
    parsed = _parse(model)
    kept = {entry.key: entry.value for entry in parsed.metadata_props if entry.key not in entries}
    del parsed.metadata_props[:]
    for key, value in sorted({**kept, **entries}.items()):
        parsed.metadata_props.add(key=key, value=value)
    sets = sorted((entry.domain, entry.version) for entry in parsed.opset_import)
    del parsed.opset_import[:]
    for domain, version in sets:
        parsed.opset_import.add(domain=domain, version=version)
    return bytes(parsed.SerializeToString(deterministic=True))


def output_names(model: bytes) -> list[str]:
    """The outputs of the graph, in the file's order. Raises `DefinitionError`."""
    return [output.name for output in _parse(model).graph.output]


def external_tensors(model: bytes) -> list[str]:
    """Names of the tensors whose values live outside the file, subgraphs, attributes and functions included. Raises `DefinitionError`."""
    parsed = _parse(model)
    tensors = list(_tensors_of_graph(parsed.graph))
    for function in parsed.functions:
        tensors += _tensors_of_nodes(function.node)
    return [tensor.name for tensor in tensors if tensor.data_location == tensor.EXTERNAL or tensor.external_data]


def graph_of(model: bytes) -> Graph:
    """The graph of a model whose tensors all stand in the file. Raises `DefinitionError`."""
    parsed = _parse(model)
    outside = external_tensors(model)
    if outside:
        raise DefinitionError(f"tensor {outside[0]!r} is kept outside the file: save the model again with save_as_external_data=False")
    as_array = import_module("onnx.numpy_helper").to_array
    tensors: dict[str, NDArray[Any]] = {tensor.name: as_array(tensor) for tensor in parsed.graph.initializer}
    operators = []
    for node in parsed.graph.node:
        settings = {attribute.name: _plain(attribute, as_array) for attribute in node.attribute}
        if node.op_type == "Constant" and isinstance(settings.get("value"), np.ndarray):
            tensors[node.output[0]] = settings["value"]
            continue
        operators.append(
            Operator(kind=node.op_type, domain=node.domain, inputs=tuple(node.input), outputs=tuple(node.output), settings=settings)
        )
    fed = tuple(one.name for one in parsed.graph.input if one.name not in tensors)
    return Graph(operators=tuple(operators), tensors=tensors, inputs=fed)


def _plain(attribute: onnx.AttributeProto, as_array: Callable[[onnx.TensorProto], NDArray[Any]]) -> Any:  # noqa: ANN401 - of any kind
    """The value of an attribute; None for graphs and what else is no value."""
    kinds = attribute.AttributeType
    read: dict[int, Callable[[], Any]] = {
        kinds.FLOAT: lambda: attribute.f,
        kinds.INT: lambda: attribute.i,
        kinds.STRING: lambda: attribute.s.decode(errors="replace"),
        kinds.FLOATS: lambda: np.array(attribute.floats, dtype=np.float32),
        kinds.INTS: lambda: np.array(attribute.ints, dtype=np.int64),
        kinds.STRINGS: lambda: [text.decode(errors="replace") for text in attribute.strings],
        kinds.TENSOR: lambda: as_array(attribute.t),
    }
    return read.get(attribute.type, lambda: None)()


def _parse(model: bytes) -> onnx.ModelProto:
    try:
        import onnx  # noqa: PLC0415 - scoring does without it, and so must an installation that only scores
    except ImportError as error:
        raise DefinitionError(NEEDS_ONNX) from error
    not_a_message = import_module("google.protobuf.message").DecodeError
    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(model)
    except not_a_message as error:
        raise DefinitionError("the model's bytes are not an ONNX file: export it again") from error
    return parsed


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                yield from _tensors_of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors_of_graph(graph)
