"""The 16 hostile files: made to read what is not theirs, to bring code, to take all memory or all time, or to be no model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from headrace.predict.gate_codes import Code
from headrace.predict.gate_limits import GateLimits
from tests.unit.predict import zoo_good
from tests.unit.predict.zoo import ROOMY, WIDTH, finished, graph, node, value
from tests.unit.predict.zoo_broken import chained, operator_of_a_company, zero_over_zero
from tests.unit.predict.zoo_good import ROWS, W

TIGHT = replace(ROOMY, cpu_s=1, address_bytes=2 << 30)
"""For what would take all: it ends soon, by the limits of the process."""


class Hostile(NamedTuple):
    """A hostile file: how it is made, given a folder for what lies beside it, and the code that stops it."""

    name: str
    build: Callable[[Path], bytes]
    code: Code
    limits: GateLimits = ROOMY

    def __str__(self) -> str:
        return self.name


def outside(location: str) -> bytes:
    """A good model whose weights are said to live there."""
    model = onnx.ModelProto.FromString(zoo_good.batch_axis_with_a_name())
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    onnx.external_data_helper.set_external_data(tensor, location, length=4 * WIDTH)
    tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


def secret(folder: Path) -> Path:
    """A file of the right size that no model should see."""
    place = folder / "weights.bin"
    place.write_bytes(W.astype(np.float32).tobytes())
    return place


def relative(folder: Path) -> bytes:
    """By a relative name, which the runtime would read from the working directory."""
    return outside(secret(folder).name)


def absolute(folder: Path) -> bytes:
    """By an absolute path."""
    return outside(str(secret(folder)))


def of_the_process(folder: Path) -> bytes:
    """What the process itself holds."""
    assert folder.is_dir()
    return outside("/proc/self/environ")


def by_symlink(folder: Path) -> bytes:
    """By a link to a file elsewhere."""
    (folder / "beside.bin").symlink_to(secret(folder))
    return outside("beside.bin")


def by_hard_link(folder: Path) -> bytes:
    """By a second name of a file elsewhere."""
    os.link(secret(folder), folder / "second.bin")
    return outside("second.bin")


def in_memory(_: Path) -> bytes:
    """By a faked address in the memory of the process."""
    model = onnx.ModelProto.FromString(outside("*/_ORT_MEM_ADDR_/*"))
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    tensor.external_data.add(key="offset", value=str(0x7F0000000000))
    return bytes(model.SerializeToString())


def custom_operator(_: Path) -> bytes:
    """An operator of a domain of its own."""
    return operator_of_a_company()


def python_operator(_: Path) -> bytes:
    """An operator that runs Python by a name, in builds that have it."""
    run = node("PyOp", "X", "score", domain="com.microsoft", module="os", class_name="system", input_types=[1], output_types=[1])
    return finished(graph([run], sets=[("", 17), ("com.microsoft", 1)]), ROWS, ROWS[:, 0])


def deep_functions(_: Path) -> bytes:
    """Functions that call one another 3,000 deep."""
    return finished(chained(3_000), ROWS, (ROWS @ W)[:, 0])


def big_tensor(_: Path, *, floats: int = 10**10) -> bytes:
    """A tensor of so many floats, made at run time by a file of 2,000 bytes."""
    nodes = [
        node("ConstantOfShape", "shape", "big"),
        node("ReduceSum", "big", "sum", keepdims=0),
        node("MatMul", "X w", "z"),
        node("Add", "z sum", "score"),
    ]
    return finished(graph(nodes, tensors={"shape": np.array([floats]), "w": W}), ROWS, (ROWS @ W)[:, 0])


def endless_loop(_: Path) -> bytes:
    """A Loop of 2 ** 62 rounds."""
    inside = [value("round", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("sum", None)]
    gives = [value("on", [], TensorProto.BOOL), value("more", None)]
    body = helper.make_graph([node("Identity", "go", "on"), node("Add", "sum one", "more")], "body", inside, gives)
    nodes = [node("MatMul", "X w", "z"), node("Loop", "rounds yes z", "score", body=body)]
    tensors = {"w": W, "rounds": np.array(2**62), "yes": np.ones((), dtype=bool), "one": np.array(1.0)}
    return finished(graph(nodes, tensors=tensors), ROWS, (ROWS @ W)[:, 0])


def divides_nothing(_: Path) -> bytes:
    """0/0, silently."""
    return zero_over_zero()


def truncated(_: Path) -> bytes:
    """All but the last hundred bytes."""
    return zoo_good.two_layers()[:-100]


def random_bytes(_: Path) -> bytes:
    """Four thousand of them."""
    return np.random.default_rng(7).bytes(4_000)


def empty(_: Path) -> bytes:
    """None at all."""
    return b""


def over_the_limit(_: Path) -> bytes:
    """One byte more than allowed."""
    return bytes(ROOMY.file_bytes + 1)


HOSTILE = [
    Hostile("relative path", relative, Code.EXTERNAL_TENSOR),
    Hostile("absolute path", absolute, Code.EXTERNAL_TENSOR),
    Hostile("/proc path", of_the_process, Code.EXTERNAL_TENSOR),
    Hostile("symlink", by_symlink, Code.EXTERNAL_TENSOR),
    Hostile("hard link", by_hard_link, Code.EXTERNAL_TENSOR),
    Hostile("faked address in memory", in_memory, Code.EXTERNAL_TENSOR),
    Hostile("custom operator", custom_operator, Code.DOMAIN),
    Hostile("PyOp", python_operator, Code.DOMAIN),
    Hostile("functions 3,000 deep", deep_functions, Code.NESTING),
    Hostile("10^10 floats", big_tensor, Code.MEMORY_LIMIT, TIGHT),
    Hostile("loop of 2^62", endless_loop, Code.OPERATOR),
    Hostile("0/0", divides_nothing, Code.NOT_FINITE),
    Hostile("truncated", truncated, Code.NOT_ONNX),
    Hostile("random bytes", random_bytes, Code.NOT_ONNX),
    Hostile("empty", empty, Code.NOT_ONNX),
    Hostile("over the size limit", over_the_limit, Code.TOO_LARGE),
]
