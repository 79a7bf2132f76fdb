"""Whether a command to the registry may be carried out yet: a pipeline with notice=... is told of a change before it comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.apps.model_commands import Prepared
from headrace.definition import Pipeline
from headrace.duration import duration_text
from headrace.errors import RegistryRefused
from headrace.notices import Change, Given, change_of, notices_in, standing
from headrace.predict.commands import Move, Register
from headrace.predict.refusals import share_text, time_text
from headrace.predict.registry import Role, Version
from headrace.publish.records import Notice


def announced(pipeline: Pipeline, prepared: Prepared, facts: Sequence[bytes | None], versions: Iterable[Version]) -> tuple[Notice, bool]:
    """The notice of what a command will change, and whether it was given already. Raises `RegistryRefused` where there is none to give."""
    change = _change(prepared)
    if pipeline.notice_ms is None or change is None:
        why = (
            "its definition declares none: write notice='24h' there, or give the command without --announce"
            if pipeline.notice_ms is None
            else "it does not change who answers: give the command without --announce"
        )
        raise RegistryRefused(f"no notice is given for pipeline {pipeline.name}; {why}")
    old = standing(notices_in(facts), change, versions)
    return (_notice(prepared, change, "ahead", pipeline.notice_ms), False) if old is None else (old, True)


def notice_of(pipeline: Pipeline, prepared: Prepared, given: Given) -> Notice | None:
    """The notice that is written right before a command that does not wait; None where none is needed. Raises `RegistryRefused`."""
    change = _change(prepared)
    if pipeline.notice_ms is None or change is None:
        return None
    if not _reason(prepared):
        raise RegistryRefused(f"say why {change} does not wait for its notice: --reason '...'")
    return _notice(prepared, change, given, 0)


def insist_on_notice(pipeline: Pipeline, prepared: Prepared, facts: Sequence[bytes | None], versions: Iterable[Version]) -> None:
    """Raise `RegistryRefused` where notice of a command's change was not given, or is not over; the text says when and what to do."""
    change = _change(prepared)
    if pipeline.notice_ms is None or change is None:
        return
    found = standing(notices_in(facts), change, versions)
    if found is None:
        ahead = duration_text(pipeline.notice_ms)
        raise RegistryRefused(
            f"pipeline {pipeline.name} gives notice {ahead} before who answers changes, and none stands of {change}; give it now and it "
            f"may come from {time_text(prepared.command.at_ms + pipeline.notice_ms)} on: {command_text(prepared)} --announce"
        )
    if found.at_ms > prepared.command.at_ms:
        raise RegistryRefused(
            f"{found.by} gave notice of {change}, which comes not before {time_text(found.at_ms)}; then: {command_text(prepared)}"
        )


def command_text(prepared: Prepared) -> str:
    """The command, as it is given in a terminal."""
    command = prepared.command
    if not isinstance(command, Move):
        return f"headrace model rollback {command.pipeline}"
    share = "" if command.share is None else f" --share {share_text(command.share)}"
    return f"headrace model {_VERBS[command.to]} {command.pipeline} {command.version}{share}"


_VERBS = {
    Role.REGISTERED: "withdraw",
    Role.SHADOW: "shadow",
    Role.CHALLENGER: "challenge",
    Role.CHAMPION: "promote",
    Role.RETIRED: "retire",
}


def _change(prepared: Prepared) -> Change | None:
    return change_of(prepared.command.pipeline, prepared.before, prepared.after)


def _notice(prepared: Prepared, change: Change, given: Given, ahead_ms: int) -> Notice:
    command, reason = prepared.command, _reason(prepared)
    told: dict[str, Any] = {} if change.share is None else {"share": change.share}
    told |= {"reason": reason} if reason else {}
    return Notice(
        kind="notice",
        pipeline=change.pipeline,
        what=change.what,
        before=change.before,
        to=change.to,
        at_ms=command.at_ms + ahead_ms,
        given=given,
        given_ms=command.at_ms,
        expects=command.expects,
        by=command.by,
        **told,
    )


def _reason(prepared: Prepared) -> str | None:
    return None if isinstance(prepared.command, Register) else prepared.command.reason
