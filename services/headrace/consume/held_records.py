"""Records that wait, with what is known of each; any of them may be taken out.

The records themselves stay where they are until half of them are gone: to move them costs far more than to look at their columns.
"""

from __future__ import annotations

import numpy as np

from headrace.types import Int32s, Int64s, RecordBatch

NOBODY = np.iinfo(np.int64).max


class HeldRecords:
    """Of each partition the records stand in offset order. All columns are aligned: a *place* is a number from 0 to the length."""

    def __init__(self) -> None:
        self._batch: RecordBatch | None = None
        self._rows = np.empty(0, dtype=np.int64)
        """Where each record stands in the batch."""
        self.partitions: Int32s = np.empty(0, dtype=np.int32)
        self.marks_ms: Int64s = np.empty(0, dtype=np.int64)
        """The largest event time of the partition up to the record."""
        self.since_ms: Int64s = np.empty(0, dtype=np.int64)
        """Since when it waits for what it wants: `NOBODY` while it is ahead of others."""
        self.wants: Int64s | None = None
        """What it wants, a row each; None where nobody wants anything."""

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, batch: RecordBatch, marks_ms: Int64s, wants: Int64s | None) -> None:
        """Hold more, behind the others."""
        self._compact()
        if self._batch is None:
            self._batch, self._rows = batch, np.arange(len(batch))
        else:
            self._rows = np.concatenate((self._rows, len(self._batch) + np.arange(len(batch))))
            self._batch = joined(self._batch, batch)
        self.partitions = np.concatenate((self.partitions, batch.partitions))
        self.marks_ms = np.concatenate((self.marks_ms, marks_ms))
        self.since_ms = np.concatenate((self.since_ms, np.full(len(batch), NOBODY, dtype=np.int64)))
        if wants is not None:
            self.wants = wants if self.wants is None else np.concatenate((self.wants, wants))

    def take(self, places: Int64s) -> RecordBatch:
        """The records at these places, in this order; they are no longer held."""
        if self._batch is None:
            raise ValueError("nothing is held")
        rows = self._rows[places]
        whole = len(rows) == len(self._batch) and bool((np.diff(rows) == 1).all())
        taken = self._batch if whole else self._batch.select(rows)
        self._keep(np.delete(np.arange(len(self)), places))
        return taken

    def drop(self, partition: int) -> None:
        """Forget what is held of a partition."""
        self._keep(np.flatnonzero(self.partitions != partition))

    def firsts_ms(self) -> dict[int, int]:
        """By partition the mark of its first record."""
        numbers, firsts = np.unique(self.partitions, return_index=True)
        return dict(zip(numbers.tolist(), self.marks_ms[firsts].tolist(), strict=True))

    def _keep(self, places: Int64s) -> None:
        self._rows, self.partitions = self._rows[places], self.partitions[places]
        self.marks_ms, self.since_ms = self.marks_ms[places], self.since_ms[places]
        self.wants = None if self.wants is None else self.wants[places]
        if self._batch is not None and len(self._rows) < len(self._batch) // 2:
            self._compact()

    def _compact(self) -> None:
        """Let go of the records that are no longer held."""
        if self._batch is not None and len(self._rows) < len(self._batch):
            self._batch = self._batch.select(self._rows) if len(self._rows) else None
            self._rows = np.arange(len(self._rows))


def joined(first: RecordBatch, then: RecordBatch) -> RecordBatch:
    """The records of both, in this order."""
    return RecordBatch(
        topic=first.topic,
        partitions=np.concatenate((first.partitions, then.partitions)),
        offsets=np.concatenate((first.offsets, then.offsets)),
        timestamps_ms=np.concatenate((first.timestamps_ms, then.timestamps_ms)),
        keys=first.keys + then.keys,
        values=first.values + then.values,
        headers=first.headers + then.headers,
    )
