"""A span of a log: from where up to, not with, where, by event time or by offsets.

By offsets it is of the partitions that are named, and of no others; those of a table are the numbers of its rows, in partition 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from headrace.errors import DefinitionError
from headrace.types import Bools, Int32s, Int64s

Bound = int | datetime | str | Mapping[int, int] | Sequence[str]
"""An instant: milliseconds UTC, a datetime, or ISO 8601 (UTC where it names no zone); or offsets by partition, also as `2:1500` each."""

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_OFFSET = re.compile(r"(\d{1,9}):(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which events are meant; made with nothing, all of them."""

    begin_ms: int | None = None
    end_ms: int | None = None
    begins: Mapping[int, int] = field(default_factory=dict)
    """The first offset, by partition."""
    ends: Mapping[int, int] = field(default_factory=dict)
    """The offset behind the last one."""

    @property
    def whole(self) -> bool:
        """Whether all events are meant."""
        return self == Span()

    def inside(self, times_ms: Int64s, partitions: Int32s, offsets: Int64s) -> Bools:
        """Which events lie in it."""
        found = np.ones(len(times_ms), dtype=np.bool_)
        if self.begin_ms is not None:
            found &= times_ms >= self.begin_ms
        if self.end_ms is not None:
            found &= times_ms < self.end_ms
        named = self.begins.keys() | self.ends.keys()
        if named:
            found &= np.isin(partitions, sorted(named))
        for number in named:
            mine = partitions == number
            found &= ~mine | ((offsets >= self.begins.get(number, 0)) & (offsets < self.ends.get(number, np.iinfo(np.int64).max)))
        return found

    def check(self, partitions: Callable[[], Collection[int]]) -> None:
        """Raises `DefinitionError` where it names a partition that is not there; they are asked for only if it names any."""
        named = sorted(self.begins.keys() | self.ends.keys())
        there = sorted(partitions()) if named else []
        for number in named:
            if number not in there:
                raise DefinitionError(f"scenario: there is no partition {number} to take offsets of; there are {there[0]} to {there[-1]}")


def span_of(begin: Bound | None, end: Bound | None, *, of: str = "scenario") -> Span:
    """The span between two bounds, `of` what. Raises `DefinitionError` for what is no bound, and where nothing can lie between them."""
    begin_ms, begins = _bound(begin, f"{of}: begin")
    end_ms, ends = _bound(end, f"{of}: end")
    if begin_ms is not None and end_ms is not None and begin_ms >= end_ms:
        raise DefinitionError(f"{of}: it ends ({end!r}) before it begins ({begin!r}); nothing lies between")
    for number in begins.keys() & ends.keys():
        if begins[number] >= ends[number]:
            raise DefinitionError(f"{of}: of partition {number} it ends at {ends[number]}, where it begins at {begins[number]}")
    return Span(begin_ms=begin_ms, end_ms=end_ms, begins=begins, ends=ends)


def _bound(given: Bound | None, where: str) -> tuple[int | None, dict[int, int]]:
    """An instant, or offsets."""
    match given:
        case None:
            found: tuple[int | None, dict[int, int]] = None, {}
        case int() if not isinstance(given, bool):
            found = given, {}
        case datetime():
            found = _ms(given), {}
        case str():
            found = _written(given, where)
        case Mapping():
            found = None, dict(given)
        case Sequence():
            found = _all_written(given, where)
        case _:
            raise DefinitionError(f"{where}={given!r} is neither an instant nor offsets by partition")
    return found


def _all_written(given: Sequence[str], where: str) -> tuple[int | None, dict[int, int]]:
    if len(given) == 1:
        return _written(given[0], where)
    found: dict[int, int] = {}
    for one in given:
        instant, offsets = _written(one, where)
        if instant is not None or offsets.keys() & found.keys():
            raise DefinitionError(f"{where}={one!r}: give one instant, or one offset for each of several partitions")
        found |= offsets
    return None, found


def _written(text: str, where: str) -> tuple[int | None, dict[int, int]]:
    offset = _OFFSET.fullmatch(text)
    if offset is not None:
        return None, {int(offset[1]): int(offset[2])}
    if text.isascii() and text.isdigit():
        return int(text), {}
    try:
        return _ms(datetime.fromisoformat(text)), {}
    except ValueError:
        raise DefinitionError(
            f"{where}={text!r} is neither an instant, such as 2026-01-31T12:00 or 1769860800000, nor an offset of a partition, "
            "such as 2:1500"
        ) from None


def _ms(instant: datetime) -> int:
    return ((instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
