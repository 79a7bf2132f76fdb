"""Small ONNX models made by hand, stamped and unstamped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from headrace.predict import onnx_file
from headrace.predict.signature import OutputKind, Signature

FEATURES = ("flights.count_1h", "dep_delay")


def graph_bytes(
    nodes: Sequence[NodeProto],
    outputs: Sequence[ValueInfoProto],
    *,
    inputs: Sequence[ValueInfoProto] | None = None,
    tensors: Sequence[TensorProto] = (),
) -> bytes:
    """A model of these nodes over one input `X`, float32 [None, 2] unless given."""
    given = inputs if inputs is not None else [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])]
    graph = helper.make_graph(list(nodes), "small", list(given), list(outputs), list(tensors))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)])
    model.ir_version = 9
    return bytes(model.SerializeToString())


def output(name: str, shape: Sequence[int | None], kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    """An output tensor of that shape."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def weights(name: str, values: object) -> TensorProto:
    """A float32 tensor inside the file."""
    return numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)


def linear() -> bytes:
    """Give score = 2 * first + 3 * second, as [n, 1]."""
    return graph_bytes(
        [helper.make_node("MatMul", ["X", "w"], ["score"], name="weigh")], [output("score", [None, 1])], tensors=[weights("w", [[2], [3]])]
    )


def picking() -> bytes:
    """Give score = table[int(first)] of a table of three; raises for any other first feature. [n, 2], the score in column 1."""
    nodes = [
        helper.make_node("Gather", ["X", "zero"], ["first"], axis=1),
        helper.make_node("Cast", ["first"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["score"], axis=0, name="pick"),
    ]
    tensors = [numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"), weights("table", [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])]
    return graph_bytes(nodes, [output("score", [None, 2])], tensors=tensors)


def stamped(model: bytes, **changes: object) -> bytes:
    """The model with a signature over `FEATURES`, output `score`."""
    return onnx_file.with_metadata(model, signature(**changes).to_metadata())


def signature(**changes: object) -> Signature:
    """A signature over `FEATURES`, with changes."""
    fields: dict[str, object] = {"name": "small", "version": "1", "features": FEATURES, "views": (), "event_features": ""}
    fields |= {"output": "score", "kind": OutputKind.VALUE, "class_index": 1}
    return Signature(**{**fields, **changes})  # type: ignore[arg-type]


def zipmap() -> bytes:
    """A classifier whose probabilities come as a list of dicts."""
    sequence = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    node = helper.make_node("ZipMap", ["X"], ["score"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    return graph_bytes([node], [helper.make_value_info("score", sequence)])


def outside_in_a_subgraph() -> bytes:
    """A model with a tensor outside the file, hidden in the branch of an If inside an attribute."""
    tensor = weights("hidden", [[2], [3]])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.ClearField("raw_data")
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["X", "hidden"], ["inner"])], "branch", [], [output("inner", [None, 1])], [tensor]
    )
    condition = numpy_helper.from_array(np.array([1], dtype=bool).reshape(()), "yes")
    node = helper.make_node("If", ["yes"], ["score"], then_branch=branch, else_branch=branch)
    assert node.attribute[0].type == AttributeProto.GRAPH
    return graph_bytes([node], [output("score", [None, 1])], tensors=[condition])
