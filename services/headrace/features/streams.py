"""What an event gives to lanes and cells: one number, or nothing.

A stream is a value and a filter, and the form in which its lanes want the number: as it is; as the bin it falls into; as the place in a
vocabulary; or as a hash. Whole columns are turned at once. Everything here gives the same bits on every machine: bins come from the
exponent and the leading bits of a float, not from a logarithm; hashes of texts are those of `hr.hashed`, those of numbers the finalizer of
SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014).

Limit: a hash is cut to 53 bits, which a float holds. Among a million different values two share one with a chance of 1 in 18,000.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.expression import Column, Expression
from headrace.expression.category import hash_of
from headrace.types import Float64s

_KNOWN_TEXTS = 100_000
"""So many hashes of texts are kept; then they are forgotten and made again."""
_SPARE_BITS = 11
_hashes: dict[str, float] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class BinForm:
    """The number of the bin a value falls into: 0 for zero, the larger away from it the larger the value.

    A power of two is cut into `parts` bins of equal width. What is closer to zero than `smallest` counts as zero, what is beyond `largest`
    as that.
    """

    parts: int
    smallest: float
    largest: float

    @staticmethod
    def of(error: float, smallest: float, largest: float) -> BinForm:
        """Bins whose middle is off by at most a share of `error`: a bin [a, b] is answered by 2ab / (a + b), off by (b - a) / (b + a)."""
        return BinForm(parts=math.ceil((1.0 / error - 1.0) / 2.0), smallest=smallest, largest=largest)

    @property
    def low(self) -> int:
        """The power of two the first bins begin with."""
        return math.frexp(self.smallest)[1] - 1

    @property
    def count(self) -> int:
        """How many bins there are."""
        return 2 * (math.frexp(self.largest)[1] - self.low) * self.parts + 1

    def numbers(self, values: Float64s) -> Float64s:
        """The bins of values; NaN of NaN."""
        fraction, exponent = np.frexp(np.minimum(np.abs(values), self.largest))
        part = np.floor((2.0 * fraction - 1.0) * self.parts)
        place = (exponent.astype(np.int64) - 1 - self.low) * float(self.parts) + part + 1.0
        place = np.where(np.abs(values) < self.smallest, 0.0, place)
        return np.where(np.isnan(values), np.nan, np.copysign(place, values)) + 0.0  # there is one bin 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolForm:
    """The place of a value in a vocabulary; one more for any other value."""

    vocabulary: tuple[str | float, ...]

    def numbers(self, values: Column) -> Float64s:
        """The places of values; NaN of absent ones."""
        places = {symbol: float(place) for place, symbol in enumerate(self.vocabulary)}
        other = float(len(self.vocabulary))
        found = np.fromiter((places.get(value, other) for value in values.tolist()), dtype=np.float64, count=len(values))
        absent = values == None if values.dtype == object else np.isnan(values)  # noqa: E711 - element by element
        return np.where(absent, np.nan, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashForm:
    """A hash of the value from 0 to 2**53 - 1."""

    def numbers(self, values: Column) -> Float64s:
        """The hashes of values; NaN of absent ones."""
        if values.dtype == object:
            return np.fromiter(map(_hash_of, values.tolist()), dtype=np.float64, count=len(values))
        plain: Float64s = values.astype(np.float64) + 0.0  # one zero
        with np.errstate(over="ignore"):
            mixed = plain.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        cut: NDArray[np.uint64] = (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(_SPARE_BITS)
        return np.where(np.isfinite(plain), cut.astype(np.float64), np.nan)


Form = BinForm | SymbolForm | HashForm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """What an event gives: `value` (1 where there is none) in a form, if it has one and `where` holds."""

    value: Expression | None
    where: Expression | None
    form: Form | None = None

    def key(self) -> str:
        """Equal for streams that give the same numbers."""
        parts = [one if one is None else one.canonical() for one in (self.value, self.where)]
        return canonical_json([*parts, None if self.form is None else repr(self.form)])

    def given(self, columns: Mapping[str, Column], count: int) -> Float64s:
        """What `count` events give; NaN where nothing."""
        if self.value is None:
            found: Float64s = np.ones(count)
        elif self.form is None:
            found = self.value.evaluate(columns)
        elif isinstance(self.form, BinForm):
            values = self.value.evaluate(columns)
            found = self.form.numbers(np.where(np.isfinite(values), values, np.nan))
        else:
            found = self.form.numbers(self.value.column(columns))
        if self.where is not None:
            found = np.where(self.where.evaluate(columns) == 1.0, found, np.nan)
        return np.where(np.isfinite(found), found, np.nan)

    def __str__(self) -> str:
        value = "events" if self.value is None else repr(self.value)
        return value if self.where is None else f"{value} where {self.where!r}"


def canonical_json(form: object) -> str:
    """JSON in the one way it is hashed: keys sorted, no spaces, ASCII, no NaN."""
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _hash_of(text: str | None) -> float:
    if text is None:
        return math.nan
    found = _hashes.get(text)
    if found is None:
        if len(_hashes) >= _KNOWN_TEXTS:
            _hashes.clear()
        found = float(hash_of(text) >> _SPARE_BITS)
        _hashes[text] = found
    return found
