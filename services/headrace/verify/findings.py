"""What a verification finds: violations of the promise, each with its coordinates, and what it had no input for.

    I1  one result     lost, duplicate, unexpected
    I2  order          order, misplaced
    I3  features       features, score, record
    I4  state          state, head
    I5  rest           lag, open
    I6  dead letters   letter, reason

and, where there is a witness beside the deployment (a reader's file, the journal of a test run):

    I1+ as seen        unseen, vanished, changed, repeated
    I7  processes      memory, exit
    I8  secrets        secret
    I9  real faults    harmless

What could not be checked is said so and never passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What is wrong."""

    LOST = "lost"
    """A source record below the committed offset has no result."""
    DUPLICATE = "duplicate"
    """It has more than one."""
    UNEXPECTED = "unexpected"
    """A result for which there is no source record, or where the other kind of result belongs."""
    ORDER = "order"
    """A result that stands behind one of a later record of its partition."""
    MISPLACED = "misplaced"
    """A result in a partition that is not its key's."""
    FEATURES = "features"
    """A feature that the fold of the log does not give, in any bit."""
    SCORE = "score"
    """A score that the model does not give for these features (1e-6)."""
    RECORD = "record"
    """Anything else in a prediction: key, timestamp, entity, model, headers."""
    STATE = "state"
    """An entity whose state in the store is not the fold's."""
    HEAD = "head"
    """The store stands at another offset or watermark than the group."""
    LAG = "lag"
    """Records above the committed offset, although everything should be at rest."""
    OPEN = "open"
    """A transaction that is still open."""
    LETTER = "letter"
    """A dead letter that is not the refused record."""
    REASON = "reason"
    """A dead letter with another reason than the definitions give."""
    UNSEEN = "unseen"
    """A result that the reader who ran meanwhile was not given."""
    VANISHED = "vanished"
    """One that it was given, and that is gone."""
    CHANGED = "changed"
    """One that is another now."""
    REPEATED = "repeated"
    """One that it was given again."""
    MEMORY = "memory"
    """A worker that took too much memory."""
    EXIT = "exit"
    """A worker that ended, which nobody asked for."""
    SECRET = "secret"  # noqa: S105 - a word
    """A canary secret in a log."""
    HARMLESS = "harmless"
    """Faults that did nothing, so that nothing is proved by them."""


INVARIANTS: Mapping[str, tuple[str, tuple[Kind, ...]]] = {
    "I1": ("one result", (Kind.LOST, Kind.DUPLICATE, Kind.UNEXPECTED)),
    "I2": ("order", (Kind.ORDER, Kind.MISPLACED)),
    "I3": ("features", (Kind.FEATURES, Kind.SCORE, Kind.RECORD)),
    "I4": ("state", (Kind.STATE, Kind.HEAD)),
    "I5": ("rest", (Kind.LAG, Kind.OPEN)),
    "I6": ("dead letters", (Kind.LETTER, Kind.REASON)),
}
"""Each invariant: its name and what breaks it."""

WITNESSED: Mapping[str, tuple[str, tuple[Kind, ...]]] = {
    "I1+": ("as seen", (Kind.UNSEEN, Kind.VANISHED, Kind.CHANGED, Kind.REPEATED)),
    "I7": ("processes", (Kind.MEMORY, Kind.EXIT)),
    "I8": ("secrets", (Kind.SECRET,)),
    "I9": ("real faults", (Kind.HARMLESS,)),
}
"""Those that a deployment alone does not show: they need a reader's file (`seen.py`) or a journal (`journal.py`)."""


class Site(NamedTuple):
    """The coordinates of a source record."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that is wrong, and where: a source record, or an entity in the state of a source partition."""

    kind: Kind
    topic: str
    partition: int
    offset: int | None = None
    entity: str | None = None
    at: str | None = None
    """Where its result stands."""
    of: str
    """Whose: a pipeline, a view, or the dead letters."""
    expected: str
    found: str

    def text(self) -> str:
        """One line for people."""
        where = f"{self.topic}-{self.partition}"
        where += "" if self.offset is None else f" offset {self.offset}"
        where += "" if self.entity is None else f" entity {self.entity}"
        where += "" if self.at is None else f" (at {self.at})"
        return f"{self.kind.value:<10} {where}, {self.of}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that is wrong about a test run, and with whom."""

    kind: Kind
    who: str
    expected: str
    found: str

    def text(self) -> str:
        """One line for people."""
        return f"{self.kind.value:<10} {self.who}: expected {self.expected}, found {self.found}"


@dataclass(slots=True, kw_only=True)
class Findings:
    """Everything found; of many violations the first `keep` are kept whole, all are counted."""

    keep: int = 1_000
    violations: list[Violation] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    """How many events, predictions, dead letters, entities and partitions were looked at."""
    not_checked: dict[str, str] = field(default_factory=dict)
    """Invariants there was no input for, and why."""
    witnessed: set[str] = field(default_factory=set)
    """Those of `WITNESSED` for which a witness was heard."""

    def add(self, violation: Violation) -> None:
        """One more."""
        self.counts[violation.kind] += 1
        if len(self.violations) < self.keep:
            self.violations.append(violation)

    def add_incident(self, incident: Incident) -> None:
        """One more about the run."""
        self.counts[incident.kind] += 1
        if len(self.incidents) < self.keep:
            self.incidents.append(incident)

    def verdict(self, invariant: str) -> str:
        """passed, violated or not checked."""
        _, kinds = INVARIANTS.get(invariant) or WITNESSED[invariant]
        if any(self.counts[kind] for kind in kinds):
            return "violated"
        unheard = invariant in WITNESSED and invariant not in self.witnessed
        return "not checked" if unheard or invariant in self.not_checked else "passed"

    def sound(self) -> bool:
        """Whether nothing is wrong in what was checked."""
        return not self.counts.total()
