"""Slots: two processes that claim the same, and a process that is asked to end."""

from __future__ import annotations

import signal
import socket

from tests.faults.harness import Make


def test_the_newer_of_two_with_one_slot_wins(trial: Make) -> None:
    """T16: the older process ends with an error that names host and pid of the newer, and takes nothing back."""
    run = trial()
    run.prepare()
    loader = run.load(run.records(10_000), pace=lambda _: 300)
    older = run.start(0)
    run.wait_passed(run.rng.randrange(100, 500))
    newer = run.start(0)
    run.wait_death(older, "the older process with the slot ends")
    assert older.exit_code == 1
    assert f"{socket.gethostname()} pid {newer.pid}" in older.last_words().splitlines()[-1]
    loader.hurry()
    run.wait_served(newer)
    run.wait_drained()
    assert newer.exit_code is None
    run.verdict()


def test_sigterm_ends_in_order(trial: Make) -> None:
    """T14, once: on SIGTERM under load a worker exits 0 with everything stored, and the next one goes on without folding anything again."""
    run = trial()
    run.prepare()
    run.load(run.records(10_000), wait=True)
    first = run.start(0)
    run.wait_passed(run.rng.randrange(500, 5_000))
    first.signal(signal.SIGTERM)
    run.wait(lambda: first.exit_code is not None, "the worker ends after SIGTERM", 30)
    assert first.exit_code == 0
    run.start(0)
    run.wait_drained()
    figures = run.verdict()
    assert (figures["catch_ups"], figures["aborted_records"]) == (0, 0)
