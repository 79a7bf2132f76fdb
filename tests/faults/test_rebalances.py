"""Slots come and go, in order and in a storm: nothing is lost, nothing doubled, and somebody always serves."""

from __future__ import annotations

import datetime as dt
import signal
import time
from collections import Counter

import pytest

from tests.faults.app import records
from tests.faults.harness import Make, Trial
from tests.faults.processes import LEAVING, RUN_WORKER, WorkerProcess

ROUNDS = 5


def at_s(worker: WorkerProcess, *events: str) -> float:
    """When a worker first said one of these."""
    said = [line for event in events for line in worker.said(event)]
    return min(dt.datetime.fromisoformat(line["at"]).timestamp() for line in said)


def start_s(worker: WorkerProcess) -> float:
    """How long a process took until it could do anything: the interpreter, its imports, the compiled fold."""
    return at_s(worker, "worker starts") - worker.begun_s


def join_s(worker: WorkerProcess) -> float:
    """How long it then took until it served: to greet both servers, to be given partitions, to claim them."""
    return at_s(worker, "partition live", "partition caught up") - at_s(worker, "worker starts")


def listening(run: Trial) -> list[WorkerProcess]:
    """The workers that end in order when told to; one that is still loading just ends."""
    return [worker for worker in run.alive() if worker.said("takeover")]


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", [RUN_WORKER, LEAVING], ids=["keeping its place", "leaving"])
def test_rolling_restart_of_all_slots(trial: Make, command: tuple[str, ...]) -> None:
    """T14: 12 partitions, 1,000 events a second, 3 workers, 5 rounds: each exits 0, and no partition pauses 5 s longer than a start takes.

    With `--leave` the others serve meanwhile, so that there the 5 s include the start.
    """
    run = trial(partitions=12, max_batch=200)
    run.prepare()
    loader = run.load(list(records(run.rng, 300_000, cards=20_000)), pace=lambda _: 1_000)
    workers = [run.start(slot, command=command) for slot in range(3)]
    run.wait_settled()
    run.wait_passed(run.loader.sent)
    begun_s = time.monotonic()
    ends_s: list[float] = []
    for _ in range(ROUNDS):
        for slot, old in enumerate(workers):
            told_s = time.monotonic()
            old.signal(signal.SIGTERM)
            run.wait_death(old, f"worker {old.number} ends after SIGTERM")
            assert old.exit_code == 0, old.last_words()
            ends_s.append(time.monotonic() - told_s)
            workers[slot] = run.start(slot, command=command)
            run.wait_served(workers[slot])
    run.wait_settled()
    gap_s, slowest_s = run.longest_gap_s(begun_s), max(map(start_s, run.workers[3:]))
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict()
    figures |= {"longest_gap_s": round(gap_s, 2), "slowest_start_s": round(slowest_s, 2)}
    figures |= {"slowest_end_s": round(max(ends_s), 2), "slowest_join_s": round(max(map(join_s, run.workers[3:])), 2)}
    assert gap_s < 5 + (0 if command is LEAVING else slowest_s)
    assert figures["peak_mb"] < 500


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("protocol", "static"), [("classic", True), ("classic", False), ("consumer", False)], ids=["default", "classic not static", "KIP-848"]
)
def test_rebalance_storm(trial: Make, protocol: str, *, static: bool) -> None:
    """T15: every 2 s a slot joins, restarts or leaves for good, 20 changes at 1,000 events a second: more than 30 % of them pass."""
    run = trial(partitions=12, max_batch=200)
    run.prepare()
    loader = run.load(list(records(run.rng, 300_000, cards=20_000)), pace=lambda _: 1_000)

    membership = {
        "HEADRACE_KAFKA__CONSUMER_PROPERTIES": f'{{"group.protocol": "{protocol}"}}',
        "HEADRACE_WORKER__STATIC_MEMBERSHIP": str(static).lower(),
    }

    def join(slot: str) -> None:
        run.start(slot, command=LEAVING, **membership)

    for slot in "012":
        join(slot)
    run.wait_settled()
    run.wait_passed(run.loader.sent)
    steady_s, stood = time.monotonic(), run.progress.total
    run.pass_time(5)
    steady = (run.progress.total - stood) / (time.monotonic() - steady_s)
    storm_s, stood = time.monotonic(), run.progress.total
    changes: Counter[str] = Counter()
    for _ in range(20):
        alive = run.alive()
        if len(alive) == 4:
            run.wait(lambda: len(listening(run)) > 2, "three workers can be told to end")
        kinds = ["joins"] * (len(alive) < 4) + ["restarts", "leaves"] * (len(listening(run)) > 2)
        kind = run.rng.choice(kinds)
        changes[kind] += 1
        slot = min({"0", "1", "2", "3"} - {worker.slot for worker in alive}, default="")
        if kind != "joins":
            victim = run.rng.choice(listening(run))
            slot = victim.slot
            victim.signal(signal.SIGTERM)
            run.wait_death(victim, f"worker {victim.number} ends after SIGTERM")
            assert victim.exit_code == 0, victim.last_words()
        if kind != "leaves":
            join(slot)
        run.pass_time(2)
    stormy = (run.progress.total - stood) / (time.monotonic() - storm_s)
    run.wait_settled(120)
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict()
    moved = sum(len(worker.said("rebalanced")) for worker in run.workers)
    figures |= {"changes": dict(changes), "rebalanced": moved, "steady_per_s": round(steady), "stormy_per_s": round(stormy)}
    assert stormy > 0.3 * steady
    assert moved > 20
    assert set(changes) == {"joins", "restarts", "leaves"}
    assert figures["peak_mb"] < 500
