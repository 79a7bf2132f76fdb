"""The value of a record on a hop: an event with the features so far, and where it came from (pure).

    byte 0    version of this form
         1    1 if the event was late at a stage before, else 0
         2    number of features that come with it, 2 bytes
         4    length of the key its record had in the source's topic, 4 bytes; all bits set: it had none
         8    fingerprint of the definitions that made them, its first 8 bytes
        16    partition and offset of its record in the source's topic, 8 bytes each
        32    partition and offset of the record it was made of, in the topic that feeds the hop, 8 bytes each
        48    watermark of that partition, behind the event, 8 bytes
        56    how many partitions feed the hop, 8 bytes
        64    the features, 8 bytes each
         .    the key
         .    the value that its record had in the source's topic

Numbers are little-endian. Headers and timestamp of the record are those it had in the source's topic, its key is the entity of the next
stage. So the next stage needs nothing but this record to do its part, and a dead letter written there is the record as it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.types import Bools, Float64s, Int64s

VERSION = 1
NO_KEY = 0xFFFFFFFF

HEAD = np.dtype(
    [
        ("version", "u1"),
        ("late", "u1"),
        ("features", "<u2"),
        ("key", "<u4"),
        ("made_by", "<u8"),
        *((name, "<i8") for name in ("partition", "offset", "feeder", "feeder_offset", "watermark_ms", "of")),
    ]
)
PLACE = slice(32, 48)
"""Where in a value its place in the topic that feeds the hop stands."""


def made_by_number(fingerprint: str) -> int:
    """The part of a fingerprint that travels, as the number it is read as."""
    return int.from_bytes(bytes.fromhex(fingerprint[:16]), "little")


def write(heads: NDArray[np.void], features: Float64s, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> list[bytes]:
    """The values of hop records: `heads` [events] as `HEAD`, but for version, key and number of features; `features` [events, features].

    `values` are those of the records in the source's topic, none of them None.
    """
    count = features.shape[1]
    heads["version"], heads["features"] = VERSION, count
    heads["key"] = [NO_KEY if key is None else len(key) for key in keys]
    whole = np.empty(len(heads), dtype=np.dtype([("head", HEAD), ("features", "<f8", (count,))]))
    whole["head"], whole["features"] = heads, features
    size, written = whole.dtype.itemsize, whole.tobytes()
    return [
        b"%b%b%b" % (written[number * size : (number + 1) * size], key or b"", value or b"")
        for number, (key, value) in enumerate(zip(keys, values, strict=True))
    ]


@dataclass(slots=True, kw_only=True, eq=False)
class Opened:
    """What the values of hop records hold, by record; where `readable` is false the rest means nothing."""

    readable: Bools
    heads: NDArray[np.void]
    keys: list[bytes | None]
    values: list[bytes | None]
    """As in the source's topic."""

    def features(self, rows: Int64s, hop_values: Sequence[bytes | None], count: int) -> Float64s:
        """[rows, count]: the features that came with these records, all of which have so many."""
        begin, end = HEAD.itemsize, HEAD.itemsize + 8 * count
        joined = b"".join([(hop_values[row] or b"")[begin:end] for row in rows.tolist()])
        return np.frombuffer(joined, dtype="<f8").reshape(len(rows), count)


def opened(hop_values: Sequence[bytes | None]) -> Opened:
    """Take the values of hop records apart; what is none is told, never raised."""
    size = HEAD.itemsize
    whole = [value if value is not None and len(value) >= size and value[0] == VERSION else b"" for value in hop_values]
    heads = np.frombuffer(b"".join([value[:size] if value else bytes(size) for value in whole]), dtype=HEAD)
    begins = size + 8 * heads["features"].astype(np.int64)
    lengths = np.where(heads["key"] == NO_KEY, 0, heads["key"]).astype(np.int64)
    ends = begins + lengths
    readable = (heads["version"] == VERSION) & (ends <= np.fromiter(map(len, whole), dtype=np.int64, count=len(whole)))
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    columns = zip(whole, begins.tolist(), ends.tolist(), (heads["key"] == NO_KEY).tolist(), strict=True)
    for value, begin, end, keyless in columns:
        keys.append(None if keyless else value[begin:end])
        values.append(value[end:])
    return Opened(readable=readable, heads=heads, keys=keys, values=values)
