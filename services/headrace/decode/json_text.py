"""What counts as JSON text: UTF-8, the grammar of RFC 8259, no lone surrogates, at most 200 levels.

msgspec decides about the grammar while it decodes, but looks into members it was not asked for only as far as needed to skip them: there
it takes bytes that are not UTF-8, and how deep it goes depends on Python's stack at that moment. A dead letter must be a function of the
record alone, so both are decided here, for a whole batch at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import numpy as np

MAX_DEPTH = 200
"""Levels of objects and arrays. Python's own limit, 1,000 with the calls in progress, lies safely above."""

JOINED_BYTES = 1_048_576
"""Values of a batch are looked at together up to this size, and one by one above it, so that memory stays bounded."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_LEVELS = np.zeros(256, dtype=np.int8)
_LEVELS[list(b"[{")], _LEVELS[list(b"]}")] = 1, -1
_GRAMMAR = msgspec.json.Decoder(msgspec.Raw)


def malformed(value: bytes) -> str | None:
    """Why bytes are not JSON text, or None."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start})"
    try:
        _GRAMMAR.decode(value)
    except msgspec.DecodeError as error:
        return str(error)
    except RecursionError:
        return f"nested deeper than {MAX_DEPTH} levels"
    return f"nested deeper than {MAX_DEPTH} levels" if too_deep(value) else None


def suspects(values: Sequence[bytes]) -> list[int]:
    """Which of the values that msgspec has taken as objects may be `malformed` all the same; almost always none.

    Joining the values hides no broken UTF-8 sequence, as each begins with a brace or a blank and ends so.
    """
    sizes = list(map(len, values))
    if max(sizes, default=0) <= 2 * MAX_DEPTH and all(map(bytes.isascii, values)):
        return []  # most batches: no broken UTF-8, and every level takes two bytes
    if len(values) > 1 and sum(sizes) > JOINED_BYTES:
        half = len(values) // 2
        return suspects(values[:half]) + [half + suspect for suspect in suspects(values[half:])]
    text = b"".join(values)
    if not text.isascii():
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            return list(range(len(values)))
    if max(sizes, default=0) <= 2 * MAX_DEPTH:
        return []
    return [number for number, size in enumerate(sizes) if size > 2 * MAX_DEPTH and openings(values[number]) > MAX_DEPTH]


def openings(value: bytes) -> int:
    """How many braces and brackets a text opens, also inside strings: at least as many as it has levels."""
    return value.count(b"{") + value.count(b"[")


def too_deep(value: bytes) -> bool:
    """Whether JSON text has more than `MAX_DEPTH` levels of objects and arrays."""
    if openings(value) <= MAX_DEPTH:
        return False
    marks = np.frombuffer(_STRING.sub(b"", value), dtype=np.uint8)
    return bool(np.cumsum(_LEVELS[marks], dtype=np.int64).max() > MAX_DEPTH)
