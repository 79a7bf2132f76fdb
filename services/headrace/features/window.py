"""Windows and the panes they are made of: integer arithmetic on milliseconds, nothing else.

A pane is an aligned slice of time: pane i of length p holds the instants [i * p, (i + 1) * p). A window of n = w / p panes, as of T, is the
open pane H = T // p and the n closed ones before it, [H - n, H]. So the head is exact to the event while the tail is rounded to a pane: a
window reaches back at least w and less than w + p. (The shape is called a sawtooth window: its length grows from w to w + p while a pane
is open, then drops back.)
"""

from __future__ import annotations

from headrace.errors import DefinitionError

FINEST_DEFAULT = 60
"""A default pane is at most this fraction of its window."""
MOST_PANES = 4_096
"""More panes than this are refused: each event might have to merge them all."""


def pane_of(window_ms: int, pane_ms: int | None = None, *, of: str) -> int:
    """The pane length of a window: the one asked for, else the largest whole divisor of the window not above a 60th of it.

    Raises `DefinitionError`, beginning with `of`, when the pane does not divide the window or there would be too many.
    """
    if pane_ms is not None:
        if window_ms % pane_ms:
            raise DefinitionError(f"{of}: a pane of {pane_ms} ms does not divide a window of {window_ms} ms; choose a divisor")
        if window_ms // pane_ms > MOST_PANES:
            raise DefinitionError(f"{of}: {window_ms // pane_ms} panes are too many, {MOST_PANES} is the limit; choose a longer pane")
        return pane_ms
    for panes in range(FINEST_DEFAULT, MOST_PANES + 1):
        if window_ms % panes == 0:
            return window_ms // panes
    if window_ms < FINEST_DEFAULT:
        return 1
    raise DefinitionError(
        f"{of}: {window_ms} ms cannot be cut into {FINEST_DEFAULT} to {MOST_PANES} panes; choose a rounder window, or set pane="
    )
