"""The .onnx as a file: its metadata, and what it must not hold.

The `onnx` package is needed to write (`with_metadata`) and to look inside (`external_tensors`), not to score: `installed()` says
whether it is there. Limits: the full gate (operators, domains, sizes, a child process with limits) comes before registration, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from headrace.errors import DefinitionError

if TYPE_CHECKING:
    import onnx

NEEDS_ONNX = "this needs the package onnx: pip install 'headrace[dev]' or pip install onnx"


def installed() -> bool:
    """Whether the `onnx` package can be imported here."""
    return find_spec("onnx") is not None


def metadata(model: bytes) -> dict[str, str]:
    """The `metadata_props` of a file. Raises `DefinitionError`."""
    return {entry.key: entry.value for entry in _parse(model).metadata_props}


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
