"""Who moves the model's versions while the flights run: version 1 answers, version 2 shadows it, is promoted, and is taken back.

    before the first record   register 1, promote it
    at a third                register 2, let it shadow
    at half                   promote it
    at three quarters         roll back

Each command goes the way of `headrace model`: through the gate, to the control topic, read back. The worker in this process looks there
between any two batches.

Limit: the gate looks into files with the package onnx. Where that is not installed, as in what `make demo` installs, versions are
registered without, and that is told; the build's tests put the same files through it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.apps.model_commands import Prepared
from headrace.apps.model_desk import Examine, embedded
from headrace.clock import Clock
from headrace.definition import App
from headrace.memory_log import MemoryLog
from headrace.predict import onnx_file
from headrace.predict.artifacts import ArtifactStore
from headrace.predict.gate import examine
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.registry import Role

SHADOW_AT, PROMOTE_AT, ROLL_BACK_AT = 1 / 3, 1 / 2, 3 / 4
"""Shares of the records that have their answers by then."""
SKIPPED = "skipped: the package onnx is not installed here"
BY = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version that was registered, and what the gate said of it."""

    version: str
    bytes: int
    gate: str
    """In words: that it passed, or that it was skipped and why."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A command that changed who scores."""

    did: str
    """As the registry tells it: "promoted version 2"."""
    epoch: int
    """The state of the registry from then on."""
    answered: int
    """Records that had their answers when it was given."""


class Engineer:
    """Moves the two versions of the one pipeline of an app, as far as a replay has come."""

    def __init__(
        self, app: App, log: MemoryLog, artifacts: ArtifactStore, clock: Clock, *, files: tuple[Path, Path], gate: Examine = examine
    ) -> None:
        """`files` are the two versions, stamped; `gate` is what they have to pass where it can run. Nothing is done yet."""
        (self._pipeline,) = app.registry_pipelines
        self._desk = embedded(app, log, artifacts, clock, by=BY, gate=gate)
        self._clock = clock
        self.registered: list[Registered] = []
        self.moved: list[Moved] = []
        first, second = (path.read_bytes() for path in files)
        self._plan: deque[tuple[float, Callable[[], Prepared]]] = deque(
            [
                (0.0, lambda: self._move(self._register(first), Role.CHAMPION)),
                (SHADOW_AT, lambda: self._move(self._register(second), Role.SHADOW)),
                (PROMOTE_AT, lambda: self._move(self.registered[-1].version, Role.CHAMPION)),
                (ROLL_BACK_AT, lambda: self._desk.commands.rollback(self._pipeline.name)),
            ]
        )

    def act(self, answered: int, records: int) -> None:
        """Do what is due when so many of the records have their answers. Raises `RegistryRefused` for what the gate refuses."""
        while self._plan and answered >= self._plan[0][0] * records:
            _, command = self._plan.popleft()
            done = self._desk.commands.carry_out(command())
            epoch = self._desk.commands.registry().epoch_of(self._pipeline.name)
            did = done.outcome.said.removeprefix(f"{BY} ").removesuffix(f" of {self._pipeline.name}")
            self.moved.append(Moved(did=did, epoch=epoch, answered=answered))

    def facts(self) -> list[bytes | None]:
        """What the workers wrote of when they took a change up."""
        return self._desk.facts()

    def _register(self, content: bytes) -> str:
        begun_ns = self._clock.monotonic_ns()
        if onnx_file.installed():
            examined = self._desk.examine(content, pipeline=self._pipeline.name)
            prepared = self._desk.registration(examined)
            gate = f"passed, rehearsed on {examined.rehearsed:,} real vectors" if examined.rehearsed else "passed"
        else:
            prepared = self._desk.commands.register(content, OnnxModel.load(content, self._pipeline.feature_names).signature)
            gate = SKIPPED
        version = self._desk.commands.carry_out(prepared).version.version
        seconds = (self._clock.monotonic_ns() - begun_ns) / 1e9
        self.registered.append(Registered(version=version, bytes=len(content), gate=gate, seconds=seconds))
        return version

    def _move(self, version: str, to: Role) -> Prepared:
        return self._desk.commands.move(self._pipeline.name, version, to)
