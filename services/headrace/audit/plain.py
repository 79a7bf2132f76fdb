"""Expressions the slow way: one event, plain Python, nothing but the canonical form.

It shares no code with `expression/`, which works on whole columns: a mistake made there is not made here again. Only the time zones come
from the same package (`tzdata`), read by the standard library.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

Row = Mapping[str, float | bool | str | None]
"""The fields of one event; absent is None, or NaN."""
Value = float | str | None

ROUNDED = frozenset({"log1p", "haversine_km"})
"""Operators whose last bits are the engine's own."""
_FIRST_MS, _LAST_MS = 946_684_800_000, 4_102_444_800_000
_POLE, _TURN = 90, 360


@cache
def clock(name: str) -> ZoneInfo:
    """A time zone, as the package has it: never the one of the operating system."""
    with (files("tzdata") / "zoneinfo").joinpath(*name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def there(name: str, instant_ms: float) -> datetime:
    """What date and clock show in a time zone at an instant."""
    return datetime.fromtimestamp(instant_ms // 1000, UTC).astimezone(clock(name))


def is_rounded(form: Any) -> bool:  # noqa: ANN401 - a canonical form is any JSON
    """Whether some operator in it is rounded in the engine's own way."""
    return isinstance(form, dict) and (form.get("op") in ROUNDED or any(map(is_rounded, form.get("of", ()))))


def plainly(form: Any, row: Row) -> Value:  # noqa: ANN401
    """What an expression is for one event, truth as 0 and 1, absent as None."""
    if not isinstance(form, dict):
        return form if isinstance(form, str) else float(form)
    if "field" in form:
        value = row[form["field"]]
        return None if value is None or value != value else value if isinstance(value, str) else float(value)  # noqa: PLR0124 - NaN
    name, arguments = form["op"], [plainly(one, row) for one in form["of"]]
    if name in {"and", "or"}:
        decides = float(name == "or")
        return decides if decides in arguments else None if None in arguments else 1.0 - decides
    if name in {"mapped", "mapped_number"}:
        mapping: dict[Any, float] = dict(map(tuple, form["with"]["to"]))
        found: float | None = form["with"]["absent"] if arguments[0] is None else mapping.get(arguments[0], form["with"]["other"])
        return found
    if name == "hashed" and arguments[0] is None:
        nothing: float | None = form["with"]["absent"]
        return nothing
    return None if None in arguments else _known(name, form.get("with"), arguments)


def _known(name: str, given: Any, arguments: list[Any]) -> float | None:  # noqa: ANN401
    first, *rest = arguments
    if name == "hashed":
        return float(int(hashlib.sha256(first.encode(errors="surrogatepass")).hexdigest()[:16], 16) % given["buckets"])
    if name in {"hour", "weekday"}:
        if not _FIRST_MS <= first <= _LAST_MS:
            return None
        moment = there(given["zone"], first)
        return float(moment.hour if name == "hour" else moment.weekday())
    simple: dict[str, Callable[[], float]] = {
        "plus": lambda: first + rest[0],
        "minus": lambda: first - rest[0],
        "times": lambda: first * rest[0],
        "over": lambda: first / rest[0] if rest[0] else math.nan,
        "negative": lambda: -first,
        "abs": lambda: abs(first),
        "log1p": lambda: math.log1p(first) if first > -1 else math.nan,
        "clip": lambda: min(max(first, rest[0]), rest[1]),
        "gt": lambda: first > rest[0],
        "ge": lambda: first >= rest[0],
        "lt": lambda: first < rest[0],
        "le": lambda: first <= rest[0],
        "eq": lambda: first == rest[0],
        "ne": lambda: first != rest[0],
        "isin": lambda: first in rest,
        "not": lambda: not first,
        "haversine_km": lambda: _apart_km(first, *rest),
    }
    found = float(simple[name]())
    return found if math.isfinite(found) else None


def _apart_km(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    if max(abs(lat1), abs(lat2)) > _POLE or max(abs(lon1), abs(lon2)) > _TURN:
        return math.nan
    a, b, turn = math.radians(lat1), math.radians(lat2), math.radians(lon2 - lon1)
    across = math.hypot(math.cos(b) * math.sin(turn), math.cos(a) * math.sin(b) - math.sin(a) * math.cos(b) * math.cos(turn))
    return 6371.0088 * math.atan2(across, math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(turn))
