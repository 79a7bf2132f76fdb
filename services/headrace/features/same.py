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
    (ours, *our_events), (theirs, *their_events) = _settled(kept, one, as_of_ms), _settled(kept, other, as_of_ms)
    grounds = zip(kept.views, ours, theirs, strict=True)
    return our_events == their_events and all(same_state(view, this, that, as_of_ms) for view, this, that in grounds)


def _settled(view: RetainedView, packed: bytes | None, as_of_ms: int) -> tuple[list[bytes | None], bytes, list[str | None]]:
    """The grounds as they are once all up to an instant has settled; the numbers and the texts of what is retained behind it."""
    if packed is None:
        return [None] * len(view.views), b"", []
    events, row = RetainedEvents(view), np.zeros(1, dtype=np.int64)
    events.follow(1)
    events.load([(0, packed)])
    kept = events.settle(row, np.full(1, as_of_ms, dtype=np.int64))
    numbers = b"".join(column.tobytes() for column in (kept.times_ms, kept.offsets, kept.revisions, kept.values))
    return events.grounds(0), numbers, kept.joins.tolist()
