"""Which loaded models answer for which events, and in which role (pure).

Casting   what a path asks before it scores: the casts of some events of a pipeline. A worker has one cast at a time; `verify` reads
          from the facts which one it was at each offset.
Cast      a roster whose versions are loaded
Part      a model, a role, and the events that it scores in it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.predict.roles import challenged
from headrace.predict.scores import Model
from headrace.types import Int32s, Int64s, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one model scores in one role: these events, None for all."""

    model: Model
    role: Role
    events: Int64s | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """The models of a pipeline that answer."""

    champion: Model
    challenger: Model | None = None
    share: float = 0.0
    """The share of entities that the challenger answers for."""
    shadows: tuple[Model, ...] = ()

    def models(self) -> list[Model]:
        """All of them."""
        return [self.champion, *([] if self.challenger is None else [self.challenger]), *self.shadows]

    def parts(self, pipeline: str, entities: Callable[[], Sequence[str]]) -> list[Part]:
        """Who scores the events of these entities: each is published once, by champion or challenger, and shadowed as said there."""
        shadows = [Part(model=model, role="shadow") for model in self.shadows]
        if self.challenger is None:
            return [Part(model=self.champion, role="champion"), *shadows]
        drawn = challenged(pipeline, self.challenger.version, self.share, entities())
        its, rest = np.flatnonzero(drawn), np.flatnonzero(~drawn)
        return [
            Part(model=self.champion, role="champion", events=rest),
            Part(model=self.challenger, role="challenger", events=its),
            Part(model=self.champion, role="shadow", events=its),
            *shadows,
        ]


class Casting(Protocol):
    """What a path asks before it scores."""

    def casts(self, pipeline: str, partitions: Int32s, offsets: Int64s) -> Sequence[tuple[Cast, Int64s | None]]:
        """The casts that score the events at these places, and which of the events each scores, in their order; None: all."""

    def model_name(self, pipeline: str) -> str:
        """The name that all versions of a pipeline's model have."""


class Pinned:
    """Models that never change: by pipeline."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._casts = {name: Cast(champion=model) for name, model in models.items()}

    def casts(self, pipeline: str, partitions: Int32s, offsets: Int64s) -> Sequence[tuple[Cast, Int64s | None]]:
        """The only one there is."""
        del partitions, offsets
        return [(self._casts[pipeline], None)]

    def model_name(self, pipeline: str) -> str:
        """That of its only model."""
        return self._casts[pipeline].champion.name
