"""A machine whose clock is set: its results carry the wrong time of scoring, and nothing else is wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.faults.app import records
from tests.faults.harness import Make, Trial
from tests.faults.processes import WorkerProcess
from tests.faults.skewed_worker import set_wrong

HOUR_MS = 3_600_000


def skewed(run: Trial, slot: int, clock: Path) -> WorkerProcess:
    """A worker whose wall clock is wrong by what a file says."""
    return run.start(slot, command=("-m", "tests.faults.skewed_worker", str(clock)))


def scored_at(run: Trial) -> list[int]:
    """The times of scoring that stand in the predictions, as the reader that looked on saw them."""
    topics = {pipeline.predictions for pipeline in run.app.pipelines}
    return [json.loads(value or b"")["scored_at"] for topic, _, _, _, value in run.seen.results() if topic in topics]


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_clock_set_forwards_and_back(trial: Make) -> None:
    """T19: at 2,000 events a second one worker's clock is an hour ahead, then an hour behind, and it is killed and restarted in both."""
    run = trial(partitions=12, max_batch=200)
    run.prepare()
    loader = run.load(list(records(run.rng, 300_000, cards=20_000)), pace=lambda _: 2_000)
    clock = run.folder / "clock"
    set_wrong(clock, 0)
    begin_ms = time.time_ns() // 1_000_000
    worker = skewed(run, 0, clock)
    for slot in (1, 2):
        run.start(slot)
    run.wait_settled()
    run.wait_passed(run.loader.sent)
    for wrong_ms in (HOUR_MS, -HOUR_MS):
        run.journal.note("clock set", worker=worker.number, by_ms=wrong_ms)
        set_wrong(clock, wrong_ms)
        run.pass_time(run.rng.uniform(8, 12))
        worker.kill()
        worker = skewed(run, 0, clock)
        run.wait_served(worker)
        run.pass_time(run.rng.uniform(4, 6))
    run.wait_settled()
    run.wait(lambda: loader.sent >= 100_000, "100,000 events are sent", 120)
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict()
    times, end_ms = scored_at(run), time.time_ns() // 1_000_000
    ahead = sum(time_ms > end_ms + HOUR_MS // 2 for time_ms in times)
    behind = sum(time_ms < begin_ms - HOUR_MS // 2 for time_ms in times)
    figures |= {"scored_an_hour_ahead": ahead, "scored_an_hour_behind": behind}
    assert ahead > 1_000
    assert behind > 1_000
    assert figures["peak_mb"] < 500


def test_the_newer_wins_whatever_the_clocks_say(trial: Make) -> None:
    """T16, T19: a process that takes over a slot wins also where the older one's clock is an hour ahead of its own."""
    run = trial()
    run.prepare()
    loader = run.load(run.records(5_000), pace=lambda _: 300)
    clock = run.folder / "clock"
    set_wrong(clock, HOUR_MS)
    older = skewed(run, 0, clock)
    run.wait_passed(run.rng.randrange(100, 500))
    newer = run.start(0)
    run.wait_death(older, "the older process with the slot ends")
    assert older.exit_code == 1
    assert f"pid {newer.pid}" in older.last_words().splitlines()[-1]
    loader.hurry()
    run.wait_served(newer)
    run.wait_drained()
    run.verdict()
