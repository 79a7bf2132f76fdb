"""Why a command is refused, in the operator's words and with the next command (pure).

Each function answers (code, what is wrong, what to do).
"""

from __future__ import annotations

from datetime import UTC, datetime

from headrace.predict.commands import Move, Register
from headrace.predict.moves import MOVES, Only, Role
from headrace.predict.outcomes import Refused
from headrace.predict.roles import Roster
from headrace.predict.versions import Version

Refusal = tuple[Refused, str, str]

VERBS = {
    Role.REGISTERED: "withdraw",
    Role.SHADOW: "shadow",
    Role.CHALLENGER: "challenge",
    Role.CHAMPION: "promote",
    Role.RETIRED: "retire",
}
"""The command of `headrace model` that gives a role."""


def overtaken(pipeline: str, by: str, at_ms: int, did: str) -> Refusal:
    """Somebody else was first: by whom, when, and with what."""
    said = f"{by} was first: {did} of {pipeline}, {time_text(at_ms)}"
    return Refused.OVERTAKEN, said, f"look what is live now (headrace model list {pipeline}), then decide again"


def registered_already(command: Register, there: Version) -> Refusal:
    """A version's name is taken, by the same bytes or by others."""
    if there.sha256 == command.sha256:
        said = f"version {there.version} of {there.pipeline} is registered already, with the same bytes, by {there.by}"
        return Refused.REGISTERED_ALREADY, said, f"it is {there.role} (headrace model show {there.pipeline} {there.version})"
    said = f"version {there.version} of {there.pipeline} is taken: {there.by} registered other bytes as that ({there.sha256[:16]})"
    return Refused.REGISTERED_ALREADY, said, "stamp the new model with another version= and register that"


def unknown_version(pipeline: str, version: str, near: str) -> Refusal:
    """There is no such version."""
    return Refused.UNKNOWN_VERSION, f"{pipeline} has no version {version}{near}", f"see which there are: headrace model list {pipeline}"


def nothing_before(pipeline: str, roster: Roster) -> Refusal:
    """There is no champion of before."""
    if roster.champion is None:
        said = f"{pipeline} has no champion and had none that was not retired by hand"
    else:
        said = f"version {roster.champion} is the first champion of {pipeline}: there is none before it"
    return Refused.NOTHING_BEFORE, said, f"promote another version (headrace model list {pipeline} shows them)"


def barred(move: Move, version: Version, roster: Roster, before: str | None) -> Refusal | None:
    """What stands against a move; None where it is legal. `before`: the version that a rollback would bring back."""
    only = MOVES[version.role].get(move.to)
    name = f"version {version.version} of {version.pipeline}"
    if only is None:
        return Refused.ILLEGAL_MOVE, _said(move, version, name), _instead(move.to, version, roster, before)
    said, fix = _unmet(only, move, version, roster) or ("", "")
    return (Refused.ILLEGAL_MOVE, said, fix) if said else None


def _unmet(only: Only, move: Move, version: Version, roster: Roster) -> tuple[str, str] | None:
    """What is not as a move needs it, and what to do; None where all is."""
    name = f"version {version.version} of {version.pipeline}"
    end = f"headrace model shadow {version.pipeline} {roster.challenger}"
    match only:
        case Only.NO_CHAMPION if roster.champion is not None:
            said = f"{name} is registered and has never scored, and version {roster.champion} is champion"
            return said, f"let it run beside that one first: {_command(Role.SHADOW, version)}"
        case Only.LONE_CHALLENGER if roster.champion is None:
            said = f"{version.pipeline} has no champion that {version.version} could challenge"
            return said, f"make it the champion: {_command(Role.CHAMPION, version)}"
        case Only.LONE_CHALLENGER if roster.challenger not in {None, version.version}:
            said = f"version {roster.challenger} of {version.pipeline} is the challenger already, and there is one at a time"
            return said, f"end that first: {end}"
        case Only.LONE_CHALLENGER if version.role is Role.CHALLENGER and move.share == version.share:
            said = f"{name} is challenger for {share_text(version.share)} of the entities already"
            return said, "nothing needs to be done, or give another --share"
        case Only.NO_CHALLENGER if roster.challenger is not None:
            said = (
                f"{name} is the champion in whose place version {roster.challenger} answers for {share_text(roster.share)} of the entities"
            )
            return said, f"promote that one (headrace model promote {version.pipeline} {roster.challenger}) or end it ({end})"
        case _:
            return None


def _said(move: Move, version: Version, name: str) -> str:
    if version.role is move.to:
        return f"{name} is {version.role} already"
    return f"{name} is {version.role}, and from there it cannot become {move.to}"


def _instead(to: Role, version: Version, roster: Roster, before: str | None) -> str:
    """What to do where no arrow leads from a version's role to the one that is wanted."""
    if version.role is to:
        return f"nothing needs to be done (headrace model show {version.pipeline} {version.version})"
    if version.role is Role.CHAMPION:
        return f"promote another version, or bring the one before back: headrace model rollback {version.pipeline}"
    if to is Role.CHAMPION and version.version == before:
        return f"bring it back as the champion of before: headrace model rollback {version.pipeline}"
    if to is Role.CHALLENGER and roster.champion is None:
        return f"there is no champion to challenge: {_command(Role.SHADOW, version)}, then {_command(Role.CHAMPION, version)}"
    return f"let it run beside the others first: {_command(Role.SHADOW, version)}"


def _command(to: Role, version: Version) -> str:
    return f"headrace model {VERBS[to]} {version.pipeline} {version.version}"


def share_text(share: float | None) -> str:
    """A share as people write it: 5%, 0.5%."""
    return f"{100 * (share or 0):.12g}%"


def time_text(at_ms: int) -> str:
    """An instant in UTC, to the second."""
    try:
        return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"at {at_ms} ms"  # whoever wrote that has no clock
