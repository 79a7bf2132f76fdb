"""Every operator there is: what it takes and gives, how it is written, what it does to whole columns, and its line of documentation.

A new operator is one entry of `OPERATORS`, and the word that makes it: a method of `Expression` or a function in `words.py`. The key of an
entry travels in fingerprints and is never given to another operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from headrace.expression import rounding
from headrace.expression.category import Buckets, Table
from headrace.expression.column import Column, Kind, finite, truth, uniform
from headrace.expression.zone import Zone
from headrace.types import Bools, Float64s

Takes = Literal["number", "boolean", "text", "alike"]


class Given(Protocol):
    """What an operator is told once, beside its arguments: a time zone, a mapping, ..."""

    def canonical(self) -> dict[str, object]:
        """A JSON form of whatever decides about values."""

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator; `takes` "alike" means all numbers or all text. Forms are filled with the arguments, `given` with what was told once."""

    takes: Takes
    gives: Kind
    text: str
    name: str
    apply: Callable[..., Float64s]
    """Takes what was given, if anything was, and a column for each argument."""
    says: str
    example: str = ""
    """How an engineer writes it over a, b, ...; empty where `text` says it."""

    @property
    def written(self) -> str:
        """How an engineer writes it."""
        return self.example or self.text.format("a", "b").removeprefix("(").removesuffix(")")


def _of_numbers(text: str, name: str, apply: Callable[..., Float64s], says: str, example: str = "") -> Operator:
    return Operator(takes="number", gives="number", text=text, name=name, apply=apply, says=says, example=example)


def _comparing(takes: Takes, text: str, name: str, holds: Callable[[Column, Column], Bools], says: str) -> Operator:
    def apply(left: Column, right: Column) -> Float64s:
        return truth(holds(left, right), left, right)

    return Operator(takes=takes, gives="boolean", text=text, name=name, apply=apply, says=says)


def _logical(text: str, name: str, apply: Callable[..., Float64s], says: str) -> Operator:
    return Operator(takes="boolean", gives="boolean", text=text, name=name, apply=apply, says=says)


def _and(left: Float64s, right: Float64s) -> Float64s:
    return np.where((left == 0) | (right == 0), 0.0, np.where(np.isnan(left) | np.isnan(right), np.nan, 1.0))


def _or(left: Float64s, right: Float64s) -> Float64s:
    return np.where((left == 1) | (right == 1), 1.0, np.where(np.isnan(left) | np.isnan(right), np.nan, 0.0))


def _equal(left: Column, right: Column) -> Bools:
    return np.asarray(np.equal(left, right), dtype=np.bool_)


def _isin(values: Column, *among: Column) -> Float64s:
    if not all(map(uniform, among)):
        return truth(np.logical_or.reduce([_equal(values, one) for one in among]), values)
    wanted = {one[0] for one in among}
    if values.dtype == object:
        return truth(np.array([value in wanted for value in values.tolist()], dtype=np.bool_), values)
    return truth(np.isin(values, list(wanted)), values)


def _clip(values: Float64s, low: Float64s, high: Float64s) -> Float64s:
    return np.minimum(np.maximum(values, low), high)


OPERATORS: Mapping[str, Operator] = {
    "plus": _of_numbers("({0} + {1})", "{0}_plus_{1}", lambda a, b: finite(a + b), "the sum"),
    "minus": _of_numbers("({0} - {1})", "{0}_minus_{1}", lambda a, b: finite(a - b), "the difference"),
    "times": _of_numbers("({0} * {1})", "{0}_times_{1}", lambda a, b: finite(a * b), "the product"),
    "over": _of_numbers("({0} / {1})", "{0}_over_{1}", lambda a, b: finite(a / b), "the quotient; absent when divided by 0"),
    "negative": _of_numbers("-{0}", "minus_{0}", np.negative, "the number with the other sign"),
    "log1p": _of_numbers(
        "log1p({0})",
        "log1p_{0}",
        lambda a: finite(rounding.log1p(a)),
        "the natural logarithm of 1 + a; absent at -1 and below",
        "a.log1p()",
    ),
    "abs": _of_numbers("abs({0})", "abs_{0}", np.abs, "the distance from zero", "a.abs()"),
    "clip": _of_numbers(
        "clip({0}, {1}, {2})", "{0}_clip_{1}_{2}", _clip, "the number, up to the first bound and down to the second", "a.clip(0, 60)"
    ),
    "gt": _comparing("number", "({0} > {1})", "{0}_gt_{1}", np.greater, "whether it is greater"),
    "ge": _comparing("number", "({0} >= {1})", "{0}_ge_{1}", np.greater_equal, "whether it is greater or equal"),
    "lt": _comparing("number", "({0} < {1})", "{0}_lt_{1}", np.less, "whether it is less"),
    "le": _comparing("number", "({0} <= {1})", "{0}_le_{1}", np.less_equal, "whether it is less or equal"),
    "eq": _comparing("alike", "({0} == {1})", "{0}_eq_{1}", _equal, "whether two numbers or two texts are equal"),
    "ne": _comparing("alike", "({0} != {1})", "{0}_ne_{1}", lambda a, b: ~_equal(a, b), "whether two numbers or two texts differ"),
    "isin": Operator(
        takes="alike",
        gives="boolean",
        text="{0} in [{rest}]",
        name="{0}_in_{rest}",
        apply=_isin,
        says="whether it is one of the values",
        example='a.isin(["AA", "UA"])',
    ),
    "and": _logical("({0} & {1})", "{0}_and_{1}", _and, "whether both hold; false if one is false and the other absent"),
    "or": _logical("({0} | {1})", "{0}_or_{1}", _or, "whether one of the two holds; true if one is true and the other absent"),
    "not": _logical("~{0}", "not_{0}", lambda a: 1.0 - a, "whether it does not hold"),
    "hour": _of_numbers(
        "hour({0}, tz={given})",
        "hour_{0}",
        Zone.hour,
        "the hour, 0 to 23, on the clock of a time zone at an instant in milliseconds UTC",
        'hr.hour(a, tz="America/New_York")',
    ),
    "weekday": _of_numbers(
        "weekday({0}, tz={given})",
        "weekday_{0}",
        Zone.weekday,
        "the day of the week, 0 (Monday) to 6, in a time zone at an instant in milliseconds UTC",
        'hr.weekday(a, tz="America/New_York")',
    ),
    "haversine_km": _of_numbers(
        "haversine_km({0}, {1}, {2}, {3})",
        "haversine_km_{0}_{1}_{2}_{3}",
        rounding.haversine_km,
        "the great-circle distance of two places given by latitude and longitude in degrees, in kilometres on a sphere of 6,371.0088 km",
        "hr.haversine_km(lat1, lon1, lat2, lon2)",
    ),
    "mapped": Operator(
        takes="text",
        gives="number",
        text="mapped({0}, {given})",
        name="mapped_{0}",
        apply=Table.apply,
        says="the number declared for a text; `other` for the rest, `absent` for none",
        example='hr.mapped(a, {"AA": 0, "UA": 1}, other=-1)',
    ),
    "mapped_number": _of_numbers(
        "mapped({0}, {given})",
        "mapped_{0}",
        Table.apply,
        "the number declared for a whole number; `other` for the rest, `absent` for none",
        "hr.mapped(a, {1: 10, 2: 20}, other=0)",
    ),
    "hashed": Operator(
        takes="text",
        gives="number",
        text="hashed({0}, {given})",
        name="hashed_{0}",
        apply=Buckets.apply,
        says="the bucket of a text, 0 to buckets - 1: the first 8 bytes of its SHA-256, modulo the number of buckets",
        example="hr.hashed(a, buckets=64)",
    ),
}
"""In the order of the documentation."""
