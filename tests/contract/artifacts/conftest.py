"""The suite runs on every place that artifacts may be kept in, each with a back door through which damage is done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import pytest

from headrace.features.redis_connection import RedisServer as Wire
from headrace.features.redis_connection import packed
from headrace.local_stack import RedisServer, Stack
from headrace.predict.artifacts import ArtifactStore, FolderArtifacts, MemoryArtifacts
from headrace.predict.object_artifacts import ObjectArtifacts
from headrace.predict.redis_artifacts import RedisArtifacts
from tests.conftest import missing


class Place(Protocol):
    """A place under test, and what may happen to it."""

    @property
    def artifacts(self) -> ArtifactStore:
        """The place."""

    def lay(self, sha256: str, content: bytes) -> None:
        """Put bytes under a name by the back door, whatever their hash."""

    def lose(self, sha256: str) -> None:
        """Remove what is under a name."""

    def names(self) -> list[str]:
        """All that lies there, as it is called there."""


@dataclass(kw_only=True)
class InMemory:
    """This process."""

    artifacts: MemoryArtifacts

    def lay(self, sha256: str, content: bytes) -> None:
        self.artifacts.kept[sha256] = content

    def lose(self, sha256: str) -> None:
        del self.artifacts.kept[sha256]

    def names(self) -> list[str]:
        return list(self.artifacts.kept)


@dataclass(kw_only=True)
class InFolder:
    """A folder, looked at directly or through a URL."""

    artifacts: ArtifactStore
    folder: Path

    def lay(self, sha256: str, content: bytes) -> None:
        (self.folder / f"{sha256}.onnx").write_bytes(content)

    def lose(self, sha256: str) -> None:
        (self.folder / f"{sha256}.onnx").unlink()

    def names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []


@dataclass(kw_only=True)
class InRedis:
    """A real server."""

    artifacts: RedisArtifacts
    server: RedisServer
    app: str

    def _ask(self, *words: bytes) -> object:
        wire = Wire(url=self.server.url, timeout_s=20)
        try:
            reply: object = wire.converse(b"", lambda conversation: conversation.one(packed(*words)))
        finally:
            wire.close()
        return reply

    def _key(self, sha256: str) -> bytes:
        return f"hr:{{{self.app}}}:artifact:{sha256}".encode()

    def lay(self, sha256: str, content: bytes) -> None:
        self._ask(b"SET", self._key(sha256), content)

    def lose(self, sha256: str) -> None:
        self._ask(b"DEL", self._key(sha256))

    def names(self) -> list[str]:
        found = self._ask(b"KEYS", self._key("*"))
        assert isinstance(found, list)
        return [name.decode() for name in found]

    def seconds_left(self, sha256: str) -> int:
        """How long a key will live; -1: for ever."""
        found = self._ask(b"TTL", self._key(sha256))
        assert isinstance(found, int)
        return found


@pytest.fixture(scope="session")
def debian_redis(request: pytest.FixtureRequest) -> RedisServer:
    """Debian's redis-server, shared by the run."""
    program = shutil.which("redis-server")
    if program is None:
        missing("the contract of artifacts also runs on Debian's redis-server: apt-get install redis-server")
    folder = Path(request.config.option.run_folder)
    return Stack.up(folder / "debian-redis", brokers=0, redis_program=program).redis


@pytest.fixture
def fsspec() -> None:
    """The library of object stores, a package of the extra `objects`."""
    if find_spec("fsspec") is None:
        missing("the contract of artifacts also runs on object stores: pip install fsspec")


@pytest.fixture(params=["memory", "folder", "object store", "valkey", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path, unique_name: str) -> Iterator[Place]:
    """A place of its own."""
    folder = tmp_path / "artifacts"
    match request.param:
        case "memory":
            yield InMemory(artifacts=MemoryArtifacts())
        case "folder":
            yield InFolder(artifacts=FolderArtifacts(folder), folder=folder)
        case "object store":
            request.getfixturevalue("fsspec")
            folder.mkdir()
            yield InFolder(artifacts=ObjectArtifacts(f"file://{folder}"), folder=folder)
        case kind:
            yield from in_redis(request.getfixturevalue("redis" if kind == "valkey" else "debian_redis"), unique_name)


@pytest.fixture(params=["valkey", "redis"])
def redis_place(request: pytest.FixtureRequest, unique_name: str) -> Iterator[InRedis]:
    """A place on a real server."""
    yield from in_redis(request.getfixturevalue("redis" if request.param == "valkey" else "debian_redis"), unique_name)


def in_redis(server: RedisServer, app: str) -> Iterator[InRedis]:
    """A client of a server, closed at the end."""
    found = InRedis(artifacts=RedisArtifacts(Wire(url=server.url), app), server=server, app=app)
    yield found
    found.artifacts.close()
