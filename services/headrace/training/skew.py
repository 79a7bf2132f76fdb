"""Two frames of the same events, row by row: what was served, and what files give.

From topics a frame is what was served, bit for bit. Files have no offsets: events of one instant may stand in another order, one that came
late in the topic comes in time in a file, one that is missing in the file is missing in its features. So floats agree to 1e-9, and rows
that do not are counted, by feature. Rows are met by entity and event time; of several with both alike, the first meets the first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

from headrace.errors import DefinitionError
from headrace.training.frame import TrainingFrame
from headrace.types import Int64s

TOLERANCE = 1e-9
"""Relative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """How far two frames agree."""

    rows: int
    """Rows that both have."""
    only_one: int
    """Rows the first has alone."""
    only_other: int
    differing: int
    """Rows of both in which a feature is further apart than a billionth."""
    late: int
    """Of those that differ, the ones that came late in the first."""
    by_feature: dict[str, int]
    """In how many rows each differs; only those that do."""

    def counts(self) -> dict[str, object]:
        """As plain JSON."""
        return asdict(self)


def skew(one: TrainingFrame, other: TrainingFrame) -> Skew:
    """Compare two frames with a row an event. Raises `DefinitionError` for frames of other features."""
    if one.names != other.names:
        raise DefinitionError("these frames have other features: they are not of one definition")
    mine, theirs = _meet(one, other)
    a, b = one.values[mine], other.values[theirs]
    with np.errstate(invalid="ignore"):
        close = np.abs(a - b) <= TOLERANCE * np.maximum(np.abs(a), np.abs(b))
    apart = ~(close | (np.isnan(a) & np.isnan(b)))
    rows = apart.any(axis=1)
    late = one.table["_late"].to_numpy()[mine]
    counts = apart.sum(axis=0).tolist()
    return Skew(
        rows=len(mine),
        only_one=len(one) - len(mine),
        only_other=len(other) - len(mine),
        differing=int(rows.sum()),
        late=int((rows & late).sum()),
        by_feature={name: count for name, count in zip(one.names, counts, strict=True) if count},
    )


def _meet(one: TrainingFrame, other: TrainingFrame) -> tuple[Int64s, Int64s]:
    """The numbers of the rows that belong together."""
    places = {key: row for row, key in enumerate(_keys(other))}
    found = [(row, places[key]) for row, key in enumerate(_keys(one)) if key in places]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _keys(frame: TrainingFrame) -> list[tuple[str, int, int]]:
    """Who, when, and the how many-th of those."""
    if "_event_time" not in frame.table.column_names:
        raise DefinitionError("a frame of answers has no events to compare; leave `at` out")
    times_ms = frame.table["_event_time"].cast("int64").to_pylist()
    seen: Counter[tuple[str, int]] = Counter()
    keys = []
    for entity, time_ms in zip(frame.table["_entity"].to_pylist(), times_ms, strict=True):
        keys.append((entity, time_ms, seen[entity, time_ms]))
        seen[entity, time_ms] += 1
    return keys
