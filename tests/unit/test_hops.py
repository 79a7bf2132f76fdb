"""Pipelines of several entities: stages chained by hops, in memory."""

from __future__ import annotations

import random

import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.testing import Driver, reason
from headrace.types import Record, TopicPartition
from tests.audit import Audit
from tests.unit.flying import BY_CARRIER, BY_ORIGIN, MODELS, PARTITIONS, PREDICTIONS, TOPIC, app, departures, fly, started


def audited(driver: Driver) -> list[str]:
    """Everything wrong with what the engine has made of the log."""

    def log(topic: str) -> list[Record]:
        return [record for number in range(PARTITIONS) for record in driver.log.read(TopicPartition(topic, number))]

    audit = Audit(app, MODELS)
    found = []
    for reads in app.inputs:
        for number in range(PARTITIONS):
            partition = TopicPartition(reads.topic, number)
            audit.fold(partition, driver.log.read(partition), portion=50)
            for view in app.views_of(reads):
                states, head = driver.store.states(partition, view.fp), driver.store.head(partition, view.fp)
                found += audit.compare_states(partition, view.fp, states, head)
    return audit.compare_results({"late": log(PREDICTIONS)}, log(app.dead_letters)) + found


def test_stages_are_chained_in_the_order_of_their_entities() -> None:
    """The key of the source comes first, each hop is fed by the stage before, and carries the features so far."""
    assert [reads.topic for reads in app.inputs] == [TOPIC, BY_ORIGIN, BY_CARRIER]
    first, second = app.hops
    assert (first.key, first.feeds.topic, first.carried) == ("origin", TOPIC, ("aircraft.count_1h", "aircraft.mean_delay_3h"))
    assert (second.key, second.feeds.topic) == ("carrier", BY_ORIGIN)
    assert second.carried == (*first.carried, "airport.sum_delay_1h", "airport.seconds_since_last")
    assert [view.name for reads in app.inputs for view in app.views_of(reads)] == ["aircraft", "airport", "airline"]
    assert app.pipelines_of(app.hops[1]) == app.pipelines
    assert app.pipelines_of(departures) == ()


def test_features_of_three_entities_meet_in_one_prediction(seed: int) -> None:
    """Each flight has one prediction with the features of all three, in the order declared, or one dead letter; crashes change nothing."""
    draw = random.Random(seed)
    driver = started(draw)
    for step in ("apply", "end", "send", "offsets", "claim"):
        fly(driver, draw, 60)
        driver.crash(before=step)
        driver.run()
    driver.roll_back_state()
    fly(driver, draw, 60)
    driver.rebalance()
    results = driver.results("late")
    assert audited(driver) == []
    assert list(results[0]["features"]) == list(app.pipelines[0].feature_names)
    reasons = [reason(letter) for letter in driver.dead_letters()]
    assert len(results) + len(reasons) == 360
    assert {"MALFORMED", "BAD_KEY", "MODEL_OUTPUT"} <= set(reasons)
    assert {one["entity"] for one in results} == {"AA", "UA", "DL"}
    assert any(one["late"] for one in results)


def test_a_store_that_forgot_everything_is_filled_again_at_every_stage(seed: int) -> None:
    """After a flush each partition of source and hops is folded again, nothing is published twice."""
    draw = random.Random(seed)
    driver = started(draw)
    fly(driver, draw, 200)
    before = len(driver.results("late"))
    driver.store.flush()
    driver.crash()
    driver.run()
    assert len(driver.results("late")) == before
    fly(driver, draw, 100)
    driver.run()
    assert audited(driver) == []


def test_a_look_up_finds_the_state_where_it_is_kept(seed: int) -> None:
    """A view of another entity than the source's key is looked up in the partitions of its hop."""
    draw = random.Random(seed)
    driver = started(draw)
    fly(driver, draw, 100)
    newest = max(driver.results("late"), key=lambda one: one["event_time"])
    as_of_ms = driver.clock.now_ms()
    found = driver.features(app.views[0], "A0", as_of_ms=as_of_ms)
    assert found["seconds_since_last"] >= 0
    assert newest["event_time"] <= as_of_ms


def test_a_source_with_any_key_pays_a_hop() -> None:
    """With rekey=True records may have any key: their events are kept by the declared one all the same."""
    source = hr.Source("any.v1", departures.event, key="tail", time="at", rekey=True)
    view = hr.FeatureView("aircraft", entity="tail", source=source, features=[hr.count(over="1h")])
    rekeyed = hr.App("rekeyed", pipelines=[hr.Pipeline("late", views=[view], predictions="out.v1")])
    assert [reads.topic for reads in rekeyed.inputs] == ["any.v1", "rekeyed.late.by-tail.v1"]
    driver = Driver(rekeyed, models=MODELS, partitions=2, now_ms=1_700_000_000_000)
    for number, key in enumerate([None, b"x", b"N1", b""]):
        value = b'{"tail": "N1", "origin": "A", "carrier": "AA", "at": %d, "delay": 1}' % (1_700_000_000_000 + number)
        driver.send_bytes("any.v1", key=key, value=value, timestamp_ms=1_700_000_000_000 + number)
    results = driver.results("late")
    assert len(results) == 4
    assert sorted(one["features"]["aircraft.count_1h"] for one in results) == [1.0, 2.0, 3.0, 4.0]
    assert {one["entity"] for one in results} == {"N1"}


class Named(hr.Event):
    """An event with an entity of a long name."""

    key: str
    at: hr.EventTime
    the_place_from_which_it_left_in_the_words_of_those_who_were_there: str


def test_a_hop_with_a_name_too_long_is_refused() -> None:
    """A topic name has a limit, and the error names the pipeline and the entity."""
    source = hr.Source("named.v1", Named, key="key", time="at")
    entity = "the_place_from_which_it_left_in_the_words_of_those_who_were_there"
    view = hr.FeatureView("place", entity=entity, source=source, features=[hr.count(over="1h")])
    pipeline = hr.Pipeline("p" * 100, views=[view], predictions="out.v1")
    with pytest.raises(DefinitionError, match=r"its hop by 'the_place"):
        hr.App("a" * 100, pipelines=[pipeline])
