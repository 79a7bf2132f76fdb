"""A model version as the registry knows it, and the JSON it is kept in (pure)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headrace.predict.commands import Plain, signature_of_plain, signature_plain
from headrace.predict.moves import Role
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
        """The version in a JSON object. Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
        changes = (Change(**{**change, "role": Role(change["role"])}) for change in plain["history"])
        told = {
            **plain,
            "signature": signature_of_plain(plain["signature"]),
            "role": Role(plain["role"]),
            "history": tuple(changes),
        }
        return cls(**told)
