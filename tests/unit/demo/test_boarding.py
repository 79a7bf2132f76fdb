"""The demo's second application on a small year."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headrace.clock import SystemClock
from headrace.demo.boarding import BOARDS_MINUTES, app, by_timetable
from headrace.demo.boarding_events import boardings_of
from headrace.demo.boarding_replay import Boarded, BoardingReplay, some_of
from tests.unit.demo.small_year import small_year

DEPARTURES = small_year(6_000)


def test_a_flight_boards_before_its_timetable_and_knows_nothing_of_its_delay() -> None:
    """The instant follows from departure and delay, and what is known only later is not among the fields."""
    found = boardings_of(DEPARTURES, [5, 3])
    assert found.rows.tolist() == [3, 5]
    delay_ms = int(DEPARTURES.dep_delay[3]) * 60_000
    assert found.times_ms[0] == DEPARTURES.departed_ms[3] - delay_ms - BOARDS_MINUTES * 60_000
    assert found.events[0]["boards_at"] == found.times_ms[0]
    assert not {"departed_at", "dep_delay"} & found.events[0].keys()


def test_two_weeks_are_replayed() -> None:
    """Each boarding of the first two weeks of December has one prediction, and none knows what came after it."""
    boardings = some_of(DEPARTURES)
    assert 200 < len(boardings.events) < 250
    told: list[tuple[int, int]] = []
    found = BoardingReplay(app, DEPARTURES, boardings, clock=SystemClock(), bare=by_timetable).run(lambda done, of: told.append((done, of)))
    assert (found.boardings, found.predictions, found.ahead) == (len(boardings.events), len(boardings.events), 0)
    assert told[-1] == (found.boardings, found.boardings)
    assert 0 < found.events <= found.boardings
    assert np.isfinite([found.auc, found.auc_without]).all()


def test_a_year_that_ends_before_has_none() -> None:
    """Where the departures end in spring there is nothing to replay."""
    assert some_of(replace(DEPARTURES, months=np.minimum(DEPARTURES.months, 11))).events == []


def test_what_should_not_be_is_named() -> None:
    """A missing prediction, and look-ups that help nothing."""
    fine = Boarded(boardings=9, predictions=9, stale=0, ahead=0, seconds=1.0, events=9, auc=0.7, auc_without=0.6)
    assert fine.failures() == []
    assert replace(fine, predictions=8, auc=0.5).failures() == [
        "9 boardings became 8 predictions",
        "what is looked up does not help to tell which flights will be late",
    ]
