"""The struct that reads a contract's events: generated, so that contract and reader cannot drift apart.

What an event of a contract is, is decided in this order and proved against pydantic in `tests/unit/decode`:

1. the value is JSON text (`json_text`), else MALFORMED;
2. it is an object with every field of the contract of the declared type, else CONTRACT. Types are strict: an integer is written without
   point and exponent and lies within 64 bits; a number is finite, an integer will do; true and false are no numbers; an optional field
   may be missing or null. A field named twice must be right each time, and the last one counts. Fields nobody declared are ignored.

The whole contract is checked, whichever fields are used: what becomes a dead letter must not depend on the features defined.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from headrace.errors import DefinitionError
from headrace.source import ContractField, Outcomes, Source

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1

_NAMES_NO_VALUE = re.compile(r"Expected |Object missing required field|Integer value out of range|Number out of range")


def struct_of(source: Source | Outcomes) -> type[msgspec.Struct]:
    """The struct of the events of a source, or of outcomes. Raises `DefinitionError` for bounds that no integer satisfies."""
    fields: list[tuple[str, Any] | tuple[str, Any, None]] = []
    for field in source.contract:
        kind = _type_of(field, of=f"{source!r}: {field.name}")
        fields.append((field.name, kind | None, None) if field.optional else (field.name, kind))
    return msgspec.defstruct(source.event.__name__, fields, kw_only=True, gc=False)


def error_text(error: msgspec.ValidationError) -> str:
    """What is wrong and where, as msgspec says it, without the value it may have quoted."""
    text = str(error)
    if _NAMES_NO_VALUE.match(text):
        return text
    _, at, path = text.rpartition(" - at ")
    return f"Not one of the declared values{at}{path}" if at else "Not one of the declared values"


def _type_of(field: ContractField, *, of: str) -> Any:  # noqa: ANN401 an annotation, made at run time
    """The msgspec type that takes what the field takes."""
    if field.choices:
        return Literal[field.choices]
    if field.kind == "boolean":
        return bool
    if field.kind == "text":
        return Annotated[str, msgspec.Meta(min_length=field.min_length, max_length=field.max_length, pattern=field.pattern)]
    if field.kind == "number":
        return _bounded_number(field)
    return Annotated[int, _integer_bounds(field, of=of)]


def _bounded_number(field: ContractField) -> Any:  # noqa: ANN401 as above
    """A number in its bounds; of an open and a closed bound on one side, which msgspec does not take together, the narrower."""
    kind: Any = float
    if field.gt is not None and (field.ge is None or field.gt >= field.ge):
        kind = Annotated[kind, msgspec.Meta(gt=field.gt)]
    elif field.ge is not None:
        kind = Annotated[kind, msgspec.Meta(ge=field.ge)]
    if field.lt is not None and (field.le is None or field.lt <= field.le):
        kind = Annotated[kind, msgspec.Meta(lt=field.lt)]
    elif field.le is not None:
        kind = Annotated[kind, msgspec.Meta(le=field.le)]
    return kind


def _integer_bounds(field: ContractField, *, of: str) -> msgspec.Meta:
    """The least and the largest integer that satisfy all bounds (pydantic has seen to it that they are whole), within 64 bits."""
    least, largest = INT64_MIN, INT64_MAX
    if field.ge is not None:
        least = max(least, int(field.ge))
    if field.gt is not None:
        least = max(least, int(field.gt) + 1)
    if field.le is not None:
        largest = min(largest, int(field.le))
    if field.lt is not None:
        largest = min(largest, int(field.lt) - 1)
    if least > largest:
        raise DefinitionError(f"{of}: no integer of 64 bits satisfies its bounds; correct ge, gt, le or lt")
    return msgspec.Meta(ge=least, le=largest)
