"""An expression out of a text, as somebody writes it on a command line: `dep_delay + 10`, `clip(amount, 0, 60)`, `shop == "books"`.

It is written as in Python, with the names of fields instead of `hr.col("...")` (which may be written, too). Python's own parser reads it,
and of what comes out only the operators of `operators.py` are taken: nothing is looked up, called or evaluated.

Limits: at most 2,000 characters; `&`, `|` and `~` bind as they do in Python, so conditions stand in brackets: `(a > 1) & (b < 2)`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from headrace.errors import DefinitionError
from headrace.expression import words
from headrace.expression.column import Scalar
from headrace.expression.tree import Expression, call, col, literal

LONGEST = 2_000

_BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "plus",
    ast.Sub: "minus",
    ast.Mult: "times",
    ast.Div: "over",
    ast.BitAnd: "and",
    ast.BitOr: "or",
}
_COMPARED: Mapping[type[ast.cmpop], str] = {
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}
_METHODS: Mapping[str, Callable[..., Expression]] = {
    "log1p": Expression.log1p,
    "abs": Expression.abs,
    "clip": Expression.clip,
    "isin": Expression.isin,
}
_WORDS: Mapping[str, Callable[..., Expression]] = {
    "col": col,
    "hour": words.hour,
    "weekday": words.weekday,
    "haversine_km": words.haversine_km,
    "mapped": words.mapped,
    "hashed": words.hashed,
}
_FUNCTIONS: Mapping[str, Callable[..., Expression]] = {**_METHODS, **_WORDS}


def expression_in(text: str, *, where: str) -> Expression:
    """The expression that a text says. Raises `DefinitionError`, beginning with `where`, for everything that is none."""
    if len(text) > LONGEST:
        raise DefinitionError(f"{where}: an expression has at most {LONGEST:,} characters, this has {len(text):,}")
    try:
        found = _Reader(text, where).expression(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise DefinitionError(f"{where}: {text!r} is no expression ({said}); write for example dep_delay + 10") from error
    except DefinitionError as error:
        # What an operator refuses does not say where.
        raise error if str(error).startswith(where) else DefinitionError(f"{where}: {error}") from error
    return found


class _Reader:
    """Walks over what Python's parser found."""

    def __init__(self, text: str, where: str) -> None:
        self._text, self._where = text, where

    def value(self, node: ast.expr) -> Expression | Scalar:
        """What a part of the text says: an expression, or a number, a truth value or a text."""
        match node:
            case ast.Name(id=name):
                found: Expression | Scalar = col(name)
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                found = constant
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                found = self._negative(operand)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                found = call("not", self.value(operand))
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
                found = call(_BINARY[type(sign)], self.value(left), self.value(right))
            case ast.Compare(left=left, ops=[ast.In()], comparators=[ast.List(elts=among) | ast.Tuple(elts=among)]):
                found = self.expression(left).isin([self._constant(one) for one in among])
            case ast.Compare(left=left, ops=[comparison], comparators=[right]) if type(comparison) in _COMPARED:
                found = call(_COMPARED[type(comparison)], self.value(left), self.value(right))
            case ast.Call():
                found = self._called(node)
            case _:
                raise self._refused(node)
        return found

    def _called(self, node: ast.Call) -> Expression:
        match node.func:
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="hr"), attr=name) if name in _METHODS and node.args:
                given = [self.expression(node.args[0]), *map(self._argument, node.args[1:])]
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="hr"), attr=name) if name in _WORDS:
                given = list(map(self._argument, node.args))
            case ast.Attribute(value=of, attr=name) if name in _METHODS:
                given = [self.expression(of), *map(self._argument, node.args)]
            case _:
                raise self._refused(node.func)
        named = {one.arg: self._argument(one.value) for one in node.keywords if one.arg is not None}
        try:
            return _FUNCTIONS[name](*given, **named)
        except (TypeError, AttributeError) as error:
            raise DefinitionError(f"{self._where}: {ast.unparse(node)!r} is not how {name} is written ({error})") from error

    def _argument(self, node: ast.expr) -> object:
        """The same, or what some words take beside it: nothing, a list, a mapping."""
        match node:
            case ast.Constant(value=None):
                return None
            case ast.List(elts=among) | ast.Tuple(elts=among):
                return [self._constant(one) for one in among]
            case ast.Dict(keys=keys, values=values):
                return {self._constant(key): self._constant(one) for key, one in zip(keys, values, strict=True)}
        return self.value(node)

    def expression(self, node: ast.expr) -> Expression:
        """The same, a constant as an expression."""
        found = self.value(node)
        return found if isinstance(found, Expression) else literal(found)

    def _constant(self, node: ast.expr | None) -> Scalar:
        found = None if node is None else self.value(node)
        if found is None or isinstance(found, Expression):
            raise DefinitionError(f"{self._where}: {self._text!r}: lists and mappings hold numbers and texts, nothing else")
        return found

    def _negative(self, node: ast.expr) -> Expression | Scalar:
        found = self.value(node)
        return call("negative", found) if isinstance(found, str) else -found

    def _refused(self, node: ast.expr) -> DefinitionError:
        match node:
            case ast.Constant(value=None):
                fix = "nothing but a field can be absent: to leave a field out of every event, drop it (--drop-input)"
            case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                fix = "write & | ~ instead of and, or, not, and conditions in brackets"
            case ast.Compare():
                fix = "compare two values at a time, conditions in brackets: (a > 1) & (b < 2)"
            case _:
                fix = f"there are fields, numbers, texts, + - * / & | ~, comparisons, in [...], and {', '.join(_FUNCTIONS)}"
        return DefinitionError(f"{self._where}: {ast.unparse(node)!r} cannot stand in an expression; {fix}")
