"""The stupid twin of the fold: for every event it looks at all events again. Slow, and obviously right.

`plainly` asks the mathematics, which the audit knows (`headrace.audit.twin`). `exactly` asks for the bits: it sorts the numbers into panes
and merges these from the oldest to the newest, from scratch for every event.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.audit.twin import Answer, Given, Taken, newest, plainly, taken
from headrace.features.view import Feature
from headrace.types import NO_WATERMARK_MS, Float64s
from tests.unit.features import naive_kinds

Columns = dict[str, NDArray[np.float64] | NDArray[np.object_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An event as a test writes it; an absent number is NaN, an absent text None."""

    entity: str
    time_ms: int
    partition: int = 0
    columns: dict[str, float | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the twin says of one event: whether it was late, as of when, and the events (by number) its entity had before and has now."""

    late: bool
    as_of_ms: int
    before: list[int]
    after: list[int]


def columns_of(happenings: Sequence[Happening]) -> Columns:
    """The fields of all events, as columns."""
    columns: Columns = {}
    for name in happenings[0].columns if happenings else ():
        found = [one.columns[name] for one in happenings]
        text = any(value is None or isinstance(value, str) for value in found)
        columns[name] = np.array(found, dtype=object) if text else np.array(found, dtype=np.float64)
    return columns


class Twin:
    """The fold of a log from its start, thought through again for every event."""

    def __init__(self, happenings: Sequence[Happening], lateness_ms: int) -> None:
        self.happenings = happenings
        self.seen = _watch(happenings, lateness_ms)
        self._numbers: dict[str, list[float]] = {}
        self._given: dict[str, list[float | str | None]] = {}

    def vector(self, features: Sequence[Feature], event: int) -> list[float]:
        """The features as of an event, to the bit."""
        return [self.exactly(feature, event) for feature in features]

    def plainly(self, feature: Feature, event: int) -> Answer:
        """The feature's value, by the book, and how far off the fold may be."""
        given, seen = self.given(feature), self.seen[event]
        before, after = ([Given(self.happenings[one].time_ms, given[one]) for one in some] for some in (seen.before, seen.after))
        return plainly(feature, before, after, given[event], seen.as_of_ms)

    def exactly(self, feature: Feature, event: int) -> float:
        """The feature's value, in the order the fold promises, from scratch."""
        if feature.aggregation.of == "newest":
            return self._newest(feature, event)
        if feature.aggregation.of != "moments":
            return naive_kinds.exactly(feature, self._taken(feature, event), self.seen[event].as_of_ms)
        panes: dict[int, list[float]] = {}
        for pane, number in self._visible(feature, event):
            panes.setdefault(pane, []).append(number)
        whole: tuple[float, ...] | None = None
        for _, numbers in sorted(panes.items()):
            amount: tuple[float, ...] | None = None
            for number in numbers:
                amount = _merged(amount, (1.0, number, 0.0, number, number))
            assert amount is not None
            whole = _merged(whole, amount)
        if whole is None:
            return feature.empty
        count, total, squares, low, high = whole
        scored = self.numbers(feature)[event]
        return {
            "count": count,
            "rate": count / (feature.window_ms / 1000),
            "var": squares / count,
            "z_score": (scored - total / count) / math.sqrt(squares / count) if squares > 0 and not math.isnan(scored) else feature.empty,
            "sum": total,
            "mean": total / count,
            "share": total / count,
            "min": low,
            "max": high,
            "std": math.sqrt(squares / count),
        }[feature.aggregation.name]

    def _visible(self, feature: Feature, event: int) -> list[tuple[int, float]]:
        """Pane and number of everything the window may see, in the order of offsets."""
        head = self.seen[event].as_of_ms // feature.pane_ms
        oldest = head - feature.window_ms // feature.pane_ms
        numbers = self.numbers(feature)
        found = [(self.happenings[one].time_ms // feature.pane_ms, numbers[one]) for one in self.seen[event].after]
        return [(pane, number) for pane, number in found if pane >= oldest and not math.isnan(number)]

    def _taken(self, feature: Feature, event: int) -> list[Taken]:
        """Everything in its window that gives the feature something, in the order of offsets."""
        given = self.given(feature)
        after = [Given(self.happenings[one].time_ms, given[one]) for one in self.seen[event].after]
        return taken(feature, after, self.seen[event].as_of_ms)

    def given(self, feature: Feature) -> list[float | str | None]:
        """What each event gives to a feature, before it is turned into a bin, a place or a hash."""
        if feature.name not in self._given:
            self._given[feature.name] = self._all_given(feature)
        return self._given[feature.name]

    def _all_given(self, feature: Feature) -> list[float | str | None]:
        columns = columns_of(self.happenings)
        if feature.value is None or feature.value.column(columns).dtype != object:
            return [None if math.isnan(number) else number for number in self.numbers(feature)]
        holds = np.ones(len(self.happenings)) if feature.where is None else feature.where.evaluate(columns)
        return [value if hold == 1.0 else None for value, hold in zip(feature.value.column(columns), holds, strict=True)]

    def _newest(self, feature: Feature, event: int) -> float:
        given, seen = self.given(feature), self.seen[event]
        return newest(feature, [Given(self.happenings[one].time_ms, given[one]) for one in seen.before], seen.as_of_ms)

    def numbers(self, feature: Feature) -> list[float]:
        """What each event gives to a feature; NaN where it gives nothing."""
        if feature.name not in self._numbers:
            columns = columns_of(self.happenings)
            count = len(self.happenings)
            value: Float64s = np.ones(count) if feature.value is None else feature.value.evaluate(columns)
            holds = np.ones(count) if feature.where is None else feature.where.evaluate(columns)
            self._numbers[feature.name] = np.where(holds == 1.0, value, math.nan).tolist()
        return self._numbers[feature.name]


def _watch(happenings: Sequence[Happening], lateness_ms: int) -> list[Seen]:
    """The life of each partition and entity, event by event."""
    watermarks: dict[int, int] = {}
    taken: dict[tuple[int, str], list[int]] = {}
    seen = []
    for number, one in enumerate(happenings):
        watermark_ms = watermarks.get(one.partition, NO_WATERMARK_MS)
        late = one.time_ms < watermark_ms - lateness_ms
        watermarks[one.partition] = max(watermark_ms, one.time_ms)
        mine = taken.setdefault((one.partition, one.entity), [])
        before = list(mine)
        if not late:
            mine.append(number)
        newest_ms = max((happenings[other].time_ms for other in mine), default=NO_WATERMARK_MS)
        as_of_ms = max(one.time_ms, newest_ms, watermarks[one.partition] - lateness_ms)
        seen.append(Seen(late=late, as_of_ms=as_of_ms, before=before, after=list(mine)))
    return seen


def _merged(older: tuple[float, ...] | None, newer: tuple[float, ...]) -> tuple[float, ...]:
    """Chan, Golub and LeVeque (1979)."""
    if older is None:
        return newer
    n, m = older[0], newer[0]
    apart = n * newer[1] - m * older[1]
    return (
        n + m,
        older[1] + newer[1],
        older[2] + newer[2] + apart * apart / (n * m * (n + m)),
        min(older[3], newer[3]),
        max(older[4], newer[4]),
    )
