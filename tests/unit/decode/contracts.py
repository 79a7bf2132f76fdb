"""Contracts and records that the tests of decoding share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from headrace.decode.decoder import Decoded, Decoder
from headrace.source import Event, EventTime, Source
from headrace.types import Headers, Reason, RecordBatch

NOW_MS = 1_357_034_400_000
"""The timestamp of the records, 2013-01-01."""


class Departure(Event):
    """A contract of every kind of field."""

    origin: str
    departed_at: EventTime
    dep_delay: float
    seats: int
    cancelled: bool
    cabin: Literal["economy", "business"]
    carrier: Annotated[str, Field(min_length=2, max_length=3, pattern="^[A-Z0-9]+$")] | None = None
    distance: Annotated[float, Field(gt=0, le=20_000)] | None = None
    stops: Annotated[int, Field(ge=0, lt=10)] | None = None
    landed_at: EventTime | None = None


DEPARTURES = Source("flights.departures.v1", Departure, key="origin", time="departed_at")
HISTORICAL = Source("flights.departures.v1", Departure, key="origin", time="departed_at", historical=True)

EVENT: dict[str, Any] = {
    "origin": "EWR",
    "departed_at": NOW_MS,
    "dep_delay": 2.5,
    "seats": 180,
    "cancelled": False,
    "cabin": "economy",
    "carrier": "UA",
    "distance": 1400.0,
    "stops": 0,
    "landed_at": NOW_MS + 1,
}


def event(**changes: object) -> bytes:
    """A good event with changes."""
    return json.dumps({**EVENT, **changes}).encode()


def raw(name: str, text: bytes) -> bytes:
    """A good event in which one field is written as given, whatever that is."""
    before = json.dumps({key: value for key, value in EVENT.items() if key != name}).encode()
    return before[:-1] + b', "' + name.encode() + b'": ' + text + b"}"


def batch(
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers | None] | None = None,
    timestamp_ms: int = NOW_MS,
) -> RecordBatch:
    """Records of one partition; keys are EWR where nothing is said."""
    count = len(values)
    return RecordBatch(
        topic=DEPARTURES.topic,
        partitions=np.zeros(count, dtype=np.int32),
        offsets=np.arange(100, 100 + count),
        timestamps_ms=np.full(count, timestamp_ms),
        keys=list(keys) if keys is not None else [b"EWR"] * count,
        values=list(values),
        headers=list(headers) if headers is not None else [None] * count,
    )


def decoded(*values: bytes | None, source: Source = DEPARTURES, **columns: Any) -> Decoded:
    """What a decoder makes of some values."""
    return Decoder(source).decode(batch(values, **columns))


def reason_of(value: bytes | None, source: Source = DEPARTURES, **columns: Any) -> Reason | None:
    """Why one record is refused, or None; checks that it has exactly one result."""
    result = decoded(value, source=source, **{name: [column] if name != "timestamp_ms" else column for name, column in columns.items()})
    assert len(result.events) + len(result.refused) == 1
    return result.refused[0].reason if result.refused else None
