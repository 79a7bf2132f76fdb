from __future__ import annotations

import pytest

from headrace.duration import duration_ms, duration_text
from headrace.errors import DefinitionError


@pytest.mark.parametrize(
    ("written", "length_ms"), [("250ms", 250), ("90s", 90_000), ("5m", 300_000), ("2h", 7_200_000), (" 3d ", 259_200_000), (1_234, 1_234)]
)
def test_durations(written: str | int, length_ms: int) -> None:
    """Durations are texts with a unit, or whole milliseconds."""
    assert duration_ms(written, of="lateness") == length_ms


@pytest.mark.parametrize("wrong", ["2 hours", "2H", "h", "", "-1h", "1.5h", "1h30m", "٣h", 1.5, True, None, 0, -5, "0s", "99999d"])
def test_no_durations(wrong: object) -> None:
    """Anything else is refused, with the name of what it was for."""
    with pytest.raises(DefinitionError, match=r"^lateness is "):
        duration_ms(wrong, of="lateness")  # type: ignore[arg-type]


def test_zero_where_it_makes_sense() -> None:
    """Nothing is a duration only where the caller says so."""
    assert duration_ms("0s", of="lateness", least_ms=0) == 0


@pytest.mark.parametrize("text", ["1ms", "1s", "90s", "1m", "59m", "3h", "1d", "30d", "1500ms"])
def test_shortest_text(text: str) -> None:
    """A duration is written back in its largest whole unit."""
    assert duration_text(duration_ms(text, of="window")) == text
