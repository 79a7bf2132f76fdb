"""The other worker: the same path of an event, fed from the log alone, one partition after another or all at once.

Nothing of it was ever published or stored, it never died and was never rebalanced; so what comes out is what the definitions demand of a
log. It is the worker's own decoder, fold, scorer and encoder, whose laws have tests of their own; what is verified here is delivery.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from headrace.assembly import source_path
from headrace.clock import ManualClock
from headrace.crashes import rows_at
from headrace.definition import App
from headrace.parts import Limits
from headrace.predict.scores import Model
from headrace.publish.encoder import HeaderPolicy
from headrace.source import Source
from headrace.timeline import Timeline
from headrace.types import NO_WATERMARK_MS, Int64s, OutRecords, RecordBatch, TopicPartition
from headrace.verify.shelf import Shelf

RESIDENT = 200_000


class SourceFold:
    """Folds the partitions of one source topic from offsets of our choice on."""

    def __init__(
        self,
        app: App,
        source: Source,
        *,
        models: Mapping[str, Model],
        shelf: Shelf,
        starts: Mapping[TopicPartition, int],
        left_out: Mapping[TopicPartition, Sequence[int]],
        headers: HeaderPolicy,
        limits: Limits,
    ) -> None:
        """`left_out`: the offsets that were condemned (`crashes.py`)."""
        self._shelf, self._left_out = shelf, left_out
        self._clock = ManualClock(0)
        self._path = source_path(
            app,
            source,
            shelf,
            models=models,
            clock=self._clock,
            limits=replace(limits, refused_share=1.0, resident_entities=RESIDENT),
            headers=headers,
        )
        self._ends: dict[TopicPartition, int] = {}
        for partition, start in starts.items():
            at = {view.fp: start for view in self._path.states.views}
            self._path.states.start(partition, at, NO_WATERMARK_MS, empty=True)

    def results(self, batch: RecordBatch) -> Iterator[tuple[OutRecords, Int64s]]:
        """What the next records lead to: records for a result topic, and of predictions the rows of their source records in the batch."""
        for number in set(batch.partitions.tolist()):
            last = int(batch.offsets[batch.partitions == number][-1])
            self._ends[TopicPartition(batch.topic, number)] = last + 1
        out = rows_at(batch, self._left_out)
        if out.any():
            (letters,), _ = self._path.refuse(batch.select(np.flatnonzero(out)))
            yield letters, np.empty(0, dtype=np.int64)
        kept = np.flatnonzero(~out)
        if not len(kept):
            return
        outputs, tally = self._path.score(batch if len(kept) == len(batch) else batch.select(kept), Timeline(self._clock.monotonic_ns))
        if self._path.states.touched() > RESIDENT // 2:
            self.store()
        by_topic = {scorer.pipeline.predictions: scorer.model.name for scorer in self._path.scorers}
        for records in outputs:
            model = by_topic.get(records.topic)
            without = [letter.row for letter in tally.refused if letter.model in (None, model)]
            yield records, np.delete(kept, without)

    def store(self) -> None:
        """Bring the shelf up to what was folded."""
        self._shelf.apply(self._path.states.pack(self._ends))
        for partition, end in self._ends.items():
            self._path.states.applied(partition, end)

    def watermark_ms(self, partition: TopicPartition) -> int:
        """The watermark behind everything folded."""
        return self._path.states.watermark_ms(partition)
