"""What operators do to the state while workers are at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.features.redis_store import _states, _tag
from headrace.local_stack import Stack
from headrace.types import TopicPartition
from headrace.verify.findings import Kind
from tests.contract.store.subjects import ask
from tests.faults.app import write_app
from tests.faults.harness import Make, Trial
from tests.faults.processes import KEPT, ROOT, RUN_WORKER

pytestmark = pytest.mark.stack


def state(run: Trial, verb: str, *arguments: str, code: int = 0, module: str = "started") -> subprocess.CompletedProcess[str]:
    """`headrace state <verb>`, as an operator calls it; it has to end with this exit code."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | run.settings
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "services", ROOT)))
    command = [sys.executable, "-m", "headrace", "state", verb, "--app", f"{module}:app", *arguments]
    done = subprocess.run(command, cwd=run.folder, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def text(name: TopicPartition) -> str:
    """A partition's name."""
    return f"{name.topic}-{name.partition}"


def rebuilt(run: Trial) -> set[str]:
    """The partitions that workers have folded from the log anew."""
    return {line["partition"] for worker in run.workers for line in worker.said("partition catches up") if line["rebuilt"]}


def test_a_state_that_was_dropped_is_rebuilt(trial: Make) -> None:
    """`headrace state rebuild` under load: the workers fold everything again, and no prediction is lost, repeated or wrong."""
    run = trial()
    run.prepare()
    run.load(run.records(10_000), wait=True)
    for slot in range(2):
        run.start(slot)
    run.wait_passed(4_000)
    assert f"{run.source}-0" in state(run, "rebuild", "--partition", "elsewhere-0", code=2).stderr
    assert f"dropped the state of {run.source}-3" in state(run, "rebuild").stdout
    run.wait_drained()
    figures = run.verdict()
    assert len(rebuilt(run)) == run.partitions
    assert figures["catch_ups"] >= run.partitions


@pytest.mark.timeout(400)
def test_an_old_snapshot_is_restored_under_load(trial: Make) -> None:
    """A file taken while workers are busy is put back 2,000 events later: they fold what came since, and nothing is lost or repeated."""
    run = trial()
    run.prepare()
    wanted = run.records(8_000)
    loader = run.load(wanted[:4_000], pace=lambda _: 500)
    for slot in range(2):
        run.start(slot)
    run.wait_passed(1_000)
    told = state(run, "snapshot", "before.state").stdout
    assert "of 4 partitions" in told
    loader.finish()
    at = run.progress.total
    loader = run.load(wanted[4_000:], pace=lambda _: 1_000)
    run.wait_passed(at + 2_000)
    restored = state(run, "restore", "before.state")
    offsets = [int(line.rpartition(" ")[2]) for line in restored.stdout.splitlines() if "at offset" in line]
    assert len(offsets) == run.partitions
    assert 0 < sum(offsets) < at + 2_000
    loader.finish()
    run.wait_drained()
    figures = run.verdict()
    assert rebuilt(run) == set()
    assert figures["catch_ups"] >= run.partitions
    assert figures["caught_up_events"] >= 1_000


@pytest.mark.timeout(400)
def test_a_snapshot_fills_an_empty_store(trial: Make, own_stack: Callable[..., Stack]) -> None:
    """A Redis that lost everything gets the states of a file, and the worker folds the rest of the log instead of all of it."""
    redis = own_stack(brokers=0).redis
    run = trial(redis=redis)
    run.prepare()
    wanted = run.records(5_000)
    run.load(wanted[:4_000], wait=True)
    run.start(0)
    run.wait_drained()
    state(run, "snapshot", "all.state")
    one = text(run.source_partitions[1])
    state(run, "snapshot", "one.state", "--partition", one)
    run.stop_workers()
    ask(redis, "FLUSHALL")
    assert json.loads(state(run, "verify", "--wait", "0", "--output", "json", code=1).stdout)["counts"] == {"head": 8}
    missing = state(run, "restore", "one.state", "--partition", text(run.source_partitions[0]), code=1).stderr
    assert f"{text(run.source_partitions[0])} is not in the file" in missing
    assert "is damaged" in state(run, "restore", damaged(run.folder / "all.state"), code=1).stderr
    assert f"{one} has the state of" in state(run, "restore", "one.state").stdout
    state(run, "restore", "all.state")
    told = json.loads(state(run, "verify", "--output", "json").stdout)
    assert (told["sound"], told["invariants"], told["checked"]["partitions"]) == (True, {"I4": "passed"}, 8)
    run.load(wanted[4_000:], wait=True)
    run.start(0)
    run.wait_drained()
    run.verdict()
    assert rebuilt(run) == set()


def damaged(path: Path) -> str:
    """A copy of a file of which the last 1,000 bytes are missing."""
    copy = path.with_name("damaged.state")
    copy.write_bytes(path.read_bytes()[:-1_000])
    return copy.name


@pytest.mark.timeout(400)
def test_one_entity_is_rebuilt_beside_a_worker(trial: Make) -> None:
    """T39: `state verify` names just ten deleted states; one comes back by `--entity` beside a busy worker, the rest by `--partition`."""
    run = trial()
    run.prepare()
    wanted = run.records(6_000)
    run.load(wanted[:3_000], wait=True)
    run.start(0)
    run.wait_drained()
    run.stop_workers()
    partition, view = run.rng.choice(run.source_partitions), run.app.pipelines[0].views[0]
    assert view.name == "spending"  # whose windows hold the whole log: no state is too old to be missed
    states = _states(_tag(run.app.name, partition), view.fp).decode()
    gone = sorted(entity.decode() for entity in run.rng.sample(sorted(run.stored(partition, view.fp)), 10))
    assert ask(run.redis, "HDEL", states, *gone) == 10
    found = json.loads(state(run, "verify", "--partition", text(partition), "--output", "json", code=1).stdout)
    assert (found["counts"], found["checked"]["partitions"]) == ({Kind.STATE.value: 10}, 2)
    named = sorted((one["partition"], one["of"], one["entity"]) for one in found["violations"])
    assert named == [(partition.partition, view.name, entity) for entity in gone]

    others = [
        one for one in wanted[3_000:4_500] if (one.key or b"").decode() not in gone
    ]  # what is scored before the repair is scored wrong
    loader = run.load(others, pace=lambda _: 200)
    run.start(0)
    run.wait_passed(3_100)
    told = state(run, "rebuild", "--entity", gone[0]).stdout
    assert f"the state of {gone[0]} in view {view.name} was not the one of the log and is now" in told
    told = state(run, "verify", "--entity", gone[0]).stdout
    assert "I4  state         passed" in told
    assert f"{view.name}: {view.feature_names[0]} = " in told
    loader.finish()
    run.wait_drained()
    left = json.loads(state(run, "verify", "--output", "json", code=1).stdout)["violations"]
    assert sorted(line["entity"] for line in left) == gone[1:]
    state(run, "rebuild", "--partition", text(partition))
    run.wait(lambda: rebuilt(run) == {text(partition)}, "the worker has noticed and folds the partition anew")
    run.load(wanted[4_500:], wait=True)
    run.wait_drained()
    run.verdict()


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_changed_view_is_filled_and_switched(trial: Make) -> None:
    """T74: a view is changed under load. It is filled beside the workers, which are then restarted one after another with the new
    definitions: none folds the log again, only what came since, and nothing is lost or doubled.
    """
    run = trial()
    run.prepare()
    loader = run.load(run.records(24_000), pace=lambda _: 500)
    workers = [run.start(slot) for slot in range(2)]
    run.wait_settled()
    run.wait_passed(8_000)
    changed = write_app(run.folder, run.app.name, module="changed", habits=2)
    told = state(run, "fill", module="changed").stdout
    assert told.count("filled habits") == run.partitions
    begun_s = time.monotonic()
    command = tuple(word.replace("started:app", "changed:app") for word in RUN_WORKER)
    for slot, old in enumerate(workers):
        old.signal(signal.SIGTERM)
        run.wait_death(old, f"worker {old.number} ends")
        run.wait_served(run.start(slot, command=command))
    run.wait_settled()
    gap_s = run.longest_gap_s(begun_s)
    run.app = changed
    loader.finish()
    run.wait_drained(120)
    replayed = [line for worker in run.workers[2:] for line in worker.said("partition catches up")]
    assert all(line["rebuilt"] == [] for line in replayed)
    assert sum(int(line["live_from"]) - int(line["start"]) for line in replayed) < 4_000
    assert state(run, "fill", module="changed").stdout.startswith("nothing to fill")
    run.verdict(longest_gap_s=round(gap_s, 2), replayed=sum(int(line["live_from"]) - int(line["start"]) for line in replayed))


@pytest.mark.timeout(400)
def test_an_entity_is_forgotten(trial: Make) -> None:
    """`headrace state forget` beside a live worker changes nothing and names it. Once it has ended, the state is gone; workers that go on,
    and one that folds everything anew, do without it, and `headrace verify` finds every prediction and state right.
    """
    run = trial()
    run.prepare()
    wanted = run.records(5_000)
    run.load(wanted[:3_000], wait=True)
    run.start(0)
    run.wait_drained()
    keys = Counter(one.key for one in wanted[2_000:3_000] if one.key)
    entity = keys.most_common(1)[0][0].decode()
    refused = state(run, "forget", entity, "--yes", "--wait", "0", code=1).stderr
    assert f"1 workers are members of group {run.app.name} (0 on " in refused
    assert "SIGTERM" in refused
    run.stop_workers()
    told = json.loads(state(run, "forget", entity, "--yes", "--wait", "60", "--output", "json").stdout)
    (done,) = told["forgotten"]
    assert "spending" in done["states"]
    records = {one["topic"]: one["records"] for one in told["remains"]}
    assert records[run.source] == sum(one.key == entity.encode() for one in wanted[:3_000])
    name = TopicPartition(run.source, done["partition"])
    assert entity.encode() not in run.stored(name, run.app.pipelines[0].views[0].fp)
    run.load(wanted[3_000:], wait=True)
    run.start(0)
    run.wait_drained()
    sound = verified(run)
    state(run, "rebuild", "--partition", text(name))
    run.wait(lambda: rebuilt(run) == {text(name)}, "the worker has noticed and folds the partition anew")
    run.wait_drained()
    assert verified(run) == sound
    run.stop_workers()


def verified(run: Trial) -> dict[str, str]:
    """What `headrace verify` says of each invariant; it has to end with exit code 0."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | run.settings
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "services", ROOT)))
    command = [sys.executable, "-m", "headrace", "verify", "--app", "started:app", "--output", "json"]
    done = subprocess.run(command, cwd=run.folder, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (done.stdout[-3_000:], done.stderr[-2_000:])
    told: dict[str, str] = json.loads(done.stdout)["invariants"]
    return told
