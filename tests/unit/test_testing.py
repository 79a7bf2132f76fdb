"""The test kit, used as a user would."""

from __future__ import annotations

import numpy as np
import pytest

import headrace as hr
from headrace.predict.scores import Scores
from headrace.testing import Driver, reason
from headrace.types import Float64s

START_MS = 1_700_000_000_000


class Payment(hr.Event):
    """The contract of the source."""

    card: str
    at: hr.EventTime
    amount: float


payments = hr.Source("payments.v1", Payment, key="card", time="at", lateness="1m")
spending = hr.FeatureView("spending", entity="card", source=payments, features=[hr.count(over="1h"), hr.sum("amount", over="1h")])
app = hr.App("cards", pipelines=[hr.Pipeline("fraud", views=[spending], event_features=["amount"], predictions="fraud.v1")])


class Twice:
    """A model that answers twice the amount, and nothing for more than a thousand."""

    name, version = "twice", "1"

    def score(self, values: Float64s) -> Scores:
        """Twice the event feature."""
        refused = [(row, "too much") for row in np.flatnonzero(values[:, 2] > 1_000).tolist()]
        return Scores(scores=2.0 * values[:, 2], refused=refused)


@pytest.fixture
def driver() -> Driver:
    """A fresh engine."""
    return Driver(app, models={"fraud": Twice()}, now_ms=START_MS)


def pay(driver: Driver, card: str, amount: float, *, after_ms: int = 1_000) -> None:
    """One payment, a while after the one before."""
    driver.advance(after_ms)
    driver.send("payments.v1", Payment(card=card, at=driver.clock.now_ms(), amount=amount))


def test_every_event_becomes_a_prediction_with_its_features(driver: Driver) -> None:
    """What is sent comes out scored, with the features as of its time."""
    pay(driver, "a", 10.0)
    pay(driver, "a", 5.0)
    first, second = driver.results("fraud")
    assert (first["score"], second["score"]) == (20.0, 10.0)
    assert second["features"] == {"spending.count_1h": 2.0, "spending.sum_amount_1h": 15.0, "amount": 5.0}


def test_features_decay_while_nothing_happens(driver: Driver) -> None:
    """A look-up gives the features as of now, not as of the last event."""
    pay(driver, "a", 10.0)
    assert driver.features(spending, "a")["sum_amount_1h"] == 10.0
    driver.advance(2 * 3_600_000)
    assert driver.features(spending, "a")["sum_amount_1h"] == 0.0
    assert driver.features(spending, "nobody")["count_1h"] == 0.0


def test_bad_records_and_refused_scores_are_dead_letters(driver: Driver) -> None:
    """A record that breaks the contract, and an event the model has no answer for, come back with their reasons."""
    driver.send_bytes("payments.v1", key=b"a", value=b"{")
    pay(driver, "a", 5_000.0)
    assert sorted(reason(letter) for letter in driver.dead_letters()) == ["MALFORMED", "MODEL_OUTPUT"]
    assert driver.features(spending, "a")["sum_amount_1h"] == 5_000.0


@pytest.mark.parametrize("step", ["init", "begin", "send", "offsets", "end", "claim", "read", "apply"])
def test_a_crash_at_any_step_changes_nothing(driver: Driver, step: str) -> None:
    """Killed before any step of the protocol, the engine ends with the same predictions and features."""
    for number in range(20):
        pay(driver, f"card-{number % 3}", float(number))
        if number == 10:
            driver.crash()
            driver.crash(before=step)
        if number % 5 == 0:
            driver.run()
    found = driver.results("fraud")
    assert len(found) == len({one["id"] for one in found}) == 20
    last = [one["features"]["spending.count_1h"] for one in found if one["entity"] == "card-0"]
    assert last == [float(count) for count in range(1, 8)]


def test_another_worker_goes_on_where_the_first_stopped(driver: Driver) -> None:
    """After a rebalance the new owner has the same states."""
    pay(driver, "a", 1.0)
    driver.run()
    driver.rebalance()
    pay(driver, "a", 2.0)
    assert [one["features"]["spending.sum_amount_1h"] for one in driver.results("fraud")] == [1.0, 3.0]


def test_a_store_that_forgot_is_filled_from_the_log(driver: Driver) -> None:
    """A store that lost its last writes, or all of them, is folded forward before the next event is scored."""
    for amount in (1.0, 2.0, 4.0):
        pay(driver, "a", amount)
        driver.run()
    driver.roll_back_state()
    pay(driver, "a", 8.0)
    driver.store.flush()
    pay(driver, "a", 16.0)
    assert [one["features"]["spending.sum_amount_1h"] for one in driver.results("fraud")] == [1.0, 3.0, 7.0, 15.0, 31.0]
    assert "partition catches up" in driver.events()


def test_an_unknown_topic_is_named() -> None:
    """Sending to a topic the app does not read says which it reads."""
    with pytest.raises(ValueError, match=r"payments\.v1"):
        Driver(app, models={"fraud": Twice()}).send("other", card="a")
