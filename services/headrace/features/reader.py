"""The features of an entity as of any instant, from its packed state: what look-ups answer.

Values decay while an entity is quiet, so a look-up merges panes as of the instant it is asked for; it never repeats what was true at the
last event. It is the fold itself that is asked, with nothing to take: a look-up as of T and an event at T see the same windows, bit for
bit. Only `last` and `seconds_since_last` differ by one event: a look-up scores none, so they describe the newest event there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from headrace.errors import LookupRefused
from headrace.features.rewind import rewind
from headrace.features.rows import EntityRows
from headrace.features.tables import Events
from headrace.features.view import FeatureView
from headrace.types import Bools, Float64s, Int64s


class StateReader:
    """Reads packed states of one view. Not for use by several threads."""

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self._table = EntityRows([view])

    def features(self, packed: bytes | None, as_of_ms: int) -> dict[str, float]:
        """The features of one entity (None: it has no state) by name, as of an instant; absent is NaN.

        Raises `LookupRefused` for an instant before the entity's newest event (what was true then is not kept), `StoreRefused` for bytes
        that are no state of this view.
        """
        return dict(zip(self.view.feature_names, self.vectors([packed], as_of_ms)[0].tolist(), strict=True))

    def vectors(self, packed: Sequence[bytes | None], as_of_ms: int) -> Float64s:
        """The features of several entities, [entities, features]; raises as `features` does."""
        values, seen_ms = self.vectors_from(packed, np.full(len(packed), as_of_ms, dtype=np.int64))
        newest_ms = int(seen_ms.max(initial=as_of_ms))
        if newest_ms > as_of_ms:
            raise LookupRefused(
                f"{self.view!r} has seen an event at {newest_ms}: it cannot be read as of {as_of_ms}, only as of then or later"
            )
        return values

    def vectors_from(self, packed: Sequence[bytes | None], from_ms: Int64s) -> tuple[Float64s, Int64s]:
        """The features of several entities, [entities, features], and the as-of time of each: `from_ms`, or its newest event where that is
        later. Raises `StoreRefused` for bytes that are no state of this view.
        """
        with self._loaded(packed) as rows:
            return self._table.fold(self._nothing(rows, from_ms, from_ms))

    def vectors_at(self, packed: Sequence[bytes | None], at_ms: Int64s, horizons_ms: Int64s) -> tuple[Float64s, Bools]:
        """The features of several entities, each as of an instant of its own, [entities, features]; newer events are left out as far as
        they can be told apart (`rewind`). The second says for whom this was needed: the state, or the horizon, is ahead of the instant.

        As everywhere, what lies before the horizon (watermark - lateness) is not kept, so the windows end at the horizon where that is
        later. Raises `StoreRefused` for bytes that are no state of this view.
        """
        with self._loaded(packed) as rows:
            ahead = (self._table.rows.newest_ms[rows, 0] > at_ms) | (horizons_ms > at_ms)
            rewind(self._table.plan, self._table.rows, self._table.arena, rows, at_ms)
            values, _ = self._table.fold(self._nothing(rows, at_ms, horizons_ms))
            return values, ahead

    @contextmanager
    def _loaded(self, packed: Sequence[bytes | None]) -> Iterator[Int64s]:
        """Rows that hold these states for a while."""
        rows = self._table.take(len(packed))
        try:
            held = [(row, one) for row, one in zip(rows, packed, strict=True) if one is not None]
            if held:
                self._table.load(0, [row for row, _ in held], [one for _, one in held])
            yield np.array(rows, dtype=np.int64)
        finally:
            self._table.release(rows)

    def _nothing(self, rows: Int64s, times_ms: Int64s, horizons_ms: Int64s) -> Events:
        """Events that add nothing."""
        return Events(
            rows=rows,
            times_ms=times_ms,
            horizons_ms=horizons_ms,
            takes=np.zeros((len(rows), 1), dtype=np.bool_),
            given=np.full((len(rows), len(self._table.streams)), np.nan),
        )
