"""Expressions out of texts: what they say, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import assume, given

import headrace as hr
from headrace.errors import DefinitionError
from headrace.expression import Expression, expression_in, literal
from headrace.expression.written import LONGEST
from tests.laws.expressions import CONDITIONS, NUMBERS

AT = 'hour(at_ms, tz="America/New_York")'
WRITTEN: dict[str, Expression] = {
    "x": hr.col("x"),
    " x + 10 ": hr.col("x") + 10,
    "2 - x * y / -3.5": 2 - hr.col("x") * hr.col("y") / -3.5,
    "-x": -hr.col("x"),
    "- 7": literal(-7),
    "True": literal(value=True),
    "'books'": literal("books"),
    "(x > 1) & ~ok | (y <= 2)": (hr.col("x") > 1) & ~hr.col("ok") | (hr.col("y") <= 2),
    "word == 'ü'": hr.col("word") == "ü",
    "word != 'b'": hr.col("word") != "b",
    'word in ["a", "b"]': hr.col("word").isin(["a", "b"]),
    "x in (1, -2)": hr.col("x").isin([1, -2]),
    "x.clip(0, 60).abs()": hr.col("x").clip(0, 60).abs(),
    "clip(x, 0, 60)": hr.col("x").clip(0, 60),
    "abs(x - 3).log1p()": (hr.col("x") - 3).abs().log1p(),
    "log1p(2)": literal(2).log1p(),
    "hr.col('x') < col('y')": hr.col("x") < hr.col("y"),
    AT: hr.hour("at_ms", tz="America/New_York"),
    "weekday('at_ms', tz='UTC')": hr.weekday("at_ms", tz="UTC"),
    "haversine_km(lat, 1, 2.5, x)": hr.haversine_km("lat", 1, 2.5, "x"),
    "mapped(word, {'a': 1, 'b': -2}, other=0, absent=None)": hr.mapped("word", {"a": 1, "b": -2}, other=0),
    "mapped(y, {1: 10})": hr.mapped("y", {1: 10}),
    "hashed(word, buckets=5)": hr.hashed("word", buckets=5),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_text_says_what_the_words_say(text: str) -> None:
    """Every operator can be written as text, and computes what it computes when it is written in Python."""
    assert expression_in(text, where="here").canonical() == WRITTEN[text].canonical()


@given(NUMBERS | CONDITIONS)
def test_what_an_expression_shows_can_be_read_back(expression: Expression) -> None:
    """It is a text that says the same, but where an operator was told something once, or shows itself without brackets (`in`)."""
    shown = repr(expression)
    assume(not any(word in shown for word in ("tz=", "mapped(", "hashed(", " in [")))
    assert expression_in(shown, where="here").canonical() == expression.canonical()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no expression"),
        ("x +", "is no expression"),
        ("x = 3", "is no expression"),
        ("None", "--drop-input"),
        ("x and y", r"write & \| ~ instead of and, or, not"),
        ("not ok", r"write & \| ~ instead of and, or, not"),
        ("1 < x < 3", r"compare two values at a time"),
        ("x > 1 & y > 2", r"compare two values at a time"),
        ("x ** 2", "'x \\*\\* 2' cannot stand in an expression; there are fields"),
        ("x if ok else y", "cannot stand in an expression"),
        ("__import__('os').system('true')", "__import__.*system.* cannot stand in an expression"),
        ("x.__class__", "'x.__class__' cannot stand in an expression"),
        ("exp(x)", "'exp' cannot stand in an expression; .*hashed"),
        ("abs()", "'abs' cannot stand in an expression"),
        ("x.clip(1)", "is not how clip is written"),
        ("hour(at_ms)", "is not how hour is written"),
        ("mapped(word, 3)", "is not how mapped is written"),
        ("x in [y]", "lists and mappings hold numbers and texts"),
        ("mapped(word, {**x})", "lists and mappings hold numbers and texts"),
        ("x.clip(3, 1)", "the first bound must not be above the second"),
        ("1e999", "no value of an event"),
        ("x + 1e999", "cannot stand in an expression"),
        ("(" * 300 + "x" + ")" * 300, "is no expression"),
        ("+".join(["x"] * (LONGEST // 2 + 1)), "at most 2,000 characters"),
    ],
)
def test_what_is_no_expression_is_refused(text: str, says: str) -> None:
    """Nothing is evaluated or looked up: whatever is not in the table of operators is an error that says what may be written."""
    with pytest.raises(DefinitionError, match=f"^here: .*{says}"):
        expression_in(text, where="here")
