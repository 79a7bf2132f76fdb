"""The stupid twin of the fold: for every event it looks at all events again. Slow, and obviously right.

`plainly` asks the mathematics: it collects the numbers a window may see and hands them to `math.fsum` and friends. `exactly` asks for the
bits: it sorts the numbers into panes and merges these from the oldest to the newest, from scratch for every event.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.features.view import Feature
from headrace.types import NO_WATERMARK_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An event as a test writes it; an absent number is NaN, an absent text None."""

    entity: str
    time_ms: int
    partition: int = 0
    columns: dict[str, float | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the twin says of one event: whether it was late, as of when, and the events its entity had before and has now."""

    late: bool
    as_of_ms: int
    before: list[Happening]
    after: list[Happening]


def watch(happenings: Sequence[Happening], lateness_ms: int) -> list[Seen]:
    """The life of each partition and entity, event by event."""
    watermarks: dict[int, int] = {}
    taken: dict[tuple[int, str], list[Happening]] = {}
    seen = []
    for one in happenings:
        watermark_ms = watermarks.get(one.partition, NO_WATERMARK_MS)
        late = one.time_ms < watermark_ms - lateness_ms
        watermarks[one.partition] = max(watermark_ms, one.time_ms)
        mine = taken.setdefault((one.partition, one.entity), [])
        before = list(mine)
        if not late:
            mine.append(one)
        newest_ms = max((other.time_ms for other in mine), default=NO_WATERMARK_MS)
        as_of_ms = max(one.time_ms, newest_ms, watermarks[one.partition] - lateness_ms)
        seen.append(Seen(late=late, as_of_ms=as_of_ms, before=before, after=list(mine)))
    return seen


def number_of(feature: Feature, one: Happening) -> float:
    """What an event gives to a feature; NaN where it gives nothing."""
    columns = {
        name: np.array([value], dtype=object) if value is None or isinstance(value, str) else np.array([value], dtype=np.float64)
        for name, value in one.columns.items()
    }
    if feature.where is not None and feature.where.evaluate(columns)[0] != 1.0:
        return math.nan
    return 1.0 if feature.value is None else float(feature.value.evaluate(columns)[0])


def plainly(feature: Feature, seen: Seen) -> float:
    """The feature's value, by the book."""
    if feature.aggregation.of == "newest":
        return newest(feature, seen)
    numbers = [number for _, number in visible(feature, seen)]
    if not numbers:
        return feature.empty
    mean = math.fsum(numbers) / len(numbers)
    return {
        "count": float(len(numbers)),
        "sum": math.fsum(numbers),
        "mean": mean,
        "share": mean,
        "min": min(numbers),
        "max": max(numbers),
        "std": math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers)),
    }[feature.aggregation.name]


def exactly(feature: Feature, seen: Seen) -> float:
    """The feature's value, in the order the fold promises, from scratch."""
    if feature.aggregation.of == "newest":
        return newest(feature, seen)
    panes: dict[int, list[float]] = {}
    for pane, number in visible(feature, seen):
        panes.setdefault(pane, []).append(number)
    whole: tuple[float, ...] | None = None
    for _, numbers in sorted(panes.items()):
        amount: tuple[float, ...] | None = None
        for number in numbers:
            amount = merged(amount, (1.0, number, 0.0, number, number))
        assert amount is not None
        whole = merged(whole, amount)
    if whole is None:
        return feature.empty
    count, total, squares, low, high = whole
    return {
        "count": count,
        "sum": total,
        "mean": total / count,
        "share": total / count,
        "min": low,
        "max": high,
        "std": math.sqrt(squares / count),
    }[feature.aggregation.name]


def visible(feature: Feature, seen: Seen) -> list[tuple[int, float]]:
    """Pane and number of everything the window may see, in the order of offsets."""
    head = seen.as_of_ms // feature.pane_ms
    oldest = head - feature.window_ms // feature.pane_ms
    numbers = [(one.time_ms // feature.pane_ms, number_of(feature, one)) for one in seen.after]
    return [(pane, number) for pane, number in numbers if pane >= oldest and not math.isnan(number)]


def merged(older: tuple[float, ...] | None, newer: tuple[float, ...]) -> tuple[float, ...]:
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


def newest(feature: Feature, seen: Seen) -> float:
    """The newest event before the scored one that gives the feature something; of two at one time the later one."""
    found: tuple[int, float] | None = None
    for one in seen.before:
        number = number_of(feature, one)
        if not math.isnan(number) and (found is None or one.time_ms >= found[0]):
            found = (one.time_ms, number)
    if found is None or found[0] <= seen.as_of_ms - feature.window_ms:
        return feature.empty
    return found[1] if feature.aggregation.name == "last" else (seen.as_of_ms - found[0]) / 1000.0
