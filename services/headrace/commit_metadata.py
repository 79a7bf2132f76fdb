"""What travels beside a committed offset, as text: the watermark of the partition at that offset (pure).

    {"v":1,"wm":1372636800000}

A broker keeps at most 4,096 bytes of it. An offset that somebody else committed (a reset by hand) carries other text or none: then the
watermark is not known.
"""

from __future__ import annotations

import json

from headrace.types import Position

VERSION = 1


def as_text(position: Position) -> str:
    """The metadata to commit with a position."""
    if position.watermark_ms is None:
        return f'{{"v":{VERSION}}}'
    return f'{{"v":{VERSION},"wm":{position.watermark_ms}}}'


def position(offset: int, text: str | None) -> Position:
    """The position that was committed as this offset with this text."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return Position(offset=offset, watermark_ms=None)
    known = isinstance(found, dict) and found.get("v") == VERSION and type(found.get("wm")) is int
    return Position(offset=offset, watermark_ms=found["wm"] if known else None)
