"""A state as of an earlier instant: what is later is left out, and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

import headrace as hr
from headrace.features.reader import StateReader
from headrace.features.rows import EntityRows
from headrace.features.tables import Events
from headrace.features.view import FeatureView
from headrace.types import NO_WATERMARK_MS, Int64s

NOON_MS = 1_700_049_600_000
"""Panes of every length in use begin here."""
HOUR_MS = 3_600_000


LATENESS_MS = 600_000


class Tick(hr.Event):
    """An event with a number."""

    key: str
    at: hr.EventTime
    y: float


SOURCE = hr.Source("ticks.v1", Tick, key="key", time="at", lateness=LATENESS_MS)
EVERYTHING = hr.FeatureView(
    "everything",
    entity="key",
    source=SOURCE,
    features=[
        hr.count(over=["1h", "3h"]),
        hr.sum("y", over="1h"),
        hr.std("y", over=["1h", "3h"]),
        hr.max("y", over="3h"),
        hr.share(hr.col("y") > 5, over="1h"),
        hr.quantile("y", 0.5, over="3h"),
        hr.decayed_mean("y", half_life="20m"),
        hr.first("y", over="1h"),
        hr.last("y"),
        hr.seconds_since_last(),
        hr.lag("y", n=2, over="3h"),
        hr.distinct("y", over="3h"),
    ],
)
SINGLE = {"last_y", "seconds_since_last", "lag2_y_3h", "distinct_y_3h"}
"""Of these later events have pushed earlier ones out, or made them later ones."""


@dataclass
class Given:
    """Some events of one entity: their times, and the number that all streams are given."""

    times_ms: Int64s
    numbers: list[float]


def packed(view: FeatureView, given: Given, kept: list[int]) -> bytes | None:
    """The state of an entity that was given the events at these places."""
    if not kept:
        return None
    table = EntityRows([view])
    (row,) = table.take(1)
    times_ms = given.times_ms[kept]
    table.fold(
        Events(
            rows=np.full(len(kept), row),
            times_ms=times_ms,
            horizons_ms=times_ms - LATENESS_MS,
            takes=np.ones((len(kept), 1), dtype=np.bool_),
            given=np.array([[given.numbers[place]] * len(table.streams) for place in kept]),
        )
    )
    buffer, _ = table.pack(0, np.array([row]))
    return buffer.tobytes()


def drawn(draw: random.Random) -> Given:
    """Events of three hours, some out of order; each has a number of its own, so that a sketch of values can tell them apart."""
    times = sorted(NOON_MS + draw.randrange(-2 * HOUR_MS, HOUR_MS) for _ in range(40))
    for _ in range(5):
        place = draw.randrange(39)
        times[place], times[place + 1] = times[place + 1], times[place]
    return Given(np.array(times, dtype=np.int64), [float(number % 2 if number % 3 else number) for number in range(40)])


def test_it_is_the_state_without_what_came_later(seed: int) -> None:
    """At the end of a pane, everything but sketches of distinct values gives what it gives without the later events, bit for bit."""
    draw = random.Random(seed)
    reader = StateReader(EVERYTHING)
    at_ms = NOON_MS - 1  # the last millisecond of a pane, whatever its length
    for _ in range(20):
        given = drawn(draw)
        earlier = [place for place in range(40) if given.times_ms[place] <= at_ms]
        newest_ms = int(given.times_ms.max())
        whole, part = packed(EVERYTHING, given, list(range(40))), packed(EVERYTHING, given, earlier)
        # As of the newest event, so that both see the same windows: what lies before was given up with it.
        found, ahead = reader.vectors_at([whole], np.array([at_ms]), np.array([newest_ms]))
        expected, _ = reader.vectors_from([part], np.array([newest_ms]))
        assert ahead.tolist() == [True]
        assert set(EVERYTHING.feature_names) >= SINGLE
        for name, left, right in zip(EVERYTHING.feature_names, found[0], expected[0], strict=True):
            assert name in SINGLE or np.float64(left).tobytes() == np.float64(right).tobytes(), name


def test_nothing_later_changes_nothing(seed: int) -> None:
    """A state that has seen nothing later gives what a look-up as of the instant gives, and is not ahead."""
    draw = random.Random(seed)
    reader = StateReader(EVERYTHING)
    for _ in range(20):
        given = drawn(draw)
        state = packed(EVERYTHING, given, list(range(40)))
        at_ms = int(given.times_ms.max()) + draw.randrange(HOUR_MS)
        found, ahead = reader.vectors_at([state, None], np.array([at_ms, at_ms]), np.array([NO_WATERMARK_MS, at_ms - 5]))
        expected = reader.vectors([state, None], at_ms)
        assert found.tobytes() == expected.tobytes()
        assert ahead.tolist() == [False, False]


def test_the_reader_is_as_it_was() -> None:
    """Rewinding leaves nothing behind in the reader's table."""
    given = drawn(random.Random(1))
    reader = StateReader(EVERYTHING)
    state = packed(EVERYTHING, given, list(range(40)))
    as_of_ms = int(given.times_ms.max())
    before = reader.vectors([state], as_of_ms).tobytes()
    reader.vectors_at([state] * 3, np.full(3, NOON_MS), np.full(3, NO_WATERMARK_MS))
    assert reader.vectors([state], as_of_ms).tobytes() == before


@pytest.mark.parametrize(("minutes", "expected"), [(0, 1.0), (9, 1.0), (10, 2.0), (59, 2.0), (60, 3.0)])
def test_single_events_go_by_their_own_time(minutes: int, expected: float) -> None:
    """The newest event, and the one before it, are known to the millisecond."""
    view = hr.FeatureView(
        "ticks", entity="key", source=SOURCE, features=[hr.count(over="3h", pane="1m"), hr.lag("y", n=1, over="3h"), hr.last("y")]
    )
    times_ms = NOON_MS + np.array([0, 10, 60], dtype=np.int64) * 60_000
    state = packed(view, Given(times_ms, [1.0, 2.0, 3.0]), [0, 1, 2])
    at_ms = np.array([NOON_MS + minutes * 60_000])
    values, _ = StateReader(view).vectors_at([state], at_ms, np.array([NO_WATERMARK_MS]))
    assert values[0, 0] == expected
    # Two events are kept, the last ones: what was before them is only known while nothing later is left out.
    assert values[0, 1] == 2.0 if expected == 3.0 else np.isnan(values[0, 1])
    assert values[0, 2] == 3.0 if expected == 3.0 else np.isnan(values[0, 2])
