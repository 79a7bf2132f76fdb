"""The bad records planted among the flights."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from headrace.demo.events import Departures
from headrace.demo.planted import KINDS, TAKEN_BY_A_BROKER, TOO_MANY_BYTES, plant


@pytest.fixture
def departures() -> Departures:
    """A thousand good departures."""
    times = 1_357_035_420_000 + 60_000 * np.arange(1_000)
    return Departures(
        flight_ids=[f"f{row}" for row in range(1_000)],
        keys=[b"N1"] * 1_000,
        values=[
            f'{{"flight_id":"f{row}","tail":"N1","carrier":"UA","departed_at":{time},"dep_delay":2,"distance":3}}'.encode()
            for row, time in enumerate(times.tolist())
        ],
        departed_ms=times,
        months=np.ones(1_000, dtype=np.int8),
        dep_delay=np.zeros(1_000),
        arr_delay=np.zeros(1_000),
        flights=1_000,
    )


def test_as_many_as_asked_evenly_over_the_year(departures: Departures) -> None:
    """The gaps between planted records differ by at most one departure."""
    rows = sorted(plant(departures, 200))
    assert len(rows) == 200
    assert {after - before for before, after in pairwise(rows)} == {5}


def test_all_kinds_come_in_turn(departures: Departures) -> None:
    """200 records hold every kind as often as any other, give or take one; there are at least eight kinds and eight reasons."""
    counts = Counter(bad.kind for bad in plant(departures, 200).values())
    assert set(counts) == {kind.name for kind in KINDS}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(KINDS) == 14
    assert len({kind.expected for kind in KINDS}) == 8


def test_every_bad_record_differs_from_the_good_one(departures: Departures) -> None:
    """Nothing is planted that is as good as the flight it was made from, and each keeps that flight's time."""
    for row, bad in plant(departures, 14).items():
        assert (bad.key, bad.value, bad.headers) != (departures.keys[row], departures.values[row], None)
        assert bad.timestamp_ms == departures.departed_ms[row]


def test_too_large_is_one_byte_over_the_limit(departures: Departures) -> None:
    """The largest value is exactly 1 MiB and a byte, and only the log in memory is given it."""
    sizes = {len(bad.value or b"") for bad in plant(departures, 14).values()}
    assert max(sizes) == TOO_MANY_BYTES
    assert max(len(bad.value or b"") for bad in plant(departures, 200, TAKEN_BY_A_BROKER).values()) < 1_000_000


def test_nothing_is_planted_when_none_is_asked_for(departures: Departures) -> None:
    """Zero bad records are zero."""
    assert plant(departures, 0) == {}
