"""A model version as the registry knows it, and the JSON it is kept in (pure)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headrace.predict.commands import (
    MOST_BY,
    MOST_NAME,
    MOST_REASON,
    SHA256,
    VERSION,
    role_of,
    signature_of_plain,
    signature_plain,
)
from headrace.predict.moves import Role
from headrace.predict.plain_json import Plain, Unreadable, line, line_or_none, matching, share, table, table_or_none, tables, whole
from headrace.predict.signature import Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """When a version got a role, from whom, and why."""

    offset: int
    """Where the command stands on the control topic."""
    at_ms: int
    by: str
    role: Role
    share: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a pipeline's model."""

    pipeline: str
    version: str
    sha256: str
    bytes: int
    signature: Signature
    card: Plain | None
    lineage: Plain | None
    role: Role
    share: float | None
    """Of a challenger: the share of entities that it answers for."""
    registered_ms: int
    by: str
    """Who registered it."""
    history: tuple[Change, ...]
    """The newest moves, the oldest of them first; where it has not moved often, its registration is the first."""

    def as_plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "pipeline": self.pipeline,
            "version": self.version,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "signature": signature_plain(self.signature),
            "card": self.card,
            "lineage": self.lineage,
            "role": self.role,
            "share": self.share,
            "registered_ms": self.registered_ms,
            "by": self.by,
            "history": [asdict(change) for change in self.history],
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Version:
        """The version in a JSON object. Raises `Unreadable` for what is none."""
        role, part = role_of(plain, "role"), share(plain, "share")
        if (part is not None) != (role is Role.CHALLENGER):
            raise Unreadable(f"a version that is {role} has {'no share' if part is None else 'a share'}")
        return cls(
            pipeline=line(plain, "pipeline", MOST_NAME),
            version=matching(plain, "version", VERSION),
            sha256=matching(plain, "sha256", SHA256),
            bytes=whole(plain, "bytes"),
            signature=signature_of_plain(table(plain, "signature")),
            card=table_or_none(plain, "card"),
            lineage=table_or_none(plain, "lineage"),
            role=role,
            share=part,
            registered_ms=whole(plain, "registered_ms"),
            by=line(plain, "by", MOST_BY),
            history=tuple(_change(one) for one in tables(plain, "history")),
        )


def _change(plain: Plain) -> Change:
    return Change(
        offset=whole(plain, "offset"),
        at_ms=whole(plain, "at_ms"),
        by=line(plain, "by", MOST_BY),
        role=role_of(plain, "role"),
        share=share(plain, "share"),
        reason=line_or_none(plain, "reason", MOST_REASON),
    )
