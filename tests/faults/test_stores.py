"""A store that is full, forgets, freezes or fails over: workers wait, and fold what it lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from headrace.features.redis_store import _states, _tag
from headrace.local_process import wait_until
from headrace.local_stack import RedisServer, Stack, free_port
from headrace.verify.findings import Kind
from tests.contract.store.subjects import ask
from tests.faults.app import records
from tests.faults.door import Door
from tests.faults.harness import Make, Trial
from tests.faults.processes import KEPT, ROOT

MakeStack = Callable[..., Stack]


def rebuild(run: Trial, partition: str) -> None:
    """Drop the state of a partition, as an operator does."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | run.settings
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "services", ROOT)))
    command = [sys.executable, "-m", "headrace", "state", "rebuild", "--app", "started:app", "--partition", partition]
    done = subprocess.run(command, cwd=run.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def rebalances(run: Trial) -> int:
    """How often partitions came or went, all workers together."""
    return sum(len(worker.said("rebalanced")) for worker in run.workers)


def test_full_store_is_waited_for(trial: Make, own_stack: MakeStack) -> None:
    """T37: out of memory Redis takes no states: workers say so, wait and publish nothing, and go on by themselves when there is room."""
    redis = own_stack(brokers=0).redis
    run = trial(redis=redis)
    run.prepare()
    loader = run.load(run.records(10_000), pace=lambda _: 2_000)
    workers = [run.start(slot) for slot in range(2)]
    run.wait_passed(2_000)
    ask(redis, "CONFIG", "SET", "maxmemory", "1mb")
    run.journal.note("no room in Redis")

    def waits() -> bool:
        partitions = {
            line["partition"] for worker in workers for line in worker.said("partition waits") if "raise maxmemory" in line["reason"]
        }
        return len(partitions) == run.partitions

    run.wait(waits, "all partitions wait for room in Redis")
    run.wait(lambda: [worker.ask("/readyz")[0] for worker in workers] == [503, 503], "no worker is ready")
    stood = run.progress.total
    loader.hurry()
    run.wait(lambda: loader.done, "the broker has all source records")
    assert run.progress.total == stood < 10_000
    ask(redis, "CONFIG", "SET", "maxmemory", "0")
    run.wait_drained()
    assert run.verdict()["catch_ups"] > 0


def test_evicting_store_is_refused(trial: Make, own_stack: MakeStack) -> None:
    """T38: a worker does not start on a Redis that may evict: it ends with one line, which says how to mend that, and publishes nothing."""
    run = trial(redis=own_stack(brokers=0, redis_settings={"maxmemory-policy": "allkeys-lru"}).redis)
    run.prepare()
    run.load(run.records(200), wait=True)
    worker = run.start(0)
    run.wait_death(worker, "the worker refuses to serve and ends")
    assert worker.exit_code == 1
    (line,) = [line["text"] for line in worker.lines() if "text" in line]
    assert line.startswith("headrace: ")
    assert "CONFIG SET maxmemory-policy noeviction" in line
    assert run.progress.total == 0


def test_entities_deleted_by_hand(trial: Make) -> None:
    """T39: `verify` names partition, view and entity of ten states that somebody deleted; `headrace state rebuild` brings them back."""
    run = trial()
    run.prepare()
    run.load(run.records(3_000), wait=True)
    run.start(0)
    run.wait_drained()
    run.stop_workers()
    partition, view = run.rng.choice(run.source_partitions), run.app.pipelines[0].views[0]
    assert view.name == "spending"  # whose windows hold the whole log: no state is too old to be missed
    states = _states(_tag(run.app.name, partition), view.fp).decode()
    gone = run.rng.sample(sorted(run.stored(partition, view.fp)), 10)
    assert ask(run.redis, "HDEL", states, *(entity.decode() for entity in gone)) == 10
    found = run.verified()
    assert found.counts == {Kind.STATE: 10}
    named = {(one.topic, one.partition, one.of, one.entity) for one in found.violations}
    assert named == {(partition.topic, partition.partition, view.name, entity.decode()) for entity in gone}
    rebuild(run, f"{partition.topic}-{partition.partition}")
    run.load(run.records(1_000), wait=True)
    run.start(0)
    run.wait_drained()
    rebuilt = [line for worker in run.workers for line in worker.said("partition catches up") if line["rebuilt"]]
    assert [line["partition"] for line in rebuilt] == [f"{partition.topic}-{partition.partition}"]
    run.verdict()


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_frozen_store_causes_no_rebalance(trial: Make, own_stack: MakeStack) -> None:
    """T34: Redis freezes 3 times for 5 s, once for 30 s, and is told to pause 2 times for 5 s, at 1,000 events a second: nobody leaves."""
    redis = own_stack(brokers=0).redis
    run = trial(redis=redis, partitions=12, max_batch=200)
    run.prepare()
    loader = run.load(list(records(run.rng, 300_000, cards=20_000)), pace=lambda _: 1_000)
    for slot in range(3):
        run.start(slot)
    run.wait_settled()
    run.wait_passed(run.loader.sent)
    before, stood = rebalances(run), []
    for fault in run.rng.sample(["freeze 5"] * 3 + ["freeze 30"] + ["pause 5"] * 2, 6):
        kind, seconds = fault.split()
        run.journal.note("fault", store=fault)
        if kind == "freeze":
            redis.pause()
        else:
            ask(redis, "CLIENT", "PAUSE", str(int(seconds) * 1_000), "ALL")
        run.pass_time(int(seconds))
        stood.append(run.loader.sent - run.progress.total)
        redis.resume()
        run.wait_passed(run.loader.sent)
    assert rebalances(run) == before
    assert min(stood) > 1_000, "the store was away and nobody waited for it"
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict()
    figures["longest_queue"] = max(stood)
    assert figures["catch_ups"] > 0
    assert figures["peak_mb"] < 500


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_failover_to_a_replica_that_lags(trial: Make, own_stack: MakeStack) -> None:
    """T36: 5 times the primary dies and a replica serves that heard nothing for 2 s, at 1,000 events a second: what it lacks is folded."""
    primary, replica = (own_stack(brokers=0, redis_settings={"repl-diskless-sync-delay": "0"}).redis for _ in range(2))
    port = free_port()
    run = trial(redis=SimpleNamespace(url=f"redis://127.0.0.1:{port}/0"), max_batch=200)
    run.prepare()
    with ExitStack() as ways:
        ways.enter_context(Door(port, primary.port))
        loader = run.load(list(records(run.rng, 200_000, cards=20_000)), pace=lambda _: 1_000)
        for slot in range(2):
            run.start(slot)
        run.wait_settled()
        for _ in range(5):
            follow(replica, primary)
            run.wait_passed(run.progress.total + 1_000)
            ask(replica, "REPLICAOF", "NO", "ONE")
            run.pass_time(2)
            run.journal.note("failover")
            ways.close()
            primary.kill()
            primary.start()
            primary.wait_ready()
            primary, replica = replica, primary
            caught_up = sum(len(worker.said("partition caught up")) for worker in run.workers)
            ways.enter_context(Door(port, primary.port))
            run.wait(
                lambda: sum(len(worker.said("partition caught up")) for worker in run.workers) > caught_up,  # noqa: B023 - waited for at once
                "a worker folds what the replica had not heard",
            )
        loader.finish()
        run.wait_drained(120)
        figures = run.verdict()
    assert figures["caught_up_events"] > 5 * 100
    assert figures["peak_mb"] < 500


def follow(replica: RedisServer, primary: RedisServer) -> None:
    """Let a server be the replica of another, and wait until it has all of it."""
    ask(replica, "REPLICAOF", "127.0.0.1", str(primary.port))
    wait_until(lambda: "master_link_status:up" in replication(replica), what="the replica follows", deadline_s=30)


def replication(server: RedisServer) -> str:
    """What a server says of its replication."""
    told = ask(server, "INFO", "replication")
    assert isinstance(told, bytes)
    return told.decode()
