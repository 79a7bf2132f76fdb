"""The flights into a broker: the records of the replay, sent to the source topic at a chosen pace.

Whatever is due is sent, so a load that fell behind catches up; about once a second it waits until everything is delivered. A record may
arrive twice, none is lost: where the broker went away, `skip` goes on behind the last record that is known to be there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from headrace.clock import Clock
from headrace.demo.boarding import boardings
from headrace.demo.boarding_events import boardings_of
from headrace.demo.events import Departures
from headrace.demo.flights import departures as departed
from headrace.demo.planted import BadRecord
from headrace.errors import TransientError
from headrace.types import Float64s, Headers, OutRecords

PORTION = 2_000
"""Records sent at a time."""
DELIVERY_S = 1.0
NAP_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """How far a load is."""

    sent: int
    delivered: int
    """Records known to be there, in order from the first."""
    newest_ms: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where it goes: `send` queues records in order, `delivered` waits and says whether all of them arrived."""

    send: Callable[[OutRecords], None]
    delivered: Callable[[], bool]


def records_of_departures(departures: Departures, planted: Mapping[int, BadRecord]) -> OutRecords:
    """Everything to send, in order: each departure behind the planted record that stands before it."""
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[Headers] = []
    timestamps_ms: list[int] = []
    for row, time_ms in enumerate(departures.departed_ms.tolist()):
        bad = planted.get(row)
        if bad is not None:
            keys.append(bad.key)
            values.append(bad.value)
            headers.append(bad.headers or [])
            timestamps_ms.append(bad.timestamp_ms)
        keys.append(departures.keys[row])
        values.append(departures.values[row])
        headers.append([])
        timestamps_ms.append(time_ms)
    return OutRecords(topic=departed.topic, keys=keys, values=values, headers=headers, timestamps_ms=timestamps_ms)


def records_of_boardings(departures: Departures) -> OutRecords:
    """The boardings of these flights, in order."""
    found = boardings_of(departures, np.arange(len(departures)))
    return OutRecords(
        topic=boardings.topic,
        keys=[event["tail"].encode() for event in found.events],
        values=[json.dumps(event).encode() for event in found.events],
        headers=[[] for _ in found.events],
        timestamps_ms=found.times_ms.tolist(),
    )


def due_by_speed(records: OutRecords, speed: float) -> Float64s:
    """When each record is due, in seconds: the year runs `speed` times as fast as it did."""
    times_ms = np.array(records.timestamps_ms, dtype=np.float64)
    return np.maximum.accumulate(times_ms - times_ms[0]) / 1_000 / speed


def due_by_rate(records: OutRecords, rate: float) -> Float64s:
    """When each record is due, in seconds: so many a second, or (0) all of them at once."""
    return np.arange(len(records)) / rate if rate else np.zeros(len(records))


def load(
    records: OutRecords, due_s: Float64s, broker: Broker, *, clock: Clock, sleep: Callable[[float], None], skipped: int = 0
) -> Iterator[Sent]:
    """Send the records as they become due; yields after every portion. Raises `TransientError` when some were not delivered.

    `skipped` is what was left out of the records at their beginning: the error counts it too.
    """
    begun_s = delivery_s = clock.monotonic_ns() / 1e9
    sent = delivered = 0
    while delivered < len(records):
        now_s = clock.monotonic_ns() / 1e9
        end = min(int(np.searchsorted(due_s, now_s - begun_s, side="right")), sent + PORTION)
        if end > sent:
            try:
                broker.send(_slice(records, sent, end))
            except TransientError as away:
                raise _stopped(skipped + delivered, str(away)) from away
            sent = end
        else:
            sleep(NAP_S)
        if sent == len(records) or now_s - delivery_s >= DELIVERY_S:
            if not broker.delivered():
                raise _stopped(skipped + delivered, "some records were not delivered")
            delivered, delivery_s = sent, now_s
        yield Sent(
            sent=sent, delivered=delivered, newest_ms=records.timestamps_ms[max(sent - 1, 0)], seconds=clock.monotonic_ns() / 1e9 - begun_s
        )


def _stopped(delivered: int, why: str) -> TransientError:
    return TransientError(f"{why}; the first {delivered:,} records are there: go on with --skip {delivered}")


def from_record(records: OutRecords, first: int) -> OutRecords:
    """The records from that one on."""
    return _slice(records, first, len(records))


def _slice(records: OutRecords, first: int, end: int) -> OutRecords:
    return OutRecords(
        topic=records.topic,
        keys=records.keys[first:end],
        values=records.values[first:end],
        headers=records.headers[first:end],
        timestamps_ms=records.timestamps_ms[first:end],
    )
