"""Laws that hold for every operator of expressions, without naming it; and two oracles: plain Python, and DuckDB."""

from __future__ import annotations

import hashlib
import math
import random
import subprocess
import sys
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.audit.plain import ROUNDED, Row, plainly
from headrace.expression import OPERATORS, Expression
from headrace.types import Float64s
from tests.laws.expressions import CONDITIONS, EXAMPLES, KINDS, MACROS, NUMBERS, ROWS, columns_of, sql_of

EVENTS = 3_000
each_operator = pytest.mark.parametrize("name", OPERATORS)


def bits(values: Float64s) -> list[int]:
    """Values to the bit; every absent one alike."""
    found: list[int] = np.where(np.isnan(values), np.nan, values).view(np.int64).tolist()
    return found


def numbers(found: Float64s) -> list[float | None]:
    """Values as numbers; absent as None."""
    return [None if math.isnan(one) else one for one in found.tolist()]


def test_every_operator_is_tried() -> None:
    """There is an example of each operator, and it is of that operator."""
    forms: dict[str, Any] = {name: example.canonical() for name, example in EXAMPLES.items()}
    assert {name: form["op"] for name, form in forms.items()} == {name: name for name in OPERATORS}


@each_operator
@settings(max_examples=40)
@given(ROWS, st.data())
def test_an_event_has_its_value_in_any_company(name: str, rows: list[Row], drawn: st.DataObject) -> None:
    """The bits of a value do not depend on the batch: neither on its cut nor on its order."""
    example = EXAMPLES[name]
    whole = bits(example.evaluate(columns_of(rows)))
    cut = drawn.draw(st.integers(0, len(rows)))
    parts = [bits(example.evaluate(columns_of(part))) for part in (rows[:cut], rows[cut:])]
    assert parts[0] + parts[1] == whole
    order = drawn.draw(st.permutations(range(len(rows))))
    assert bits(example.evaluate(columns_of([rows[at] for at in order]))) == [whole[at] for at in order]


@each_operator
@settings(max_examples=60)
@given(ROWS)
def test_plain_python_agrees(name: str, rows: list[Row]) -> None:
    """Every operator gives what plain Python gives for the event alone, the two that are rounded by ourselves to 1e-12."""
    example = EXAMPLES[name]
    expected = [plainly(example.canonical(), row) for row in rows]
    found = numbers(example.evaluate(columns_of(rows)))
    assert [one is None for one in found] == [one is None for one in expected]
    if name in ROUNDED:
        assert [one for one in found if one is not None] == pytest.approx([one for one in expected if one is not None], rel=1e-12, abs=1e-9)
    else:
        assert found == expected


@settings(max_examples=300)
@given(NUMBERS | CONDITIONS, ROWS)
def test_trees_of_operators(tree: Expression, rows: list[Row]) -> None:
    """What is made of many operators is what plain Python makes of it, and of the kind that was promised."""
    found = numbers(tree.evaluate(columns_of(rows)))
    assert found == [plainly(tree.canonical(), row) for row in rows]
    if tree.kind(KINDS, where="tree") == "boolean":
        assert set(found) <= {0.0, 1.0, None}


@each_operator
@settings(max_examples=10)
@given(ROWS)
def test_absent_in_absent_out(name: str, rows: list[Row]) -> None:
    """Where every field is absent so is the value, save where the definition declares a number for that."""
    example = EXAMPLES[name]
    nothing = [dict.fromkeys(row) for row in rows]
    form: Any = example.canonical()
    assert set(numbers(example.evaluate(columns_of(nothing)))) == {form.get("with", {}).get("absent")}


def rows_of(seed: int) -> list[Row]:
    """Events with every kind of value, and now and then without."""
    draw = random.Random(seed)
    return [
        {
            "x": draw.choice([math.nan, 0.0, 0.5, draw.gauss(0, 1), draw.uniform(-180, 180), draw.lognormvariate(0, 3)]),
            "y": draw.choice([math.nan, 0.0, 2.0, draw.gauss(-5, 10)]),
            "at_ms": draw.choice([None, draw.randrange(946_684_800_000, 2_000_000_000_000)]),
            "lat": draw.uniform(-90, 90),
            "ok": draw.choice([None, False, True]),
            "word": draw.choice([None, "a", "b", "", "ü"]),
        }
        for _ in range(EVENTS)
    ]


def test_any_cpu_gives_the_same_bits() -> None:
    """With all that numpy would do otherwise on a newer processor switched off, every operator gives the same bits."""
    offered = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    code = "from tests.laws.test_expressions import *; print(fingerprint())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "NPY_DISABLE_CPU_FEATURES": " ".join(offered)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == fingerprint()


def fingerprint() -> str:
    """A hash of the bits of every operator over some thousand events."""
    columns = columns_of(rows_of(7))
    return hashlib.sha256(repr([bits(example.evaluate(columns)) for example in EXAMPLES.values()]).encode()).hexdigest()


def test_duckdb_agrees(seed: int) -> None:
    """SQL over the same events gives the same: exactly, but for the two operators that are rounded by ourselves, which agree to 1e-9."""
    rows = rows_of(seed)
    database = duckdb.connect()
    for macro in MACROS:
        database.execute(macro)
    database.execute("create table events (number int, x double, y double, at_ms bigint, lat double, ok bool, word text)")
    told = [[number, *(None if cell != cell else cell for cell in row.values())] for number, row in enumerate(rows)]  # noqa: PLR0124 - NaN
    database.executemany("insert into events values (?, ?, ?, ?, ?, ?, ?)", told)
    columns = columns_of(rows)
    for name, example in EXAMPLES.items():
        sql = sql_of(example.canonical())
        asked = database.sql(f"select cast({sql} as double) as found from events order by number").fetchnumpy()["found"]
        expected, found = np.ma.filled(np.ma.asarray(asked, dtype=np.float64), np.nan), example.evaluate(columns)
        if name in ROUNDED:
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9, err_msg=f"{name}: {sql}")
        else:
            assert np.array_equal(found, expected, equal_nan=True), f"{name}: {sql}"
