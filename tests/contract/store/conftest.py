"""The suite runs on the store in memory, on the shared Redis-protocol server and, where it is installed, on Debian's redis-server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from headrace.features.redis_store import RedisStore
from headrace.features.state_store import StateStore
from headrace.local_process import wait_until
from headrace.local_stack import RedisServer, Stack, free_port
from tests.conftest import missing
from tests.contract.store.subjects import MemorySubject, RedisSubject, Subject, ask, told

Make = Callable[..., RedisServer]
Connect = Callable[..., RedisStore]


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


@pytest.fixture
def connect(app: str) -> Iterator[Connect]:
    """Makes clients that are closed at the end."""
    opened: list[RedisStore] = []

    def make(server: RedisServer, **options: object) -> RedisStore:
        store = RedisStore(**{"app": app, "url": server.url, "timeout_s": 1.0, **options})  # type: ignore[arg-type]
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture(params=["valkey", "redis"])
def shared(request: pytest.FixtureRequest) -> RedisServer:
    """A server that is not hurt."""
    server: RedisServer = request.getfixturevalue("redis" if request.param == "valkey" else "debian_redis")
    return server


@pytest.fixture
def cluster(own_redis: Make) -> tuple[RedisServer, RedisServer]:
    """Two nodes that share the slots; the first one has the lower half."""
    ports = free_port(), free_port()
    nodes = [own_redis(cluster_enabled="yes", cluster_port=str(port), cluster_require_full_coverage="yes") for port in ports]
    for node, slots in zip(nodes, (("0", "8191"), ("8192", "16383")), strict=True):
        ask(node, "CLUSTER", "ADDSLOTSRANGE", *slots)
    ask(nodes[0], "CLUSTER", "MEET", "127.0.0.1", str(nodes[1].port), str(ports[1]))
    for node in nodes:
        wait_until(partial(told, node, "cluster_state:ok", "CLUSTER", "INFO"), what="the cluster is whole", deadline_s=60)
    return nodes[0], nodes[1]
