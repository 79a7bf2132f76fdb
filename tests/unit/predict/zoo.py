"""A zoo of models for the gate: what each entry is, the pipeline they are for, and how one is finished with signature and golden rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from headrace.expression import Expression
from headrace.predict import onnx_file
from headrace.predict.attached_rows import Rows, golden_entries
from headrace.predict.gate import Verdict, examine
from headrace.predict.gate_child import examine_here
from headrace.predict.gate_codes import Code, Refusal
from headrace.predict.gate_limits import GateLimits
from headrace.predict.gate_request import Request
from headrace.predict.signature import OutputKind, Signature, ViewVersion, event_features_fingerprint, feed_of
from headrace.types import Float64s

FEATURES = ("flights.count_1h", "flights.mean_delay_1h", "flights.std_delay_1h", "distance")
WIDTH = len(FEATURES)
ROOMY = GateLimits(cpu_s=60, wall_s=200, call_us=1e9, row_us=1e9)
"""Nothing of a good model is refused because the machine is busy."""


class View(NamedTuple):
    """A feature view as a pipeline has it."""

    name: str = "flights"
    version: int = 1
    fingerprint: str = "f" * 64


@dataclass(frozen=True)
class Declared:
    """A pipeline as the gate sees it."""

    name: str = "late"
    feature_names: Sequence[str] = FEATURES
    views: Sequence[View] = (View(),)
    event_features: Sequence[tuple[str, Expression]] = ()


PIPELINE = Declared()


class Animal(NamedTuple):
    """A model of the zoo: how it is made, what kind it is, and the code that it must be refused with, if any."""

    name: str
    build: Callable[[], bytes]
    kind: str = ""
    code: Code | None = None
    limits: GateLimits = ROOMY
    rehearsal: Float64s | None = None

    def __str__(self) -> str:
        return self.name


def draw(count: int = 60, *, seed: int = 3) -> Rows:
    """Rows as flights have them: counts, delays of either sign, distances in hundreds of kilometres."""
    generator = np.random.default_rng(seed)
    columns = (generator.poisson(4, count), generator.normal(8, 20, count), generator.gamma(2, 8, count), generator.uniform(1, 40, count))
    return np.stack(columns, axis=1).astype(np.float32)


def signature(**changes: object) -> Signature:
    """A signature that fits `PIPELINE`, with changes."""
    fields: dict[str, Any] = {"name": PIPELINE.name, "version": "1", "features": FEATURES, "output": "score", "kind": OutputKind.VALUE}
    fields |= {"views": (ViewVersion(**View()._asdict()),), "event_features": event_features_fingerprint(())}
    return Signature(**{**fields, **changes})


def finished(model: bytes, rows: Rows, scores: NDArray[Any], **changes: object) -> bytes:
    """The model with a signature and golden rows."""
    entries = signature(**changes).to_metadata() | golden_entries(rows, np.asarray(scores, dtype=np.float64))
    return onnx_file.with_metadata(model, entries)


def graph(
    nodes: Sequence[NodeProto],
    *,
    tensors: dict[str, Any] | None = None,
    inputs: Sequence[ValueInfoProto] | None = None,
    outputs: Sequence[ValueInfoProto] | None = None,
    functions: Sequence[FunctionProto] = (),
    sets: Sequence[tuple[str, int]] = (("", 17), ("ai.onnx.ml", 3)),
) -> bytes:
    """A model of these nodes, from `X` [None, 4] to `score` [None, 1] unless given; floats among its tensors become float32."""
    made = [_tensor(name, values) for name, values in (tensors or {}).items()]
    given = inputs if inputs is not None else [value("X", [None, WIDTH])]
    wanted = outputs if outputs is not None else [value("score", [None, 1])]
    body = helper.make_graph(list(nodes), "zoo", list(given), list(wanted), made)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid(*one) for one in sets], functions=list(functions))
    model.ir_version = 9
    return bytes(model.SerializeToString())


def value(name: str, shape: Sequence[int | str | None] | None, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node; inputs and outputs are named in a text, with spaces between."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def look(animal: Animal) -> Verdict:
    """Examine it in this process: for files that end nobody."""
    lines: list[dict[str, Any]] = []

    def told(line: dict[str, object]) -> None:
        lines.append(json.loads(json.dumps(line, allow_nan=False)))

    content = animal.build()
    if len(content) > animal.limits.file_bytes:
        return walk(animal)
    examine_here(Request(content=content, feed=feed_of(PIPELINE), limits=animal.limits, rehearsal=animal.rehearsal), told)
    verdict = lines[-1]["verdict"]
    found = verdict["refusal"]
    refusals = () if found is None else (Refusal(code=Code(found["code"]), said=found["said"], fix=found["fix"]),)
    return Verdict(refusals=refusals, report=verdict["report"])


def walk(animal: Animal) -> Verdict:
    """Examine it as the gate does, in a process of its own."""
    return examine(animal.build(), PIPELINE, rehearsal=animal.rehearsal, limits=animal.limits)


def codes(verdict: Verdict) -> list[Code]:
    """What it was refused for."""
    return [refusal.code for refusal in verdict.refusals]


@dataclass
class Zoo:
    """Animals by name, filled by the functions that make them."""

    animals: list[Animal] = field(default_factory=list)

    def add(self, kind: str = "", **more: Any) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
        """Take in what the decorated function makes, under its name."""

        def taken(build: Callable[[], bytes]) -> Callable[[], bytes]:
            self.animals.append(Animal(build.__name__, build, kind, **more))
            return build

        return taken


def _tensor(name: str, values: object) -> TensorProto:
    array = np.asarray(values)
    return numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)
