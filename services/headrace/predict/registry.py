"""The registry of models: the fold of the control topic into versions and roles (pure).

The log decides, the same for everyone who reads it. A command is taken if it is legal (`moves.py`) and nobody was first: no command that
was taken for the same pipeline stands at or behind the offset up to which its author had read (`expects`). Any other record stays in the
log and changes nothing. Of the newest commands the fold remembers what became of them, so an author reads on to his own and is told. A
command that comes twice under one id, as a producer that tries again may write it, is taken once.

A snapshot is all of that at one offset, so what stands before it may be deleted from the log. It holds only if no record stands between
what its writer had read and itself. Who has not read so far, as the log begins at it or was cut while it was read, takes it over; everybody
else knows what is in it.

    commands.py  what stands on the topic        moves.py      the legal moves, drawn
    versions.py  a version                       refusals.py   why not, in words
    outcomes.py  what became of a record         registry_state.py  all that is known, and its snapshot

Limits: a version is never forgotten; of its moves the newest 100 are told, and 100 promotions in a row can be rolled back. What a command
says of its time and its author is believed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace

from headrace.errors import RegistryRefused
from headrace.predict import refusals
from headrace.predict.commands import Command, Move, Register, Rollback, Snapshot, parsed, snapshot_bytes
from headrace.predict.moves import LIVE, MOVES, Only, Role
from headrace.predict.outcomes import Outcome, Refused
from headrace.predict.plain_json import Unreadable
from headrace.predict.refusals import Refusal
from headrace.predict.registry_state import ERA, NO_ERA, Last, PipelineState, State
from headrace.predict.roles import Roster
from headrace.predict.versions import Change, Version

__all__ = ["LIVE", "MOVES", "Change", "Last", "Only", "Outcome", "Refused", "Registry", "Role", "Version", "near"]

MOST_CHANGES, MOST_CHAMPIONS = 100, 100


class Registry:
    """Versions and roles, as of the last record taken."""

    def __init__(self) -> None:
        self._state = State()
        self.snapshot_at: int | None = None
        """Where the last snapshot stands that holds: what stands before it may be deleted."""

    @property
    def epoch(self) -> int:
        """The offset behind the last taken command that changed who scores; 0 at first."""
        return self._state.epoch

    @property
    def end(self) -> int:
        """The offset behind the last record taken: what a command's author writes as `expects`."""
        return self._state.end

    def take(self, offset: int, value: bytes | None) -> Outcome:
        """Fold one record of the control topic; records come in the order of offsets. Never raises."""
        if offset < self._state.end:
            return Outcome(offset=offset, command_id=None, refused=Refused.REPEATED, said=f"the record at offset {offset} was taken before")
        try:
            command = parsed(value)
        except Unreadable as error:
            outcome = Outcome(offset=offset, command_id=None, refused=Refused.UNREADABLE, said=f"the record at offset {offset}: {error}")
        else:
            outcome = self._snapshot(offset, command) if isinstance(command, Snapshot) else self._command(offset, command)
        self._state.outcomes.add(outcome)
        self._state.end = offset + 1
        return outcome

    def pipelines(self) -> list[str]:
        """The pipelines that have versions, in the order of their first registration."""
        return list(self._state.pipelines)

    def version(self, pipeline: str, version: str) -> Version:
        """One version. Raises `RegistryRefused`, which names the nearest."""
        of = self._state.pipelines.get(pipeline)
        if of is None:
            known = self._state.pipelines
            raise RegistryRefused(
                f"no version of pipeline {pipeline!r} is registered{near(pipeline, known)}; see which there are: headrace model list"
            )
        if version not in of.versions:
            _, said, fix = refusals.unknown_version(pipeline, version, near(version, of.versions))
            raise RegistryRefused(f"{said}; {fix}")
        return of.versions[version]

    def versions(self, pipeline: str | None = None) -> list[Version]:
        """All versions, or those of one pipeline, each pipeline's in the order of registration."""
        return [
            version
            for name, one in self._state.pipelines.items()
            if pipeline is None or name == pipeline
            for version in one.versions.values()
        ]

    def roster(self, pipeline: str) -> Roster:
        """Who scores for a pipeline; nobody, where nothing is registered for it."""
        found = self._state.pipelines.get(pipeline)
        return Roster() if found is None else found.roster()

    @property
    def era(self) -> str:
        """Names this life of the control topic; one that is made again gets another, and before the first command it has none."""
        return self._state.era

    def epoch_of(self, pipeline: str) -> int:
        """The offset behind the last taken command that changed who scores for a pipeline; 0 at first."""
        found = self._state.pipelines.get(pipeline)
        return 0 if found is None else found.epoch

    def before(self, pipeline: str) -> str | None:
        """The version that a rollback would bring back; None where there is none."""
        found = self._state.pipelines.get(pipeline)
        return None if found is None else found.before()

    def outcome(self, command_id: str) -> Outcome | None:
        """What became of a command; None where it has not come yet, or 1,000 others have come since."""
        return self._state.outcomes.get(command_id)

    def last(self, pipeline: str) -> Last | None:
        """The last command that was taken for a pipeline."""
        found = self._state.pipelines.get(pipeline)
        return None if found is None else found.last

    def tried(self, value: bytes) -> tuple[Outcome, Registry]:
        """What would become of a record if it came next, and what all would be like then; here nothing changes."""
        copy = Registry()
        copy._state = State.from_plain(self._state.as_plain())
        return copy.take(self.end, value), copy

    def snapshot(self, at_ms: int = 0) -> bytes:
        """The record that may stand for all before it, where it comes right behind them. `at_ms`: when it is written."""
        return snapshot_bytes(self._state.as_plain(), at_ms)

    # -------------------------------------------------------------------------------------------------------------- inside

    def _snapshot(self, offset: int, found: Snapshot) -> Outcome:
        try:
            state = State.from_plain(found.state)
        except Unreadable as error:
            said = f"the snapshot at offset {offset} holds no state: {error}"
            return Outcome(offset=offset, command_id=None, refused=Refused.UNREADABLE, said=said)
        if not self._state.end <= state.end <= offset:
            said = f"the snapshot at offset {offset} is of {state.end}, and records stand between"
            return Outcome(offset=offset, command_id=None, refused=Refused.STALE_SNAPSHOT, said=said)
        if state.end > self._state.end:
            self._state = state
        self.snapshot_at = offset
        return Outcome(offset=offset, command_id=None, refused=None, said=f"a snapshot of all up to offset {state.end}")

    def _command(self, offset: int, command: Command) -> Outcome:
        first = self._state.outcomes.get(command.id)
        if first is not None:
            said = f"the command at offset {offset} is the one at {first.offset} again"
            return Outcome(offset=offset, command_id=command.id, refused=Refused.REPEATED, said=said)
        of = self._state.pipelines.get(command.pipeline)
        if of is not None and of.last.offset >= command.expects:
            return _refused(offset, command, refusals.overtaken(command.pipeline, of.last.by, of.last.at_ms, of.last.did))
        before = self.roster(command.pipeline)
        did = self._done(offset, command, of)
        if isinstance(did, tuple):
            return _refused(offset, command, did)
        self._state.pipelines[command.pipeline].last = Last(offset=offset, at_ms=command.at_ms, by=command.by, did=did)
        self._state.era = command.id[:ERA] if self._state.era == NO_ERA else self._state.era
        if self.roster(command.pipeline) != before:
            self._state.epoch = self._state.pipelines[command.pipeline].epoch = offset + 1
        return Outcome(offset=offset, command_id=command.id, refused=None, said=f"{command.by} {did} of {command.pipeline}")

    def _done(self, offset: int, command: Command, of: PipelineState | None) -> Refusal | str:
        """Carry a command out; what was done, or why it was not."""
        match command:
            case Register():
                return self._register(offset, command, of)
            case Move():
                return self._move(offset, command, of)
            case Rollback():
                return self._rollback(offset, command, of)

    def _register(self, offset: int, command: Register, of: PipelineState | None) -> Refusal | str:
        there = None if of is None else of.versions.get(command.version)
        if there is not None:
            return refusals.registered_already(command, there)
        version = Version(
            pipeline=command.pipeline,
            version=command.version,
            sha256=command.sha256,
            bytes=command.bytes,
            signature=command.signature,
            card=command.card,
            lineage=command.lineage,
            role=Role.REGISTERED,
            share=None,
            registered_ms=command.at_ms,
            by=command.by,
            history=(Change(offset=offset, at_ms=command.at_ms, by=command.by, role=Role.REGISTERED),),
        )
        did = f"registered version {command.version}"
        if of is None:
            of = PipelineState(last=Last(offset=offset, at_ms=command.at_ms, by=command.by, did=did))
            self._state.pipelines[command.pipeline] = of
        of.versions[command.version] = version
        return did

    def _move(self, offset: int, command: Move, of: PipelineState | None) -> Refusal | str:
        if of is None or command.version not in of.versions:
            known = () if of is None else of.versions
            return refusals.unknown_version(command.pipeline, command.version, near(command.version, known))
        version = of.versions[command.version]
        refusal = refusals.barred(command, version, of.roster(), of.before())
        if refusal is not None:
            return refusal
        if command.to is Role.CHAMPION:
            _replace_champion(of, offset, command, because=f"version {command.version} was promoted")
            of.champions = [*of.champions, command.version][-MOST_CHAMPIONS:]
        elif version.role is Role.CHAMPION:
            of.champions.pop()
        _give(of, command.version, command.to, offset, command, share=command.share, reason=command.reason)
        share = "" if command.share is None else f" for {refusals.share_text(command.share)} of the entities"
        return f"{_DID[command.to]} version {command.version}{share}"

    def _rollback(self, offset: int, command: Rollback, of: PipelineState | None) -> Refusal | str:
        again = None if of is None else of.before()
        if of is None or again is None:
            return refusals.nothing_before(command.pipeline, self.roster(command.pipeline))
        champion = of.holder(Role.CHAMPION)
        if champion is not None:
            _replace_champion(of, offset, command, because=command.reason or f"it was rolled back to version {again}")
            of.champions.pop()
        _give(of, again, Role.CHAMPION, offset, command, reason=command.reason or "a rollback")
        return f"rolled back {'' if champion is None else f'from version {champion} '}to version {again}"


_DID = {
    Role.REGISTERED: "withdrew",
    Role.SHADOW: "shadowed",
    Role.CHALLENGER: "let answer as challenger",
    Role.CHAMPION: "promoted",
    Role.RETIRED: "retired",
}


def near(name: str, known: Iterable[str]) -> str:
    """How to say which known name was perhaps meant; nothing where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def _replace_champion(of: PipelineState, offset: int, command: Command, *, because: str) -> None:
    champion = of.holder(Role.CHAMPION)
    if champion is not None:
        _give(of, champion, Role.RETIRED, offset, command, reason=because)


def _give(
    of: PipelineState, name: str, role: Role, offset: int, command: Command, *, share: float | None = None, reason: str | None = None
) -> None:
    version = of.versions[name]
    change = Change(offset=offset, at_ms=command.at_ms, by=command.by, role=role, share=share, reason=reason)
    of.versions[name] = replace(version, role=role, share=share, history=(*version.history, change)[-MOST_CHANGES:])


def _refused(offset: int, command: Command, refusal: Refusal) -> Outcome:
    refused, said, fix = refusal
    return Outcome(offset=offset, command_id=command.id, refused=refused, said=said, fix=fix)
