"""JSON that others may have written, read field by field (pure): what is not as it must be is `Unreadable`, and says why.

Numbers are finite, and tables stand in one another 64 deep at most: what was read can be written again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

MOST_DEEP = 64

Plain: TypeAlias = Mapping[str, Any]
"""A JSON object."""


class Unreadable(ValueError):
    """Something is not what it must be; the text says what is wrong with it."""


def read(value: bytes | None) -> Plain:
    """The JSON object in a record's value. Raises `Unreadable`."""
    if value is None:
        raise Unreadable("it has no value")
    try:
        told = json.loads(value, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is no JSON") from error
    if not isinstance(told, dict):
        raise Unreadable("it is no JSON object")
    if _deeper_than(told, MOST_DEEP):
        raise Unreadable(f"its tables stand in one another more than {MOST_DEEP} deep")
    return told


def as_json(told: Plain) -> bytes:
    """JSON in as few bytes as can be."""
    return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def whole(told: Plain, name: str) -> int:
    """A whole number that is not negative."""
    found = told.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 63:
        raise Unreadable(f"its {name} is {shown(found)}, no whole number")
    return found


def share(told: Plain, name: str) -> float | None:
    """A number above 0 and up to 1, or nothing."""
    found = told.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1:
        raise Unreadable(f"its {name} is {shown(found)}, no number above 0 and up to 1")
    return float(found)


def line(told: Plain, name: str, most: int) -> str:
    """A text of one line."""
    found = told.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= most or not found.isprintable():
        raise Unreadable(f"its {name} is {shown(found)}, no text of one line and up to {most} characters")
    return found


def line_or_none(told: Plain, name: str, most: int) -> str | None:
    """The same, or nothing."""
    return None if told.get(name) is None else line(told, name, most)


def matching(told: Plain, name: str, pattern: re.Pattern[str]) -> str:
    """A text of a form."""
    found = told.get(name)
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise Unreadable(f"its {name} is {shown(found)}, not of the form {pattern.pattern}")
    return found


def table(told: Plain, name: str) -> Plain:
    """A JSON object."""
    found = told.get(name)
    if not isinstance(found, dict):
        raise Unreadable(f"its {name} is no JSON object")
    return found


def table_or_none(told: Plain, name: str) -> Plain | None:
    """The same, or nothing."""
    return None if told.get(name) is None else table(told, name)


def rows(told: Plain, name: str) -> Sequence[Any]:
    """A JSON array."""
    found = told.get(name)
    if not isinstance(found, list):
        raise Unreadable(f"its {name} is no JSON array")
    return found


def tables(told: Plain, name: str) -> list[Plain]:
    """A JSON array of objects."""
    found = rows(told, name)
    if not all(isinstance(one, dict) for one in found):
        raise Unreadable(f"its {name} holds something else than JSON objects")
    return list(found)


def shown(found: object) -> str:
    """A value as it may stand in a sentence."""
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a sentence stays readable


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text} is no number")
    return found


def _deeper_than(found: object, levels: int) -> bool:
    inside = list(found.values()) if isinstance(found, dict) else found if isinstance(found, list) else []
    return bool(inside) and (levels == 0 or any(_deeper_than(one, levels - 1) for one in inside))
