from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.audit.plain import there
from headrace.errors import DefinitionError
from headrace.expression import Expression, Kind, col, hour, weekday
from headrace.expression.zone import FIRST_MS, LAST_MS, zone_of

ODD = (
    "Africa/Casablanca",  # puts its clock back for a month of the moon
    "America/New_York",
    "America/St_Johns",  # half an hour
    "Antarctica/Troll",  # two hours
    "Asia/Kathmandu",  # a quarter of an hour
    "Australia/Lord_Howe",  # sets its clock by half an hour
    "Etc/GMT+12",
    "Europe/Dublin",  # winter is the exception
    "Europe/London",
    "Europe/Zurich",  # its rule is older than what we believe
    "Pacific/Apia",  # left out a day
    "UTC",
)
KINDS: dict[str, Kind] = {"at_ms": "number", "word": "text"}


def asked(expression: Expression, *instants_ms: float) -> list[float]:
    """What an expression over `at_ms` gives."""
    found: list[float] = expression.evaluate({"at_ms": np.array(instants_ms, dtype=np.float64)}).tolist()
    return found


def told(name: str, instants_ms: list[int]) -> tuple[list[float], list[float]]:
    """Hours and weekdays, one instant at a time, by the standard library."""
    clocks = [there(name, instant) for instant in instants_ms]
    return [float(one.hour) for one in clocks], [float(one.weekday()) for one in clocks]


@pytest.mark.parametrize("name", ODD)
def test_around_every_change_of_the_clock(name: str) -> None:
    """At, just before and an hour around each change of a clock from 2000 to 2100, hour and weekday are the standard library's.

    Only what moves the clock is a change: a new name for the same time is none, and so no other fingerprint.
    """
    starts = zone_of(name).starts_ms.tolist()
    assert np.diff(zone_of(name).ahead_ms).all()
    instants = [instant + by for instant in starts for by in (-3_600_001, -1, 0, 1, 3_599_999) if instant + by >= FIRST_MS]
    instants.append(LAST_MS)
    assert (asked(hour("at_ms", tz=name), *instants), asked(weekday("at_ms", tz=name), *instants)) == told(name, instants)


@given(st.sampled_from(ODD), st.lists(st.integers(FIRST_MS, LAST_MS), min_size=1, max_size=50))
def test_any_instant(name: str, instants: list[int]) -> None:
    """Any instant has the hour and the weekday that the standard library gives it."""
    assert (asked(hour("at_ms", tz=name), *instants), asked(weekday("at_ms", tz=name), *instants)) == told(name, instants)


def test_known_mornings() -> None:
    """The clock that New York set on 10 March 2013 jumps from 1 to 3, and the one of 3 November shows 1 twice."""
    spring, autumn = 1_362_898_800_000, 1_383_454_800_000
    assert asked(hour("at_ms", tz="America/New_York"), spring - 1, spring) == [1.0, 3.0]
    assert asked(hour("at_ms", tz="America/New_York"), autumn, autumn + 3_600_000, autumn + 7_200_000) == [1.0, 1.0, 2.0]
    assert asked(weekday("at_ms", tz="America/New_York"), spring, spring + 86_400_000) == [6.0, 0.0]


def test_instants_without_an_hour() -> None:
    """An absent instant, one before 2000 or after 2100, and one in seconds has no hour; a part of a millisecond changes none."""
    found = asked(hour("at_ms", tz="UTC"), math.nan, FIRST_MS - 1, LAST_MS + 1, 1e300, -1e300, 1_700_000_000, FIRST_MS + 3_599_999.9)
    assert [None if math.isnan(one) else one for one in found] == [None, None, None, None, None, None, 0.0]


def test_the_rules_are_part_of_the_canonical_form() -> None:
    """The form names zone and rules; another set of rules under the same name is another form, two names of one set share the rules."""
    form = hour("at_ms", tz="America/New_York").canonical()
    assert form == {"op": "hour", "of": [{"field": "at_ms"}], "with": zone_of("America/New_York").canonical()}
    zone = zone_of("America/New_York")
    changed = dataclasses.replace(zone, ahead_ms=zone.ahead_ms + (zone.starts_ms > 4e12) * 60_000)
    assert changed.canonical()["zone"] == zone.canonical()["zone"]
    assert changed.canonical()["rules"] != zone.canonical()["rules"]
    assert zone_of("US/Eastern").canonical()["rules"] == zone.canonical()["rules"]


def test_how_it_is_written() -> None:
    """Hour and weekday take a field or an expression, are numbers, and say their zone."""
    found = weekday(col("at_ms") + 60_000, tz="Europe/London")
    assert repr(found) == "weekday((at_ms + 60000), tz='Europe/London')"
    assert hour("at_ms", tz="UTC").name() == "hour_at_ms"
    assert found.kind(KINDS, where="here") == "number"
    assert found.fields() == {"at_ms"}
    with pytest.raises(DefinitionError, match=r"here: hour.*needs numbers, but is given text"):
        hour("word", tz="UTC").kind(KINDS, where="here")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("America/NewYork", "tz='America/NewYork' is no time zone; write 'America/New_York'"),
        ("../zones", "is no time zone"),
        ("America", "is no time zone"),
        ("__init__.py", "is no time zone; write for example"),
        ("", "is no time zone"),
    ],
)
def test_unknown_zones(name: str, says: str) -> None:
    """A zone that does not exist is refused with those that are near, and nothing but zones is read."""
    with pytest.raises(DefinitionError, match=says):
        hour("at_ms", tz=name)
