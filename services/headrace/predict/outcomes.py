"""What became of a record of the control topic, in the words of whoever wrote it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from headrace.predict.commands import ID
from headrace.predict.plain_json import Plain, Unreadable, matching, whole

MOST_KEPT = 1_000


class Refused(StrEnum):
    """Why a record changes nothing."""

    UNREADABLE = "unreadable"
    """It is no command."""
    REPEATED = "repeated"
    """The same command stands before it, and that one counts."""
    OVERTAKEN = "overtaken"
    """Somebody else was first."""
    STALE_SNAPSHOT = "stale_snapshot"
    """Its writer had not read what stands right before it."""
    REGISTERED_ALREADY = "registered_already"
    UNKNOWN_VERSION = "unknown_version"
    ILLEGAL_MOVE = "illegal_move"
    """No version may go from that role to this one, or not now."""
    NOTHING_BEFORE = "nothing_before"
    """There is no champion of before to roll back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one record."""

    offset: int
    command_id: str | None
    """None for a snapshot, and for what is no command."""
    refused: Refused | None
    """Why; None where it was taken."""
    said: str
    """What happened, or why nothing did."""
    fix: str = ""
    """Of a refused one: what to do, as a command where there is one."""

    @property
    def taken(self) -> bool:
        """Whether it counts."""
        return self.refused is None

    @property
    def text(self) -> str:
        """All of it in one line."""
        return f"{self.said}; {self.fix}" if self.fix else self.said


class Outcomes:
    """What became of the newest commands, by their ids."""

    def __init__(self, kept: Sequence[Outcome] = ()) -> None:
        self._kept = {one.command_id: one for one in kept if one.command_id is not None}

    def get(self, command_id: str) -> Outcome | None:
        """What became of a command; None where it has not come yet, or long ago."""
        return self._kept.get(command_id)

    def add(self, outcome: Outcome) -> None:
        """Remember one, and let the oldest go where there are too many. Only the first one of an id is remembered."""
        if outcome.command_id is None or outcome.refused is Refused.REPEATED:
            return
        self._kept[outcome.command_id] = outcome
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def as_plain(self) -> list[dict[str, object]]:
        """As a list for JSON, the oldest first."""
        return [
            {"id": one.command_id, "offset": one.offset, "refused": one.refused, "said": one.said, "fix": one.fix}
            for one in self._kept.values()
        ]

    @classmethod
    def from_plain(cls, plain: Sequence[Plain]) -> Outcomes:
        """What `as_plain` told. Raises `Unreadable` for anything else."""
        return cls([_outcome(one) for one in plain])


def _outcome(plain: Plain) -> Outcome:
    refused, said, fix = plain.get("refused"), plain.get("said"), plain.get("fix")
    if (refused is not None and refused not in list(Refused)) or not isinstance(said, str) or not isinstance(fix, str):
        raise Unreadable("an outcome is a code, or none, and texts")
    return Outcome(
        command_id=matching(plain, "id", ID),
        offset=whole(plain, "offset"),
        refused=None if refused is None else Refused(refused),
        said=said,
        fix=fix,
    )
