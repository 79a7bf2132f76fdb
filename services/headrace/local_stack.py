"""Real Apache Kafka and a real Redis-protocol server on this machine, without Docker: for development, tests and benchmarks.

A stack is a folder. `stack.json` in it says which servers there are and on which ports; each server has a folder of its own with its
settings, state, log and pid, so any later command or process finds the stack again:

    <folder>/stack.json
    <folder>/kafka-1/   server.properties  process.json  server.log  console.log  log/
    <folder>/redis/     redis.conf  process.json  server.log  appendonlydir/

Everything listens on 127.0.0.1 only. A server counts as ready when it has proved to be ours: Kafka by the random cluster id that was
written into this folder, Redis by its pid. Only processes started here are ever signalled (see `local_process`).
Limits: Linux and macOS; a stack keeps its number of brokers until `down`.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from headrace.errors import FatalError
from headrace.local_probe import kafka_cluster, redis_server_lines
from headrace.local_process import LocalProcess, wait_until
from headrace.local_programs import MissingProgram, fetch_jars, java, kafka_version, recipe, redis_server

__all__ = ["FatalError", "KafkaServer", "MissingProgram", "RedisServer", "Stack", "default_folder", "free_port"]

HOST = "127.0.0.1"
KAFKA_PORT = 9092
REDIS_PORT = 6379
READY_S = 60.0
"""How long a server may take until it answers; on an idle machine Kafka needs 3 s, Redis 0.1 s."""


def default_folder() -> Path:
    """Where `headrace stack` keeps its stack (below XDG_STATE_HOME, by default ~/.local/state): one a user, as its ports are taken once."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "headrace" / "stack"


def free_port() -> int:
    """A port nobody listens on, from a range the kernel does not hand out, so that a server finds it again after a restart."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise FatalError("no free port between 20000 and 32000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What `stack.json` holds: which servers, where, with which settings beyond the usual ones."""

    cluster_id: str
    kafka_ports: list[int]
    controller_ports: list[int]
    redis_port: int | None
    redis_program: str | None
    heap_mb: int
    kafka_listeners: dict[str, list[int]] = field(default_factory=dict)
    kafka_properties: dict[str, str] = field(default_factory=dict)
    redis_settings: dict[str, str] = field(default_factory=dict)


class Server:
    """One server of a stack; its folder and port stay the same however often it is ended and started."""

    program: ClassVar[str]

    def __init__(self, *, name: str, folder: Path, port: int) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self._process = LocalProcess(folder / "process.json")

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its pid while it runs (paused or not), else None."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """The server's own log file."""
        return self.folder / "server.log"

    def start(self) -> None:
        """Start it on its old port and state; returns at once (see `wait_ready`).

        Raises `FatalError` when it runs already, or something else listens there.
        """
        if self.pid is not None:
            raise FatalError(f"{self.name} runs already, pid {self.pid}")
        with socket.socket() as probe:
            # What the last one left in TIME_WAIT does not count; somebody who listens does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError as error:
                raise FatalError(f"port {self.port} for {self.name} is taken by another program: {error.strerror}") from error
        self._process.start(self._command(), environment=_environment(), output=self.folder / "console.log")

    def ready(self) -> bool:
        """Whether it answers, and is the one we started."""
        pid = self.pid
        if pid is None:
            return False
        try:
            return self._answers(pid)
        except (OSError, ValueError, struct.error):
            return False

    def wait_ready(self, deadline_s: float = READY_S) -> None:
        """Wait until it is ready. Raises `FatalError` with the end of its log when it has ended, or is not ready in time."""
        wait_until(lambda: self.pid is None or self.ready(), what=f"{self.name} answers on {self.address}", deadline_s=deadline_s)
        if self.pid is None:
            raise FatalError(f"{self.name} ended while starting; the last lines of {self.log} are:\n{self.log_tail()}")

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, or of its console where there is no log."""
        for path in (self.log, self.folder / "console.log"):
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            if text.strip():
                return "\n".join(text.splitlines()[-lines:])
        return "(nothing)"

    def stop(self) -> bool:
        """End it in an orderly way; False when it had ended before."""
        return self._process.stop()

    def kill(self) -> bool:
        """End it with kill -9; False when it had ended before."""
        return self._process.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): it keeps its port and connections and answers nothing."""
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._process.signal(signal.SIGCONT)

    def _command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def _answers(self, pid: int) -> bool:
        raise NotImplementedError


class KafkaServer(Server):
    """One Kafka broker that is also a controller (KRaft)."""

    program = "Apache Kafka"

    def __init__(self, *, node: int, folder: Path, layout: Layout) -> None:
        super().__init__(name=f"kafka-{node}", folder=folder / f"kafka-{node}", port=layout.kafka_ports[node - 1])
        self.node = node
        self._layout = layout

    def properties(self) -> dict[str, str]:
        """What `deploy/local/server.properties` leaves open: this broker's own lines, and those that follow from the number of brokers."""
        layout = self._layout
        brokers = len(layout.kafka_ports)
        copies, in_sync = str(min(brokers, 3)), str(2 if brokers >= 3 else 1)  # noqa: PLR2004 - two of three is what survives the loss of one
        ports = {"PLAINTEXT": layout.kafka_ports, "CONTROLLER": layout.controller_ports, **layout.kafka_listeners}
        return {
            "node.id": str(self.node),
            "listeners": ",".join(f"{listener}://{HOST}:{numbers[self.node - 1]}" for listener, numbers in ports.items()),
            "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in enumerate(layout.controller_ports, start=1)),
            "log.dirs": str(self.folder / "log"),
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": in_sync,
            **layout.kafka_properties,
        }

    def format(self, jars: Path) -> None:
        """Write its settings and prepare its empty log folder with the cluster id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "classpath").write_text(str(jars), encoding="utf-8")
        shared = (recipe() / "server.properties").read_text(encoding="utf-8")
        own = "".join(f"{name}={value}\n" for name, value in self.properties().items())
        settings = self.folder / "server.properties"
        settings.write_text(f"{shared}\n{own}", encoding="utf-8")
        shutil.copy(recipe() / "log4j2.properties", self.folder)
        command = [*self._java("-Xmx128m", "-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format"]
        arguments = ["-t", self._layout.cluster_id, "-c", str(settings), "--ignore-formatted"]
        answer = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=_environment())
        if answer.returncode != 0:
            raise FatalError(f"{self.name} refuses its settings: {(answer.stderr or answer.stdout).strip()}")

    def _java(self, *options: str) -> list[str]:
        jars = (self.folder / "classpath").read_text(encoding="utf-8")
        logging = [f"-Dheadrace.log={self.log}", f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"]
        return [java(), *options, *logging, "-cp", f"{jars}/*"]

    def _command(self) -> Sequence[str | Path]:
        # What Kafka's own start script passes to java; the heap is all that differs.
        collector = ["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-Djava.awt.headless=true"]
        heap = f"-Xmx{self._layout.heap_mb}m"
        return [*self._java("-server", "-Xms128m", heap, *collector), "kafka.Kafka", self.folder / "server.properties"]

    def _answers(self, pid: int) -> bool:
        del pid  # the cluster id is the proof: it was drawn for this folder
        nodes, cluster_id = kafka_cluster(HOST, self.port)
        return cluster_id == self._layout.cluster_id and self.node in nodes


class RedisServer(Server):
    """The server of the online store: append-only file every second, no eviction."""

    program = "Redis"

    def __init__(self, *, folder: Path, layout: Layout) -> None:
        if layout.redis_port is None:
            raise FatalError("this stack has no Redis")
        super().__init__(name="redis", folder=folder / "redis", port=layout.redis_port)
        self._layout = layout

    @property
    def url(self) -> str:
        """Its address as clients want it."""
        return f"redis://{self.address}/0"

    def write_settings(self) -> None:
        """Write redis.conf."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "dir": f'"{self.folder}"',
            "logfile": f'"{self.log}"',
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            **self._layout.redis_settings,
        }
        (self.folder / "redis.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="utf-8")

    def _command(self) -> Sequence[str | Path]:
        return [self._layout.redis_program or redis_server(), self.folder / "redis.conf"]

    def _answers(self, pid: int) -> bool:
        answer = redis_server_lines(HOST, self.port)
        # One that wants a password is ready too; that our process lives and the port was free before is the proof then.
        return f"process_id:{pid}\r\n" in answer or answer.startswith("-NOAUTH")


class Stack:
    """The servers of one folder."""

    def __init__(self, folder: Path) -> None:
        """Find a stack again. Raises `FatalError` when there is none in the folder."""
        self.folder = folder
        try:
            self.layout = Layout(**json.loads((folder / "stack.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise FatalError(f"no stack in {folder}; start one with `headrace stack up`") from None
        self.kafka = [KafkaServer(node=node, folder=folder, layout=self.layout) for node in range(1, len(self.layout.kafka_ports) + 1)]
        self._redis = None if self.layout.redis_port is None else RedisServer(folder=folder, layout=self.layout)

    @property
    def redis(self) -> RedisServer:
        """The Redis of the stack. Raises `FatalError` when it was made without."""
        if self._redis is None:
            raise FatalError(f"the stack in {self.folder} has no Redis")
        return self._redis

    @property
    def servers(self) -> list[Server]:
        """All servers."""
        return [*self.kafka, *([] if self._redis is None else [self._redis])]

    @property
    def bootstrap(self) -> str:
        """The addresses of the brokers, as `bootstrap.servers` wants them."""
        return ",".join(broker.address for broker in self.kafka)

    @classmethod
    def up(
        cls,
        folder: Path,
        *,
        brokers: int = 1,
        kafka_ports: Sequence[int] | None = None,
        redis: bool = True,
        redis_port: int | None = None,
        redis_program: str | None = None,
        kafka_listeners: Mapping[str, Sequence[int]] | None = None,
        kafka_properties: Mapping[str, str] | None = None,
        redis_settings: Mapping[str, str] | None = None,
        heap_mb: int | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> Stack:
        """Start what is not running of the folder's stack, making it first if there is none, and wait until all of it is ready.

        Ports that are not given are free ones. `brokers` may be 0 for Redis alone; `kafka_listeners` (SSL, SASL_SSL, ...: a port for
        each broker) stand beside the usual one, `kafka_properties` and `redis_settings` come on top of the usual settings. Called again
        it changes nothing that runs. Raises `MissingProgram`, or `FatalError` when the folder's stack has another number of brokers, a
        port is taken or a server does not come up; what it started is then ended again.
        """
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not (folder / "stack.json").exists():
                layout = Layout(
                    cluster_id=base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "x"),
                    kafka_ports=list(kafka_ports or (free_port() for _ in range(brokers))),
                    controller_ports=[free_port() for _ in range(brokers)],
                    redis_port=(redis_port or free_port()) if redis else None,
                    redis_program=redis_program,
                    heap_mb=heap_mb or (1024 if brokers == 1 else 512),
                    kafka_listeners={listener: list(ports) for listener, ports in (kafka_listeners or {}).items()},
                    kafka_properties=dict(kafka_properties or {}),
                    redis_settings=dict(redis_settings or {}),
                )
                _prepare(folder, layout, brokers, say)
            stack = cls(folder)
            if len(stack.kafka) != brokers:
                raise FatalError(
                    f"the stack in {folder} has {len(stack.kafka)} broker(s), not {brokers}; end it first: headrace stack down",
                )
            stack.start(say)
        return stack

    def start(self, say: Callable[[str], None] = lambda _line: None) -> None:
        """Start the servers that have ended and wait until all are ready; if one does not come up, those started here are ended again."""
        started: list[Server] = []
        try:
            for server in self.servers:
                if server.pid is None:
                    say(f"starting {server.name} on {server.address}")
                    server.start()
                    started.append(server)
            for server in self.servers:
                server.wait_ready()
        except BaseException:
            for server in started:
                server.kill()
            raise

    def stop(self) -> list[Server]:
        """End every server in an orderly way, keeping all state; those that were running."""
        # Brokers leave one after another: the last of a quorum cannot hand over and is not waited for long.
        return [server for server in reversed(self.servers) if server.stop()]

    def down(self) -> list[Server]:
        """End every server and remove the folder; those that were running."""
        ended = [server for server in self.servers if server.kill()]
        shutil.rmtree(self.folder)
        return ended


def _prepare(folder: Path, layout: Layout, brokers: int, say: Callable[[str], None]) -> None:
    """Write all settings first and `stack.json` last: a folder with one is whole."""
    if len(layout.kafka_ports) != brokers:
        raise FatalError(f"{brokers} broker(s), but {len(layout.kafka_ports)} port(s)")
    if layout.redis_port is not None and layout.redis_program is None:
        redis_server()  # better missed now than after a broker was prepared
    if brokers:
        java()
        jars = fetch_jars(say)
        say(f"preparing {brokers} x Apache Kafka {kafka_version()}")
        for node in range(1, brokers + 1):
            KafkaServer(node=node, folder=folder, layout=layout).format(jars)
    if layout.redis_port is not None:
        RedisServer(folder=folder, layout=layout).write_settings()
    fresh = folder / "stack.json.new"
    fresh.write_text(json.dumps(asdict(layout), indent=1), encoding="utf-8")
    fresh.replace(folder / "stack.json")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One command at a time works on a stack; a second waits."""
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _environment() -> dict[str, str]:
    """What a server may know of ours."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "JAVA_HOME", "TMPDIR") if name in os.environ}
