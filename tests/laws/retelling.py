"""What corrections must say, by naive means: every event out of order sorts the log of its entity and folds all of it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.features.retained_view import RetainedView
from tests.unit.features.folding import Folded, bits, offsets_of
from tests.unit.features.naive import Happening


class Told(NamedTuple):
    """A correction: what caused it and what it is about, both as (partition, offset), which one of that event, and the vector's bits."""

    cause: tuple[int, int]
    about: tuple[int, int]
    revision: int
    vector: tuple[int, ...]


@dataclass
class _Kept:
    """An entity: its retained events as (time, offset, number in the log), and those that are settled, as they settled."""

    retained: list[tuple[int, int, int]] = field(default_factory=list)
    settled: list[tuple[int, int, int]] = field(default_factory=list)
    newest_ms: int | None = None

    def settle(self, horizon_ms: int, most: int) -> None:
        while self.retained and (self.retained[0][0] <= horizon_ms or len(self.retained) > most):
            self.settled.append(self.retained.pop(0))


def retold(view: RetainedView, happenings: Sequence[Happening]) -> list[Told]:
    """All corrections of a log, in the order of what caused them."""
    watermarks: dict[int, int] = {}
    entities: dict[tuple[int, str], _Kept] = {}
    revisions: dict[int, int] = {}
    offsets = offsets_of(happenings)
    found = []

    def vectors(kept: _Kept) -> dict[int, tuple[int, ...]]:
        line = [*kept.settled, *kept.retained]
        folded = _folded(view, [happenings[number] for _, _, number in line])
        return {number: vector for (_, _, number), vector in list(zip(line, folded, strict=True))[len(kept.settled) :]}

    for number, (one, offset) in enumerate(zip(happenings, offsets, strict=True)):
        watermark_ms = watermarks.get(one.partition, one.time_ms)
        if one.time_ms < watermark_ms - view.source.lateness_ms:
            continue
        watermarks[one.partition] = max(watermark_ms, one.time_ms)
        kept = entities.setdefault((one.partition, one.entity), _Kept())
        kept.settle(watermarks[one.partition] - view.source.lateness_ms, view.most)
        if kept.newest_ms is None or one.time_ms >= kept.newest_ms:
            kept.newest_ms = one.time_ms
            kept.retained.append((one.time_ms, offset, number))
            kept.settle(watermarks[one.partition] - view.source.lateness_ms, view.most)
            continue
        before = vectors(kept)
        crowded = any(time_ms > one.time_ms for time_ms, _, _ in kept.settled)
        if crowded:
            kept.settled.append((one.time_ms, offset, number))
        else:
            kept.retained = sorted([*kept.retained, (one.time_ms, offset, number)])
        for which, vector in vectors(kept).items():
            if happenings[which].time_ms > one.time_ms and vector == before[which]:
                continue
            if happenings[which].time_ms > one.time_ms or which == number:
                revisions[which] = revisions.get(which, 0) + 1
                found.append(Told((one.partition, offset), (one.partition, offsets[which]), revisions[which], vector))
        kept.settle(watermarks[one.partition] - view.source.lateness_ms, view.most)
    return found


def _folded(view: RetainedView, line: Sequence[Happening]) -> list[tuple[int, ...]]:
    """The vectors of events in the order given, none of them late."""
    return [tuple(row) for row in bits(Folded(view.views, line).values)] if line else []
