"""Texts as numbers: by a mapping that is declared, or by a hash.

The hash is the first 8 bytes of SHA-256 of the text in UTF-8, big-endian, modulo the number of buckets: the same in any language and in
SQL, spread evenly for any number of buckets, and computed at the speed of C, so that a long text cannot hold up the others of its batch.
Numbers of recent texts are kept. Limits: buckets collide; what is mapped is one of the listed values or `other`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from headrace.expression.column import Column
from headrace.types import Float64s

REMEMBERED = 200_000
"""How many texts one `Buckets` knows the number of before it forgets them all at once."""
_LONGEST_REMEMBERED = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A declared mapping; `other` stands for values it does not list, `absent` for none (NaN: absent)."""

    numbers: Mapping[str | float, float]
    other: float
    absent: float

    def canonical(self) -> dict[str, object]:
        """The mapping in one order, whatever it was written in."""
        pairs = [[key, self.numbers[key]] for key in sorted(self.numbers, key=lambda key: (isinstance(key, str), key))]
        return {"to": pairs, "other": _known(self.other), "absent": _known(self.absent)}

    def __str__(self) -> str:
        first = [f"{key!r}: {number:g}" for key, number in list(self.numbers.items())[:3]]
        more = f", ... {len(self.numbers)} in all" if len(self.numbers) > len(first) else ""
        return f"{{{', '.join(first)}{more}}}, other={self.other:g}, absent={self.absent:g}".replace("nan", "None")

    def apply(self, values: Column) -> Float64s:
        """The number of each value."""
        numbers, other, absent = self.numbers, self.other, self.absent
        if values.dtype == object:
            found = [absent if value is None else numbers.get(value, other) for value in values.tolist()]
        else:
            found = [absent if value != value else numbers.get(value, other) for value in values.tolist()]  # noqa: PLR0124 - NaN
        return np.array(found, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Buckets:
    """So many buckets; `absent` stands for no text (NaN: absent)."""

    count: int
    absent: float
    _seen: dict[str, float] = field(default_factory=dict, repr=False)

    def canonical(self) -> dict[str, object]:
        """What decides about the numbers."""
        return {"hash": "sha256-64", "buckets": self.count, "absent": _known(self.absent)}

    def __str__(self) -> str:
        return f"buckets={self.count}" + (f", absent={self.absent:g}" if math.isfinite(self.absent) else "")

    def apply(self, texts: Column) -> Float64s:
        """The bucket of each text, 0 to count - 1."""
        seen, count, absent = self._seen, self.count, self.absent
        if len(seen) > REMEMBERED:
            seen.clear()
        found = np.empty(len(texts))
        for row, text in enumerate(texts.tolist()):
            if text is None:
                found[row] = absent
                continue
            number = seen.get(text)
            if number is None:
                number = float(hash_of(text) % count)
                if len(text) <= _LONGEST_REMEMBERED:
                    seen[text] = number
            found[row] = number
        return found


def hash_of(text: str) -> int:
    """64 bits of a text, the same for ever."""
    return int.from_bytes(sha256(text.encode(errors="surrogatepass")).digest()[:8], "big")


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None
