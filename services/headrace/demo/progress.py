"""How far a replay is, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.publish.records import Prediction


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far the replay is; counted when a batch is definite."""

    records: int = 0
    predictions: int = 0
    refused: int = 0
    late: int = 0
    newest_ms: int = 0
    per_second: float = 0.0
    newest: Sequence[tuple[int, Prediction, bytes]] = ()
    """The newest predictions, oldest first, each with the row of its departure and its record's value."""


class Audience(Protocol):
    """Who is shown what happens."""

    def first(self, row: int, prediction: Prediction, value: bytes) -> None:
        """The first prediction is there."""

    def due(self) -> bool:
        """Whether it is time to be told more."""

    def moved(self, progress: Progress) -> None:
        """Some more records are through."""
