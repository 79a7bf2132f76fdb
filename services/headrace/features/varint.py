"""Whole numbers and floats as bytes. Compiled.

varint  := 7 bits a byte, the lowest first, the high bit set on all but the last
float   := 8 bytes, IEEE 754, little endian
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.features.compiled import inner

Bytes = NDArray[np.uint8]

LOW_BITS, MORE, WORD = 127, 128, 63


@inner
def put_varint(buffer: Bytes, at: int, number: int) -> int:
    """Write a number from 0 on; gives the place behind it."""
    while number > LOW_BITS:
        buffer[at] = (number & LOW_BITS) | MORE
        number >>= 7
        at += 1
    buffer[at] = number
    return at + 1


@inner
def put_float(buffer: Bytes, at: int, number: float) -> int:
    """Write 8 bytes; gives the place behind them."""
    bits = np.float64(number).view(np.uint64)
    for place in range(8):
        buffer[at + place] = np.uint8((bits >> np.uint64(8 * place)) & np.uint64(255))
    return at + 8


@inner
def get_varint(buffer: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number and the place behind it; a place beyond `end` when the bytes are not those of a number."""
    number = 0
    shift = 0
    while at < end and shift < WORD:
        byte = int(buffer[at])
        number |= (byte & LOW_BITS) << shift
        at += 1
        if byte < MORE:
            return number, at
        shift += 7
    return 0, end + 1


@inner
def get_float(buffer: Bytes, at: int, end: int) -> tuple[float, int]:
    """A float and the place behind it; a place beyond `end` when it is cut off."""
    if at + 8 > end:
        return 0.0, end + 1
    bits = np.uint64(0)
    for place in range(8):
        bits |= np.uint64(buffer[at + place]) << np.uint64(8 * place)
    whole = np.uint64(bits)
    return whole.view(np.float64), at + 8
