"""Training frames of pipelines that look up another source: as of each event's own time, and how far that is from what was served."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import headrace as hr
from headrace.cli.training_set import as_text
from headrace.errors import DefinitionError
from headrace.testing import Driver
from headrace.training.served import served_skew
from headrace.types import TopicPartition
from tests.unit.boarding import (
    BOARDINGS,
    DEPARTURES,
    HOUR_MS,
    MINUTE_MS,
    NOON_MS,
    ORIGINS,
    PARTITIONS,
    PREDICTIONS,
    aircraft,
    airport,
    app,
    app_that,
    board,
    leave,
    started,
    traffic,
)

PIPELINE = app.pipelines[0]
LINEAGE = {"rows": 10, "features": ["miles"], "hash": "0", "refused": {}, "incomplete": 0, "labels": None}


def events_of(driver: Driver, topic: str) -> list[dict[str, object]]:
    """All events of a source, in the order of their times."""
    records = [record for number in range(PARTITIONS) for record in driver.log.read(TopicPartition(topic, number))]
    return sorted((json.loads(record.value or b"") for record in records), key=lambda one: int(one["at"]))


def tables_of(driver: Driver) -> dict[str, pa.Table]:
    """The same as tables by topic."""
    return {topic: pa.Table.from_pylist(events_of(driver, topic)) for topic in (BOARDINGS, DEPARTURES)}


def in_order(driver: Driver, draw: random.Random, minutes: int) -> None:
    """Traffic in the order of time, worked off every now and then."""
    for minute in range(minutes):
        driver.advance(MINUTE_MS)
        leave(driver, draw.choice(ORIGINS), NOON_MS + minute * MINUTE_MS, draw.gauss(10, 30), f"N{draw.randrange(7)}")
        if minute % 3 == 2:
            driver.run()
            board(driver, draw.choice(ORIGINS), NOON_MS + minute * MINUTE_MS + 1, tail=f"N{draw.randrange(7)}")
    driver.run()


def test_a_row_knows_what_the_other_source_did_before_it(seed: int) -> None:
    """Counts, means and the newest event are those of everything with a time up to the event's own, told plainly."""
    driver = started()
    in_order(driver, random.Random(seed), 180)
    left = events_of(driver, DEPARTURES)
    frame = hr.training_frame(app, events=tables_of(driver))
    assert frame.names == PIPELINE.feature_names
    about = zip(frame.table["_event_time"].cast("int64").to_pylist(), frame.table["_offset"].to_pylist(), frame.values, strict=True)
    boarded = events_of(driver, BOARDINGS)
    for time_ms, offset, row in about:
        scored = boarded[offset]
        before = [one for one in left if one["origin"] == scored["origin"] and int(str(one["at"])) <= time_ms]
        pane_ms = next(one.pane_ms for one in airport.features if one.name == "count_1h")
        visible = [one for one in before if int(str(one["at"])) >= (time_ms // pane_ms - HOUR_MS // pane_ms) * pane_ms]
        assert row[frame.names.index("airport.count_1h")] == len(visible)
        mean = np.mean([float(str(one["delay"])) for one in visible]) if visible else np.nan
        np.testing.assert_allclose(row[frame.names.index("airport.mean_delay_1h")], mean, rtol=1e-9)
        if before:
            assert row[frame.names.index("airport.last_delay")] == before[-1]["delay"]
        assert row[frame.names.index("miles")] == scored["miles"]


def test_topics_give_what_tables_give(seed: int) -> None:
    """In the order of time both are the same, and both say from where all of it comes."""
    driver = started()
    in_order(driver, random.Random(seed), 180)
    topics = hr.training_frame(app, events=hr.Topics.of(driver.log))
    tables = hr.training_frame(app, events=tables_of(driver))
    whole = [name for name in PIPELINE.feature_names if not name.startswith("flight.")]
    mine = topics.table.sort_by("_event_time").select(whole)
    theirs = tables.table.sort_by("_event_time").select(whole)
    for name in whole:
        np.testing.assert_allclose(mine[name].to_numpy(), theirs[name].to_numpy(), rtol=1e-9, equal_nan=True)
    assert set(topics.lineage["offsets"]) == {BOARDINGS, DEPARTURES, "boarding.late.keep-origin.v1"}
    assert set(tables.lineage["offsets"]) >= {"rows"}


def test_a_row_knows_nothing_of_what_comes_after_it(seed: int) -> None:
    """Departures that lie after a boarding make no difference to it."""
    driver = started()
    in_order(driver, random.Random(seed), 120)
    tables = tables_of(driver)
    cut_ms = NOON_MS + 60 * MINUTE_MS
    earlier = tables | {DEPARTURES: tables[DEPARTURES].filter(pa.compute.less_equal(tables[DEPARTURES]["at"], cut_ms))}
    whole, part = (hr.training_frame(app, events=some) for some in (tables, earlier))
    before = whole.table["_event_time"].cast("int64").to_numpy() <= cut_ms
    np.testing.assert_array_equal(whole.values[before], part.values[before])
    assert not np.array_equal(whole.values[~before], part.values[~before])


def test_the_skew_to_what_was_served_is_counted(seed: int) -> None:
    """Where the store was as far as the event there is none; where it was not, the rows that differ are counted, with their marks."""
    driver = started()
    in_order(driver, random.Random(seed), 120)
    topics = hr.Topics.of(driver.log)
    found = served_skew(PIPELINE, topics, hr.training_frame(app, events=topics))
    assert found.rows == len(driver.results("late"))
    assert found.differing == 0, found
    behind = started()
    traffic(behind, random.Random(seed), 300)
    behind.run()
    topics = hr.Topics.of(behind.log)
    found = served_skew(PIPELINE, topics, hr.training_frame(app, events=topics))
    assert 0 < found.differing < found.rows
    assert set(found.by_feature) <= {name for name in PIPELINE.feature_names if name.startswith(("airport", "aircraft"))}
    assert found.counts()["differing"] == found.differing


def predicted(event_id: str, **more: object) -> bytes:
    """A prediction that somebody else made."""
    model = {"name": "a", "version": "1", "role": "champion"}
    said = {"id": event_id, "entity": "F1", "event_time": 0, "score": 1, "model": model, "late": False, "scored_at": 0}
    return json.dumps(said | more).encode()


@pytest.mark.parametrize(
    "value", [None, b"not JSON", b"{}", predicted("other.v1-0-0-a"), predicted("boardings.v1-0-0-a", features={"miles": 1.0})]
)
def test_what_is_no_prediction_is_counted(value: bytes | None) -> None:
    """A tombstone or a foreign record on the prediction topic ends nothing."""
    driver = started()
    in_order(driver, random.Random(1), 30)
    driver.log.append(PREDICTIONS, 0, b"F1", value)
    topics = hr.Topics.of(driver.log)
    found = served_skew(PIPELINE, topics, hr.training_frame(app, events=topics))
    assert (found.foreign, found.rows) == (1, 10)
    assert "1 records there are no predictions" in as_text(LINEAGE, Path("set"), 1.0, None, found)


def test_questions_ask_for_everybody(seed: int) -> None:
    """With `at` the row of a question answers of all views, own and looked up."""
    driver = started()
    in_order(driver, random.Random(seed), 90)
    at = pa.table({"flight": ["F1", "F1"], "origin": ["JFK", "none"], "tail": ["N1", "N2"], "as_of": [NOON_MS + HOUR_MS] * 2})
    frame = hr.training_frame(app, events=tables_of(driver), at=at)
    assert frame.names == PIPELINE.feature_names[:-1]
    first, second = frame.values
    assert first[frame.names.index("airport.count_3h")] == sum(
        one["origin"] == "JFK" and int(str(one["at"])) <= NOON_MS + HOUR_MS for one in events_of(driver, DEPARTURES)
    )
    assert second[frame.names.index("airport.count_3h")] == 0.0
    assert frame.table["_known"].to_pylist() == [True, False]


def test_without_a_view_of_its_own(seed: int) -> None:
    """Rows are what is looked up and the event's fields."""
    of = app_that(hr.LookUp(airport, aircraft), own=False)
    driver = started(of)
    in_order(driver, random.Random(seed), 60)
    frame = hr.training_frame(of, events=tables_of(driver))
    assert frame.names == of.pipelines[0].feature_names
    assert len(frame) == 20
    assert set(frame.table["_entity"].to_pylist()) == {"F1"}


def test_a_missing_table_is_named() -> None:
    """The error says of which topic there is nothing."""
    table = pa.table({"flight": ["F1"], "origin": ["JFK"], "tail": ["N1"], "at": [NOON_MS], "miles": [1.0]})
    with pytest.raises(DefinitionError, match=r"events has nothing of 'departures.v1'; it has boardings.v1"):
        hr.training_frame(app, events={BOARDINGS: table})
