"""What the laws of expressions are tried on: one expression for every operator, trees of them, and two oracles.

Both oracles read nothing but the canonical form. `headrace.audit.plain` computes it for one event in plain Python; `sql_of` writes it in
SQL.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

import headrace as hr
from headrace.audit.plain import Row
from headrace.expression import Column, Expression, Kind

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
