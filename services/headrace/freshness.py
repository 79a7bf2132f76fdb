"""What an event waits for that is scored by features of other sources: a store that has come nearly as far as the event.

A record waits for the very partitions from which it will look something up. Which those are is worked out once, when it
comes in, so that looking again costs one question about the heads of the views and one comparison of columns.

In a backlog the logs of the other sources tell whether a partition is quiet: when they have come past the event, and the store has not
moved for a while, nothing more will come, and nothing is waited for.

Limits: at the end of the logs quiet and behind look alike, so there an event waits for the whole time; records are decoded once more for
this; where several pipelines score a record, it waits for what all of them look up, for the longest of their times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.decode.decoder import Decoder
from headrace.decode.hop_decoder import HopDecoder
from headrace.errors import StoreRefused, TransientError
from headrace.features.finder import Finder
from headrace.features.looked_up import keys_of
from headrace.features.state_store import LookupStore
from headrace.features.view import FeatureView
from headrace.partitioner import Partitioner
from headrace.types import Bools, Int64s, RecordBatch, ViewHead

STILL_LOOKS = 4
"""So many looks at the store must show the same before it is believed that it does not move: a batch takes one or two turns a stage."""
_NOTHING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """A view that is waited for: where it is kept, and how old it may be."""

    view: FeatureView
    topic: str
    stale_after_ms: int


class Freshness:
    """For the records of one topic; `aligned_source.Waits`."""

    def __init__(
        self,
        awaited: Sequence[Awaited],
        *,
        decoder: Decoder | HopDecoder,
        wait_ms: int,
        still_ms: int,
        store: LookupStore,
        now_ms: Callable[[], int],
    ) -> None:
        """The decoder gives the entities of the views as columns. A store that was the same for `still_ms` does not move."""
        self.wait_ms = wait_ms
        self._awaited, self._asked = awaited, [(one.topic, one.view.fp) for one in awaited]
        self._decoder, self._finder, self._now_ms = decoder, Finder(store), now_ms
        self._partitioner = Partitioner()
        self._come_ms: list[Int64s] = []
        """Of each view, by partition."""
        self._still_ms, self._offsets, self._looks, self._moved_ms = still_ms, list[int](), 0, 0

    def wants(self, batch: RecordBatch) -> Int64s:
        """[records, 2 * views]: of each view the hash of its entity and how far event time should have come. What will be refused, and what
        has no entity, wants nothing.
        """
        found = np.full((len(batch), 2 * len(self._awaited)), _NOTHING, dtype=np.int64)
        events = self._decoder.decode(batch).events
        for place, one in enumerate(self._awaited):
            keys = keys_of(events.columns[one.view.entity])
            there = np.array([key is not None for key in keys], dtype=np.bool_)
            found[events.rows[there], 2 * place] = self._partitioner.hashes([key for key in keys if key is not None])
            found[events.rows, 2 * place + 1] = events.event_times_ms - one.stale_after_ms
        return found

    def there(self, wants: Int64s, passed: Bools) -> Bools:
        """Whether the store is as far as wanted, or will not come further. While it is away it is as far as it was seen last."""
        if not len(wants):
            return np.ones(0, dtype=np.bool_)
        now_ms = self._now_ms()
        self._look(now_ms)
        fresh = np.ones(len(wants), dtype=np.bool_)
        for hashes, wanted_ms, come_ms in zip(wants[:, ::2].T, wants[:, 1::2].T, self._come_ms, strict=True):
            if len(come_ms):
                fresh &= (hashes == _NOTHING) | (come_ms[hashes % len(come_ms)] >= wanted_ms)
            else:
                fresh &= hashes == _NOTHING
        still = self._looks >= STILL_LOOKS and now_ms - self._moved_ms >= self._still_ms
        return fresh | passed if still else fresh

    def _look(self, now_ms: int) -> None:
        try:
            found = self._finder.heads(self._asked)
        except (TransientError, StoreRefused):  # the loop will meet it too, and says it
            found = []
        offsets = [head.offset or 0 for heads in found for head in heads.values()]
        if offsets != self._offsets or not found:
            self._offsets, self._looks, self._moved_ms = offsets, 0, now_ms
        self._looks += 1
        self._come_ms = [_come_ms(heads) for heads in found] or self._come_ms or [_come_ms({})] * len(self._asked)


def _come_ms(heads: dict[int, ViewHead]) -> Int64s:
    return np.array([head.come_ms for _, head in sorted(heads.items())], dtype=np.int64)
