"""Workers that freeze and wake up: what they still want to say is refused, and they serve again."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.app import records
from tests.faults.harness import Make, Moment, Trial
from tests.faults.processes import WorkerProcess

SESSIONS_S = 30.0
"""Three session time-outs."""
OFFSETS = [f'headrace_transactions_total{{result="{result}"}}' for result in ("aborted", "fenced", "unknown")]
APPLIES = [f'headrace_store_applies_total{{result="{result}"}}' for result in ("behind", "fenced", "unknown")]


def refused(run: Trial, worker: WorkerProcess, moment: Moment) -> float:
    """How often a worker was told that what it wanted to say at this moment is not taken."""
    return sum(run.metric(worker, series) for series in (OFFSETS if moment is Moment.IN_TRANSACTION else APPLIES))


def freezes_before_an_apply(run: Trial, old: WorkerProcess) -> WorkerProcess:
    """A worker in place of another that freezes itself with an apply in its hands: looked at from outside it may have sent it already."""
    old.signal(signal.SIGTERM)
    run.wait_death(old, "the worker ends after SIGTERM")
    victim = run.start(
        old.slot, command=("-m", "tests.faults.killing_worker", "before apply 50 stop"), HEADRACE_WORKER__MAX_STORE_DELAY_MS="0"
    )
    run.wait(lambda: victim.frozen, "the worker freezes itself")
    return victim


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_frozen_for_three_sessions(trial: Make) -> None:
    """T13: 12 partitions, 1,000 events a second, 3 workers; 3 times one freezes for 30 s, is replaced, wakes, is refused and serves again.

    Twice it has written results that are not committed: its offsets are refused. Once the store has not heard of what it has committed:
    its apply is refused.
    """
    run = trial(partitions=12, max_batch=200)
    run.prepare()
    loader = run.load(list(records(run.rng, 400_000, cards=20_000)), pace=lambda _: 1_000)
    for slot in range(3):
        run.start(slot, HEADRACE_WORKER__MAX_STORE_DELAY_MS="0")  # so that each commit is followed by an apply that can be refused
    refusals = []
    for moment in (Moment.IN_TRANSACTION, Moment.BEFORE_STORE, Moment.IN_TRANSACTION):
        run.wait_settled(120)
        victim = run.wait_victim()
        if moment is Moment.BEFORE_STORE:
            victim = freezes_before_an_apply(run, victim)
            before = 0.0
        else:
            before = refused(run, victim, moment)
            run.freeze(victim, moment)
        frozen_s = time.monotonic()
        lost = run.owned(victim)
        victim.ending = True  # it is not to be asked before it wakes up
        run.wait_taken_over(victim)
        run.wait(lambda: time.monotonic() > frozen_s + SESSIONS_S, "three session time-outs are over")  # noqa: B023 - waited for at once
        told = len(victim.said("rebalanced"))
        victim.resume()
        victim.ending = False
        run.journal.note("awake", worker=victim.number)
        run.wait(lambda: len(victim.said("rebalanced")) > told, "the worker hears what became of its partitions")  # noqa: B023
        gone = [line for line in victim.said("rebalanced")[told:] if line["kind"] != "assigned"]
        assert {name for line in gone for name in line["partitions"]} >= {f"{name.topic}-{name.partition}" for name in lost}
        run.wait(lambda: bool(run.owned(victim)), "the worker has partitions again")  # noqa: B023
        refusals.append(refused(run, victim, moment) - before)
    run.wait_settled(120)
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict()
    figures["refusals"] = refusals
    assert min(refusals) > 0
    assert figures["aborted_records"] > 0
    assert figures["catch_ups"] > 0
    assert figures["peak_mb"] < 500
