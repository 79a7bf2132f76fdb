"""The registry of an app's models, opened: on the servers that the settings name, or in memory."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headrace.apps.model_commands import Done, Log, ModelCommands, Prepared
from headrace.apps.model_notices import announced, insist_on_notice, notice_of
from headrace.apps.rehearsal import MOST, last_vectors
from headrace.clock import Clock
from headrace.consume.facts import Facts
from headrace.consume.record_reader import RecordReader
from headrace.control_log import ControlLog
from headrace.definition import App, Pipeline
from headrace.errors import ArtifactRefused, RegistryRefused
from headrace.memory_log import MemoryControl, MemoryLog, MemoryReader
from headrace.notices import Given
from headrace.predict import onnx_file
from headrace.predict.artifacts import ArtifactStore, sha256_of
from headrace.predict.commands import MOST_BY
from headrace.predict.gate import GateLimits, Verdict, examine, measure
from headrace.predict.gate_limits import DEFAULT_LIMITS
from headrace.predict.lineage import lineage_in
from headrace.predict.model_card import ModelCard, card_in
from headrace.predict.signature import Signature
from headrace.publish.records import Notice, encode
from headrace.types import Float64s, TopicPartition

if TYPE_CHECKING:
    from headrace.settings import Settings


class Examine(Protocol):
    """A gate, as `predict/gate.py` is one."""

    def __call__(
        self, content: bytes, pipeline: Pipeline, *, rehearsal: Float64s | None, champion: bytes | None, limits: GateLimits
    ) -> Verdict:
        """Examine a model's bytes for a pipeline, on real vectors and beside the bytes that score them now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A file, and what the gate says of it."""

    content: bytes
    pipeline: str
    verdict: Verdict
    rehearsed: int
    """On how many real vectors."""
    notes: tuple[str, ...] = ()
    """What the examination had to do without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benched:
    """A file, and what it costs."""

    title: str
    """What it is: this file, version 7, champion 6."""
    verdict: Verdict


class Desk:
    """Commands to a registry, and what they are decided by."""

    def __init__(
        self, app: App, commands: ModelCommands, reader: Callable[[], RecordReader], facts_log: Log, *, gate: Examine = examine
    ) -> None:
        """`facts_log`: where facts are written."""
        self.app, self.commands, self.reader = app, commands, reader
        self._facts_log, self._gate = facts_log, gate

    def examine(
        self, content: bytes, *, pipeline: str | None = None, rehearse: int = MOST, limits: GateLimits = DEFAULT_LIMITS
    ) -> Examined:
        """Let the gate examine a file for the pipeline it is stamped for, or this one, on up to `rehearse` of its last real vectors.

        Raises `RegistryRefused` where the pipeline is none of the registry's, `TransientError`, `BrokerRefused`.
        """
        wanted = self.commands.pipeline(pipeline or self._stamped_for(content))
        notes = []
        with closing(self.reader()) as reader:
            vectors = last_vectors(reader, wanted, rehearse)
        if vectors is None and rehearse:
            notes.append(f"there was nothing to rehearse on: {wanted.predictions} holds no features of the present definition")
        champion = self.commands.registry().roster(wanted.name).champion
        beside = None
        if champion is not None:
            try:
                beside = self.commands.artifacts.get(self.commands.registry().version(wanted.name, champion).sha256)
            except ArtifactRefused as refused:
                notes.append(f"the champion is not compared: {refused}")
        verdict = self._gate(content, wanted, rehearsal=vectors, champion=beside, limits=limits)
        rehearsed = 0 if vectors is None else len(vectors)
        return Examined(content=content, pipeline=wanted.name, verdict=verdict, rehearsed=rehearsed, notes=tuple(notes))

    def benched(self, content: bytes, *, pipeline: str | None = None, rehearse: int = MOST) -> list[Benched]:
        """What a file costs, and what the champion of its pipeline does, each in a process of its own, on the last real vectors.

        Raises `RegistryRefused` where the pipeline is none of the registry's, `TransientError`, `BrokerRefused`.
        """
        wanted = self.commands.pipeline(pipeline or self._stamped_for(content))
        with closing(self.reader()) as reader:
            vectors = last_vectors(reader, wanted, rehearse)
        registry = self.commands.registry()
        champion = registry.roster(wanted.name).champion
        names = [version.version for version in registry.versions(wanted.name) if version.sha256 == sha256_of(content)]
        title = f"version {names[-1]}" if names else "this file"
        if champion is not None and champion in names:
            return [Benched(title=f"champion {champion}", verdict=measure(content, wanted, rehearsal=vectors))]
        found = [Benched(title=title, verdict=measure(content, wanted, rehearsal=vectors))]
        if champion is not None:
            beside = self.commands.artifacts.get(registry.version(wanted.name, champion).sha256)
            found.append(Benched(title=f"champion {champion}", verdict=measure(beside, wanted, rehearsal=vectors)))
        return found

    def registration(self, examined: Examined, *, card: ModelCard | None = None) -> Prepared:
        """The registration of a file that the gate has passed; `card` counts in place of its own.

        Raises `RegistryRefused`, `SignatureMismatch` for a card or lineage in the file that cannot be read.
        """
        if examined.verdict.refusals:
            raise RegistryRefused(f"the gate refuses it for pipeline {examined.pipeline}: {'; '.join(map(str, examined.verdict.refusals))}")
        told = onnx_file.metadata(examined.content)
        signature = Signature.from_metadata(told)
        if signature.name != examined.pipeline:
            raise RegistryRefused(
                f"the model is stamped for pipeline {signature.name!r}, not {examined.pipeline!r}: stamp it for the pipeline it shall serve"
            )
        card = card or card_in(told)
        return self.commands.register(examined.content, signature, card=None if card is None else card.as_plain(), lineage=lineage_in(told))

    def content(self, pipeline: str, version: str | None) -> bytes:
        """The file of a version, or of the champion. Raises `RegistryRefused`, `ArtifactRefused`."""
        registry = self.commands.registry()
        named = registry.roster(pipeline).champion if version is None else version
        if named is None:
            raise RegistryRefused(f"pipeline {pipeline} has no champion: name a version; `headrace model list` shows which there are")
        return self.commands.artifacts.get(registry.version(pipeline, named).sha256)

    def announce(self, prepared: Prepared) -> Notice:
        """Give notice of what a command will change, as long before as its pipeline declares; or find the one that was given.

        Raises `RegistryRefused` where there is nothing to give notice of, `TransientError`, `BrokerRefused`.
        """
        pipeline = self.commands.pipeline(prepared.command.pipeline)
        notice, old = announced(pipeline, prepared, self.facts(), self.commands.registry().versions(pipeline.name))
        if not old:
            self._remember(notice)
        return notice

    def change(self, prepared: Prepared, *, given: Given | None = None) -> Done:
        """Carry a command out of whose change notice was given long enough before; `given` says why there need not be one of ours.

        Then one is written right before the command. Raises `RegistryRefused`, `TransientError`, `BrokerRefused`.
        """
        pipeline = self.commands.pipeline(prepared.command.pipeline)
        if given is None:
            self.insist_on_notice(prepared)
        else:
            notice = notice_of(pipeline, prepared, given)
            if notice is not None:
                self._remember(notice)
        return self.commands.carry_out(prepared)

    def insist_on_notice(self, prepared: Prepared) -> None:
        """Raise `RegistryRefused` where a command must wait for a notice of its change."""
        pipeline = self.commands.pipeline(prepared.command.pipeline)
        if pipeline.notice_ms is not None:
            insist_on_notice(pipeline, prepared, self.facts(), self.commands.registry().versions(pipeline.name))

    def _remember(self, notice: Notice) -> None:
        self._facts_log.write(b"notice", encode(notice))

    def facts(self) -> list[bytes | None]:
        """The facts of the app. Raises `TransientError`, `BrokerRefused`."""
        with closing(self.reader()) as reader:
            partition = TopicPartition(self.app.facts, 0)
            log = reader.log_range(partition)
            return [value for batch in reader.batches({partition: log.start}, {partition: log.end}) for value in batch.values]

    def _stamped_for(self, content: bytes) -> str:
        pipelines = self.app.registry_pipelines
        if len(pipelines) == 1:
            return pipelines[0].name
        return Signature.from_metadata(onnx_file.metadata(content)).name


@contextmanager
def opened(app: App, settings: Settings, *, by: str | None = None) -> Iterator[Desk]:
    """The registry of an app on its servers. Raises `RegistryRefused` where it has none, `TransientError`, `BrokerRefused`."""
    # The clients of servers; the one in memory is opened where none of them is installed.
    from headrace.apps.artifacts import artifact_store  # noqa: PLC0415
    from headrace.consume.kafka_reader import Isolation, KafkaReader  # noqa: PLC0415
    from headrace.kafka_client import knock  # noqa: PLC0415
    from headrace.publish.kafka_control import KafkaControl  # noqa: PLC0415

    insist_on_registry(app)
    properties = {"bootstrap.servers": settings.kafka.bootstrap_servers, **settings.kafka.properties}
    knock(properties)
    with closing(KafkaReader(properties, isolation=Isolation.UNCOMMITTED)) as written:
        if not written.exists(app.control):
            raise RegistryRefused(f"there is no topic {app.control}: `headrace apply --app ...` makes what app {app.name} needs")

        def written_end(partition: TopicPartition) -> int:
            return written.log_range(partition).end

        def reader() -> RecordReader:
            return KafkaReader(properties)

        log = KafkaControl({**properties, **settings.kafka.producer_properties}, app.name, app.control)
        control = ControlLog(app.control, Facts(app.control, reader, written_end))
        commands = ModelCommands(app, control, log, artifact_store(app, settings), by=by or somebody(), now_ms=wall_ms)
        with closing(commands):
            facts_log = KafkaControl({**properties, **settings.kafka.producer_properties}, app.name, app.facts)
            yield Desk(app, commands, reader, facts_log)


def embedded(app: App, log: MemoryLog, artifacts: ArtifactStore, clock: Clock, *, by: str = "embedded", gate: Examine = examine) -> Desk:
    """The same on a log in memory that `assembly.prepare_embedded` has made ready."""
    insist_on_registry(app)
    control = ControlLog(app.control, Facts(app.control, lambda: MemoryReader(log), log.end_offset))
    commands = ModelCommands(app, control, MemoryControl(log, app.control), artifacts, by=by, now_ms=clock.now_ms)
    return Desk(app, commands, lambda: MemoryReader(log), MemoryControl(log, app.facts), gate=gate)


def insist_on_registry(app: App) -> None:
    """Raise `RegistryRefused` for an app whose pipelines all pin their models."""
    if not app.registry_pipelines:
        raise RegistryRefused(
            f"app {app.name} has no registry: each of its pipelines pins a model (model=...); leave model= out where versions shall come "
            "and go while workers run, then run `headrace apply`"
        )


def somebody() -> str:
    """Who runs this process, and where."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        name = f"uid-{os.getuid()}"
    text = f"{name}@{socket.gethostname()}"
    return "".join(character for character in text if character.isprintable())[:MOST_BY]


def wall_ms() -> int:
    """The time on the wall."""
    return time.time_ns() // 1_000_000
