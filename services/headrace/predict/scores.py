"""What the path asks of a model, whatever runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from headrace.types import Float64s


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One score per vector, and those for which there is none: (index of the vector, what is wrong)."""

    scores: Float64s
    refused: list[tuple[int, str]]


class Explains(Protocol):
    """What tells how much each feature contributed to a score."""

    @property
    def mean(self) -> float:
        """What a score is explained from: contributions add up to its margin less this."""

    def contributions(self, values: Float64s) -> Float64s:
        """Contributions to the margin, [events, features], of feature vectors as `Model.score` takes them."""


@runtime_checkable
class Explained(Protocol):
    """A model that was loaded with what explains its scores."""

    @property
    def explainer(self) -> Explains | None:
        """None where nobody asked for it."""


class Model(Protocol):
    """A model version that is loaded and warm."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """Its version."""

    def score(self, values: Float64s) -> Scores:
        """Score feature vectors, float64 [events, features] in the order of the signature."""


def explainer_of(model: Model) -> Explains | None:
    """What explains the scores of a model; None for one that was loaded without, and for what is no model, as a fallback score."""
    return model.explainer if isinstance(model, Explained) else None
