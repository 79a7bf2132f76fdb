"""One small network as PyTorch and Keras would export it, node for node, and what it computes.

Neither is installed here. Inputs, outputs, free axes, operator sets, IR and the operators that a layer becomes are those that their
documentation and published files of theirs show; names inside the graph are in their manner.

    features -> absent values to the mean -> (x - mean) / deviation -> 8 relu -> one logistic unit

Each `Told` below is a way of calling an exporter: as services/README.md has it, or one of those that go wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headrace.predict.attached_rows import Rows
from headrace.types import Float64s

HIDDEN = 8


class Told(Enum):
    """How an exporter was called."""

    WELL = auto()
    """As documented."""
    WITHOUT_AXES = auto()
    """No dynamic axes: the batch is that of the sample."""
    WITH_A_FILE_BESIDE = auto()
    """Weights in a file of their own, which is what `dynamo=True` does unless told otherwise."""


@dataclass(frozen=True)
class Network:
    """The weights, as they were trained."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    hidden: NDArray[np.float32]
    """[features, HIDDEN]"""
    hidden_bias: NDArray[np.float32]
    last: NDArray[np.float32]
    """[HIDDEN, 1]"""
    last_bias: NDArray[np.float32]

    @classmethod
    def drawn(cls, width: int) -> Network:
        """Some weights, the same each time."""
        draw = np.random.default_rng(11)
        shapes = (width, HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,)
        weights = [draw.normal(size=shape).astype(np.float32) for shape in shapes]
        mean, deviation = draw.normal(size=width) * 10, draw.random(width) * 20 + 1
        return cls(mean.astype(np.float32), deviation.astype(np.float32), *weights)

    def __call__(self, rows: Rows) -> Float64s:
        """What the library itself gives, [rows, 1]."""
        given = np.where(np.isnan(rows), self.mean, rows)
        hidden = np.maximum(((given - self.mean) / self.deviation) @ self.hidden + self.hidden_bias, 0)
        found: Float64s = 1 / (1 + np.exp(-(hidden @ self.last + self.last_bias).astype(np.float64)))
        return found


def by_torch(network: Network, told: Told = Told.WELL) -> bytes:
    """As `torch.onnx.export(..., dynamo=True)` writes it, the exporter of PyTorch 2.6 and later."""
    sample = 2
    rows: str | int = sample if told is Told.WITHOUT_AXES else "batch"
    nodes = [
        helper.make_node("IsNaN", ["features"], ["isnan"], name="node_isnan"),
        helper.make_node("Where", ["isnan", "mean", "features"], ["where"], name="node_where"),
        helper.make_node("Sub", ["where", "mean"], ["sub"], name="node_sub"),
        helper.make_node("Div", ["sub", "deviation"], ["div"], name="node_div"),
        helper.make_node(
            "Gemm", ["div", "layers.0.weight", "layers.0.bias"], ["linear"], name="node_linear", alpha=1.0, beta=1.0, transB=1
        ),
        helper.make_node("Relu", ["linear"], ["relu"], name="node_relu"),
        helper.make_node("Gemm", ["relu", "layers.2.weight", "layers.2.bias"], ["linear_1"], name="node_linear_1", beta=1.0, transB=1),
        helper.make_node("Sigmoid", ["linear_1"], ["probabilities"], name="node_sigmoid"),
    ]
    for node in nodes:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{node.name.removeprefix('node_')}']")
    weights = [
        _weight("mean", network.mean),
        _weight("deviation", network.deviation),
        _weight("layers.0.weight", network.hidden.T),
        _weight("layers.0.bias", network.hidden_bias),
        _weight("layers.2.weight", network.last.T),
        _weight("layers.2.bias", network.last_bias),
    ]
    if told is Told.WITH_A_FILE_BESIDE:
        for weight in weights:
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value="network.onnx.data")
            weight.ClearField("raw_data")
    given, gives = ("features", [rows, len(network.mean)]), ("probabilities", [rows, 1])
    return _file(nodes, weights, given, gives, graph="main_graph", sets=[("", 18)], ir=10, producer=("pytorch", "2.9.0"))


def by_torch_script(network: Network, told: Told = Told.WELL) -> bytes:
    """As `torch.onnx.export(..., dynamo=False)` writes it, the exporter before."""
    named = told is Told.WELL
    given = "features" if named else "onnx::IsNaN_0"
    gives = "probabilities" if named else "19"
    rows: str | int = "batch" if named else 2
    nodes = [
        helper.make_node("IsNaN", [given], ["/IsNaN_output_0"], name="/IsNaN"),
        helper.make_node("Where", ["/IsNaN_output_0", "mean", given], ["/Where_output_0"], name="/Where"),
        helper.make_node("Sub", ["/Where_output_0", "mean"], ["/Sub_output_0"], name="/Sub"),
        helper.make_node("Div", ["/Sub_output_0", "deviation"], ["/Div_output_0"], name="/Div"),
        helper.make_node(
            "Gemm",
            ["/Div_output_0", "layers.0.weight", "layers.0.bias"],
            ["/layers/layers.0/Gemm_output_0"],
            name="/layers/layers.0/Gemm",
            transB=1,
        ),
        helper.make_node("Relu", ["/layers/layers.0/Gemm_output_0"], ["/layers/layers.1/Relu_output_0"], name="/layers/layers.1/Relu"),
        helper.make_node(
            "Gemm",
            ["/layers/layers.1/Relu_output_0", "layers.2.weight", "layers.2.bias"],
            ["/layers/layers.2/Gemm_output_0"],
            name="/layers/layers.2/Gemm",
            transB=1,
        ),
        helper.make_node("Sigmoid", ["/layers/layers.2/Gemm_output_0"], [gives], name="/Sigmoid"),
    ]
    weights = [
        _weight("mean", network.mean),
        _weight("deviation", network.deviation),
        _weight("layers.0.weight", network.hidden.T),
        _weight("layers.0.bias", network.hidden_bias),
        _weight("layers.2.weight", network.last.T),
        _weight("layers.2.bias", network.last_bias),
    ]
    entry, out = (given, [rows, len(network.mean)]), (gives, [rows, 1])
    return _file(nodes, weights, entry, out, graph="main_graph", sets=[("", 17)], ir=8, producer=("pytorch", "2.5.1"))


def by_keras(network: Network, told: Told = Told.WELL) -> bytes:
    """As Keras's `model.export(..., format="onnx")` writes it, through tf2onnx."""
    rows: str | int = 1 if told is Told.WITHOUT_AXES else "unk__14"
    place = "StatefulPartitionedCall/functional_1"
    nodes = [
        helper.make_node("IsNaN", ["features"], [f"{place}/IsNan:0"], name=f"{place}/IsNan"),
        helper.make_node("Where", [f"{place}/IsNan:0", "mean__7:0", "features"], [f"{place}/SelectV2:0"], name=f"{place}/SelectV2"),
        helper.make_node(
            "Sub", [f"{place}/SelectV2:0", "mean__7:0"], [f"{place}/normalization_1/Sub:0"], name=f"{place}/normalization_1/Sub"
        ),
        helper.make_node(
            "Div", [f"{place}/normalization_1/Sub:0", "deviation__8:0"], [f"{place}/normalization_1/truediv:0"], name=f"{place}/truediv"
        ),
        helper.make_node("MatMul", [f"{place}/normalization_1/truediv:0", "kernel__9:0"], [f"{place}/dense_1/MatMul:0"], name="MatMul__15"),
        helper.make_node("Add", [f"{place}/dense_1/MatMul:0", "bias__10:0"], [f"{place}/dense_1/Add:0"], name="Add__16"),
        helper.make_node("Relu", [f"{place}/dense_1/Add:0"], [f"{place}/dense_1/Relu:0"], name=f"{place}/dense_1/Relu"),
        helper.make_node("MatMul", [f"{place}/dense_1/Relu:0", "kernel__11:0"], [f"{place}/dense_2/MatMul:0"], name="MatMul__17"),
        helper.make_node("Add", [f"{place}/dense_2/MatMul:0", "bias__12:0"], [f"{place}/dense_2/Add:0"], name="Add__18"),
        helper.make_node("Sigmoid", [f"{place}/dense_2/Add:0"], ["output_0"], name=f"{place}/dense_2/Sigmoid"),
    ]
    weights = [
        _weight("mean__7:0", network.mean[None]),
        _weight("deviation__8:0", network.deviation[None]),
        _weight("kernel__9:0", network.hidden),
        _weight("bias__10:0", network.hidden_bias),
        _weight("kernel__11:0", network.last),
        _weight("bias__12:0", network.last_bias),
    ]
    given, gives = ("features", [rows, len(network.mean)]), ("output_0", [rows, 1])
    sets = [("", 15), ("ai.onnx.ml", 2)]
    return _file(nodes, weights, given, gives, graph="tf2onnx", sets=sets, ir=8, producer=("tf2onnx", "1.16.1"))


def _weight(name: str, values: NDArray[np.float32]) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def _file(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto],
    given: tuple[str, list[str | int]],
    gives: tuple[str, list[str | int]],
    *,
    graph: str,
    sets: list[tuple[str, int]],
    ir: int,
    producer: tuple[str, str],
) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (given, gives)]
    made = helper.make_graph(nodes, graph, ends[:1], ends[1:], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid(domain, version) for domain, version in sets])
    model.ir_version = ir
    model.producer_name, model.producer_version = producer
    return bytes(model.SerializeToString())
