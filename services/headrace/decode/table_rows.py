"""Rows of a table as records: a row is the event that its JSON would be, so a file is judged by the reader that judges a topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from headrace.source import Source
from headrace.types import Int32s, Int64s, RecordBatch

_ENCODE = msgspec.json.Encoder().encode


def records_of(source: Source, columns: Mapping[str, Sequence[object]], partitions: Int32s, offsets: Int64s) -> RecordBatch:
    """Rows as records of the source: key and timestamp are those that a producer gives, entity and event time.

    A number that is not finite is absent, as JSON has none; so is None.
    """
    names = list(columns)
    values: list[bytes | None] = [_ENCODE(dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    times = [time if isinstance(time, int) else 0 for time in columns[source.time]]
    return RecordBatch(
        topic=source.topic,
        partitions=partitions,
        offsets=offsets,
        timestamps_ms=np.array(times, dtype=np.int64),
        keys=[entity.encode() if isinstance(entity, str) else None for entity in columns[source.key]],
        values=values,
        headers=[None] * len(values),
    )
