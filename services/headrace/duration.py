"""Durations as people write them ("90s", "5m", "2h", "3d") and as the code counts them: whole milliseconds."""

from __future__ import annotations

import re

from headrace.errors import DefinitionError

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WRITTEN = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)", re.ASCII)
_LONGEST_MS = 3_660 * _UNITS_MS["d"]


def duration_ms(duration: str | int, *, of: str, least_ms: int = 1) -> int:
    """The milliseconds in `duration`: text such as "90s", "5m", "2h", "3d", or a whole number of milliseconds.

    `of` names what it is the duration of. Raises `DefinitionError` for any other form, below `least_ms` and beyond ten years.
    """
    if isinstance(duration, str):
        written = _WRITTEN.fullmatch(duration.strip())
        if written is None:
            raise DefinitionError(f'{of} is {duration!r}, which is no duration; write for example "90s", "5m", "2h" or "3d"')
        found_ms = int(written[1]) * _UNITS_MS[written[2]]
    elif type(duration) is int:
        found_ms = duration
    else:
        raise DefinitionError(f'{of} is {duration!r}; write a text such as "2h", or whole milliseconds')
    if not least_ms <= found_ms <= _LONGEST_MS:
        raise DefinitionError(f"{of} is {found_ms} ms; it must lie between {least_ms} ms and ten years")
    return found_ms


def duration_text(length_ms: int) -> str:
    """The shortest way to write a duration: 10800000 is "3h"."""
    for unit in ("d", "h", "m", "s"):
        if length_ms and length_ms % _UNITS_MS[unit] == 0:
            return f"{length_ms // _UNITS_MS[unit]}{unit}"
    return f"{length_ms}ms"
