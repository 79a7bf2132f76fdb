"""The event times of records that are not decoded yet: for whoever must know in which order to take them."""

from __future__ import annotations

from operator import attrgetter

import msgspec
import numpy as np

from headrace import hop_record
from headrace.decode.cloudevents import event_bytes
from headrace.decode.decoder import EARLIEST_MS, LATEST_MS
from headrace.source import Hop, Source
from headrace.types import NO_WATERMARK_MS, Int64s, RecordBatch


class TimePeek:
    """Reads nothing of the records of a source or hop but their event times."""

    def __init__(self, reads: Source) -> None:
        self._by_hop, self._historical = isinstance(reads, Hop), reads.historical
        timed = msgspec.defstruct("Timed", [("time", int)], rename={"time": reads.time}, gc=False)
        self._decode, self._time = msgspec.json.Decoder(timed).decode, attrgetter("time")

    def times_ms(self, records: RecordBatch) -> Int64s:
        """The event time of each record; `NO_WATERMARK_MS` for one that has none, or one that decoding will refuse.

        None is later than the record's timestamp, but for historical sources: an event ahead of its time is taken for one of now, or it
        would hold up what stands behind it until now is then.
        """
        values = hop_record.opened(records.values).values if self._by_hop else records.values
        found = np.full(len(records), NO_WATERMARK_MS, dtype=np.int64)
        for row, (value, headers) in enumerate(zip(values, records.headers, strict=True)):
            body = event_bytes(value, headers) if headers and value is not None else value
            if isinstance(body, bytes):
                try:
                    found[row] = self._time(self._decode(body))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
                    continue
        found[(found < EARLIEST_MS) | (found > LATEST_MS)] = NO_WATERMARK_MS
        return found if self._historical else np.minimum(found, records.timestamps_ms)
