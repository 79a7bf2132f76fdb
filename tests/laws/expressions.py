"""What the laws of expressions are tried on: one expression for every operator, trees of them, and two oracles.

Both oracles read nothing but the canonical form. `plainly` computes it for one event in plain Python; `sql_of` writes it in SQL.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

import headrace as hr
from headrace.expression import Column, Expression, Kind
from tests.unit.expression.clocks import there

Row = Mapping[str, float | bool | str | None]

KINDS: Mapping[str, Kind] = {"x": "number", "y": "number", "at_ms": "number", "lat": "number", "ok": "boolean", "word": "text"}
YEAR_2000_MS, YEAR_2100_MS = 946_684_800_000, 4_102_444_800_000
EXAMPLES: Mapping[str, Expression] = {
    "plus": hr.col("x") + hr.col("y"),
    "minus": hr.col("x") - 2,
    "times": hr.col("x") * hr.col("ok"),
    "over": hr.col("x") / hr.col("y"),
    "negative": -hr.col("x"),
    "log1p": hr.col("x").log1p(),
    "abs": hr.col("x").abs(),
    "clip": hr.col("x").clip(-1, 2.5),
    "gt": hr.col("x") > hr.col("y"),
    "ge": hr.col("x") >= hr.col("y"),
    "lt": hr.col("x") < 1,
    "le": hr.col("x") <= 1,
    "eq": hr.col("word") == "b",
    "ne": hr.col("word") != "b",
    "isin": hr.col("word").isin(["a", "ü"]),
    "and": (hr.col("x") > 0) & hr.col("ok"),
    "or": (hr.col("x") > 0) | hr.col("ok"),
    "not": ~hr.col("ok"),
    "hour": hr.hour("at_ms", tz="America/New_York"),
    "weekday": hr.weekday("at_ms", tz="Asia/Kathmandu"),
    "haversine_km": hr.haversine_km("lat", "x", 40.639751, -73.778925),
    "mapped": hr.mapped("word", {"a": 3, "b": -0.5}, other=7, absent=-1),
    "mapped_number": hr.mapped("y", {0: 1, 2: 5}, other=-1),
    "hashed": hr.hashed("word", buckets=5, absent=-1),
}
"""An expression for every operator; all of them read from an event of `KINDS`."""
ROUNDED = {"log1p", "haversine_km"}
"""Operators whose last bits are our own."""

_NUMBERS = st.sampled_from([math.nan, 0.0, -0.0, 0.5, 1.0, 2.0, -3.0, 1e9, -1e-9, 1.5e308]) | st.floats(-1e6, 1e6)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "x": _NUMBERS,
            "y": _NUMBERS,
            "at_ms": st.none() | st.integers(YEAR_2000_MS, YEAR_2100_MS),
            "lat": st.floats(-90, 90),
            "ok": st.none() | st.booleans(),
            "word": st.sampled_from([None, "a", "b", "", "ü"]),
        }
    ),
    min_size=1,
    max_size=25,
)


def columns_of(rows: Sequence[Row]) -> dict[str, Column]:
    """Rows as decoding makes columns of them."""
    return {
        name: np.array([row[name] for row in rows], dtype=object)
        if kind == "text"
        else np.array([math.nan if row[name] is None else float(row[name] or 0) for row in rows])
        for name, kind in KINDS.items()
    }


def _both(of: Callable[[Any, Any], Any], numbers: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.tuples(numbers, numbers).map(lambda pair: of(*pair))


def _arithmetic(numbers: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.one_of(
        *(_both(of, numbers) for of in (operator.add, operator.sub, operator.mul, operator.truediv)),
        numbers.map(operator.neg),
        numbers.map(lambda one: one.abs()),
        numbers.map(lambda one: one.clip(-2, 1e6)),
        numbers.map(lambda one: hr.mapped(one, {0: 4, 1: -2}, other=9)),
        numbers.map(lambda one: hr.hour(one, tz="Europe/Dublin")),
    )


def _logic(conditions: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.one_of(_both(operator.and_, conditions), _both(operator.or_, conditions), conditions.map(operator.invert))


NUMBERS = st.recursive(
    st.sampled_from([hr.col("x"), hr.col("y"), hr.col("ok"), hr.col("at_ms"), EXAMPLES["weekday"], EXAMPLES["mapped"], EXAMPLES["hashed"]]),
    _arithmetic,
    max_leaves=6,
)
_COMPARISONS: Sequence[Callable[[Any, Any], Any]] = [operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne]
CONDITIONS = st.recursive(
    st.one_of(
        st.sampled_from([hr.col("ok"), EXAMPLES["eq"], EXAMPLES["ne"], EXAMPLES["isin"]]),
        st.tuples(st.sampled_from(_COMPARISONS), NUMBERS, NUMBERS).map(lambda drawn: drawn[0](drawn[1], drawn[2])),
    ),
    _logic,
    max_leaves=4,
)


# ------------------------------------------------------------------------------------------------- one event, in plain Python

Value = float | str | None


def plainly(form: Any, row: Row) -> Value:
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


def _known(name: str, given: Any, arguments: list[Any]) -> float | None:
    first, *rest = arguments
    if name == "hashed":
        return float(int(hashlib.sha256(first.encode()).hexdigest()[:16], 16) % given["buckets"])
    if name in {"hour", "weekday"}:
        if not YEAR_2000_MS <= first <= YEAR_2100_MS:
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
    if max(abs(lat1), abs(lat2)) > 90 or max(abs(lon1), abs(lon2)) > 360:
        return math.nan
    a, b, turn = math.radians(lat1), math.radians(lat2), math.radians(lon2 - lon1)
    across = math.hypot(math.cos(b) * math.sin(turn), math.cos(a) * math.sin(b) - math.sin(a) * math.cos(b) * math.cos(turn))
    return 6371.0088 * math.atan2(across, math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(turn))


# ------------------------------------------------------------------------------------------------- SQL

MACROS = (
    "create macro fin(a) as case when isfinite(a) then a end",
    "create macro hav(a) as sin(radians(a) / 2) * sin(radians(a) / 2)",
    "create macro there(at_ms, zone) as timezone(zone, make_timestamptz(cast(at_ms as bigint) * 1000))",
)
_FORMS = {
    "plus": "fin({0} + {1})",
    "minus": "fin({0} - {1})",
    "times": "fin({0} * {1})",
    "over": "fin({0} / nullif({1}, 0))",
    "negative": "-{0}",
    "abs": "abs({0})",
    "log1p": "case when {0} > -1 then ln(1 + {0}) end",
    "clip": "case when {0} is not null then least(greatest({0}, {1}), {2}) end",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "eq": "({0} = {1})",
    "ne": "({0} <> {1})",
    "isin": "({0} in ({rest}))",
    "and": "({0} and {1})",
    "or": "({0} or {1})",
    "not": "(not {0})",
    "hour": "extract(hour from there({0}, '{given[zone]}'))",
    "weekday": "(extract(isodow from there({0}, '{given[zone]}')) - 1)",
    "haversine_km": "case when abs({1}) <= 360 then "
    "6371.0088 * 2 * asin(sqrt(hav({2} - {0}) + cos(radians({0})) * cos(radians({2})) * hav({3} - {1}))) end",
    "hashed": "coalesce(cast(cast('0x' || substr(sha256({0}), 1, 16) as ubigint) % {given[buckets]} as double), {given[absent]})",
}


def sql_of(form: Any) -> str:
    """The SQL of an expression; absent is null, conditions are of type boolean."""
    if not isinstance(form, dict):
        return f"'{form}'" if isinstance(form, str) else f"cast({form!r} as double)"
    if "field" in form:
        return str(form["field"])
    arguments = [sql_of(one) for one in form["of"]]
    if form["op"] not in {"and", "or", "not", "hashed", "mapped"}:
        arguments = [_as_number(one, sql) for one, sql in zip(form["of"], arguments, strict=True)]
    if form["op"] in {"mapped", "mapped_number"}:
        given = form["with"]
        cases = " ".join(f"when {arguments[0]} = {sql_of(key)} then {number}" for key, number in given["to"])
        absent, other = ("null" if given[name] is None else given[name] for name in ("absent", "other"))
        return f"cast(case when {arguments[0]} is null then {absent} {cases} else {other} end as double)"
    return _FORMS[form["op"]].format(*arguments, rest=", ".join(arguments[1:]), given=form.get("with"))


def _as_number(form: Any, sql: str) -> str:
    text = isinstance(form, str) or (isinstance(form, dict) and form.get("field") == "word")
    return sql if text else f"cast({sql} as double)"
