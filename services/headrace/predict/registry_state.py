"""All that the registry knows at one offset, and the JSON of a snapshot of it (pure)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from headrace.predict.commands import MOST_BY, MOST_REASON
from headrace.predict.moves import Role
from headrace.predict.outcomes import Outcomes
from headrace.predict.plain_json import Plain, Unreadable, line, rows, table, tables, whole
from headrace.predict.roles import Roster
from headrace.predict.versions import Version

ERA, NO_ERA = 8, "none"
"""How many characters name an era, and what stands there before the first command."""


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
    era: str = NO_ERA
    """Names this life of the control topic: the beginning of the id of the first command that was taken."""
    epoch: int = 0
    end: int = 0

    def as_plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "end": self.end,
            "era": self.era,
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
        """What `as_plain` told. Raises `Unreadable` for anything else."""
        pipelines = table(plain, "pipelines")
        return cls(
            pipelines={name: _pipeline(name, table(pipelines, name)) for name in pipelines},
            outcomes=Outcomes.from_plain(tables(plain, "outcomes")),
            era=line(plain, "era", ERA),
            epoch=whole(plain, "epoch"),
            end=whole(plain, "end"),
        )


def _pipeline(name: str, plain: Plain) -> PipelineState:
    last = table(plain, "last")
    versions = {one.version: one for one in map(Version.from_plain, tables(plain, "versions"))}
    champions = rows(plain, "champions")
    found = PipelineState(
        last=Last(
            offset=whole(last, "offset"), at_ms=whole(last, "at_ms"), by=line(last, "by", MOST_BY), did=line(last, "did", MOST_REASON)
        ),
        epoch=whole(plain, "epoch"),
        versions=versions,
        champions=list(champions),
    )
    roles = [one.role for one in versions.values()]
    champion = found.holder(Role.CHAMPION)
    if (
        any(one.pipeline != name for one in versions.values())
        or any(one not in list(versions) for one in champions)
        or not roles.count(Role.CHALLENGER) <= roles.count(Role.CHAMPION) <= 1
        or (champion is not None and found.champions[-1:] != [champion])
    ):
        raise Unreadable(f"the roles of pipeline {name} do not fit together")
    return found
