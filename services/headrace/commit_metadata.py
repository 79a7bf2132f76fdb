"""What travels beside a committed offset, as text: the watermark of the partition at that offset (pure).

    {"v":1,"wm":1372636800000,"ep":{"late_arrival":"3f9a2b1c.57"}}

The watermark of a hop is a text: that of each partition that feeds it (`types.watermark_text`). `ep` says by which state of the registry
each pipeline that scores there scores from the offset on; it is left out where models do not come from a registry. A broker keeps at most
4,096 bytes of all that. An offset that somebody else committed (a reset by hand) carries other text or none: then nothing of it is known.
"""

from __future__ import annotations

import json

from headrace.types import HopWatermark, Position, watermark_of, watermark_text

VERSION = 1


def as_text(position: Position) -> str:
    """The metadata to commit with a position."""
    told: dict[str, object] = {"v": VERSION}
    if position.watermark_ms is not None:
        of_hop = isinstance(position.watermark_ms, HopWatermark)
        told["wm"] = watermark_text(position.watermark_ms) if of_hop else int(position.watermark_ms)
    if position.epochs:
        told["ep"] = dict(position.epochs)
    return json.dumps(told, separators=(",", ":"))


def position(offset: int, text: str | None) -> Position:
    """The position that was committed as this offset with this text."""
    try:
        found = json.loads(text or "")
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("v") != VERSION:
        return Position(offset=offset, watermark_ms=None)
    return Position(offset=offset, watermark_ms=_watermark(found.get("wm")), epochs=_epochs(found.get("ep")))


def _watermark(told: object) -> int | None:
    if type(told) is not int and not (isinstance(told, str) and "," in told):
        return None
    try:
        return watermark_of(str(told))
    except ValueError:
        return None


def _epochs(told: object) -> dict[str, str]:
    return {str(name): mark for name, mark in told.items() if isinstance(mark, str)} if isinstance(told, dict) else {}
