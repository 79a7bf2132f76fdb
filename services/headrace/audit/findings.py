"""What an audit finds: per pipeline and feature how many vectors were compared and how many differ, and what explains the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

MOST_SHOWN = 20


class Kind(StrEnum):
    """What may have gone wrong; each is told by a recomputation that makes the same mistake."""

    TIME_ZONE = "time_zone"
    """Instants are read on the clock of another place."""
    NULL_HANDLING = "null_handling"
    """Absent is taken as 0, or 0 as absent."""
    LATE_TAKEN = "late_taken"
    """Late events change the state."""
    CHANGED_CODE = "changed_code"
    """Another version of the definitions is served."""
    WRONG_ORDER = "wrong_order"
    """Events are applied in the order of event time, not of offsets."""
    DUPLICATE = "duplicate"
    """Events are folded twice."""
    MISSING = "missing"
    """Events are not folded."""
    WINDOW = "window"
    """A window is a pane too long or too short."""
    STALE = "stale"
    """The vector is an event behind."""
    UNIT = "unit"
    """A field or a feature is in another unit."""
    FLOAT32 = "float32"
    """Numbers are rounded to 32 bits."""


class Difference(NamedTuple):
    """A served value that is not what it should be."""

    pipeline: str
    feature: str
    topic: str
    partition: int
    offset: int
    entity: str
    expected: float | None
    off: float
    """How far from it the fold may be."""
    served: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A mistake that gives what was served."""

    pipeline: str
    kind: Kind
    says: str
    features: Sequence[str]
    explained: int
    """So many of the wrong values that were looked at."""
    of: int


@dataclass(slots=True, kw_only=True)
class PipelineFindings:
    """What was found about one pipeline, or one stage of it."""

    features: Sequence[str] = ()
    """Those that are told there."""
    vectors: int = 0
    wrong: int = 0
    """Vectors in which anything differs."""
    mismatches: Counter[str] = field(default_factory=Counter)
    """By feature."""
    unjudged: Counter[str] = field(default_factory=Counter)
    """By feature: values that are nothing but rounding, so that any would do."""
    not_compared: Counter[str] = field(default_factory=Counter)
    """Predictions and events that could not be compared, by why."""
    explanations: list[Explanation] = field(default_factory=list)

    def ratio(self, feature: str) -> float:
        """The share of the compared vectors in which a feature differs."""
        return self.mismatches[feature] / self.vectors if self.vectors else 0.0


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was found about an app."""

    share: float
    events: int = 0
    """Records of the source topics that were read."""
    sampled: int = 0
    """Events of entities in the sample."""
    pipelines: dict[str, PipelineFindings] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    """The first ones of every feature."""
    not_audited: dict[str, str] = field(default_factory=dict)
    """Pipelines that cannot be audited, and why."""

    def clean(self) -> bool:
        """Whether nothing differs."""
        return not any(one.wrong for one in self.pipelines.values())

    def compared(self) -> int:
        """How many vectors were."""
        return sum(one.vectors for one in self.pipelines.values())
