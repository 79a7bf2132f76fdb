"""The .onnx as a file: its metadata, its operators, and what it must not hold.

The `onnx` package is needed to write (`with_metadata`) and to look inside (`external_tensors`, `graph_of`, `structure`, `invalid`), not to
score: `installed()` says whether it is there. Limits: what of all this is refused, and in which order, is decided by the gate, in a process
with limits of its own, since bytes from anywhere are parsed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.predict.nesting import Name, unrolled

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


def metadata(model: bytes) -> dict[str, str]:
    """The `metadata_props` of a file. Raises `DefinitionError`."""
    return {entry.key: entry.value for entry in _parse(model).metadata_props}


def with_metadata(model: bytes, entries: Mapping[str, str], *, without: Collection[str] = ()) -> bytes:
    """The same model with `entries` in its `metadata_props`, over entries of the same name, `without` others. Raises `DefinitionError`.

    The same model gives the same bytes: entries are listed by name, and operator sets by domain, as converters list those in any order.
    """
    parsed = _parse(model)
    kept = {entry.key: entry.value for entry in parsed.metadata_props if entry.key not in without}
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
    return _external(_parse(model))


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What a file is made of; subgraphs and functions are counted in."""

    whole: bool
    """Whether there is a graph with nodes, as there is in every model."""
    external: tuple[str, ...]
    """Tensors whose values live outside the file."""
    operators: Mapping[Name, int]
    """(domain, operator) and how many nodes have it, calls of functions included; the domain of ONNX itself is ""."""
    operator_sets: tuple[tuple[str, int], ...]
    """(domain, version), as listed; a domain may stand there twice."""
    functions: frozenset[Name]
    """(domain, name) of the functions that the file defines."""
    calls_deep: float
    """How deep functions call one another: 0 without any, infinity where one calls itself."""
    graphs_deep: int
    """How deep graphs stand in attributes of nodes of graphs: 0 without any."""
    nodes: float
    """How many there are once functions stand in the place of their calls."""
    ir_version: int
    producer: str


class TooManyNodes(DefinitionError):
    """A file has more nodes than anybody will look at."""


def structure(model: bytes, most_nodes: int) -> Structure:
    """What the file is made of. Raises `DefinitionError` for bytes that are no ONNX file, `TooManyNodes` for one with more than those."""
    parsed = _parse(model)
    main = Counter[Name]()
    functions: dict[Name, Counter[Name]] = {}
    deepest = seen = 0
    for inside, of in _parts(parsed, main, functions):
        for depth, node in inside:
            of[_domain(node.domain), node.op_type] += 1
            deepest, seen = max(deepest, depth), seen + 1
            if seen > most_nodes:
                raise TooManyNodes(f"the file has more than {most_nodes:,} nodes")
    sets = [*parsed.opset_import, *(entry for function in parsed.functions for entry in function.opset_import)]
    calls_deep, nodes = unrolled(main, functions)
    return Structure(
        whole=bool(parsed.ir_version and parsed.graph.node),
        external=tuple(_external(parsed)),
        operators=sum(functions.values(), main),
        operator_sets=tuple((_domain(entry.domain), entry.version) for entry in sets),
        functions=frozenset(functions),
        calls_deep=calls_deep,
        graphs_deep=deepest,
        nodes=nodes,
        ir_version=parsed.ir_version,
        producer=f"{parsed.producer_name} {parsed.producer_version}".strip(),
    )


def invalid(model: bytes) -> str | None:
    """What `onnx.checker` finds wrong, in a line; None where it finds nothing."""
    checker = import_module("onnx.checker")
    try:
        checker.check_model(model)
    except (checker.ValidationError, ValueError, TypeError, RuntimeError) as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


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


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _nodes_below(nodes: Iterable[onnx.NodeProto], depth: int = 0) -> Iterator[tuple[int, onnx.NodeProto]]:
    """Every node and how many graphs it stands in below the first; the parser's own limit of nesting keeps this from going deep."""
    for node in nodes:
        yield depth, node
        yield from _nodes_of(node.attribute, depth + 1)


def _nodes_of(attributes: Iterable[onnx.AttributeProto], depth: int) -> Iterator[tuple[int, onnx.NodeProto]]:
    for attribute in attributes:
        for graph in (attribute.g, *attribute.graphs):
            yield from _nodes_below(graph.node, depth)


def _parts(
    parsed: onnx.ModelProto, main: Counter[Name], functions: dict[Name, Counter[Name]]
) -> Iterator[tuple[Iterable[tuple[int, onnx.NodeProto]], Counter[Name]]]:
    """The nodes of graphs and of each function, and where they are counted; a function that stands there twice is counted as one."""
    for graph in _graphs(parsed):
        yield _nodes_below(graph.node), main
    for function in parsed.functions:
        counted = functions.setdefault((_domain(function.domain), function.name), Counter())
        yield chain(_nodes_below(function.node), _nodes_of(function.attribute_proto, 1)), counted


def _graphs(parsed: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [parsed.graph, *(graph for training in parsed.training_info for graph in (training.initialization, training.algorithm))]


def _external(parsed: onnx.ModelProto) -> list[str]:
    tensors = [tensor for graph in _graphs(parsed) for tensor in _tensors_of_graph(graph)]
    for function in parsed.functions:
        tensors += [*_tensors_of_nodes(function.node), *_tensors_of_attributes(function.attribute_proto)]
    return [tensor.name for tensor in tensors if tensor.data_location == tensor.EXTERNAL or tensor.external_data]


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        yield from _tensors_of_attributes(node.attribute)


def _tensors_of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors_of_graph(graph)
