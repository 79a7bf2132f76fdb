"""Vectors before and after: beside the frames of logs in which events really were as a scenario has them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.testing import Driver
from headrace.training.changed_inputs import ChangedInputs, Wish, changed_inputs
from headrace.training.replaying import Replay, Stretch, places_of
from headrace.training.span import Bound, span_of
from headrace.types import Float64s, TopicPartition
from tests.unit import boarding, flying
from tests.unit.training import shop
from tests.unit.training.test_look_ups import in_order, tables_of

Place = tuple[int, int]


def replayed(app: hr.App | hr.Pipeline, events: object, change: ChangedInputs, begin: Bound | None = None) -> tuple[list[Stretch], Replay]:
    """All stretches of the app's only pipeline."""
    pipeline = app.pipelines[0] if isinstance(app, hr.App) else app
    replay = Replay(app, pipeline, events, change=change, span=span_of(begin, None))
    return list(replay.stretches()), replay


def by_place(found: list[Stretch], values: Callable[[Stretch], Float64s]) -> dict[Place, list[int]]:
    """The bits of each row's vector by partition and offset of the source."""
    return {
        place: row
        for one in found
        for place, row in zip(zip(one.partitions.tolist(), one.offsets.tolist(), strict=True), shop.bits(values(one)), strict=True)
    }


def framed(frame: hr.TrainingFrame) -> dict[Place, list[int]]:
    """The same of a training frame."""
    places = zip(frame.table["_partition"].to_pylist(), frame.table["_offset"].to_pylist(), strict=True)
    return dict(zip(places, shop.bits(frame.values), strict=True))


def again(driver: Driver, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Driver:
    """An engine that was sent the payments of another once more, changed: each at its place, with its timestamp; bad ones as they are."""
    other = Driver(shop.app, models={"fraud": shop.Counting()}, partitions=2, now_ms=shop.START_MS)
    for record in (one for number in (0, 1) for one in driver.log.read(TopicPartition("payments.v1", number))):
        try:
            value = json.dumps(change(json.loads(record.value or b""))).encode()
        except (ValueError, KeyError):
            value = record.value or b""
        other.send_bytes("payments.v1", key=record.key, value=value, timestamp_ms=record.timestamp_ms)
    return other


CHANGES: Mapping[str, tuple[Mapping[str, Wish], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "more": ({"amount": "amount + 10"}, lambda row: row | {"amount": row["amount"] + 10}),
    "text": ({"shop": "'books'", "pieces": 7}, lambda row: row | {"shop": "books", "pieces": 7}),
    "condition": ({"online": hr.col("amount") > 8}, lambda row: row | {"online": row["amount"] > 8}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_table_gives_the_vectors_after(name: str) -> None:
    """Rolling features too are, bit for bit, those of a table whose events are so; before are those of the table as it is."""
    inputs, change = CHANGES[name]
    rows = shop.rows(disorder=True)
    found, replay = replayed(shop.fraud, shop.table(rows), changed_inputs(shop.fraud, inputs=inputs))
    assert by_place(found, lambda one: one.before) == framed(hr.training_frame(shop.fraud, events=shop.table(rows)))
    assert by_place(found, lambda one: one.after) == framed(hr.training_frame(shop.fraud, events=shop.table(list(map(change, rows)))))
    assert replay.broken == {}


def test_before_the_span_is_history() -> None:
    """Only events of the span change, and only they have rows; windows still hold what came before as it was."""
    rows = shop.rows()
    begin_ms = rows[150]["at"]
    found, _ = replayed(shop.fraud, shop.table(rows), changed_inputs(shop.fraud, inputs={"amount": "amount * 2"}), begin_ms)
    mixed = [row | {"amount": row["amount"] * 2} if row["at"] >= begin_ms else row for row in rows]
    expected = framed(hr.training_frame(shop.fraud, events=shop.table(mixed)))
    after = by_place(found, lambda one: one.after)
    assert after == {place: expected[place] for place in after}
    assert len(after) == sum(row["at"] >= begin_ms for row in rows) < len(rows)


def test_a_changed_topic_gives_the_vectors_after() -> None:
    """The same from topics, where events are late and out of order, and some are none."""
    driver = shop.driven()
    found, _ = replayed(shop.app, hr.Topics.of(driver.log), changed_inputs(shop.fraud, inputs={"amount": "amount + 10"}))
    other = again(driver, lambda row: row | {"amount": row["amount"] + 10})
    assert by_place(found, lambda one: one.before) == framed(hr.training_frame(shop.app, events=hr.Topics.of(driver.log)))
    assert by_place(found, lambda one: one.after) == framed(hr.training_frame(shop.app, events=hr.Topics.of(other.log)))


def test_a_change_that_changes_nothing_gives_the_same_bits() -> None:
    """Every field set to itself: all views are folded a second time, from lanes of their own, and nothing differs."""
    driver = shop.driven()
    itself: dict[str, Wish] = {name: name for name in ("amount", "pieces", "online", "shop")}
    found, _ = replayed(shop.app, hr.Topics.of(driver.log), changed_inputs(shop.fraud, inputs=itself))
    assert by_place(found, lambda one: one.before) == by_place(found, lambda one: one.after)
    assert all(one.before is not one.after for one in found)


def test_events_that_lack_a_field_still_count() -> None:
    """A required field that is dropped leaves counts as they are, although they are usually told from its lane; what reads it is empty."""
    found, replay = replayed(shop.fraud, shop.table(shop.rows()), changed_inputs(shop.fraud, drop_inputs=["amount"]))
    names = list(shop.fraud.feature_names)
    before, after = np.concatenate([one.before for one in found]), np.concatenate([one.after for one in found])
    for name in ("spending.count_1h", "spending.count_6h", "spending.seconds_since_last", "pieces", "books"):
        np.testing.assert_array_equal(after[:, names.index(name)], before[:, names.index(name)])
    for name in ("spending.mean_amount_1h", "spending.std_amount_6h", "spending.last_amount", "amount"):
        assert np.isnan(after[:, names.index(name)]).all()
    assert replay.broken == {"amount": 300}


def test_emptied_features_are_empty_and_nothing_else_is_changed() -> None:
    """They are NaN after the fold, in the vectors after alone."""
    found, _ = replayed(shop.fraud, shop.table(shop.rows()), changed_inputs(shop.fraud, empty_features=["count_6h", "amount"]))
    emptied = np.isin(shop.fraud.feature_names, ["spending.count_6h", "amount"])
    for one in found:
        assert np.isnan(one.after[:, emptied]).all()
        assert not np.isnan(one.before[:, emptied]).any()
        np.testing.assert_array_equal(one.after[:, ~emptied], one.before[:, ~emptied])


def test_without_changes_there_is_one_vector() -> None:
    """Nothing is folded or copied a second time."""
    found, _ = replayed(shop.fraud, shop.table(shop.rows()), changed_inputs(shop.fraud))
    assert all(one.after is one.before for one in found)


def flown(change: Callable[[dict[str, Any]], dict[str, Any]], count: int = 160) -> Driver:
    """Flights through two hops, out of order, late and bad ones among them, worked off as they come."""
    draw = random.Random(3)
    driver = flying.started(draw)
    for number in range(count):
        driver.advance(draw.choice([0, 500, 60_000, 240_000]))
        fields = {
            "tail": f"N{draw.randrange(12)}",
            "origin": f"A{draw.randrange(4)}",
            "carrier": draw.choice(["AA", "UA", "DL"]),
            "at": driver.clock.now_ms() - draw.choice([0, 0, 0, 20_000, 1_200_000]),
            "delay": draw.uniform(-20, 170),
        }
        value = b"{" if number % 29 == 0 else json.dumps(change(fields)).encode()
        driver.send_bytes(flying.TOPIC, key=str(fields["tail"]).encode(), value=value, timestamp_ms=driver.clock.now_ms())
        driver.run()
    return driver


def test_changes_go_through_every_hop() -> None:
    """Of three entities each is what it is in an engine that was given changed events: stages before a hop as well as the last one."""
    pipeline = flying.app.pipelines[0]
    plain, changed = flown(lambda row: row), flown(lambda row: row | {"delay": row["delay"] * 2 - 5})
    found, replay = replayed(flying.app, hr.Topics.of(plain.log), changed_inputs(pipeline, inputs={"delay": "delay * 2 - 5"}))
    assert by_place(found, lambda one: one.before) == framed(hr.training_frame(flying.app, events=hr.Topics.of(plain.log)))
    assert by_place(found, lambda one: one.after) == framed(hr.training_frame(flying.app, events=hr.Topics.of(changed.log)))
    assert set(replay.history.account.offsets) == {flying.TOPIC, flying.BY_ORIGIN, flying.BY_CARRIER}


def test_events_that_an_earlier_stage_has_lost_have_no_row() -> None:
    """Where the source's log has lost its beginning, what it gave for a changed event cannot be told: the row is left out and counted."""
    pipeline = flying.app.pipelines[0]
    driver = flown(lambda row: row, 320)
    for number in range(flying.PARTITIONS):
        driver.log.delete_before(TopicPartition(flying.TOPIC, number), 5)
    change = changed_inputs(pipeline, inputs={"delay": "delay + 1"})
    found, replay = replayed(flying.app, hr.Topics.of(driver.log), change)
    whole, _ = replayed(flying.app, hr.Topics.of(driver.log), changed_inputs(pipeline))
    rows, all_rows = (sum(map(len, stretches)) for stretches in (found, whole))
    assert 0 < rows < all_rows
    assert replay.history.account.incomplete == all_rows - rows
    changed = flown(lambda row: row | {"delay": row["delay"] + 1}, 320)
    expected = framed(hr.training_frame(flying.app, events=hr.Topics.of(changed.log)))
    after = by_place(found, lambda one: one.after)
    assert after == {place: expected[place] for place in after}


def test_where_the_log_has_lost_its_beginning_rows_are_those_of_a_frame() -> None:
    """The first rows, whose windows reach behind it, are left out and counted on both sides."""
    driver = shop.driven(600)
    for number in (0, 1):
        driver.log.delete_before(TopicPartition("payments.v1", number), 20)
    found, replay = replayed(shop.app, hr.Topics.of(driver.log), changed_inputs(shop.fraud, inputs={"amount": "amount"}))
    frame = hr.training_frame(shop.app, events=hr.Topics.of(driver.log))
    assert by_place(found, lambda one: one.before) == by_place(found, lambda one: one.after) == framed(frame)
    assert replay.history.account.incomplete == frame.lineage["incomplete"] > 0


def test_all_views_that_read_what_is_changed_are_folded_again() -> None:
    """From a table, where one pass folds every entity: each view is that of a table whose events are so."""
    pipeline, draw = flying.app.pipelines[0], random.Random(4)
    rows = [
        {
            "tail": f"N{draw.randrange(9)}",
            "origin": f"A{draw.randrange(3)}",
            "carrier": "AA",
            "at": flying.START_MS + 90_000 * number,
            "delay": 3.0,
        }
        for number in range(120)
    ]
    found, _ = replayed(pipeline, shop.table(rows), changed_inputs(pipeline, inputs={"delay": "delay + 4"}))
    changed = hr.training_frame(pipeline, events=shop.table([row | {"delay": 7.0} for row in rows]))
    assert by_place(found, lambda one: one.after) == framed(changed)


def test_what_is_looked_up_stays_and_may_be_emptied(seed: int) -> None:
    """A look-up is as of the event's own time on both sides; the event's own fields change beside it; emptied it is gone."""
    (pipeline,) = boarding.app.pipelines
    driver = boarding.started()
    in_order(driver, random.Random(seed), 90)
    tables = tables_of(driver)
    found, _ = replayed(boarding.app, tables, changed_inputs(pipeline, inputs={"miles": "miles + 1"}, empty_features=["airport"]))
    names = list(pipeline.feature_names)
    before, after = np.concatenate([one.before for one in found]), np.concatenate([one.after for one in found])
    assert by_place(found, lambda one: one.before) == framed(hr.training_frame(boarding.app, events=tables))
    np.testing.assert_array_equal(after[:, names.index("miles")], before[:, names.index("miles")] + 1)
    for place, name in enumerate(names):
        if name.startswith("airport."):
            assert np.isnan(after[:, place]).all()
        elif name != "miles" and not name.startswith("flight."):
            np.testing.assert_array_equal(after[:, place], before[:, place])


def test_a_partition_and_an_offset_are_one_number() -> None:
    """Different for different places, and in their order."""
    places = places_of(np.array([0, 0, 1, 2], dtype=np.int32), np.array([0, (1 << 44) - 1, 0, 5]))
    assert (np.diff(places) > 0).all()
