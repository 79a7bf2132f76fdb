"""A year of a few hundred made-up departures: five aircraft, late in the evenings."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np

from headrace.demo.events import Departures

NEW_YEAR_MS = round(datetime(2013, 1, 1, 11, tzinfo=UTC).timestamp() * 1_000)
YEAR_MS = 365 * 86_400_000


def small_year(count: int = 400) -> Departures:
    """Departures spread evenly over the year; every third is delayed, every sixth arrives late, every fiftieth is never measured."""
    times = NEW_YEAR_MS + np.arange(count) * (YEAR_MS // (count + 20))
    delays = np.where(np.arange(count) % 3 == 0, 40.0, -2.0)
    ids = [f"2013-{row:05}" for row in range(count)]
    tails = [f"N{row % 5}" for row in range(count)]
    values = [
        json.dumps(
            {
                "flight_id": ids[row],
                "tail": tails[row],
                "carrier": ("UA", "HA")[row % 2],
                "origin": ("EWR", "JFK", "LGA")[row % 3],
                "dest": "IAH",
                "departed_at": int(times[row]),
                "dep_delay": int(delays[row]),
                "distance": 1_400,
                "scheduled_hour": 6 + row % 12,
                "scheduled_weekday": row % 7,
                "planned_minutes": 184,
            },
            separators=(",", ":"),
        ).encode()
        for row in range(count)
    ]
    arrivals = np.where(np.arange(count) % 6 == 0, 55.0, -10.0)
    arrivals[::50] = np.nan
    return Departures(
        flight_ids=ids,
        keys=[tail.encode() for tail in tails],
        values=values,
        departed_ms=times.astype(np.int64),
        months=np.array([datetime.fromtimestamp(time / 1_000, UTC).month for time in times.tolist()], dtype=np.int8),
        dep_delay=delays,
        arr_delay=arrivals,
        flights=count + 9,
    )
