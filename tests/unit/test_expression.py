from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import DefinitionError
from headrace.expression import Column, Expression, Kind, col

KINDS: dict[str, Kind] = {"x": "number", "y": "number", "ok": "boolean", "word": "text"}
NAN = math.nan


def columns(**given: Sequence[object]) -> dict[str, Column]:
    """Columns as decoding makes them."""
    return {name: np.array(values, dtype=object if name == "word" else np.float64) for name, values in given.items()}


def values(expression: Expression, **given: Sequence[object]) -> list[float | None]:
    """What the expression gives; absent as None."""
    return [None if math.isnan(one) else one for one in expression.evaluate(columns(**given)).tolist()]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (col("x") + 1, [2.0, -1.0, None]),
        (1 + col("x"), [2.0, -1.0, None]),
        (col("x") - col("y"), [-1.0, -2.0, None]),
        (10 - col("x"), [9.0, 12.0, None]),
        (col("x") * 3, [3.0, -6.0, None]),
        (3 * col("x"), [3.0, -6.0, None]),
        (col("x") / col("y"), [0.5, None, None]),
        (1 / col("y"), [0.5, None, 0.25]),
        (-col("x"), [-1.0, 2.0, None]),
        (col("x").abs(), [1.0, 2.0, None]),
        (col("x").clip(-1, 0.5), [0.5, -1.0, None]),
        (col("x").log1p(), [math.log1p(1), None, None]),
        (col("x") > 0, [1.0, 0.0, None]),
        (col("x") >= 1, [1.0, 0.0, None]),
        (col("x") < 1, [0.0, 1.0, None]),
        (col("x") <= -2, [0.0, 1.0, None]),
        (col("x") == 1, [1.0, 0.0, None]),
        (col("x") != 1, [0.0, 1.0, None]),
        (col("x").isin([1, 5]), [1.0, 0.0, None]),
        (col("x").isin([col("y") - 1]), [1.0, 0.0, None]),  # type: ignore[list-item]
        (~(col("x") > 0), [0.0, 1.0, None]),
        ((col("x") > 0) & (col("y") > 3), [0.0, 0.0, None]),
        ((col("x") > 0) | (col("y") > 3), [1.0, 0.0, 1.0]),
    ],
    ids=repr,
)
def test_operators(expression: Expression, expected: list[float | None]) -> None:
    """Every operator, over a positive, a negative and an absent number; what is no finite number is absent."""
    assert values(expression, x=[1, -2, NAN], y=[2, 0, 4]) == expected
    assert expression.kind(KINDS, where="here") in {"number", "boolean"}


def test_text() -> None:
    """Text is compared, and an absent text is neither equal nor unequal."""
    word = ["AA", "BB", None]
    assert values(col("word") == "AA", word=word) == [1.0, 0.0, None]
    assert values(col("word") != "AA", word=word) == [0.0, 1.0, None]
    assert values(col("word").isin(["AA", "BB"]), word=word) == [1.0, 1.0, None]
    with pytest.raises(TypeError, match="compare it"):
        col("word").evaluate(columns(word=word))


def test_columns_of_one_value() -> None:
    """A column that repeats one value without a copy is a column like any other, also where that value is absent."""
    absent = {"x": np.broadcast_to(np.array(NAN), (2,)), "word": np.broadcast_to(np.array(None, dtype=object), (2,))}
    for condition in (col("x") != 1, col("x").isin([1, 2]), col("word") != "AA", col("word").isin(["AA"])):
        assert np.isnan(condition.evaluate(absent)).tolist() == [True, True]
    present = {"word": np.broadcast_to(np.array("AA", dtype=object), (2,))}
    assert (col("word") == "AA").evaluate(present).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("left", "right"), [(a, b) for a in (0.0, 1.0, NAN) for b in (0.0, 1.0, NAN)])
def test_three_valued_logic(left: float, right: float) -> None:
    """And, or and not are those of SQL: an absent condition decides only where the other does not."""
    known = {0.0: False, 1.0: True}
    a, b = known.get(left), known.get(right)
    conjunction = False if a is False or b is False else None if a is None or b is None else True
    disjunction = True if a is True or b is True else None if a is None or b is None else False
    assert values(col("x") & col("y"), x=[left], y=[right]) == [conjunction]
    assert values(col("x") | col("y"), x=[left], y=[right]) == [disjunction]
    assert values(~col("x"), x=[left]) == [None if a is None else not a]


def test_overflow_is_absent() -> None:
    """A result beyond what a float holds is absent from there on, not infinite."""
    assert values((col("x") * 10) > 1, x=[1e308]) == [None]
    assert values(col("x") + col("x"), x=[1.7e308]) == [None]


@given(st.lists(st.floats(min_value=-0.999999, max_value=1e300), min_size=1, max_size=40), st.integers(0, 39))
def test_logarithm(numbers: list[float], cut: int) -> None:
    """log1p is within two units in the last place of the C library's, and the same bits in any cut into batches."""
    whole = col("x").log1p().evaluate(columns(x=numbers))
    expected = np.array([math.log1p(number) for number in numbers])
    assert np.all(np.abs(whole - expected) <= 2 * np.spacing(np.abs(expected)))
    parts = [col("x").log1p().evaluate(columns(x=part)) for part in (numbers[:cut], numbers[cut:]) if part]
    assert np.concatenate(parts).view(np.int64).tolist() == whole.view(np.int64).tolist()


@pytest.mark.parametrize("edge", [0.0, -0.0, 5e-324, -5e-324, 1e-20, -1e-17])
def test_logarithm_near_zero(edge: float) -> None:
    """Near zero log1p is the number itself, sign included."""
    assert col("x").log1p().evaluate(columns(x=[edge])).view(np.int64).tolist() == np.array([edge]).view(np.int64).tolist()


@pytest.mark.parametrize(
    ("expression", "name", "text"),
    [
        (col("x"), "x", "x"),
        (col("x") > -1.5, "x_gt_minus_1_5", "(x > -1.5)"),
        (col("x") / col("y"), "x_over_y", "(x / y)"),
        ((col("word") == "A-1") & ~col("ok"), "word_eq_A_1_and_not_ok", "((word == 'A-1') & ~ok)"),
        (col("word").isin(["AA", "BB"]), "word_in_AA_BB", "word in ['AA', 'BB']"),
        (col("x").log1p().clip(0.1, 1e20), "log1p_x_clip_0_1_1e20", "clip(log1p(x), 0.1, 1e+20)"),
        ((col("x") > 1).alias("large"), "large", "(x > 1)"),
    ],
)
def test_names(expression: Expression, name: str, text: str) -> None:
    """An expression has a name for features and a text for people."""
    assert (expression.name(), repr(expression)) == (name, text)


def test_canonical() -> None:
    """The canonical form says what is computed, and nothing about how it was written."""
    one = ((col("x") + 1) > col("y")).alias("named")
    assert one.canonical() == {"op": "gt", "of": [{"op": "plus", "of": [{"field": "x"}, 1.0]}, {"field": "y"}]}
    assert one.canonical() == ((col("x") + 1.0) > col("y")).canonical()
    assert one.fields() == {"x", "y"}
    assert (col("ok") == True).canonical() == {"op": "eq", "of": [{"field": "ok"}, True]}  # noqa: E712 - that is how it is written


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (col("z") + 1, "no field 'z'; it has ok, word, x, y"),
        (col("word") + 1, "needs numbers, but is given text and number"),
        (col("word") > "AA", "needs numbers"),  # type: ignore[operator]
        (col("x") == "AA", "numbers with numbers or text with text"),
        (col("word").isin(["AA", 1]), "text with text"),
        (col("x") & col("ok"), "needs conditions"),
        (~col("x"), "needs conditions"),
    ],
    ids=repr,
)
def test_what_cannot_be_computed(expression: Expression, says: str) -> None:
    """What the contract cannot give is refused when it is declared."""
    with pytest.raises(DefinitionError, match=f"^view v: .*{says}"):
        expression.kind(KINDS, where="view v")


def test_what_cannot_be_written() -> None:
    """Mistakes of writing are refused at once, with the fix."""
    with pytest.raises(DefinitionError, match=r"write & | ~ instead of and, or, not"):
        bool(col("x") > 1)
    with pytest.raises(DefinitionError, match="no chained comparisons"):
        1 < col("x") < 3  # noqa: B015 - the comparison is what raises
    for wrong in (NAN, math.inf, None, [1], b"AA"):
        with pytest.raises(DefinitionError, match="cannot stand in an expression"):
            col("x") + wrong  # type: ignore[operator]
    with pytest.raises(DefinitionError, match="name of a field"):
        col("dep delay")
    with pytest.raises(DefinitionError, match="alias"):
        col("x").alias("1st")
    with pytest.raises(DefinitionError, match="must not be above"):
        col("x").clip(2, 1)
    with pytest.raises(DefinitionError, match="at least one value"):
        col("word").isin([])
    with pytest.raises(DefinitionError, match="at least one value"):
        col("word").isin("AA")
