"""Deaths at every step of the protocol, one life after another on the same log."""

from __future__ import annotations

import signal

import pytest

from tests.faults.harness import Make

STEPS = {"claim": 2, "read": 3, "begin": 8, "produce": 8, "offsets": 8, "commit": 8, "apply": 4}
"""The steps, and up to which time a death is drawn."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_step(trial: Make, when: str) -> None:
    """T12: in each of 7 lives 1,000 more events; death by kill -9 before (after) a claim, read, begin, produce, offsets, commit, apply."""
    run = trial(partitions=2)
    run.prepare()
    steps = list(STEPS)
    run.rng.shuffle(steps)
    for step in steps:
        run.load(run.records(1_000), wait=True)
        death = f"{when} {step} {run.rng.randrange(STEPS[step]) + 1}"
        worker = run.start(0, command=("-m", "tests.faults.killing_worker", death))
        run.wait_death(worker, f"worker {worker.number} dies {death}")
        assert worker.exit_code == -signal.SIGKILL, worker.last_words()
    run.start(0)
    run.wait_drained()
    figures = run.verdict()
    assert figures["events"] == 7_000
    assert figures["kills"] == 7
    assert figures["aborted_records"] > 0
