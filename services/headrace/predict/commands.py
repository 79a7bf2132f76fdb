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
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from headrace.errors import SignatureMismatch
from headrace.predict.moves import Role
from headrace.predict.signature import METADATA_KEY, Signature

FORMAT = 1
MOST_NAME, MOST_BY, MOST_REASON = 100, 200, 1_000
MOST_DEEP = 64
"""How deep tables and lists may stand in one another."""

_VERSION = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+-]{{0,{MOST_NAME - 1}}}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")

Plain: TypeAlias = Mapping[str, Any]
"""A JSON object."""


class Unreadable(ValueError):
    """A record is no command; the text says what is wrong with it."""


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
    if _VERSION.fullmatch(version):
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
    if value is None:
        raise Unreadable("it has no value")
    try:
        told = json.loads(value, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is no JSON") from error
    if not isinstance(told, dict):
        raise Unreadable("it is no JSON object")
    if _deeper_than(told, MOST_DEEP):
        raise Unreadable(f"its tables stand in one another more than {MOST_DEEP} deep")
    if told.get("v") != FORMAT:
        raise Unreadable(f"its version is {_shown(told.get('v'))} and not {FORMAT}: a newer headrace may have written it")
    kind = told.get("kind")
    if kind == "snapshot":
        return Snapshot(at_ms=_whole(told, "at_ms"), state=_table(told, "state"))
    about: dict[str, Any] = {
        "id": _matching(told, "id", _ID),
        "at_ms": _whole(told, "at_ms"),
        "by": _text(told, "by", MOST_BY),
        "pipeline": _text(told, "pipeline", MOST_NAME),
        "expects": _whole(told, "expects"),
    }
    match kind:
        case "register":
            return _register(told, about)
        case "move":
            return _move(told, about)
        case "rollback":
            return Rollback(**about, reason=_reason(told))
    raise Unreadable(f"its kind is {_shown(kind)}, none of register, move, rollback, snapshot")


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


def as_json(told: Plain) -> bytes:
    """JSON in as few bytes as can be."""
    return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def _register(told: Plain, about: dict[str, Any]) -> Register:
    signature = signature_of_plain(_table(told, "signature"))
    version = _matching(told, "version", _VERSION)
    if (signature.name, signature.version) != (about["pipeline"], version):
        raise Unreadable(f"its signature is that of {_shown(signature.name)} version {_shown(signature.version)}")
    return Register(
        **about,
        version=version,
        sha256=_matching(told, "sha256", _SHA256),
        bytes=_whole(told, "bytes"),
        signature=signature,
        card=None if told.get("card") is None else _table(told, "card"),
        lineage=None if told.get("lineage") is None else _table(told, "lineage"),
    )


def _move(told: Plain, about: dict[str, Any]) -> Move:
    try:
        to = Role(str(told.get("to")))
    except ValueError as error:
        raise Unreadable(f"its role is {_shown(told.get('to'))}, none of {', '.join(Role)}") from error
    share = told.get("share")
    if to is not Role.CHALLENGER:
        if share is not None:
            raise Unreadable(f"it gives the role {to} a share")
    elif isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise Unreadable(f"its share is {_shown(share)}, no number above 0 and up to 1")
    version = _matching(told, "version", _VERSION)
    return Move(**about, version=version, to=to, share=None if share is None else float(share), reason=_reason(told))


def _reason(told: Plain) -> str | None:
    return None if told.get("reason") is None else _text(told, "reason", MOST_REASON)


def _whole(told: Plain, name: str) -> int:
    found = told.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 63:
        raise Unreadable(f"its {name} is {_shown(found)}, no whole number")
    return found


def _text(told: Plain, name: str, most: int) -> str:
    found = told.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= most or not found.isprintable():
        raise Unreadable(f"its {name} is {_shown(found)}, no text of one line and up to {most} characters")
    return found


def _matching(told: Plain, name: str, pattern: re.Pattern[str]) -> str:
    found = told.get(name)
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise Unreadable(f"its {name} is {_shown(found)}, not of the form {pattern.pattern}")
    return found


def _table(told: Plain, name: str) -> Plain:
    found = told.get(name)
    if not isinstance(found, dict):
        raise Unreadable(f"its {name} is no JSON object")
    return found


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text} is no number")
    return found


def _deeper_than(found: object, levels: int) -> bool:
    inside = list(found.values()) if isinstance(found, dict) else found if isinstance(found, list) else []
    return bool(inside) and (levels == 0 or any(_deeper_than(one, levels - 1) for one in inside))


def _shown(found: object) -> str:
    """A value as it may stand in a sentence."""
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a sentence stays readable
