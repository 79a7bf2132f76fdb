"""An expression as a tree of fields, constants and operators, and the walks over it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.errors import DefinitionError
from headrace.expression.column import Canonical, Column, Kind, Scalar, constant
from headrace.expression.operators import OPERATORS, Given
from headrace.types import Float64s


def col(name: str) -> Expression:
    """The field `name` of the event."""
    if not str(name).isidentifier():
        raise DefinitionError(f"hr.col({name!r}): write the name of a field of the event")
    return Expression(_Field(name))


def literal(value: Scalar) -> Expression:
    """The same value for every event: a finite number, a truth value or a text."""
    if not isinstance(value, str) and not math.isfinite(value):
        raise DefinitionError(f"{value!r} is no value of an event; write a finite number, a truth value or a text")
    return Expression(_Constant(value))


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
    given: Given | None = None


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
        return call("log1p", self)

    def abs(self) -> Expression:
        """The distance from zero."""
        return call("abs", self)

    def clip(self, low: float, high: float) -> Expression:
        """The value, brought up to `low` and down to `high`."""
        if not low <= high:
            raise DefinitionError(f"{self!r}.clip({low}, {high}): the first bound must not be above the second")
        return call("clip", self, low, high)

    def isin(self, values: Sequence[Scalar]) -> Expression:
        """Whether it is one of `values`."""
        if isinstance(values, str) or not values:
            raise DefinitionError(f"{self!r}.isin({values!r}): give a list of at least one value")
        return call("isin", self, *values)

    def __add__(self, other: Expression | float) -> Expression:
        return call("plus", self, other)

    def __radd__(self, other: float) -> Expression:
        return call("plus", other, self)

    def __sub__(self, other: Expression | float) -> Expression:
        return call("minus", self, other)

    def __rsub__(self, other: float) -> Expression:
        return call("minus", other, self)

    def __mul__(self, other: Expression | float) -> Expression:
        return call("times", self, other)

    def __rmul__(self, other: float) -> Expression:
        return call("times", other, self)

    def __truediv__(self, other: Expression | float) -> Expression:
        return call("over", self, other)

    def __rtruediv__(self, other: float) -> Expression:
        return call("over", other, self)

    def __neg__(self) -> Expression:
        return call("negative", self)

    def __gt__(self, other: Expression | float) -> Expression:
        return call("gt", self, other)

    def __ge__(self, other: Expression | float) -> Expression:
        return call("ge", self, other)

    def __lt__(self, other: Expression | float) -> Expression:
        return call("lt", self, other)

    def __le__(self, other: Expression | float) -> Expression:
        return call("le", self, other)

    def __eq__(self, other: Expression | Scalar) -> Expression:  # type: ignore[override]
        return call("eq", self, other)

    def __ne__(self, other: Expression | Scalar) -> Expression:  # type: ignore[override]
        return call("ne", self, other)

    def __and__(self, other: Expression) -> Expression:
        return call("and", self, other)

    def __or__(self, other: Expression) -> Expression:
        return call("or", self, other)

    def __invert__(self) -> Expression:
        return call("not", self)

    def __bool__(self) -> bool:
        raise DefinitionError(f"{self!r} has no truth of its own: write & | ~ instead of and, or, not, and no chained comparisons")

    def __repr__(self) -> str:
        return _text(self._node)


def call(operator: str, *operands: object, given: Given | None = None) -> Expression:
    """An operator of the table over expressions and constants, with what it is told once. Raises `DefinitionError`."""
    arguments: list[_Node] = []
    for operand in operands:
        if isinstance(operand, Expression):
            arguments.append(operand._node)  # noqa: SLF001 - an operand is one of us
        elif isinstance(operand, str) or (isinstance(operand, (bool, int, float)) and math.isfinite(operand)):
            arguments.append(_Constant(operand))
        else:
            raise DefinitionError(f"{operand!r} cannot stand in an expression; write hr.col(...), a finite number, a truth value or a text")
    return Expression(_Call(operator, tuple(arguments), given))


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
    said: dict[str, object] = {"op": node.operator, "of": [_canonical(argument) for argument in node.arguments]}
    return said if node.given is None else {**said, "with": node.given.canonical()}


def _text(node: _Node) -> str:
    if isinstance(node, _Field):
        return node.name
    if isinstance(node, _Constant):
        return repr(node.value) if isinstance(node.value, (bool, str)) else repr(float(node.value)).removesuffix(".0")
    return _filled(OPERATORS[node.operator].text, [_text(argument) for argument in node.arguments], ", ", node.given)


def _name(node: _Node) -> str:
    if isinstance(node, _Field):
        return node.name
    if isinstance(node, _Constant):
        text = node.value if isinstance(node.value, str) else _text(node).lower().replace("-", "minus_").replace("+", "")
        return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text)
    return _filled(OPERATORS[node.operator].name, [_name(argument) for argument in node.arguments], "_", node.given)


def _filled(form: str, parts: list[str], between: str, given: Given | None) -> str:
    return form.format(*parts, rest=between.join(parts[1:]), given=given)


def _kind(node: _Node, kinds: Mapping[str, Kind], where: str) -> Kind:
    if isinstance(node, _Field):
        if node.name not in kinds:
            raise DefinitionError(f"{where}: the event has no field {node.name!r}; it has {', '.join(sorted(kinds))}")
        return kinds[node.name]
    if isinstance(node, _Constant):
        return "text" if isinstance(node.value, str) else "boolean" if isinstance(node.value, bool) else "number"
    operator = OPERATORS[node.operator]
    given = [_kind(argument, kinds, where) for argument in node.arguments]
    if operator.takes == "alike":
        fits = len({kind == "text" for kind in given}) == 1
    elif operator.takes == "number":
        fits = "text" not in given
    else:
        fits = set(given) == {operator.takes}
    if not fits:
        wanted = {"alike": "numbers with numbers or text with text", "boolean": "conditions", "number": "numbers", "text": "text"}[
            operator.takes
        ]
        raise DefinitionError(f"{where}: {_text(node)} needs {wanted}, but is given {' and '.join(given)}")
    return operator.gives


def _evaluate(node: _Node, columns: Mapping[str, Column]) -> Column:
    if isinstance(node, _Field):
        return columns[node.name]
    if isinstance(node, _Constant):
        return constant(node.value, len(next(iter(columns.values()))))
    arguments = [_evaluate(argument, columns) for argument in node.arguments]
    apply = OPERATORS[node.operator].apply
    return apply(*arguments) if node.given is None else apply(node.given, *arguments)
