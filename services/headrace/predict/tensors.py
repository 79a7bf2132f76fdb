"""What a file declares to take and give, against its signature (pure): one float32 input [rows, features], an output of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from headrace.predict.gate_codes import Code, Refusal, refusal
from headrace.predict.signature import Signature

FLOAT32 = "tensor(float)"
NUMBERS = (FLOAT32, "tensor(double)", "tensor(int64)", "tensor(int32)")


class Declared(Protocol):
    """An input or output as the runtime tells it; in its shape a free axis is None or a name."""

    @property
    def name(self) -> str:
        """By which it is called."""

    @property
    def type(self) -> str:
        """As `tensor(float)`."""

    @property
    def shape(self) -> Sequence[Any]:
        """Its axes."""


def misfit(inputs: Sequence[Declared], outputs: Sequence[Declared], signature: Signature) -> Refusal | None:
    """Why a file that declares these can not be fed with the signature's features, or gives no score; None where it can and does."""
    return _of_inputs(inputs, len(signature.features)) or _of_outputs(outputs, signature)


def _of_inputs(inputs: Sequence[Declared], width: int) -> Refusal | None:
    wanted = f"one float32 input [None, {width}]"
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs)
        return refusal(Code.INPUT_COUNT, f"it has {len(inputs)} inputs ({names})", f"export it with {wanted}")
    (given,) = inputs
    if given.type != FLOAT32:
        return refusal(Code.INPUT_DTYPE, f"input {given.name!r} is {given.type}", f"export it from a float32 sample, with {wanted}")
    said = f"input {given.name!r} has shape {list(given.shape)} for {width} features"
    match given.shape:
        case [str() | None, columns] if columns == width or not isinstance(columns, int):
            return None
        case [int(), columns] if columns == width or not isinstance(columns, int):
            return refusal(Code.BATCH_AXIS, said, f"export it with a free batch axis: {wanted}")
    return refusal(Code.INPUT_SHAPE, said, f"export it with {wanted}")


def _of_outputs(outputs: Sequence[Declared], signature: Signature) -> Refusal | None:
    found = {entry.name: entry for entry in outputs}
    given = found.get(signature.output)
    if given is None:
        said = f"it has no output {signature.output!r}, only {', '.join(found)}"
        return refusal(Code.OUTPUT_MISSING, said, "stamp it again with output=")
    if "map" in given.type:
        return refusal(Code.OUTPUT_ZIPMAP, f"output {given.name!r} is {given.type}, made by ZipMap")
    if given.type not in NUMBERS:
        said = f"output {given.name!r} is {given.type}, not a tensor of numbers"
        return refusal(Code.OUTPUT_DTYPE, said, "stamp it again with output=")
    match given.shape:
        case [_, int(columns)] if columns > 1 and not 0 <= signature.class_index < columns:
            said = f"output {given.name!r} has {columns} columns, class_index is {signature.class_index}"
            return refusal(Code.OUTPUT_CLASS, said, "stamp it again with class_index=")
    return None
