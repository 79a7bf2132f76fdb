"""Training sets of pipelines of several entities: what was served behind hops, and what tables give."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import headrace as hr
from headrace.testing import Driver
from headrace.training.grid import export_features
from headrace.training.skew import skew
from headrace.types import TopicPartition
from tests.unit.flying import PARTITIONS, START_MS, TOPIC, Departure, app, departures, fly, started


def flown(count: int = 200) -> Driver:
    """A run with crashes, late and bad records."""
    draw = random.Random(5)
    driver = started(draw)
    for step in ("apply", "end"):
        fly(driver, draw, count // 2)
        driver.crash(before=step)
        driver.run()
    return driver


def in_order(driver: Driver, count: int) -> pa.Table:
    """Flights in the order of time, on the log, and the same as a table."""
    draw = random.Random(9)
    rows = []
    for _ in range(count):
        driver.advance(draw.choice([1_000, 60_000, 240_000]))
        row: dict[str, Any] = {
            "tail": f"N{draw.randrange(12)}",
            "origin": f"A{draw.randrange(4)}",
            "carrier": draw.choice(["AA", "UA", "DL"]),
            "at": driver.clock.now_ms(),
            "delay": draw.uniform(-20, 180),
        }
        rows.append(row)
        driver.send(TOPIC, Departure(**row))
        driver.run()
    return pa.Table.from_pylist(rows)


def test_from_topics_each_row_is_what_was_served() -> None:
    """The features of all three entities, bit for bit, for every prediction there is; refused records are counted."""
    driver = flown()
    frame = hr.training_frame(app, events=hr.Topics.of(driver.log))
    served = {one["id"]: one["features"] for one in driver.results("late")}
    rows = zip(frame.table["_partition"].to_pylist(), frame.table["_offset"].to_pylist(), frame.values.tolist(), strict=True)
    made = {f"{TOPIC}-{partition}-{offset}-late": values for partition, offset, values in rows}
    assert len(served) > 150
    assert served.keys() <= made.keys()  # the model refused some
    for name, features in served.items():
        assert list(features) == list(frame.names)
        expected = np.array([np.nan if value is None else value for value in features.values()])
        assert np.array_equal(expected, np.array(made[name]), equal_nan=True)
    late = {one["id"]: one["late"] for one in driver.results("late")}
    told = dict(zip(made, frame.table["_late"].to_pylist(), strict=True))
    assert {name: told[name] for name in late} == late


def test_a_table_gives_the_same_where_nothing_was_late() -> None:
    """From a table features agree with those of the topics; who they are of is the last entity."""
    driver = started(random.Random(1))
    table = in_order(driver, 120)
    topics, files = hr.training_frame(app, events=hr.Topics.of(driver.log)), hr.training_frame(app, events=table)
    found = skew(topics, files)
    assert (found.rows, found.only_one, found.only_other, found.differing) == (120, 0, 0, 0)
    assert files.table["_entity"].to_pylist() == table["carrier"].to_pylist()


def test_questions_name_every_entity() -> None:
    """As of an instant, each view answers for its own entity, from topics as from a table."""
    driver = started(random.Random(1))
    table = in_order(driver, 120)
    newest = table.slice(119).to_pylist()[0]
    asked = pa.Table.from_pylist(
        [{"tail": newest["tail"], "origin": newest["origin"], "carrier": newest["carrier"], "as_of": newest["at"] + 1_000}]
    )
    topics = hr.training_frame(app, events=hr.Topics.of(driver.log), at=asked)
    files = hr.training_frame(app, events=table, at=asked)
    assert np.array_equal(topics.values, files.values, equal_nan=True)
    assert topics.table["_known"].to_pylist() == [True]
    name = app.pipelines[0].feature_names.index("airport.seconds_since_last")
    assert topics.values[0, name] == 1.0


def test_a_grid_is_exported_for_every_view(tmp_path: Path) -> None:
    """Each view's file is of its own entities, from topics as from a table."""
    driver = started(random.Random(1))
    table = in_order(driver, 120)
    for events, folder in ((hr.Topics.of(driver.log), tmp_path / "topics"), (table, tmp_path / "table")):
        found = export_features(app, events=events, grid="1h", to=folder)
        assert [one.view for one in found] == ["aircraft", "airport", "airline"]
    airports = pq.read_table(tmp_path / "table" / "airport.parquet")
    assert set(airports["_entity"].to_pylist()) == {f"A{number}" for number in range(4)}
    told = json.loads(pq.read_schema(tmp_path / "topics" / "airport.parquet").metadata[b"headrace"])
    assert told["entity"] == "origin"
    assert airports["_as_of"].to_pylist()[0].timestamp() * 1_000 > START_MS
    assert departures.key == "tail"
    assert len(driver.log.read(TopicPartition(TOPIC, PARTITIONS - 1))) > 0
