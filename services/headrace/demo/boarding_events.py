"""The boardings of flights, made of their departures, as records of the second application's source and as tables for its training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.demo.boarding import BOARDS_MINUTES
from headrace.demo.events import MINUTE_MS, Departures
from headrace.types import Int64s

KNOWN_LATER = ("departed_at", "dep_delay")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boardings:
    """Some boardings, in the order of their times. `rows` are those of their departures."""

    rows: Int64s
    events: list[dict[str, Any]]
    times_ms: Int64s


def boardings_of(departures: Departures, rows: Sequence[int] | Int64s) -> Boardings:
    """The boardings of the flights in these rows."""
    wanted = np.asarray(rows, dtype=np.int64)
    delay_ms = departures.dep_delay[wanted].astype(np.int64) * MINUTE_MS
    times_ms = departures.departed_ms[wanted] - delay_ms - BOARDS_MINUTES * MINUTE_MS
    order = np.argsort(times_ms, kind="stable")
    events = []
    for row, time_ms in zip(wanted[order].tolist(), times_ms[order].tolist(), strict=True):
        event = json.loads(departures.values[row])
        for name in KNOWN_LATER:
            del event[name]
        events.append({**event, "boards_at": time_ms})
    return Boardings(rows=wanted[order], events=events, times_ms=times_ms[order])
