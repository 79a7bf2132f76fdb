"""Events and their features so far -> records of a hop, a batch at a time. Keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace import hop_record
from headrace.source import Hop
from headrace.types import EventBatch, FeatureVectors, OutRecords


class HopWriter:
    """Writes what one stage passes on to the next; `columns` picks the features that go with it out of the vectors."""

    def __init__(self, hop: Hop, columns: Sequence[int]) -> None:
        self.hop, self._columns = hop, list(columns)
        self._made_by = hop_record.made_by_number(hop.made_by)

    def write(self, events: EventBatch, vectors: FeatureVectors, partitions: int) -> OutRecords:
        """One record for each event, in their order; `partitions` is the number of partitions of the topic that was read.

        The events' columns hold the entity of the next stage.
        """
        rows, records, sent = events.rows, events.records, events.sent
        heads = np.zeros(len(events), dtype=hop_record.HEAD)
        heads["late"], heads["made_by"], heads["of"] = vectors.late, self._made_by, partitions
        heads["partition"], heads["offset"] = sent.partitions[rows], sent.offsets[rows]
        heads["feeder"], heads["feeder_offset"] = records.partitions[rows], records.offsets[rows]
        heads["watermark_ms"] = vectors.watermarks_ms
        numbers = rows.tolist()
        keys, values = [sent.keys[row] for row in numbers], [sent.values[row] for row in numbers]
        return OutRecords(
            topic=self.hop.topic,
            keys=[entity.encode() for entity in events.columns[self.hop.key].tolist()],
            values=list(hop_record.write(heads, vectors.values[:, self._columns], keys, values)),
            headers=[records.headers[row] or [] for row in numbers],
            timestamps_ms=records.timestamps_ms[rows].tolist(),
            rows=rows,
        )
