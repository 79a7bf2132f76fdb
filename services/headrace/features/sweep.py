"""Entities that are in the store, not in memory, and that no window can see any more: found here, deleted with the next write.

What is in memory is swept by `ResidentStates`. What was given up, or was left by the worker before us, nobody would ever look at again:
keys that come once (sessions, orders) would fill the store for ever. So pages of it are read as events are folded, few while they hold
little to sweep and many while they hold much, as Redis itself looks for expired keys. A state is judged by the newest event time it
begins with; nothing is parsed.

Only an entity that is not in memory is named, and one that comes back is named no more. All of it happens in the thread that folds, so
between being looked at and being deleted nobody of ours can have written it; whatever somebody else wrote makes the write be refused, as
any other. Limit: one pane more than the longest window must have passed, so a state may go a pane later than it could.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.features.retained_view import Kept
from headrace.features.state import newest_times_ms
from headrace.types import StatesPage, TopicPartition

Scan = Callable[[TopicPartition, str, int], StatesPage]
"""One page of the states of a view (`FeatureView.fp`) in a partition, from a cursor on."""

SELDOM, OFTEN = 16_384, 512
"""After how many events of a partition a page is looked at; the second while a page was worth it."""
_WORTH_IT = 4
"""One state in so many."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Round:
    """How far we are in one partition: the view, the cursor in it, and the entities to be deleted from each view."""

    found: list[dict[bytes, None]]
    due_after: int
    events: int = 0
    view: int = 0
    cursor: int = 0


class StoreSweep:
    """The sweep of what is not in memory, for the views of one source."""

    def __init__(self, views: Sequence[Kept], scan: Scan) -> None:
        self._views, self._scan = tuple(views), scan
        self._rounds: dict[TopicPartition, _Round] = {}

    def start(self, partition: TopicPartition) -> None:
        """Begin anew with a partition."""
        self._rounds[partition] = _Round(found=[{} for _ in self._views], due_after=SELDOM)

    def drop(self, partition: TopicPartition) -> None:
        """Forget what was found in a partition."""
        self._rounds.pop(partition, None)

    def folded(self, partition: TopicPartition, events: int, horizon_ms: int, resident: Container[str]) -> None:
        """So many events were folded: look at a page if it is time. `resident`: the entities in memory. Raises what the scan raises."""
        now = self._rounds[partition]
        now.events += events
        if now.events < now.due_after:
            return
        view = self._views[now.view]
        page = self._scan(partition, view.fp, now.cursor)
        old = newest_times_ms(page.states) < horizon_ms - view.longest_window_ms - view.longest_pane_ms
        gone = [page.keys[place] for place in np.flatnonzero(old).tolist() if page.keys[place].decode() not in resident]
        now.found[now.view].update(dict.fromkeys(gone))
        now.events, now.cursor = 0, page.cursor
        now.due_after = OFTEN if _WORTH_IT * len(gone) > len(page.keys) else SELDOM
        if not page.cursor:
            now.view = (now.view + 1) % len(self._views)

    def came_back(self, partition: TopicPartition, keys: Iterable[bytes]) -> None:
        """These entities are in memory now: what becomes of them is decided there."""
        for found in self._rounds[partition].found:
            for key in keys if found else ():
                found.pop(key, None)

    def take(self, partition: TopicPartition, view: int) -> list[bytes]:
        """The entities to delete from a view with the write at hand."""
        found = self._rounds[partition].found
        gone, found[view] = list(found[view]), {}
        return gone


def nothing_there(_partition: TopicPartition, _view: str, _cursor: int) -> StatesPage:
    """The scan of those who have no store."""
    return StatesPage(cursor=0, keys=[], states=[])
