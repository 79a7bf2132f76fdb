"""Five days as files of JSON lines, each with something that clocks and calendars get wrong, in the order in which they arrived."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.partitioner import partition_of
from tests.laws.readings import LATENESS_MS
from tests.unit.features.naive import Happening

PARTITIONS = 2
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
STEP_MS = 30_000

NOON_OF_NEW_YEARS_EVE_MS = 1_704_024_000_000
"""2023-12-31T12:00:00Z."""
NOON_BEFORE_LEAP_SECOND_MS, AFTER_LEAP_SECOND_MS = 1_483_185_600_000, 1_483_228_800_000
"""2016-12-31T12:00:00Z, and the first instant of 2017: clocks showed the second before it twice."""
CLOCKS_GO_BACK_MS = 1_729_980_000_000
"""2024-10-27T00:00:00+02:00, a day of 25 hours in Berlin; the one hour comes twice at 01:00Z."""
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
"""The rules of the zone, which need no table of zones."""

Times = Callable[[random.Random], Iterator[int]]


def _day(draw: random.Random, first_ms: int) -> Iterator[int]:
    at_ms = first_ms
    while at_ms < first_ms + DAY_MS:
        yield at_ms
        at_ms += draw.choice([1, STEP_MS // 10, STEP_MS, 2 * STEP_MS, draw.randrange(2 * STEP_MS)])


def gaps(draw: random.Random) -> Iterator[int]:
    """Everybody is silent for hours, longer than all windows but the longest; then all speak at once."""
    silent = [(2, 5), (6, 6.5), (9, 16), (23, 23.9)]
    for at_ms in _day(draw, NOON_OF_NEW_YEARS_EVE_MS - 100 * DAY_MS):
        hour = (at_ms - (NOON_OF_NEW_YEARS_EVE_MS - 100 * DAY_MS)) / HOUR_MS
        if not any(begin <= hour < end for begin, end in silent):
            yield at_ms


def clocks_go_back(draw: random.Random) -> Iterator[int]:
    """A day on which an hour comes twice; event time goes on."""
    yield from _day(draw, CLOCKS_GO_BACK_MS)


def leap_second(draw: random.Random) -> Iterator[int]:
    """A clock that shows the last second of the year twice: a dense stream goes back by a second and goes on."""
    day = list(_day(draw, NOON_BEFORE_LEAP_SECOND_MS))
    yield from (at_ms for at_ms in day if at_ms < AFTER_LEAP_SECOND_MS - 5_000)
    yield from range(AFTER_LEAP_SECOND_MS - 5_000, AFTER_LEAP_SECOND_MS, 50)
    yield from range(AFTER_LEAP_SECOND_MS - 1_000, AFTER_LEAP_SECOND_MS + 5_000, 50)
    yield from (at_ms for at_ms in day if at_ms >= AFTER_LEAP_SECOND_MS + 5_000)


def year_change(draw: random.Random) -> Iterator[int]:
    """Noon to noon over midnight of a new year, which is a leap year."""
    yield from _day(draw, NOON_OF_NEW_YEARS_EVE_MS)


def out_of_order(draw: random.Random) -> Iterator[int]:
    """Every other event comes as late as it may, to the millisecond, or a little less; a few come a millisecond too late."""
    for at_ms in _day(draw, NOON_OF_NEW_YEARS_EVE_MS + 58 * DAY_MS):
        yield at_ms
        if draw.random() < 0.5:
            yield at_ms - draw.choice([LATENESS_MS, LATENESS_MS, LATENESS_MS - 1, draw.randrange(LATENESS_MS), LATENESS_MS + 1])


DAYS: dict[str, Times] = {one.__name__: one for one in (gaps, clocks_go_back, leap_second, year_change, out_of_order)}


def write_day(path: Path, times: Times, draw: random.Random) -> None:
    """Readings of a dozen sensors at these times; numbers and texts are sometimes absent."""
    with path.open("w", encoding="utf-8") as lines:
        for at_ms in times(draw):
            reading = {
                "sensor": f"s{min(int(draw.expovariate(0.3)), 11)}",
                "at_ms": at_ms,
                "x": draw.choice([None, 0.0, 0.5, draw.gauss(0, 1), draw.lognormvariate(0, 3)]),
                "y": draw.choice([0.0, 1.0, draw.gauss(-5, 10)]),
                "ok": draw.choice([None, True, False]),
                "word": draw.choice([None, "a", "b"]),
            }
            lines.write(json.dumps(reading) + "\n")


def happening(line: str) -> Happening:
    """A line as the twin reads it."""
    reading = json.loads(line)
    columns: dict[str, float | str | None] = {
        "x": math.nan if reading["x"] is None else reading["x"],
        "y": reading["y"],
        "ok": math.nan if reading["ok"] is None else float(reading["ok"]),
        "word": reading["word"],
    }
    place = partition_of(reading["sensor"].encode(), PARTITIONS)
    return Happening(entity=reading["sensor"], time_ms=reading["at_ms"], partition=place, columns=columns)
