"""The verdict on one record, slowly and obviously right: the standard library's JSON and pydantic, nothing that `headrace.decode` uses.

This is what "the contract" means: an event is what pydantic takes in strict mode with finite numbers, on JSON text (`grammar`), with
integers within 64 bits, each occurrence of a field that is named twice being right, whatever unknown fields hold.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic import ValidationError

from headrace.source import Source
from headrace.types import Reason

EARLIEST_MS, LATEST_MS = 946_684_800_000, 4_102_444_800_000
MAX_DEPTH, MAX_VALUE_BYTES, MAX_KEY_BYTES = 200, 1_048_576, 256


class Number(str):
    """A number as it was written."""

    __slots__ = ()


class Members(list[tuple[str, Any]]):
    """An object as it was written, repeated names included."""


def grammar(value: bytes) -> object:
    """JSON text, parsed but not interpreted. Raises `ValueError` for what is none."""
    try:
        parsed = json.loads(
            value.decode("utf-8"), parse_constant=_no_constant, parse_int=Number, parse_float=Number, object_pairs_hook=Members
        )
        _check(parsed, 0)
    except RecursionError as error:
        raise ValueError("too deep") from error
    return parsed


def contract_holds(source: Source, parsed: object) -> dict[str, Any] | None:
    """The fields of an event by name, as pydantic reads them; None where they break the contract."""
    if not isinstance(parsed, Members):
        return None
    declared = [(name, value) for name, value in parsed if name in source.event.model_fields]
    last = dict(declared)
    for name, value in [*declared, *last.items()]:
        try:
            event = source.event.model_validate_json(written(Members({**last, name: value}.items())))
        except ValidationError:
            return None
        fields = event.model_dump()
        if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in fields.values()):
            return None
    return _read(source, last)


def verdict(source: Source, key: bytes | None, value: bytes | None, timestamp_ms: int) -> Reason | None:  # noqa: PLR0911
    """Why a record without headers is refused, or None."""
    if value is None:
        return Reason.NULL_VALUE
    if len(value) > MAX_VALUE_BYTES:
        return Reason.TOO_LARGE
    try:
        parsed = grammar(value)
    except ValueError:
        return Reason.MALFORMED
    fields = contract_holds(source, parsed)
    if fields is None:
        return Reason.CONTRACT
    if not key or len(key) > MAX_KEY_BYTES or b"\0" in key or key != fields[source.key].encode():
        return Reason.BAD_KEY
    event_time = fields[source.time]
    if not EARLIEST_MS <= event_time <= LATEST_MS:
        return Reason.EVENT_TIME_INVALID
    if not source.historical and event_time > timestamp_ms + source.max_ahead_ms:
        return Reason.EVENT_TIME_AHEAD
    return None


def written(value: object) -> str:
    """JSON text of what `grammar` parsed, with every number as it was."""
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(name)}:{written(member)}" for name, member in value) + "}"
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(written(member) for member in value) + "]"
    return json.dumps(value)


def _read(source: Source, last: dict[str, Any]) -> dict[str, Any] | None:
    """The event of the last occurrences; None where a required field is missing."""
    try:
        return source.event.model_validate_json(written(Members(last.items()))).model_dump()
    except ValidationError:
        return None


def _check(parsed: object, depth: int) -> None:
    """Raise `ValueError` below 200 levels and at a lone surrogate."""
    if isinstance(parsed, str):
        parsed.encode("utf-8")
    if isinstance(parsed, list):
        if depth == MAX_DEPTH:
            raise ValueError("too deep")
        for member in parsed:
            if isinstance(parsed, Members):
                _check(member[0], depth + 1)
                _check(member[1], depth + 1)
            else:
                _check(member, depth + 1)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
