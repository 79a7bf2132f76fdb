"""Scenarios of the demo's flights: the command as a user runs it, and what the engine itself has served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.demo.events import read_departures
from headrace.demo.flights import app, departures
from headrace.testing import Driver

SERVICES = Path(__file__).parents[2] / "services"


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    """A folder with the first 2,000 departures, and how they arrived."""
    found = read_departures(limit=2_000)
    pq.write_table(pa.Table.from_pylist([json.loads(value) for value in found.values]), tmp_path / "departures.parquet")
    arrived = ~np.isnan(found.arr_delay)
    arrivals = {
        "flight_id": found.flight_ids,
        "arrived_at": found.departed_ms + 10_800_000,
        "arr_delay": found.arr_delay,
    }
    pq.write_table(pa.table(arrivals).filter(pa.array(arrived)), tmp_path / "arrivals.parquet")
    return tmp_path


def test_what_if_all_had_left_ten_minutes_later(flights: Path) -> None:
    """The command replays real flights through the demo's model: scores rise, decisions flip to yes, and it is told for each airline."""
    arguments = ["--app", "headrace.demo.flights:app", "--events", str(flights / "departures.parquet")]
    arguments += ["--labels", str(flights / "arrivals.parquet"), "--set", "dep_delay=dep_delay + 10", "--by", "carrier"]
    arguments += ["--svg", str(flights / "ten.svg"), "--output", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "scenario", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SERVICES)},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["events"], told["shift"]["rows"], told["served"]) == (2_000, 2_000, None)
    assert told["shift"]["change"]["mean"] > 0.05
    assert told["decisions"]["to_yes"] > 10 * told["decisions"]["to_no"]
    assert told["grading"]["rows"] == told["labels"]["labelled"] > 1_900
    assert told["grading"]["before"]["brier"] < told["grading"]["after"]["brier"]
    assert sum(one["rows"] for one in told["segments"]) == 2_000
    assert "dep_delay = (dep_delay + 10)" in (flights / "ten.svg").read_text(encoding="utf-8")


def test_what_the_engine_served_is_what_nothing_changes() -> None:
    """Through both hops and the real model: no served score is further than a millionth from the one before, and no score changes."""
    driver = Driver(app, partitions=3)
    for value, key in zip(*(getattr(read_departures(limit=400), name) for name in ("values", "keys")), strict=True):
        driver.send_bytes(departures.topic, key=key, value=value, timestamp_ms=json.loads(value)["departed_at"])
    driver.run()
    plain = hr.scenario(app, events=hr.Topics.of(driver.log))
    itself = hr.scenario(app, events=hr.Topics.of(driver.log), inputs={"dep_delay": "dep_delay"})
    for found in (plain, itself):
        assert found.served is not None
        assert (len(found.rows), found.served.rows, found.served.differing) == (400, 400, 0)
        assert (found.comparison.shift.unchanged, found.comparison.most_changed) == (400, ())
