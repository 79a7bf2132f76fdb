"""Whether two stored states say the same, of whatever kind of view they are."""

from __future__ import annotations

import numpy as np

from headrace.features.retained import RetainedEvents
from headrace.features.retained_view import Kept, RetainedView
from headrace.features.state import same_state


def same_kept(kept: Kept, one: bytes | None, other: bytes | None, as_of_ms: int) -> bool:
    """Whether two states (None: no state) are equal but for what can decide nothing any more as of an instant, bit for bit."""
    if not isinstance(kept, RetainedView):
        return same_state(kept, one, other, as_of_ms)
    ours, theirs = _settled(kept, one, as_of_ms), _settled(kept, other, as_of_ms)
    bases = zip(kept.views, ours[0], theirs[0], strict=True)
    return ours[1] == theirs[1] and all(same_state(view, this, that, as_of_ms) for view, this, that in bases)


def _settled(view: RetainedView, packed: bytes | None, as_of_ms: int) -> tuple[list[bytes | None], tuple[object, ...]]:
    """The bases as they are once all up to an instant has settled, and what is retained behind it."""
    if packed is None:
        return [None] * len(view.views), ()
    events, row = RetainedEvents(view), np.zeros(1, dtype=np.int64)
    events.follow(1)
    events.load([(0, packed)])
    kept = events.settle(row, np.full(1, as_of_ms, dtype=np.int64))
    numbers = (kept.times_ms, kept.offsets, kept.revisions, kept.values)
    return events.bases(0), tuple(b"".join(column.tobytes() for column in numbers) for _ in kept.rows[:1]) + tuple(kept.joins.tolist())
