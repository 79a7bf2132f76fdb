"""What corrections must say, by naive means: every event out of order sorts the log of its entity and folds all of it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Vector = tuple[int | float | None, ...]
Fold = Callable[[Sequence[int]], Sequence[Vector]]
"""The vectors of events of one entity, named by their numbers in the log, told in the order given."""


class Moment(NamedTuple):
    """An event of the log: where it stands, whose it is and when it was."""

    partition: int
    offset: int
    entity: str
    time_ms: int


class Told(NamedTuple):
    """A correction: what caused it and what it is about, both as (partition, offset), which one of that event, and the vector."""

    cause: tuple[int, int]
    about: tuple[int, int]
    revision: int
    vector: Vector


@dataclass
class _Kept:
    """An entity: its retained events as (time, offset, number in the log), and those that are settled, as they settled."""

    retained: list[tuple[int, int, int]] = field(default_factory=list)
    settled: list[tuple[int, int, int]] = field(default_factory=list)
    newest_ms: int | None = None

    def settle(self, horizon_ms: int, most: int) -> None:
        while self.retained and (self.retained[0][0] <= horizon_ms or len(self.retained) > most):
            self.settled.append(self.retained.pop(0))

    def vectors(self, fold: Fold) -> dict[int, Vector]:
        """Of what is retained, by number."""
        numbers = [number for _, _, number in (*self.settled, *self.retained)]
        return dict(list(zip(numbers, fold(numbers), strict=True))[len(self.settled) :])


def retold(log: Sequence[Moment], fold: Fold, *, lateness_ms: int, most: int) -> list[Told]:
    """All corrections of a log; those of one cause in the order of the times of what they are about."""
    watermarks: dict[int, int] = {}
    entities: dict[tuple[int, str], _Kept] = {}
    revisions: dict[int, int] = {}
    found = []
    for number, one in enumerate(log):
        watermark_ms = watermarks.get(one.partition, one.time_ms)
        if one.time_ms < watermark_ms - lateness_ms:
            continue
        watermarks[one.partition] = max(watermark_ms, one.time_ms)
        horizon_ms = watermarks[one.partition] - lateness_ms
        kept = entities.setdefault((one.partition, one.entity), _Kept())
        kept.settle(horizon_ms, most)
        if kept.newest_ms is None or one.time_ms >= kept.newest_ms:
            kept.newest_ms = one.time_ms
            kept.retained.append((one.time_ms, one.offset, number))
            kept.settle(horizon_ms, most)
            continue
        before = kept.vectors(fold)
        if any(time_ms > one.time_ms for time_ms, _, _ in kept.settled):
            kept.settled.append((one.time_ms, one.offset, number))
        else:
            kept.retained = sorted([*kept.retained, (one.time_ms, one.offset, number)])
        for which, vector in kept.vectors(fold).items():
            if which == number or (log[which].time_ms > one.time_ms and vector != before[which]):
                revisions[which] = revisions.get(which, 0) + 1
                found.append(Told((one.partition, one.offset), (one.partition, log[which].offset), revisions[which], vector))
        kept.settle(horizon_ms, most)
    return found
