"""Features of another source than the scored one, looked up when an event is scored, in memory."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.testing import Driver
from headrace.types import TopicPartition
from tests.unit.boarding import (
    BOARDINGS,
    DEPARTURES,
    HOUR_MS,
    MINUTE_MS,
    NOON_MS,
    PARTITIONS,
    PREDICTIONS,
    aircraft,
    airport,
    app,
    app_that,
    board,
    boardings,
    departures,
    flight,
    leave,
    patient,
    started,
    traffic,
)

KEPT = "boarding.late.keep-origin.v1"


class Landed(hr.Event):
    """An event that knows no airport."""

    tail: str
    at: hr.EventTime


elsewhere = hr.Source("landed.v1", Landed, key="tail", time="at")


def scored(driver: Driver) -> list[dict[str, Any]]:
    """The predictions with their header of what was looked up, in the order of event times."""
    driver.run()
    found = []
    for number in range(PARTITIONS):
        for record in driver.log.read(TopicPartition(PREDICTIONS, number)):
            headers = dict(record.headers)
            found.append(json.loads(record.value or b"") | {"places": (headers["headrace-looked-up"] or b"").decode()})
    return sorted(found, key=lambda one: int(one["event_time"]))


def test_the_looked_up_view_has_stages_of_its_own() -> None:
    """A view of the source's key is kept where the source is read, another one behind a hop; the scored source is a stage beside them."""
    assert [reads.topic for reads in app.inputs] == [BOARDINGS, DEPARTURES, KEPT]
    assert [reads.topic for reads in app.sources] == [BOARDINGS, DEPARTURES]
    assert (app.kept_at("airport").topic, app.kept_at("aircraft").topic, app.kept_at("flight").topic) == (KEPT, DEPARTURES, BOARDINGS)
    assert app.pipelines[0].feature_names == (
        "flight.count_3h",
        *(f"airport.{name}" for name in airport.feature_names),
        *(f"aircraft.{name}" for name in aircraft.feature_names),
        "miles",
    )


def test_an_event_is_scored_by_what_the_other_source_did() -> None:
    """The prediction has the features of the airport and the aircraft as of its own time, and says where they were read."""
    driver = started()
    leave(driver, "JFK", NOON_MS, 10.0)
    leave(driver, "JFK", NOON_MS + 10 * MINUTE_MS, 30.0)
    for tail in ("N2", "N3", "N4", "N5", "N6"):
        leave(driver, "EWR", NOON_MS + 10 * MINUTE_MS, 99.0, tail)
    driver.run()
    board(driver, "JFK", NOON_MS + 15 * MINUTE_MS)
    (one,) = scored(driver)
    assert one["features"] == {
        "flight.count_3h": 1.0,
        "airport.count_1h": 2.0,
        "airport.count_3h": 2.0,
        "airport.mean_delay_1h": 20.0,
        "airport.last_delay": 30.0,
        "airport.seconds_since_last": 300.0,
        "aircraft.count_3h": 2.0,
        "aircraft.max_delay_3h": 30.0,
        "miles": 100.0,
    }
    assert "stale" not in one
    assert "ahead" not in one
    (read_airport, read_aircraft) = one["places"].split(";")
    assert read_airport.startswith("airport=")
    assert read_airport.endswith(f":{NOON_MS + 10 * MINUTE_MS}")
    assert read_aircraft.startswith("aircraft=")


def test_what_is_newer_than_the_event_is_left_out() -> None:
    """A store that is ahead of the event does not tell it the future, and the prediction says that it was ahead."""
    driver = started()
    for minutes, delay in ((0, 10.0), (20, 30.0), (70, 50.0)):
        leave(driver, "JFK", NOON_MS + minutes * MINUTE_MS, delay)
    driver.run()
    board(driver, "JFK", NOON_MS + 50 * MINUTE_MS)
    (one,) = scored(driver)
    assert one["ahead"] == ["airport", "aircraft"]
    assert one["features"]["airport.count_3h"] == one["features"]["aircraft.count_3h"] == 2.0
    assert one["features"]["aircraft.max_delay_3h"] == 30.0
    assert one["features"]["airport.seconds_since_last"] is None, "only the newest event has its time, and that one is left out"


def test_a_store_that_has_not_seen_enough_is_stale() -> None:
    """Nothing kept yet, then a watermark that is too old: the event is scored all the same, and marked."""
    driver = started()
    board(driver, "JFK", NOON_MS)
    (one,) = scored(driver)
    assert (one["stale"], one["features"]["airport.count_1h"]) == (["airport", "aircraft"], 0.0)
    assert one["places"] == "airport=1:0:;aircraft=0:0:", "two partitions in which nothing happened"
    leave(driver, "JFK", NOON_MS, 10.0)
    driver.run()
    board(driver, "JFK", NOON_MS + 19 * MINUTE_MS)
    board(driver, "JFK", NOON_MS + 21 * MINUTE_MS)
    _, fresh, late = scored(driver)
    assert "stale" not in fresh
    assert late["stale"] == ["airport", "aircraft"]
    assert late["features"]["aircraft.count_3h"] == 1.0


def test_an_event_without_an_entity_finds_nothing() -> None:
    """There is nothing to be stale about: the values are those of an empty state."""
    driver = started()
    leave(driver, "JFK", NOON_MS, 10.0)
    driver.run()
    board(driver, None, NOON_MS + MINUTE_MS)
    (one,) = scored(driver)
    assert one["features"]["airport.count_1h"] == 0.0
    assert one["places"].startswith("aircraft=")
    assert "stale" not in one


def test_a_pipeline_may_have_no_view_of_its_own() -> None:
    """Then its vector is what it looks up and the fields of the event."""
    driver = started(app_that(hr.LookUp(airport, stale_after="20m"), own=False))
    leave(driver, "JFK", NOON_MS, 10.0)
    driver.run()
    board(driver, "JFK", NOON_MS + MINUTE_MS, miles=6_000.0)
    board(driver, "JFK", NOON_MS + 2 * MINUTE_MS)
    (one,) = scored(driver)
    assert one["features"]["airport.count_1h"] == 1.0
    assert len(driver.dead_letters()) == 1


def test_an_event_waits_for_the_store() -> None:
    """With `wait` the event stays until the store has seen what it is about, here what is sent after it."""
    driver = started(patient)
    board(driver, "JFK", NOON_MS + 30 * MINUTE_MS)
    for _ in range(20):
        driver._workers[0].turn()
        driver.advance(50)
    assert driver.log.read(TopicPartition(PREDICTIONS, 0)) == []
    for tail in ("N1", "N2", "N3", "N4", "N5", "N6"):
        leave(driver, "JFK", NOON_MS + 25 * MINUTE_MS, 10.0, tail)
    (one,) = scored(driver)
    assert "stale" not in one
    assert one["features"]["airport.count_1h"] == 6.0


def test_an_event_does_not_wait_for_ever() -> None:
    """What does not come within the time is done without: scored and marked, in order, and nothing else is held up by it."""
    driver = started(patient)
    begun_ms = driver.clock.now_ms()
    for number in range(5):
        board(driver, "JFK", NOON_MS + number * MINUTE_MS)
    found = scored(driver)
    assert [one["stale"] for one in found] == [["airport", "aircraft"]] * 5
    assert driver.clock.now_ms() - begun_ms >= 10_000


@pytest.mark.parametrize("hop", [False, True], ids=["one stage", "two stages"])
@pytest.mark.parametrize("wait", ["0s", "10s"])
def test_a_backlog_of_both_sources_keeps_pace(seed: int, wait: str, *, hop: bool) -> None:
    """Half a day of both is worked off as if it were live: once the store knows anything it is neither far behind nor far ahead."""
    draw = random.Random(seed)
    driver = started(app_that(hr.LookUp(airport, aircraft, stale_after="20m", wait=wait), hop=hop), max_batch=64)
    for minute in range(0, 12 * 60, 2):
        at_ms = NOON_MS + minute * MINUTE_MS
        leave(driver, draw.choice(("JFK", "EWR")), at_ms, draw.gauss(10, 30), f"N{draw.randrange(12)}")
        leave(driver, draw.choice(("LGA", "BOS")), at_ms + MINUTE_MS, draw.gauss(10, 30), f"N{draw.randrange(12)}")
        if minute % 6:  # of one source there is three times as much as of the other
            board(driver, draw.choice(("JFK", "LGA")), at_ms + MINUTE_MS, name=f"F{draw.randrange(9)}", tail=f"N{draw.randrange(12)}")
    driver.clock.advance(13 * HOUR_MS)
    found = scored(driver)
    assert len(found) == 240
    come = [int(watermark(one)) - one["event_time"] for one in found[12:]]
    assert max(come) <= 5 * MINUTE_MS
    assert sorted(come)[len(come) // 10] >= -20 * MINUTE_MS, f"a tenth is {-sorted(come)[len(come) // 10] // MINUTE_MS} minutes behind"


def watermark(one: dict[str, Any]) -> str:
    """How far the store had come where the airport was read."""
    return str(one["places"].partition("airport=")[2].partition(";")[0].rpartition(":")[2] or "0")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (hr.LookUp, "names no views"),
        (lambda: hr.LookUp(airport, wait="2m"), "for a minute at most"),
        (lambda: hr.Pipeline("late", views=[], predictions="p.v1"), "has no views"),
        (lambda: hr.Pipeline("late", views=[flight, airport], predictions="p.v1"), r"look_up=hr.LookUp\(airport\)"),
        (lambda: hr.Pipeline("late", views=[airport], look_up=hr.LookUp(aircraft), predictions="p.v1"), "name it among its views"),
        (lambda: hr.Pipeline("late", source=elsewhere, look_up=hr.LookUp(airport), predictions="p.v1"), "whose entity is 'origin'"),
    ],
)
def test_a_look_up_that_cannot_work_is_refused(make: Any, words: str) -> None:
    """At once, with the pipeline, the view and the fix."""
    with pytest.raises(DefinitionError, match=words):
        make()


def test_a_view_that_another_pipeline_keeps_is_kept_once() -> None:
    """The look-up reads what the other pipeline's stage keeps."""
    other = hr.Pipeline("delay", views=[aircraft, airport], predictions="delay.v1")
    looking = hr.Pipeline("late", views=[flight], look_up=hr.LookUp(airport, aircraft), predictions=PREDICTIONS)
    both = hr.App("boarding", pipelines=[looking, other])
    assert [reads.topic for reads in both.inputs] == [BOARDINGS, DEPARTURES, "boarding.delay.by-origin.v1"]
    assert both.kept_at("airport").topic == "boarding.delay.by-origin.v1"
    assert {departures.topic, boardings.topic} == {source.topic for source in both.sources}


def test_the_fingerprint_knows_what_is_looked_up() -> None:
    """A changed bound of staleness, or another view, makes other predictions; how long to wait does not."""
    of = {
        rule: app_that(look_up).pipelines[0].fingerprint
        for rule, look_up in {
            "20m": hr.LookUp(airport, stale_after="20m"),
            "wait": hr.LookUp(airport, stale_after="20m", wait="1s"),
            "10m": hr.LookUp(airport, stale_after="10m"),
            "both": hr.LookUp(airport, aircraft, stale_after="20m"),
        }.items()
    }
    assert of["20m"] == of["wait"]
    assert len({of["20m"], of["10m"], of["both"]}) == 3


def test_kills_change_nothing(seed: int) -> None:
    """Whatever dies, each boarding has one prediction or dead letter."""
    draw = random.Random(seed)
    driver = started()
    for step in ("apply", "end", "send", "offsets", "claim", "fetch"):
        traffic(driver, draw, 60)
        driver.crash(before=step)
        driver.run()
    driver.roll_back_state()
    traffic(driver, draw, 60)
    found = scored(driver)
    sent = sum(len(driver.log.read(TopicPartition(BOARDINGS, number))) for number in range(PARTITIONS))
    assert len(found) + len(driver.dead_letters()) == sent
