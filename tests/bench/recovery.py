"""`make bench-recovery`: how long a death is felt, and how fast state comes back, on a real stack. Asserts nothing.

    restarted slot   kill -9 to the first commit of its partitions, the slot started again at once
    lost slot        the same, the slot left empty: another worker takes over
    rolling restart  every slot ended by SIGTERM and started again, one after another: the longest time without a commit of any
                     partition, for workers that keep their place and for those that leave it (`--leave`)
    rebuild          events a second folded after Redis was emptied, beside the speed of the same worker when it publishes

Kills come while events flow. The brokers look for timed-out transactions every second, as those of `headrace stack` do; with Kafka's
default of ten a lost slot takes up to ten seconds longer. Writes build/recovery.json.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from headrace.local_stack import Stack
from headrace.types import Delivery, TopicPartition
from tests.bench.__main__ import BUILD, SOURCE, fill, say
from tests.bench.cards import Job
from tests.bench.worker import WorkerProcess, create_topics
from tests.contract.store.subjects import ask
from tests.faults.app import records
from tests.faults.harness import Moment, Trial
from tests.faults.processes import LEAVING, RUN_WORKER
from tests.faults.processes import WorkerProcess as KilledWorker

PARTITIONS, SLOTS = 12, 3
PACE = 2_000


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="make bench-recovery ARGS=...", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5, help="of each kind (%(default)s)")
    parser.add_argument("--events", type=int, default=400_000, help="events that are folded again (%(default)s)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    stack: Stack | None = None
    try:
        stack = Stack.up(folder / "stack", say=say)
        written: dict[str, object] = {**takeovers(stack, folder, options.kills), "rolling_restart_gap_s": rolling(stack, folder)}
        written |= rebuild(stack, options.events)
        BUILD.mkdir(exist_ok=True)
        (BUILD / "recovery.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(written, indent=1))
    finally:
        if stack is not None:
            stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def takeovers(stack: Stack, folder: Path, kills: int) -> dict[str, object]:
    """Kill workers under load; the seconds from each kill to the first commit of each of its partitions."""
    trial = Trial(
        folder / "trial",
        stack.kafka[0],
        stack.redis,
        name="recovery",
        seed=1,
        record=lambda _: None,
        partitions=PARTITIONS,
        max_batch=2_000,
    )
    try:
        trial.prepare()
        trial.load(list(records(trial.rng, 400_000, cards=20_000)), pace=lambda _: PACE)
        for slot in range(SLOTS):
            trial.start(slot)
        trial.wait_settled()
        restarted, lost = [], []
        for _ in range(kills):
            victim = trial.wait_victim()
            mine = trial.owned(victim)
            trial.kill(victim, Moment.ANY)
            trial.wait_served(trial.start(victim.slot))
            restarted.append(felt_s(trial, victim, mine))
            say(f"restarted slot: {restarted[-1]:.2f} s")
            trial.wait_settled()
        for _ in range(kills):
            victim = trial.wait_victim()
            mine = trial.owned(victim)
            trial.kill(victim, Moment.ANY)
            trial.wait_taken_over(victim)
            lost.append(felt_s(trial, victim, mine))
            say(f"lost slot: {lost[-1]:.2f} s")
            trial.start(victim.slot)
            trial.wait_settled()
        return {"restarted_slot_s": sorted(restarted), "lost_slot_s": sorted(lost)}
    finally:
        trial.close()


def rolling(stack: Stack, folder: Path) -> dict[str, float]:
    """The longest gap in the output while each slot is restarted once."""
    found: dict[str, float] = {}
    for kind, command in (("keeping", RUN_WORKER), ("leaving", LEAVING)):
        trial = Trial(
            folder / kind,
            stack.kafka[0],
            stack.redis,
            name=f"rolling-{kind}",
            seed=1,
            record=lambda _: None,
            partitions=PARTITIONS,
            max_batch=2_000,
        )
        try:
            trial.prepare()
            trial.load(list(records(trial.rng, 200_000, cards=20_000)), pace=lambda _: PACE)
            workers = [trial.start(slot, command=command) for slot in range(SLOTS)]
            trial.wait_settled()
            trial.wait_passed(trial.loader.sent)
            begun_s = time.monotonic()
            for slot, old in enumerate(workers):
                old.signal(signal.SIGTERM)
                trial.wait_death(old, f"worker {old.number} ends")
                trial.wait_served(trial.start(slot, command=command))
            trial.wait_settled()
            found[kind] = trial.longest_gap_s(begun_s)
            say(f"rolling restart, {kind}: {found[kind]:.2f} s")
        finally:
            trial.close()
    return found


def felt_s(trial: Trial, victim: KilledWorker, mine: Collection[TopicPartition]) -> float:
    """From the kill of a worker to the first commit of the last of the partitions that were its own."""
    killed_s = victim.killed_s
    if killed_s is None:
        raise SystemExit("nobody was killed")
    found: list[float] = []

    def all_committed() -> bool:
        found[:] = [seconds for partition in mine if (seconds := trial.progress.first_after(killed_s, partition)) is not None]
        return len(found) == len(mine)

    trial.wait(all_committed, "every partition of a killed worker is committed again")
    return max(found)


def rebuild(stack: Stack, events: int) -> dict[str, object]:
    """A worker through a topic, then the same fold again from an empty store."""
    create_topics(stack, SOURCE)
    fill(stack, events)
    job = Job(name="rebuilt", source=SOURCE)
    with WorkerProcess(stack, job, Delivery.EXACTLY_ONCE, models=BUILD / "bench", settings={}) as worker:
        publishing = worker.throughput(events).eps
    ask(stack.redis, "FLUSHALL")
    with WorkerProcess(stack, job, Delivery.EXACTLY_ONCE, models=BUILD / "bench", settings={}, resumed=True) as worker:
        worker.wait_live()
        folding = folded_eps((stack.folder / f"{job.name}.log").read_text(encoding="utf-8"), events)
    say(f"publishing {publishing:,.0f}/s, folding {folding:,.0f}/s: {folding / publishing:.2f} times as fast")
    return {"exactly_once_eps": publishing, "rebuild_eps": folding, "rebuild_ratio": folding / publishing}


def folded_eps(log: str, events: int) -> float:
    """From the first line about catching up to the last one about having caught up."""
    began = [moment(line) for line in log.splitlines() if '"partition catches up"' in line]
    ended = [moment(line) for line in log.splitlines() if '"partition caught up"' in line]
    if not began or len(began) != len(ended):
        raise SystemExit(f"{len(began)} partitions began to catch up, {len(ended)} did")
    return events / (max(ended) - min(began))


def moment(line: str) -> float:
    """When a line was logged, in seconds."""
    found = re.search(r'"at": "([^"]+)"', line)
    return datetime.fromisoformat(found[1]).timestamp() if found else 0.0


if __name__ == "__main__":
    main()
