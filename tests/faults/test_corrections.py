"""Corrections are published once, with the event that caused them, whoever dies."""

from __future__ import annotations

import pytest

from tests.faults.harness import Make, Moment
from tests.faults.test_worker_kills import drawn_moments


def killed(trial: Make, events: int, kills: dict[Moment, int], *, slots: int) -> None:
    """Kill workers of an app with corrections: so many events at once, then 200 a second until the last one is killed."""
    run = trial(corrections=True)
    run.prepare()
    loader = run.load(run.records(20 * events), pace=lambda sent: 0 if sent < events else 200)
    for slot in range(slots):
        run.start(slot)
    moments = drawn_moments(run, kills)
    for progress, moment in zip(sorted(run.rng.sample(range(200, events), len(moments))), moments, strict=True):
        run.wait_passed(progress)
        victim = run.wait_victim()
        run.kill(victim, moment)
        run.start(victim.slot)
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict()
    assert figures["kills"] == len(moments)
    assert figures["aborted_records"] > 0
    assert figures["catch_ups"] > 0
    assert figures["corrections"] > 50


@pytest.mark.stack
def test_workers_that_correct_are_killed(trial: Make) -> None:
    """A stream of events, 2 workers, killed twice: each correction is there once, and what was retained in Redis is that of the log."""
    killed(trial, 2_500, {Moment.IN_TRANSACTION: 1, Moment.BEFORE_STORE: 1}, slots=2)


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_workers_that_correct_are_killed_again_and_again(trial: Make) -> None:
    """The same with 6,000 events and then a stream, 10 times kill -9 at a drawn progress."""
    killed(trial, 6_000, {Moment.IN_TRANSACTION: 4, Moment.BEFORE_STORE: 3, Moment.ANY: 3}, slots=2)
