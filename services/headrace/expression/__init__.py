"""Expressions over the fields of an event: `hr.col("dep_delay") > 15`.

An expression is written once and used everywhere: it is checked against the contract when it is declared, rendered to canonical JSON for
the fingerprint, and evaluated over whole columns when events arrive.

Absent values behave as NULL does in SQL. Absent in, absent out, with the two exceptions of three-valued logic (`False & absent` is false,
`True | absent` is true). A result that is no finite number (0/0, overflow, the logarithm of nothing) is absent, at every step.

The same event gives the same bits in any batch and on any machine: everything is made of operations that IEEE 754 rounds correctly, and
time zones come from a pinned package.

    tree.py        an expression, and the walks over it
    operators.py   the table of operators
    written.py     an expression out of a text, for command lines
    words.py       hr.hour, hr.weekday, hr.haversine_km, hr.mapped, hr.hashed
    rounding.py    logarithm, sine, cosine, arcsine, distance
    zone.py        clocks of places
    category.py    texts as numbers
    column.py      what a column is

Limits: numbers are float64, so whole numbers are exact up to 2**53; text can be compared, mapped and hashed, not computed.
"""

from __future__ import annotations

from headrace.expression.column import Canonical, Column, Kind, Scalar
from headrace.expression.operators import OPERATORS, Operator
from headrace.expression.tree import Expression, col, literal
from headrace.expression.words import hashed, haversine_km, hour, mapped, weekday
from headrace.expression.written import expression_in

__all__ = [
    "OPERATORS",
    "Canonical",
    "Column",
    "Expression",
    "Kind",
    "Operator",
    "Scalar",
    "col",
    "expression_in",
    "hashed",
    "haversine_km",
    "hour",
    "literal",
    "mapped",
    "weekday",
]
