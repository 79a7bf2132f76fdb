from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import DefinitionError
from headrace.features.window import MOST_PANES, pane_of

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("window_ms", "pane_ms"),
    [(HOUR_MS, 60_000), (3 * HOUR_MS, 180_000), (24 * HOUR_MS, 1_440_000), (30 * 24 * HOUR_MS, 12 * HOUR_MS), (7, 1), (61, 1), (62, 1)],
)
def test_default_pane(window_ms: int, pane_ms: int) -> None:
    """The default pane is the largest whole divisor of the window not above a 60th of it."""
    assert pane_of(window_ms, of="v") == pane_ms


@given(st.integers(60, 1_000_000_000))
def test_default_pane_by_search(window_ms: int) -> None:
    """What is chosen divides the window, and no coarser divisor is fine enough."""
    try:
        pane_ms = pane_of(window_ms, of="v")
    except DefinitionError:
        assert all(window_ms % panes for panes in range(60, MOST_PANES + 1))
    else:
        assert window_ms % pane_ms == 0
        assert pane_ms * 60 <= window_ms
        assert not any(window_ms % panes == 0 for panes in range(60, window_ms // pane_ms))


def test_pane_asked_for() -> None:
    """A pane may be chosen if it divides the window into not too many."""
    assert pane_of(HOUR_MS, HOUR_MS, of="v") == HOUR_MS
    assert pane_of(4_096, 1, of="v") == 1
    with pytest.raises(DefinitionError, match=r"^v: a pane of 7 ms does not divide"):
        pane_of(HOUR_MS, 7, of="v")
    with pytest.raises(DefinitionError, match=r"^v: 4097 panes are too many"):
        pane_of(4_097, 1, of="v")
    with pytest.raises(DefinitionError, match=r"^v: 1000003 ms cannot be cut"):
        pane_of(1_000_003, of="v")
