"""What stands on the control topic: commands and snapshots, and their JSON (pure).

    {"v":1,"kind":"register","id":"<uuid4 hex>","at_ms":..,"by":"ann@host","pipeline":"p","version":"3","sha256":"..","bytes":123,
     "signature":{..},"card":{..}|null,"lineage":{..}|null,"expects":17}
    {"v":1,"kind":"move","id":..,"at_ms":..,"by":..,"pipeline":"p","version":"3","to":"challenger","share":0.1,"reason":"..","expects":17}
    {"v":1,"kind":"rollback","id":..,"at_ms":..,"by":..,"pipeline":"p","reason":"..","expects":17}
    {"v":1,"kind":"snapshot","at_ms":..,"state":{..}}

`expects` is the offset behind the last record that the command's author had seen; `share` goes with the role of a challenger and no other;
`reason` may be absent. Limit: who knows only version 1 takes nothing that a later version wrote, so let every worker know a version before
the first command of it is written.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from headrace.errors import SignatureMismatch
from headrace.predict.moves import Role
from headrace.predict.plain_json import (
    Plain,
    Unreadable,
    as_json,
    line,
    line_or_none,
    matching,
    read,
    share,
    shown,
    table,
    table_or_none,
    whole,
)
from headrace.predict.signature import METADATA_KEY, Signature

FORMAT = 1
FALLBACK = "fallback"
"""The version of a score that no model gave: no version may be named so."""
MOST_NAME, MOST_BY, MOST_REASON = 100, 200, 1_000

VERSION = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+-]{{0,{MOST_NAME - 1}}}", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}")
ID = re.compile(r"[0-9a-f]{32}")
"""The forms of a version's name, of the hash of a file, and of a command's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Let a version be known."""

    id: str
    at_ms: int
    by: str
    pipeline: str
    version: str
    sha256: str
    bytes: int
    signature: Signature
    card: Plain | None
    lineage: Plain | None
    expects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Give a version another role."""

    id: str
    at_ms: int
    by: str
    pipeline: str
    version: str
    to: Role
    share: float | None = None
    reason: str | None = None
    expects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """Let the champion before the last promotion answer again."""

    id: str
    at_ms: int
    by: str
    pipeline: str
    reason: str | None = None
    expects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the records before it say."""

    at_ms: int
    state: Plain


Command: TypeAlias = Register | Move | Rollback


def version_problem(version: str) -> str | None:
    """What keeps a text from being a version's name; None: nothing."""
    if version == FALLBACK:
        return f"version {version!r} is what the score of a pipeline without a champion is told as: write another name"
    if VERSION.fullmatch(version):
        return None
    return f"version {version!r} is no name: write up to {MOST_NAME} letters, digits and . _ + -, beginning with a letter or digit"


def command_bytes(command: Command) -> bytes:
    """The record's value."""
    told: dict[str, object] = {"v": FORMAT, "id": command.id, "at_ms": command.at_ms, "by": command.by, "pipeline": command.pipeline}
    match command:
        case Register():
            told |= {
                "kind": "register",
                "version": command.version,
                "sha256": command.sha256,
                "bytes": command.bytes,
                "signature": signature_plain(command.signature),
                "card": command.card,
                "lineage": command.lineage,
            }
        case Move():
            told |= {"kind": "move", "version": command.version, "to": command.to}
            told |= {} if command.share is None else {"share": command.share}
        case Rollback():
            told |= {"kind": "rollback"}
    if not isinstance(command, Register) and command.reason is not None:
        told["reason"] = command.reason
    return as_json({**told, "expects": command.expects})


def snapshot_bytes(state: Plain, at_ms: int) -> bytes:
    """The record's value."""
    return as_json({"v": FORMAT, "kind": "snapshot", "at_ms": at_ms, "state": state})


def parsed(value: bytes | None) -> Command | Snapshot:
    """The command or snapshot in a record's value. Raises `Unreadable` for any other."""
    told = read(value)
    if told.get("v") != FORMAT:
        raise Unreadable(f"its version is {shown(told.get('v'))} and not {FORMAT}: a newer headrace may have written it")
    kind = told.get("kind")
    if kind == "snapshot":
        return Snapshot(at_ms=whole(told, "at_ms"), state=table(told, "state"))
    about: dict[str, Any] = {
        "id": matching(told, "id", ID),
        "at_ms": whole(told, "at_ms"),
        "by": line(told, "by", MOST_BY),
        "pipeline": line(told, "pipeline", MOST_NAME),
        "expects": whole(told, "expects"),
    }
    match kind:
        case "register":
            return _register(told, about)
        case "move":
            return _move(told, about)
        case "rollback":
            return Rollback(**about, reason=line_or_none(told, "reason", MOST_REASON))
    raise Unreadable(f"its kind is {shown(kind)}, none of register, move, rollback, snapshot")


def role_of(told: Plain, name: str) -> Role:
    """A role. Raises `Unreadable`."""
    try:
        return Role(str(told.get(name)))
    except ValueError as error:
        raise Unreadable(f"its {name} is {shown(told.get(name))}, none of {', '.join(Role)}") from error


def signature_plain(signature: Signature) -> Plain:
    """A signature as a JSON object."""
    found: dict[str, Any] = json.loads(signature.to_metadata()[METADATA_KEY])
    return found


def signature_of_plain(plain: Plain) -> Signature:
    """The signature in a JSON object. Raises `Unreadable`."""
    try:
        return Signature.from_metadata({METADATA_KEY: json.dumps(plain)})
    except SignatureMismatch as error:
        raise Unreadable("its signature cannot be read") from error


def _register(told: Plain, about: dict[str, Any]) -> Register:
    signature = signature_of_plain(table(told, "signature"))
    version = matching(told, "version", VERSION)
    if (signature.name, signature.version) != (about["pipeline"], version):
        raise Unreadable(f"its signature is that of {shown(signature.name)} version {shown(signature.version)}")
    return Register(
        **about,
        version=version,
        sha256=matching(told, "sha256", SHA256),
        bytes=whole(told, "bytes"),
        signature=signature,
        card=table_or_none(told, "card"),
        lineage=table_or_none(told, "lineage"),
    )


def _move(told: Plain, about: dict[str, Any]) -> Move:
    to, part = role_of(told, "to"), share(told, "share")
    if (part is not None) != (to is Role.CHALLENGER):
        raise Unreadable(f"it gives the role {to} {'no share' if part is None else 'a share'}")
    version = matching(told, "version", VERSION)
    return Move(**about, version=version, to=to, share=part, reason=line_or_none(told, "reason", MOST_REASON))
