"""The text beside a committed offset."""

from __future__ import annotations

import pytest

from headrace import commit_metadata
from headrace.types import NO_WATERMARK_MS, HopWatermark, Position


@pytest.mark.parametrize(
    "watermark_ms", [None, 0, -1, 1_372_636_800_000, NO_WATERMARK_MS, HopWatermark([5]), HopWatermark([7, NO_WATERMARK_MS, 3])]
)
def test_a_position_comes_back(watermark_ms: int | None) -> None:
    """Every watermark survives, also none."""
    position = Position(offset=7, watermark_ms=watermark_ms)
    assert commit_metadata.position(7, commit_metadata.as_text(position)) == position


@pytest.mark.parametrize(
    "text", [None, "", "by hand", "[]", "7", '{"wm":1}', '{"v":2,"wm":1}', '{"v":1,"wm":"1"}', '{"v":1,"wm":true}', '{"v":1,"wm":"a,"}']
)
def test_text_of_somebody_else_leaves_the_watermark_unknown(text: str | None) -> None:
    """An offset that was reset by hand has no watermark, and nothing is raised."""
    assert commit_metadata.position(7, text) == Position(offset=7, watermark_ms=None)
