"""The suite runs on the store in memory, on the shared Redis-protocol server and, where it is installed, on Debian's redis-server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.features.state_store import StateStore
from headrace.local_stack import RedisServer, Stack
from tests.conftest import missing
from tests.contract.store.subjects import MemorySubject, RedisSubject, Subject

Make = Callable[..., RedisServer]


def redis_program(kind: str) -> str | None:
    """The program of a kind of server; None is the usual one."""
    if kind == "valkey":
        return None
    program = shutil.which("redis-server")
    if program is None:
        missing("the store's contract also runs on Debian's redis-server: apt-get install redis-server")
    return program


@pytest.fixture(params=["memory", "valkey", "redis"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A store that must not be hurt."""
    if request.param == "memory":
        yield MemorySubject()
        return
    redis = request.getfixturevalue("redis" if request.param == "valkey" else "debian_redis")
    real = RedisSubject(server=redis)
    yield real
    real.close()


@pytest.fixture(params=["memory", "valkey", "redis"])
def own_subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A store of the test's own, to be hurt. The real one has dumps and no append-only file, so that it can be set back."""
    if request.param == "memory":
        yield MemorySubject()
        return
    own = request.getfixturevalue("own_stack")(
        brokers=0, redis_program=redis_program(request.param), redis_settings={"appendonly": "no", "save": '""'}
    )
    real = RedisSubject(server=own.redis, timeout_s=0.5)
    yield real
    real.close()


@pytest.fixture(scope="session")
def debian_redis(request: pytest.FixtureRequest) -> RedisServer:
    """Debian's redis-server, shared by the run."""
    folder = request.config.option.run_folder
    return Stack.up(Path(folder) / "debian-redis", brokers=0, redis_program=redis_program("redis")).redis


@pytest.fixture(params=["valkey", "redis"])
def own_redis(request: pytest.FixtureRequest, own_stack: Callable[..., Stack]) -> Make:
    """Makes real servers of the test's own, with settings of its choice."""

    def make(**settings: str) -> RedisServer:
        named = {name.replace("_", "-"): value for name, value in settings.items()}
        return own_stack(brokers=0, redis_program=redis_program(request.param), redis_settings=named).redis

    return make


@pytest.fixture
def app(unique_name: str) -> str:
    """An app name nobody else has."""
    return unique_name


@pytest.fixture
def store(subject: Subject, app: str) -> StateStore:
    """One client of the store."""
    return subject.store(app)
