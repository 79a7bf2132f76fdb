"""What became of a record of the control topic, in the words of whoever wrote it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

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

    def as_plain(self) -> list[list[object]]:
        """As lists for JSON, the oldest first."""
        return [[one.command_id, one.offset, one.refused, one.said, one.fix] for one in self._kept.values()]

    @classmethod
    def from_plain(cls, plain: Sequence[Sequence[object]]) -> Outcomes:
        """What `as_plain` told. Raises `ValueError` or `TypeError` for anything else."""
        return cls([_outcome(*one) for one in plain])


def _outcome(command_id: object, offset: object, refused: object, said: object, fix: object) -> Outcome:
    if not (isinstance(command_id, str) and isinstance(offset, int) and isinstance(said, str) and isinstance(fix, str)):
        raise TypeError("an outcome is an id, an offset and texts")
    return Outcome(command_id=command_id, offset=offset, refused=None if refused is None else Refused(str(refused)), said=said, fix=fix)
