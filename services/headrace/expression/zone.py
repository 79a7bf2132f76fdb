"""Clocks of places: which hour and weekday an instant is there, for whole columns.

The rules come from the PyPI package `tzdata` and never from the operating system, so machines agree as far as that package does; its
version is pinned in `deploy/requirements.txt`. A zone becomes a table of instants at which its clock is set and of what it is ahead of UTC
from there on; instants are looked up in it. The hash of the table is part of the canonical form: rules that changed are another definition,
with a state of its own.

Limits: instants of the years 2000 to 2100 only, those that are believed of event times; others have no hour, so seconds that were taken for
milliseconds have none. What will be is as the rules stand today.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np

from headrace.errors import DefinitionError
from headrace.types import Bools, Float64s, Int64s

FIRST_MS, LAST_MS = 946_684_800_000, 4_102_444_800_000
"""2000-01-01 and 2100-01-01, UTC."""
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
_WEEK_S = 604_800
_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_COUNTS = struct.Struct(">4sc15x6L")
"""What a block of a TZif file (RFC 9636) begins with: magic, version, and how many of everything."""
_THURSDAY = 3
"""What 1970-01-01 was, counted from Monday."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Zone:
    """A time zone: from `starts_ms[i]` on its clock is `ahead_ms[i]` ahead of UTC."""

    name: str
    starts_ms: Int64s
    ahead_ms: Int64s

    def canonical(self) -> dict[str, object]:
        """Its name and the hash of its rules."""
        rules = [self.starts_ms.tolist(), self.ahead_ms.tolist()]
        return {"zone": self.name, "rules": hashlib.sha256(repr(rules).encode("ascii")).hexdigest()}

    def __str__(self) -> str:
        return repr(self.name)

    def hour(self, instants_ms: Float64s) -> Float64s:
        """The hour on its clock, 0 to 23."""
        known, local_ms = self._local(instants_ms)
        return np.where(known, (local_ms // _HOUR_MS % 24).astype(np.float64), np.nan)

    def weekday(self, instants_ms: Float64s) -> Float64s:
        """The day of its week, 0 (Monday) to 6."""
        known, local_ms = self._local(instants_ms)
        return np.where(known, ((local_ms // _DAY_MS + _THURSDAY) % 7).astype(np.float64), np.nan)

    def _local(self, instants_ms: Float64s) -> tuple[Bools, Int64s]:
        known = (instants_ms >= FIRST_MS) & (instants_ms <= LAST_MS)
        at_ms = np.where(known, np.floor(instants_ms), FIRST_MS).astype(np.int64)
        return known, at_ms + self.ahead_ms[np.searchsorted(self.starts_ms, at_ms, side="right") - 1]


@lru_cache(maxsize=64)
def zone_of(name: str) -> Zone:
    """The zone of that name, such as "America/New_York" or "UTC". Raises `DefinitionError`."""
    rules = _rules(name)
    settings = dict(_settings(rules))
    settings |= dict(_settings_after(ZoneInfo.from_file(BytesIO(rules), key=name), max(*settings, FIRST_MS // 1000)))
    begun = max(at for at in settings if at <= FIRST_MS // 1000)
    clock = [(FIRST_MS // 1000, settings[begun])]
    clock.extend((at, ahead) for at, ahead in sorted(settings.items()) if begun < at <= LAST_MS // 1000)
    kept = [clock[0], *(now for before, now in pairwise(clock) if now[1] != before[1])]
    table = np.array(kept, dtype=np.int64) * 1000
    return Zone(name=name, starts_ms=table[:, 0].copy(), ahead_ms=table[:, 1].copy())


def _rules(name: str) -> bytes:
    """The TZif file of a zone."""
    folder = files("tzdata") / "zoneinfo"
    file = folder.joinpath(*name.split("/")) if _NAME.fullmatch(name) else folder
    rules = file.read_bytes() if file.is_file() else b""
    if not rules.startswith(b"TZif"):
        names = (files("tzdata") / "zones").read_text(encoding="ascii").split()
        near = " or ".join(map(repr, get_close_matches(name, names, n=3))) or "for example 'America/New_York' or 'UTC'"
        raise DefinitionError(f"tz={name!r} is no time zone; write {near}")
    return rules


def _settings(rules: bytes) -> Iterator[tuple[int, int]]:
    """When the clock was set, in seconds, and what it is ahead from then on, as the file lists them."""
    _, _, *first = _COUNTS.unpack_from(rules)
    begin = _COUNTS.size + _length(first, 4)
    _, _, *counts = _COUNTS.unpack_from(rules, begin)
    times, kinds = counts[3], counts[4]
    begin += _COUNTS.size
    instants = struct.unpack_from(f">{times}q", rules, begin)
    kind_of = rules[begin + 8 * times : begin + 9 * times]
    ahead = [struct.unpack_from(">l", rules, begin + 9 * times + 6 * kind)[0] for kind in range(kinds)]
    yield -(1 << 62), ahead[0]
    for instant, kind in zip(instants, kind_of, strict=True):
        yield instant, ahead[kind]


def _length(counts: list[int], bytes_a_time: int) -> int:
    """How long a block is behind its counts."""
    ut, standard, leaps, times, kinds, letters = counts
    return times * (bytes_a_time + 1) + kinds * 6 + letters + leaps * (bytes_a_time + 4) + standard + ut


def _settings_after(zone: ZoneInfo, begin: int) -> Iterator[tuple[int, int]]:
    """How the clock goes on from `begin` by the rule at the end of the file: looked at weekly, which no such rule outruns, then halved."""
    at, ahead = begin, _ahead(zone, begin)
    yield at, ahead
    while at < LAST_MS // 1000:
        after = at + _WEEK_S
        then = _ahead(zone, after)
        if then != ahead:
            low, high = at, after
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _ahead(zone, middle) == ahead else (low, middle)
            yield high, then
        at, ahead = after, then


def _ahead(zone: ZoneInfo, at: int) -> int:
    there = datetime.fromtimestamp(at, zone)
    return int((there.replace(tzinfo=UTC) - datetime.fromtimestamp(at, UTC)).total_seconds())
