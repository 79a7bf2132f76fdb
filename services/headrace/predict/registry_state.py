"""All that the registry knows at one offset, and the JSON of a snapshot of it (pure)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from headrace.predict.commands import Plain
from headrace.predict.moves import Role
from headrace.predict.outcomes import Outcomes
from headrace.predict.roles import Roster
from headrace.predict.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The last command that was taken for a pipeline."""

    offset: int
    at_ms: int
    by: str
    did: str


@dataclass(slots=True, kw_only=True)
class PipelineState:
    """What is known of a pipeline's versions."""

    last: Last
    epoch: int = 0
    """The offset behind the last command that changed who scores."""
    versions: dict[str, Version] = field(default_factory=dict)
    """By name, in the order of registration."""
    champions: list[str] = field(default_factory=list)
    """Who was promoted, one after another; what was rolled back, or retired by hand, is not among them. The champion is the last."""

    def roster(self) -> Roster:
        """Who scores."""
        challenger = self.holder(Role.CHALLENGER)
        return Roster(
            champion=self.holder(Role.CHAMPION),
            challenger=challenger,
            share=0.0 if challenger is None else self.versions[challenger].share or 0.0,
            shadows=tuple(one.version for one in self.versions.values() if one.role is Role.SHADOW),
        )

    def holder(self, role: Role) -> str | None:
        """The first version with a role."""
        return next((one.version for one in self.versions.values() if one.role is role), None)

    def before(self) -> str | None:
        """The version that a rollback would bring back."""
        behind = self.champions if self.holder(Role.CHAMPION) is None else self.champions[:-1]
        return behind[-1] if behind else None


@dataclass(slots=True, kw_only=True)
class State:
    """What the fold knows."""

    pipelines: dict[str, PipelineState] = field(default_factory=dict)
    outcomes: Outcomes = field(default_factory=Outcomes)
    epoch: int = 0
    end: int = 0

    def as_plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "end": self.end,
            "epoch": self.epoch,
            "pipelines": {
                name: {
                    "last": asdict(one.last),
                    "epoch": one.epoch,
                    "champions": one.champions,
                    "versions": [version.as_plain() for version in one.versions.values()],
                }
                for name, one in self.pipelines.items()
            },
            "outcomes": self.outcomes.as_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> State:
        """What `as_plain` told. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` for anything else."""
        return cls(
            pipelines={name: _pipeline(one) for name, one in plain["pipelines"].items()},
            outcomes=Outcomes.from_plain(plain["outcomes"]),
            epoch=int(plain["epoch"]),
            end=int(plain["end"]),
        )


def _pipeline(plain: Plain) -> PipelineState:
    versions = [Version.from_plain(one) for one in plain["versions"]]
    return PipelineState(
        last=Last(**plain["last"]),
        epoch=int(plain["epoch"]),
        versions={one.version: one for one in versions},
        champions=[str(one) for one in plain["champions"]],
    )
