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
from dataclasses import dataclass
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
        return LookedUp(
            views=self._names,
            values=np.concatenate([one.values for one in of_views], axis=1),
            stale=np.stack([one.stale for one in of_views], axis=1),
            ahead=np.stack([one.ahead for one in of_views], axis=1),
            places=_joined([one.texts for one in of_views], [one.at for one in of_views]),
        )

    def _of_view(self, reader: StateReader, keys: Sequence[bytes | None], found: Found | None, times_ms: Int64s) -> _OfView:
        """What one view gives each event. All that is told of a place is told once a place, of which there are few, not once an event."""
        wanted = np.array([key is not None for key in keys], dtype=np.bool_)
        places = [_NOWHERE, *(found.places if found is not None else ())]
        at = np.zeros(len(keys), dtype=np.int64)
        packed: Sequence[bytes | None] = [None] * len(keys)
        if found is not None:
            at[wanted] = found.at + 1
            there = iter(found.packed)
            packed = found.packed if wanted.all() else [None if key is None else next(there) for key in keys]
        come_ms = np.array([place.head.come_ms for place in places], dtype=np.int64)
        horizons_ms = np.array([horizon_ms(reader.view, place.head) for place in places], dtype=np.int64)
        values, ahead = reader.vectors_at(packed, times_ms, horizons_ms[at])
        stale = wanted & (come_ms[at] < times_ms - self._stale_after_ms)
        return _OfView(values=values, stale=stale, ahead=ahead, at=at, texts=[place_text(reader.view.name, place) for place in places])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _OfView:
    """What one view gives some events: values, whether they are stale, whether ahead, and which of some places they were read at."""

    values: Float64s
    stale: Bools
    ahead: Bools
    at: Int64s
    texts: list[bytes]


def _joined(texts: Sequence[Sequence[bytes]], at: Sequence[Int64s]) -> list[bytes]:
    """The texts of all views for each event; each combination of places is joined once."""
    codes = np.ravel_multi_index(at, [len(some) for some in texts])
    _, firsts, combination = np.unique(codes, return_index=True, return_inverse=True)
    joined = [b";".join(filter(None, (some[one[row]] for some, one in zip(texts, at, strict=True)))) for row in firsts.tolist()]
    return [joined[one] for one in combination.tolist()]


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
