"""Expressions over the fields of an event: `hr.col("dep_delay") > 15`.

An expression is written once and used everywhere: it is checked against the contract when it is declared, rendered to canonical JSON for
the fingerprint, and evaluated over whole columns when events arrive.

Absent values behave as NULL does in SQL. Absent in, absent out, with the two exceptions of three-valued logic (`False & absent` is false,
`True | absent` is true). A result that is no finite number (0/0, overflow, the logarithm of nothing) is absent, at every step.

The same event gives the same bits in any batch and on any machine: everything is made of operations that IEEE 754 rounds correctly.
That is why `log1p` is spelled out here; the ones of C libraries differ in the last bits. Limits: numbers are float64, so whole numbers are
exact up to 2**53; text can be compared, not computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.types import Bools, Float64s

Kind = Literal["number", "boolean", "text"]
Scalar = bool | int | float | str
Column = Float64s | NDArray[np.object_]
Canonical = dict[str, object] | float | bool | str


def col(name: str) -> Expression:
    """The field `name` of the event."""
    if not str(name).isidentifier():
        raise DefinitionError(f"hr.col({name!r}): write the name of a field of the event")
    return Expression(_Field(name))


@dataclass(frozen=True, slots=True)
class _Field:
    name: str


@dataclass(frozen=True, slots=True)
class _Constant:
    value: Scalar


@dataclass(frozen=True, slots=True)
class _Call:
    operator: str
    arguments: tuple[_Node, ...]


_Node = _Field | _Constant | _Call


class Expression:
    """A value computed from the fields of one event; made by `hr.col` and operators, never changed."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("_alias", "_node")

    def __init__(self, node: _Node, alias: str | None = None) -> None:
        self._node = node
        self._alias = alias

    def alias(self, name: str) -> Expression:
        """The same expression under a name of its own: what generated feature names will say for it."""
        if not str(name).isidentifier():
            raise DefinitionError(f"alias({name!r}): write letters, digits and underscores, beginning with a letter")
        return Expression(self._node, name)

    def name(self) -> str:
        """The alias, or a name made from the expression: `dep_delay_gt_15`."""
        return self._alias or _name(self._node)

    def fields(self) -> frozenset[str]:
        """The event fields it reads."""
        return frozenset(_fields(self._node))

    def field(self) -> str | None:
        """The name of the field, if it is nothing but a field."""
        return self._node.name if isinstance(self._node, _Field) else None

    def canonical(self) -> Canonical:
        """A JSON form that is equal for equal computations; aliases are left out."""
        return _canonical(self._node)

    def kind(self, kinds: Mapping[str, Kind], *, where: str) -> Kind:
        """What it gives where fields are of the given kinds. Raises `DefinitionError`, beginning with `where`, if it makes no sense."""
        return _kind(self._node, kinds, where)

    def evaluate(self, columns: Mapping[str, Column]) -> Float64s:
        """Its value for every event: float64, truth as 0 and 1, absent as NaN. Text alone has no value: raises `TypeError`."""
        found = self.column(columns)
        if found.dtype == object:
            raise TypeError(f"{self!r} is text; compare it")
        return np.asarray(found, dtype=np.float64)

    def column(self, columns: Mapping[str, Column]) -> Column:
        """The same for an expression that may be text: as objects then, absent as None."""
        with np.errstate(all="ignore"):
            return _evaluate(self._node, columns)

    def log1p(self) -> Expression:
        """The natural logarithm of 1 + x; absent at -1 and below."""
        return _call("log1p", self)

    def abs(self) -> Expression:
        """The distance from zero."""
        return _call("abs", self)

    def clip(self, low: float, high: float) -> Expression:
        """The value, brought up to `low` and down to `high`."""
        if not low <= high:
            raise DefinitionError(f"{self!r}.clip({low}, {high}): the first bound must not be above the second")
        return _call("clip", self, low, high)

    def isin(self, values: Sequence[Scalar]) -> Expression:
        """Whether it is one of `values`."""
        if isinstance(values, str) or not values:
            raise DefinitionError(f"{self!r}.isin({values!r}): give a list of at least one value")
        return _call("isin", self, *values)

    def __add__(self, other: Expression | float) -> Expression:
        return _call("plus", self, other)

    def __radd__(self, other: float) -> Expression:
        return _call("plus", other, self)

    def __sub__(self, other: Expression | float) -> Expression:
        return _call("minus", self, other)

    def __rsub__(self, other: float) -> Expression:
        return _call("minus", other, self)

    def __mul__(self, other: Expression | float) -> Expression:
        return _call("times", self, other)

    def __rmul__(self, other: float) -> Expression:
        return _call("times", other, self)

    def __truediv__(self, other: Expression | float) -> Expression:
        return _call("over", self, other)

    def __rtruediv__(self, other: float) -> Expression:
        return _call("over", other, self)

    def __neg__(self) -> Expression:
        return _call("negative", self)

    def __gt__(self, other: Expression | float) -> Expression:
        return _call("gt", self, other)

    def __ge__(self, other: Expression | float) -> Expression:
        return _call("ge", self, other)

    def __lt__(self, other: Expression | float) -> Expression:
        return _call("lt", self, other)

    def __le__(self, other: Expression | float) -> Expression:
        return _call("le", self, other)

    def __eq__(self, other: Expression | Scalar) -> Expression:  # type: ignore[override]
        return _call("eq", self, other)

    def __ne__(self, other: Expression | Scalar) -> Expression:  # type: ignore[override]
        return _call("ne", self, other)

    def __and__(self, other: Expression) -> Expression:
        return _call("and", self, other)

    def __or__(self, other: Expression) -> Expression:
        return _call("or", self, other)

    def __invert__(self) -> Expression:
        return _call("not", self)

    def __bool__(self) -> bool:
        raise DefinitionError(f"{self!r} has no truth of its own: write & | ~ instead of and, or, not, and no chained comparisons")

    def __repr__(self) -> str:
        return _text(self._node)


def _call(operator: str, *operands: object) -> Expression:
    arguments: list[_Node] = []
    for operand in operands:
        if isinstance(operand, Expression):
            arguments.append(operand._node)  # noqa: SLF001 - an operand is one of us
        elif isinstance(operand, str) or (isinstance(operand, (bool, int, float)) and math.isfinite(operand)):
            arguments.append(_Constant(operand))
        else:
            raise DefinitionError(f"{operand!r} cannot stand in an expression; write hr.col(...), a finite number, a truth value or a text")
    return Expression(_Call(operator, tuple(arguments)))


# ------------------------------------------------------------------------------------------------- what operators do, over columns


def _finite(values: Float64s) -> Float64s:
    return np.where(np.isfinite(values), values, np.nan)


def _truth(truth: Bools, *of: Column) -> Float64s:
    known = np.ones(len(truth), dtype=np.bool_)
    for values in of:
        known &= ~_absent(values)
    return np.where(known, truth.astype(np.float64), np.nan)


def _absent(values: Column) -> Bools:
    if values.dtype == object:
        return np.asarray(values == None, dtype=np.bool_)  # noqa: E711 - element by element
    return np.isnan(values.astype(np.float64, copy=False))


def _and(left: Float64s, right: Float64s) -> Float64s:
    return np.where((left == 0) | (right == 0), 0.0, np.where(np.isnan(left) | np.isnan(right), np.nan, 1.0))


def _or(left: Float64s, right: Float64s) -> Float64s:
    return np.where((left == 1) | (right == 1), 1.0, np.where(np.isnan(left) | np.isnan(right), np.nan, 0.0))


def _equal(left: Column, right: Column) -> Bools:
    return np.asarray(np.equal(left, right), dtype=np.bool_)


def _isin(values: Column, *among: Column) -> Float64s:
    found = np.zeros(len(values), dtype=np.bool_)
    for one in among:
        found |= _equal(values, one)
    return _truth(found, values)


def _clip(values: Float64s, low: Float64s, high: Float64s) -> Float64s:
    return np.minimum(np.maximum(values, low), high)


_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SERIES = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)


def _log1p(x: Float64s) -> Float64s:
    """As fdlibm's `log` (Sun, 1993) of 1 + x, with the rounding error of 1 + x put back in the first order; good to about one ulp."""
    rounded = 1.0 + x
    lost = np.where(np.abs(x) < 1.0, x - (rounded - 1.0), 1.0 - (rounded - x)) / rounded
    fraction, exponent = np.frexp(rounded)
    low = fraction < math.sqrt(0.5)
    f = np.where(low, fraction * 2.0, fraction) - 1.0
    k = exponent.astype(np.float64) - low
    s = f / (2.0 + f)
    z = s * s
    series = np.zeros_like(z)
    for factor in reversed(_SERIES):
        series = (series + factor) * z
    half = 0.5 * f * f
    found = k * _LN2_HIGH - ((half - (s * (half + series) + (k * _LN2_LOW + lost))) - f)
    return np.where(x > -1.0, np.where(np.abs(x) < 2.0**-54, x, found), np.nan)


@dataclass(frozen=True, slots=True)
class _Operator:
    """What an operator takes and gives, how it is written, and what it does; `takes` "alike" means all numbers or all text."""

    takes: Literal["number", "boolean", "alike"]
    gives: Kind
    text: str
    name: str
    apply: Callable[..., Float64s]


_OPERATORS = {
    "plus": _Operator("number", "number", "({0} + {1})", "{0}_plus_{1}", lambda a, b: _finite(a + b)),
    "minus": _Operator("number", "number", "({0} - {1})", "{0}_minus_{1}", lambda a, b: _finite(a - b)),
    "times": _Operator("number", "number", "({0} * {1})", "{0}_times_{1}", lambda a, b: _finite(a * b)),
    "over": _Operator("number", "number", "({0} / {1})", "{0}_over_{1}", lambda a, b: _finite(a / b)),
    "negative": _Operator("number", "number", "-{0}", "minus_{0}", np.negative),
    "log1p": _Operator("number", "number", "log1p({0})", "log1p_{0}", lambda a: _finite(_log1p(a))),
    "abs": _Operator("number", "number", "abs({0})", "abs_{0}", np.abs),
    "clip": _Operator("number", "number", "clip({0}, {1}, {2})", "{0}_clip_{1}_{2}", _clip),
    "gt": _Operator("number", "boolean", "({0} > {1})", "{0}_gt_{1}", lambda a, b: _truth(a > b, a, b)),
    "ge": _Operator("number", "boolean", "({0} >= {1})", "{0}_ge_{1}", lambda a, b: _truth(a >= b, a, b)),
    "lt": _Operator("number", "boolean", "({0} < {1})", "{0}_lt_{1}", lambda a, b: _truth(a < b, a, b)),
    "le": _Operator("number", "boolean", "({0} <= {1})", "{0}_le_{1}", lambda a, b: _truth(a <= b, a, b)),
    "eq": _Operator("alike", "boolean", "({0} == {1})", "{0}_eq_{1}", lambda a, b: _truth(_equal(a, b), a, b)),
    "ne": _Operator("alike", "boolean", "({0} != {1})", "{0}_ne_{1}", lambda a, b: _truth(~_equal(a, b), a, b)),
    "isin": _Operator("alike", "boolean", "{0} in [{rest}]", "{0}_in_{rest}", _isin),
    "and": _Operator("boolean", "boolean", "({0} & {1})", "{0}_and_{1}", _and),
    "or": _Operator("boolean", "boolean", "({0} | {1})", "{0}_or_{1}", _or),
    "not": _Operator("boolean", "boolean", "~{0}", "not_{0}", lambda a: 1.0 - a),
}


# ------------------------------------------------------------------------------------------------- walks over the tree


def _fields(node: _Node) -> set[str]:
    if isinstance(node, _Call):
        return set().union(*(_fields(argument) for argument in node.arguments))
    return {node.name} if isinstance(node, _Field) else set()


def _canonical(node: _Node) -> Canonical:
    if isinstance(node, _Field):
        return {"field": node.name}
    if isinstance(node, _Constant):
        return node.value if isinstance(node.value, (bool, str)) else float(node.value)
    return {"op": node.operator, "of": [_canonical(argument) for argument in node.arguments]}


def _text(node: _Node) -> str:
    if isinstance(node, _Field):
        return node.name
    if isinstance(node, _Constant):
        return repr(node.value) if isinstance(node.value, (bool, str)) else repr(float(node.value)).removesuffix(".0")
    return _filled(_OPERATORS[node.operator].text, [_text(argument) for argument in node.arguments], ", ")


def _name(node: _Node) -> str:
    if isinstance(node, _Field):
        return node.name
    if isinstance(node, _Constant):
        text = node.value if isinstance(node.value, str) else _text(node).lower().replace("-", "minus_").replace("+", "")
        return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text)
    return _filled(_OPERATORS[node.operator].name, [_name(argument) for argument in node.arguments], "_")


def _filled(form: str, parts: list[str], between: str) -> str:
    return form.format(*parts, rest=between.join(parts[1:]))


def _kind(node: _Node, kinds: Mapping[str, Kind], where: str) -> Kind:
    if isinstance(node, _Field):
        if node.name not in kinds:
            raise DefinitionError(f"{where}: the event has no field {node.name!r}; it has {', '.join(sorted(kinds))}")
        return kinds[node.name]
    if isinstance(node, _Constant):
        return "text" if isinstance(node.value, str) else "boolean" if isinstance(node.value, bool) else "number"
    operator = _OPERATORS[node.operator]
    given = [_kind(argument, kinds, where) for argument in node.arguments]
    if operator.takes == "alike":
        fits = len({kind == "text" for kind in given}) == 1
    elif operator.takes == "boolean":
        fits = set(given) == {"boolean"}
    else:
        fits = "text" not in given
    if not fits:
        wanted = {"alike": "numbers with numbers or text with text", "boolean": "conditions", "number": "numbers"}[operator.takes]
        raise DefinitionError(f"{where}: {_text(node)} needs {wanted}, but is given {' and '.join(given)}")
    return operator.gives


def _evaluate(node: _Node, columns: Mapping[str, Column]) -> Column:
    if isinstance(node, _Field):
        return columns[node.name]
    if isinstance(node, _Constant):
        length = len(next(iter(columns.values())))
        return np.full(length, node.value, dtype=object) if isinstance(node.value, str) else np.full(length, float(node.value))
    return _OPERATORS[node.operator].apply(*(_evaluate(argument, columns) for argument in node.arguments))
