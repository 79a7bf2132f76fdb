"""What the whole engine does with input that is not as it should be: T57, T59, and lateness, through the test kit."""

from __future__ import annotations

import json

import numpy as np
import pytest

import headrace as hr
from headrace.errors import TooManyRefused
from headrace.parts import Limits
from headrace.predict.scores import Scores
from headrace.testing import Driver, reason
from headrace.types import Float64s

START_MS = 1_700_000_000_000
DAY_MS = 86_400_000
LATENESS_MS = 60_000
AHEAD_MS = 300_000


class Reading(hr.Event):
    """The contract of the source."""

    meter: str
    at: hr.EventTime
    used: float
    hours: float


def app_of(*, historical: bool = False) -> hr.App:
    """An app over one source; historical or not."""
    source = hr.Source("readings.v1", Reading, key="meter", time="at", lateness=LATENESS_MS, max_ahead=AHEAD_MS, historical=historical)
    rate = (hr.col("used") / hr.col("hours")).alias("rate")
    view = hr.FeatureView("use", entity="meter", source=source, features=[hr.count(over="1h"), hr.mean(rate, over="1h", empty=-1.0)])
    return hr.App("meters", pipelines=[hr.Pipeline("leak", views=[view], predictions="leaks.v1")])


class Moody:
    """A model that answers NaN for every second event of an entity and has nothing to say about the seventh."""

    name, version = "moody", "1"

    def score(self, values: Float64s) -> Scores:
        """The count, where it pleases."""
        refused = [
            (row, "the model gave NaN" if count % 2 == 0 else "wrong shape") for row, count in enumerate(values[:, 0]) if count in {2, 4, 7}
        ]
        return Scores(scores=values[:, 0].copy(), refused=refused)


class Counting:
    """A model that answers the count."""

    name, version = "counting", "1"

    def score(self, values: Float64s) -> Scores:
        """The count."""
        return Scores(scores=values[:, 0].copy(), refused=[])


def read(driver: Driver, at_ms: int, *, used: float = 1.0, hours: float = 1.0, timestamp_ms: int | None = None) -> None:
    """One reading of the one meter."""
    driver.send("readings.v1", meter="m", at=at_ms, used=used, hours=hours, timestamp_ms=at_ms if timestamp_ms is None else timestamp_ms)


def test_a_feature_without_a_value_is_its_declared_empty_value() -> None:
    """T57: 0/0 is no value: the mean stays at its empty= value, and the event still counts."""
    with Driver(app_of(), models={"leak": Counting()}) as driver:
        read(driver, START_MS, used=0.0, hours=0.0)
        read(driver, START_MS + 1_000, used=6.0, hours=2.0)
        first, second = (one["features"] for one in driver.results("leak"))
    assert first == {"use.count_1h": 1.0, "use.mean_rate_1h": -1.0}
    assert second == {"use.count_1h": 2.0, "use.mean_rate_1h": 3.0}


def test_what_a_model_has_no_score_for_is_a_dead_letter_and_the_state_goes_on() -> None:
    """T57: NaN and wrong shapes out of the model become MODEL_OUTPUT, named by model; the events are in the state all the same."""
    with Driver(app_of(), models={"leak": Moody()}) as driver:
        for number in range(8):
            read(driver, START_MS + 1_000 * number)
        scores = [one["score"] for one in driver.results("leak")]
        letters = driver.dead_letters()
    assert scores == [1.0, 3.0, 5.0, 6.0, 8.0]
    assert [reason(letter) for letter in letters] == ["MODEL_OUTPUT"] * 3
    assert {dict(letter.headers)["headrace-model"] for letter in letters} == {b"moody"}
    assert [json.loads(letter.value or b"")["at"] - START_MS for letter in letters] == [1_000, 3_000, 6_000]


@pytest.mark.parametrize(("beyond_ms", "refused"), [(-1, False), (0, False), (1, True), (DAY_MS, True)])
def test_an_event_too_far_ahead_of_its_record_is_refused(beyond_ms: int, *, refused: bool) -> None:
    """T53, T59: up to max_ahead is accepted, beyond it is EVENT_TIME_AHEAD; then the watermark stays and the next is not late."""
    with Driver(app_of(), models={"leak": Counting()}) as driver:
        read(driver, START_MS)
        read(driver, START_MS + AHEAD_MS + beyond_ms, timestamp_ms=START_MS)
        read(driver, START_MS + 1_000)
        results, letters = driver.results("leak"), driver.dead_letters()
    assert [reason(letter) for letter in letters] == (["EVENT_TIME_AHEAD"] if refused else [])
    assert len(results) == (2 if refused else 3)
    assert results[-1]["late"] is (not refused)


def test_a_historical_source_takes_events_ahead_of_their_records() -> None:
    """T59: a source that says its times are historical is not checked against the records' timestamps."""
    with Driver(app_of(historical=True), models={"leak": Counting()}) as driver:
        read(driver, START_MS + DAY_MS, timestamp_ms=START_MS)
        assert len(driver.results("leak")) == 1


@pytest.mark.parametrize(("behind_ms", "late"), [(-1, False), (0, False), (1, True)])
def test_an_event_behind_the_watermark_is_scored_and_marked_when_late(behind_ms: int, *, late: bool) -> None:
    """T53: lateness - 1 and + 0 behind are folded, + 1 ms is late: scored with the state as it is, marked, and not folded."""
    with Driver(app_of(), models={"leak": Counting()}) as driver:
        read(driver, START_MS)
        read(driver, START_MS - LATENESS_MS - behind_ms)
        read(driver, START_MS + 1)
        _, second, third = driver.results("leak")
    assert second["late"] is late
    assert second["features"]["use.count_1h"] == (1.0 if late else 2.0)
    assert third["features"]["use.count_1h"] == (2.0 if late else 3.0)


def test_too_many_bad_records_stop_the_worker_before_they_are_published() -> None:
    """T53: when more than the allowed share of a window is refused the fault is ours: a named error, and nothing of that batch is out."""
    limits = Limits(refused_share=0.3, refused_window=20)
    driver = Driver(app_of(), models={"leak": Counting()}, limits=limits, partitions=1)
    for number in range(40):
        driver.send_bytes("readings.v1", key=b"m", value=b"{", timestamp_ms=START_MS + number)
    with pytest.raises(TooManyRefused, match="MALFORMED"):
        driver.run()
    assert driver.log.group("meters").offsets[next(iter(driver.log.group("meters").offsets))].offset == 0


def test_features_do_not_depend_on_how_the_log_is_cut_into_batches() -> None:
    """T50: the same log gives the same bits whatever the largest batch."""
    draw = np.random.default_rng(7)
    times = START_MS + np.cumsum(draw.integers(0, 90_000, 300)) - draw.integers(0, 2 * LATENESS_MS, 300)
    used = draw.exponential(3.0, 300)
    answers = []
    for size in (1, 7, 64, 1_000):
        with Driver(app_of(historical=True), models={"leak": Counting()}, limits=Limits(max_batch=size)) as driver:
            for at_ms, value in zip(times.tolist(), used.tolist(), strict=True):
                read(driver, at_ms, used=value)
            answers.append([(one["id"], one["features"], one["late"]) for one in driver.results("leak")])
    assert answers[1:] == answers[:-1]
