"""The store is killed, set back and emptied while events flow: Kafka knows better, and what is missing is folded again."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from headrace.features.state_store import Ask
from headrace.local_stack import RedisServer, Stack
from tests.contract.store.subjects import ask
from tests.faults.harness import Make, Trial

MakeStack = Callable[..., Stack]


def lose_the_tail(redis: RedisServer, trial: Trial) -> None:
    """What a machine that dies loses beside its processes: the last of the append-only file, cut at a drawn byte."""
    log = max((redis.folder / "appendonlydir").glob("*.incr.aof"))
    size = log.stat().st_size
    with log.open("r+b") as cut:
        cut.truncate(size - trial.rng.randrange(size // 10))


def test_killed_redis_comes_back(trial: Make, own_stack: MakeStack) -> None:
    """T30: Redis with AOF everysec is killed 3 times and started again, without its last writes: workers wait, then fold what it lost."""
    redis = own_stack(brokers=0).redis
    run = trial(redis=redis)
    run.prepare()
    run.load(run.records(10_000), wait=True)
    for slot in range(2):
        run.start(slot)
    for progress in sorted(run.rng.sample(range(1_000, 9_000), 3)):
        run.wait_passed(progress)
        run.journal.note("kill -9 of Redis")
        redis.kill()
        lose_the_tail(redis, run)
        redis.start()
        redis.wait_ready()
    run.wait_drained()
    assert run.verdict()["catch_ups"] > 0


def test_redis_set_back_by_thousands_of_events(trial: Make, own_stack: MakeStack) -> None:
    """T32: twice Redis is stopped and started with a dump that is at least 2,000 events old; features stay right, states become right."""
    redis = own_stack(brokers=0, redis_settings={"appendonly": "no", "save": '""'}).redis
    run = trial(redis=redis)
    run.prepare()
    run.load(run.records(10_000), wait=True)
    run.start(0)
    for progress in (run.rng.randrange(500, 1_500), run.rng.randrange(4_500, 5_500)):
        run.wait_passed(progress)
        ask(redis, "SAVE")
        dump = shutil.copy(redis.folder / "dump.rdb", run.folder)
        run.wait_passed(run.progress.total + run.rng.randrange(2_100, 2_800))
        redis.kill()
        shutil.copy(dump, redis.folder / "dump.rdb")
        redis.start()
        redis.wait_ready()
        run.journal.note("Redis set back")
    run.wait_drained()
    assert run.verdict()["caught_up_events"] >= 4_000


def test_flushed_redis_is_rebuilt(trial: Make, own_stack: MakeStack) -> None:
    """T33: FLUSHALL under load, twice: the states are rebuilt from the log, the second time from its middle, not from its start."""
    redis = own_stack(brokers=0).redis
    run = trial(redis=redis)
    run.prepare()
    run.load(run.records(10_000), wait=True)
    run.start(0)
    for progress in (run.rng.randrange(1_000, 4_000), run.rng.randrange(8_500, 9_500)):
        run.wait_passed(progress)
        run.journal.note("FLUSHALL")
        ask(redis, "FLUSHALL")
    run.wait_drained()
    assert run._store.look([Ask(run.source, "any view", {})])[0].partitions == run.partitions, "look-ups know where to ask again"
    run.verdict()
    rebuilt = [line for worker in run.workers for line in worker.said("partition catches up") if line["rebuilt"]]
    assert any(line["start"] > 0 for line in rebuilt), rebuilt


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_redis_killed_ten_times(trial: Make, own_stack: MakeStack) -> None:
    """T31: ten times Redis is killed and comes back without its last writes, while 12 partitions get 2,000 events a second."""
    redis = own_stack(brokers=0).redis
    run = trial(redis=redis, partitions=12, max_batch=200)
    run.prepare()
    loader = run.load(run.records(300_000), pace=lambda _: 2_000)
    for slot in range(3):
        run.start(slot)
    run.wait_passed(2_000)
    for _ in range(10):
        run.pass_time(run.rng.uniform(1, 4))
        redis.kill()
        lose_the_tail(redis, run)
        redis.start()
        redis.wait_ready()
        run.wait_passed(run.progress.total + 1_000)
    loader.finish()
    run.wait_drained(120)
    figures = run.verdict()
    assert figures["catch_ups"] > 0
    assert figures["peak_mb"] < 500
