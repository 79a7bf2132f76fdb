"""What travels beside a committed offset, as text: the watermark of the partition at that offset (pure).

    {"v":1,"wm":1372636800000}

Of a hop it is a text: the watermark of each partition that feeds it (`types.watermark_text`). A broker keeps at most 4,096 bytes of it. An
offset that somebody else committed (a reset by hand) carries other text or none: then the watermark is not known.
"""

from __future__ import annotations

import json

from headrace.types import HopWatermark, Position, watermark_of, watermark_text

VERSION = 1


def as_text(position: Position) -> str:
    """The metadata to commit with a position."""
    if position.watermark_ms is None:
        return f'{{"v":{VERSION}}}'
    text = watermark_text(position.watermark_ms)
    return f'{{"v":{VERSION},"wm":"{text}"}}' if isinstance(position.watermark_ms, HopWatermark) else f'{{"v":{VERSION},"wm":{text}}}'


def position(offset: int, text: str | None) -> Position:
    """The position that was committed as this offset with this text."""
    try:
        found = json.loads(text or "")
        told = found.get("wm") if isinstance(found, dict) and found.get("v") == VERSION else None
        known = type(told) is int or (isinstance(told, str) and "," in told)
        return Position(offset=offset, watermark_ms=watermark_of(str(told)) if known else None)
    except ValueError:
        return Position(offset=offset, watermark_ms=None)
