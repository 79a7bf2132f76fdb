"""Commands to the registry of models: checked, written to the control topic, and read back.

    read       the control topic to its stable end
    try        the command on a copy of what is known: whoever asks for what is not legal is told at once, and nothing is written
    write      with the end that was read as `expects`
    read       on, to what became of it: the log decides, and of two who read the same the first one wins

A write whose answer is lost is written again under the same id, which is taken once. If the world is away for longer, it is said that it is
not known what became of it; the next look at the registry shows it. An artifact is safe in its store before its version is registered.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from headrace.control_log import ControlLog
from headrace.definition import App, Pipeline
from headrace.errors import RegistryRefused, TransientError
from headrace.predict.artifacts import ArtifactStore, sha256_of
from headrace.predict.commands import Command, Move, Register, Rollback, command_bytes, version_problem
from headrace.predict.plain_json import Plain
from headrace.predict.registry import Outcome, Refused, Registry, Role, Version, near
from headrace.predict.roles import Roster
from headrace.predict.signature import Signature

WRITES, REGISTERS = 3, 5
"""How often a command is written, and how often a registration is tried again that somebody else was faster than."""


class Log(Protocol):
    """Where commands are written. All methods raise `TransientError` or `BrokerRefused`."""

    def write(self, key: bytes | None, value: bytes) -> None:
        """Put a record at the end of the control topic; raises `TransientError` where it may be there or not."""

    def delete_before(self, offset: int) -> None:
        """Delete the records of the control topic below an offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A command that would be taken now, and what it would change."""

    command: Command
    said: str
    """What it does."""
    version: Version
    """The version it is about, as it would be then."""
    before: Roster
    after: Roster
    content: bytes | None = None
    """The bytes that it registers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that was taken."""

    outcome: Outcome
    version: Version
    """The version it is about, as it is now."""
    before: Roster
    """Who scored before."""
    after: Roster
    """Who scores from now on."""
    warnings: tuple[str, ...] = ()


class ModelCommands:
    """What operators say to the registry of an app. `by` is who says it; `now_ms` a wall clock."""

    def __init__(
        self,
        app: App,
        control: ControlLog,
        log: Log,
        artifacts: ArtifactStore,
        *,
        by: str,
        now_ms: Callable[[], int],
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.app, self.artifacts = app, artifacts
        self._control, self._log, self._by, self._now_ms, self._new_id = control, log, by, now_ms, new_id

    def registry(self) -> Registry:
        """All that is registered now. Raises `TransientError`, `RegistryRefused`."""
        return self._control.read()

    def pipeline(self, name: str) -> Pipeline:
        """A pipeline of the app whose models come from the registry. Raises `RegistryRefused`."""
        found = {pipeline.name: pipeline for pipeline in self.app.pipelines}
        if name not in found:
            raise RegistryRefused(f"app {self.app.name} has no pipeline {name!r}{near(name, found)}; it has {', '.join(found)}")
        if found[name].model is not None:
            raise RegistryRefused(
                f"pipeline {name} pins its model (model={found[name].model!r} in its definition), so the registry has no say in it; leave "
                f"model= out there, run `headrace apply`, and register that file: headrace model register {found[name].model}"
            )
        return found[name]

    # ------------------------------------------------------------------------------------------------------------- prepare

    def register(self, content: bytes, signature: Signature, *, card: Plain | None = None, lineage: Plain | None = None) -> Prepared:
        """A registration of bytes that the gate has passed. Raises `RegistryRefused`."""
        self.pipeline(signature.name)
        problem = version_problem(signature.version)
        if problem is not None:
            raise RegistryRefused(f"{problem}; stamp the model again with another version=")
        about = self._about(signature.name)
        return self._prepared(
            lambda expects: Register(
                **about(expects),
                version=signature.version,
                sha256=sha256_of(content),
                bytes=len(content),
                signature=signature,
                card=card,
                lineage=lineage,
            ),
            signature.version,
            content,
        )

    def move(self, pipeline: str, version: str, to: Role, *, share: float | None = None, reason: str | None = None) -> Prepared:
        """A move of a version to a role; `share` of the entities is a challenger's. Raises `RegistryRefused`."""
        self.pipeline(pipeline)
        about = self._about(pipeline)
        return self._prepared(lambda expects: Move(**about(expects), version=version, to=to, share=share, reason=reason), version)

    def rollback(self, pipeline: str, *, reason: str | None = None) -> Prepared:
        """The champion before the last promotion, again. Raises `RegistryRefused`."""
        self.pipeline(pipeline)
        about = self._about(pipeline)
        return self._prepared(lambda expects: Rollback(**about(expects), reason=reason), None)

    # --------------------------------------------------------------------------------------------------------------- carry out

    def carry_out(self, prepared: Prepared) -> Done:
        """Write a command and read what became of it. Raises `RegistryRefused` where somebody else was first, `TransientError`."""
        if prepared.content is not None:
            self.artifacts.put(prepared.content)
        outcome = self._written(prepared.command)
        tries = 1
        while outcome.refused is Refused.OVERTAKEN and isinstance(prepared.command, Register) and tries < REGISTERS:
            # Nothing that somebody else did meanwhile can make it wrong to let one more version be known.
            again = replace(prepared.command, id=self._new_id(), expects=self.registry().end)
            prepared = self._prepared_as(again, again.version, prepared.content)
            outcome = self._written(prepared.command)
            tries += 1
        if not outcome.taken:
            raise RegistryRefused(outcome.text)
        warning = self._cut()
        registry = self.registry()
        return Done(
            outcome=outcome,
            version=registry.version(prepared.command.pipeline, prepared.version.version),
            before=prepared.before,
            after=registry.roster(prepared.command.pipeline),
            warnings=() if warning is None else (warning,),
        )

    def mend(self, content: bytes) -> list[Version]:
        """Put bytes back that were registered and are lost or damaged; the versions that they are of. Raises `RegistryRefused`."""
        sha256 = sha256_of(content)
        found = [version for version in self.registry().versions() if version.sha256 == sha256]
        if not found:
            raise RegistryRefused(
                f"no version was registered with these bytes ({sha256[:16]}); `headrace model show` tells a version's sha256"
            )
        self.artifacts.put(content)
        self.artifacts.get(sha256)
        return found

    def close(self) -> None:
        """Close the connections."""
        self._control.close()
        self.artifacts.close()

    # ------------------------------------------------------------------------------------------------------------------ inside

    def _about(self, pipeline: str) -> Callable[[int], dict[str, Any]]:
        return lambda expects: {"id": self._new_id(), "at_ms": self._now_ms(), "by": self._by, "pipeline": pipeline, "expects": expects}

    def _prepared(self, make: Callable[[int], Command], version: str | None, content: bytes | None = None) -> Prepared:
        return self._prepared_as(make(self.registry().end), version, content)

    def _prepared_as(self, command: Command, version: str | None, content: bytes | None) -> Prepared:
        registry = self.registry()
        outcome, after = registry.tried(command_bytes(command))
        if not outcome.taken:
            raise RegistryRefused(outcome.text)
        about = version or after.roster(command.pipeline).champion or ""
        return Prepared(
            command=command,
            said=outcome.said,
            version=after.version(command.pipeline, about),
            before=registry.roster(command.pipeline),
            after=after.roster(command.pipeline),
            content=content,
        )

    def _written(self, command: Command) -> Outcome:
        """What became of a command that is written now. Raises `TransientError` where that cannot be found out."""
        lost: TransientError | None = None
        for _ in range(WRITES):
            try:
                self._log.write(command.pipeline.encode(), command_bytes(command))
            except TransientError as away:
                lost = away
            else:
                lost = None
                break
        try:
            outcome = self.registry().outcome(command.id)
        except TransientError as away:
            raise self._unknown(command, lost or away) from away
        if outcome is None:
            raise self._unknown(command, lost)
        return outcome

    def _unknown(self, command: Command, away: TransientError | None) -> TransientError:
        why = "" if away is None else f" ({away})"
        return TransientError(
            f"it is not known whether the command was written to {self.app.control}{why}, and it may still come; look what is live "
            f"(headrace model list {command.pipeline}), then give it again: what was done already is refused as that"
        )

    def _cut(self) -> str | None:
        try:
            return self._control.cut(lambda value: self._log.write(None, value), self._log.delete_before, self._now_ms())
        except TransientError as away:
            return f"{self.app.control} was not cut, the next command will try again ({away})"


def share_of(text: str) -> float:
    """A share as people write it: 5%, 0.05. Raises `RegistryRefused` for what is none."""
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 < found <= 1:
        raise RegistryRefused(f"--share {text} is no share of the entities: write for example 5%, up to 100%")
    return found
