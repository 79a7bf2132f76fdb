"""A control topic to play with: commands as people write them, and the log they end up in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from headrace.predict.commands import Command, Move, Register, Rollback, command_bytes
from headrace.predict.registry import Outcome, Registry, Role
from headrace.predict.signature import Signature, ViewVersion

PIPELINE = "delay"


def signature(version: str, pipeline: str = PIPELINE) -> Signature:
    """A signature of two features."""
    view = ViewVersion(name="card", version=1, fingerprint="f" * 64)
    return Signature(
        name=pipeline, version=version, features=("card.count_1h", "amount"), views=(view,), event_features="e", output="score"
    )


def register(version: str, expects: int, *, number: int, by: str = "ann@desk", pipeline: str = PIPELINE, content: str = "") -> Register:
    """The registration of a version; `number` makes its id and time."""
    return Register(
        id=f"{number:032x}",
        at_ms=1_000 * number,
        by=by,
        pipeline=pipeline,
        version=version,
        sha256=hashlib.sha256((content or f"{pipeline} {version}").encode()).hexdigest(),
        bytes=123,
        signature=signature(version, pipeline),
        card={"owner": "ann"},
        lineage=None,
        expects=expects,
    )


@dataclass
class Topic:
    """A control topic and its fold, written to by people who have read all of it unless they say otherwise."""

    registry: Registry = field(default_factory=Registry)
    records: list[tuple[int, bytes]] = field(default_factory=list)
    by: str = "ann@desk"
    gap: int = 0
    """Offsets that markers take before each record."""

    def write(self, value: bytes) -> Outcome:
        """Put a record at the end."""
        offset = (self.records[-1][0] + 1 if self.records else 0) + self.gap
        self.records.append((offset, value))
        return self.registry.take(offset, value)

    def command(self, command: Command) -> Outcome:
        """Write a command."""
        return self.write(command_bytes(command))

    def register(self, version: str, *, expects: int | None = None, by: str | None = None, content: str = "") -> Outcome:
        """Register a version."""
        seen = self.registry.end if expects is None else expects
        return self.command(register(version, seen, number=self._number, by=by or self.by, content=content))

    def move(
        self,
        version: str,
        to: Role,
        *,
        share: float | None = None,
        expects: int | None = None,
        by: str | None = None,
        reason: str | None = None,
    ) -> Outcome:
        """Move a version."""
        return self.command(
            Move(
                **self._about(expects, by),
                version=version,
                to=to,
                share=0.1 if share is None and to is Role.CHALLENGER else share,
                reason=reason,
            )
        )

    def rollback(self, *, expects: int | None = None, by: str | None = None) -> Outcome:
        """Roll back."""
        return self.command(Rollback(**self._about(expects, by)))

    def role(self, version: str) -> Role:
        """The role of a version."""
        return self.registry.version(PIPELINE, version).role

    @property
    def _number(self) -> int:
        return len(self.records) + 1

    def _about(self, expects: int | None, by: str | None) -> dict[str, Any]:
        seen = self.registry.end if expects is None else expects
        return {"id": f"{self._number:032x}", "at_ms": 1_000 * self._number, "by": by or self.by, "pipeline": PIPELINE, "expects": seen}
