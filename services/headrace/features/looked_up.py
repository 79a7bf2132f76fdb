"""Features that a pipeline looks up: views of other sources, read from the store as they stand when an event is scored.

    a batch --> keys of each looked-up view --> one round trip (`Finder`) --> states as of each event's time (`StateReader.vectors_at`)

Two logs have no order between them, so what is found depends on the moment. It is written down: for each event, and each view, the
partition that was read, its applied offset, and how far event time had come there. With these, and the log, anybody computes the same
values again. Where nothing is kept (yet), or is being rebuilt, nothing is written down and the values are those of an empty state.

**Stale**: the store has seen nothing from `stale_after` before the event's time on. **Ahead**: it has seen something newer than the event,
which is left out as far as panes can be told apart (`rewind`). An event without an entity, or with one that no key can be, gets the values
of an empty state, unmarked: there is nothing to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np

from headrace.expression import Column
from headrace.features.finder import Finder, Found, Place, Sought
from headrace.features.reader import StateReader
from headrace.features.state_store import LookupStore
from headrace.features.view import FeatureView
from headrace.types import MAX_KEY_BYTES, NO_WATERMARK_MS, Bools, EventBatch, Float64s, Int64s, LookedUp, ViewHead

_NOWHERE = Place(partition=-1, head=ViewHead(offset=None, watermark_ms=None))


class LooksUp(Protocol):
    """What gives a pipeline what it looks up."""

    def look(self, events: EventBatch) -> LookedUp:
        """What each event finds. Raises `TransientError` while that cannot be told."""


class ViewLookUps:
    """Looks up the views of one pipeline in the store. Not for use by several threads."""

    def __init__(self, views: Sequence[FeatureView], topics: Sequence[str], *, stale_after_ms: int, store: LookupStore) -> None:
        """`topics`: of each view, the source or hop in whose partitions it is kept."""
        self._names = tuple(view.name for view in views)
        self._readers = [StateReader(view) for view in views]
        self._topics, self._stale_after_ms, self._finder = topics, stale_after_ms, Finder(store)

    def look(self, events: EventBatch) -> LookedUp:
        """What each event finds, in one round trip. Raises `TransientError` while the store is away."""
        keys = [keys_of(events.columns[reader.view.entity]) for reader in self._readers]
        found = self._finder.find(
            [
                Sought(topic, reader.view.fp, [key for key in some if key is not None])
                for topic, reader, some in zip(self._topics, self._readers, keys, strict=True)
            ]
        )
        of_views = [self._of_view(*one, events.event_times_ms) for one in zip(self._readers, keys, found, strict=True)]
        texts = [texts for _, _, _, texts in of_views]
        return LookedUp(
            views=self._names,
            values=np.concatenate([values for values, _, _, _ in of_views], axis=1),
            stale=np.stack([stale for _, stale, _, _ in of_views], axis=1),
            ahead=np.stack([ahead for _, _, ahead, _ in of_views], axis=1),
            places=[b";".join(filter(None, of_event)) for of_event in zip(*texts, strict=True)],
        )

    def _of_view(
        self, reader: StateReader, keys: Sequence[bytes | None], found: Found | None, times_ms: Int64s
    ) -> tuple[Float64s, Bools, Bools, list[bytes]]:
        """The values of one view, whether they are stale, whether ahead, and where they were read."""
        there = iter(zip(found.places, found.packed, strict=True) if found is not None else ())
        rows = [(_NOWHERE, None) if key is None or found is None else next(there) for key in keys]
        texts = {place: place_text(reader.view.name, place) for place, _ in rows}
        come_ms = np.array([place.head.come_ms for place, _ in rows], dtype=np.int64)
        horizons_ms = np.array([horizon_ms(reader.view, place.head) for place, _ in rows], dtype=np.int64)
        values, ahead = reader.vectors_at([packed for _, packed in rows], times_ms, horizons_ms)
        wanted = np.array([key is not None for key in keys], dtype=np.bool_)
        stale = wanted & (come_ms < times_ms - self._stale_after_ms)
        return values, stale, ahead, [texts[place] for place, _ in rows]


def keys_of(entities: Column) -> list[bytes | None]:
    """The keys of the store; None for what cannot be one."""
    known: dict[str | None, bytes | None] = {None: None}
    for entity in set(cast("list[str | None]", entities.tolist())) - {None}:
        key = str(entity).encode()
        known[entity] = key if 0 < len(key) <= MAX_KEY_BYTES and b"\0" not in key else None
    return [known[entity] for entity in entities.tolist()]


def horizon_ms(view: FeatureView, head: ViewHead) -> int:
    """Before it nothing can change any more."""
    watermark_ms = NO_WATERMARK_MS if head.offset is None or head.watermark_ms is None else int(head.watermark_ms)
    return watermark_ms - view.source.lateness_ms


def place_text(view: str, place: Place) -> bytes:
    """`<view>=<partition>:<offset>:<come>`, nothing where nothing is kept (yet); without the last where there was no event."""
    if place.head.offset is None:
        return b""
    come = b"" if place.head.come_ms == NO_WATERMARK_MS else b"%d" % place.head.come_ms
    return b"%b=%d:%d:%b" % (view.encode(), place.partition, place.head.offset, come)


def places_of(text: bytes) -> dict[str, tuple[int, int]]:
    """Partition and applied offset of each view that `LookedUp.places` names. Raises `ValueError` for what is no such text."""
    found = {}
    for one in filter(None, text.decode().split(";")):
        view, _, place = one.partition("=")
        partition, offset, _ = place.split(":")
        found[view] = (int(partition), int(offset))
    return found
