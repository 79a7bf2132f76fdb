"""The records of a hop -> columns of events, with what the stages before have made of them.

What is inside is the record that the source had, so it is judged by the same decoder; it was accepted once, so a refusal here means that
the contract has changed since, or that somebody else writes to the hop.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace import hop_record
from headrace.decode.decoder import MAX_VALUE_BYTES, Decoded, Decoder, dead_letter
from headrace.hop_record import Opened
from headrace.source import Hop
from headrace.types import Bools, Carried, DeadLetter, Float64s, Int64s, Reason, RecordBatch


class Decode(Protocol):
    """Bytes to columns: `Decoder`, or `HopDecoder`."""

    def decode(self, records: RecordBatch) -> Decoded:
        """One event or one dead letter for every record."""


class HopDecoder:
    """Reads the records of one hop. Not to be used from two threads at once."""

    def __init__(self, hop: Hop, *, max_value_bytes: int = MAX_VALUE_BYTES, fields: Collection[str] | None = None) -> None:
        """`fields`: as in `Decoder`."""
        self._hop = hop
        self._made_by = hop_record.made_by_number(hop.made_by)
        self._decoder = Decoder(hop, max_value_bytes=max_value_bytes, fields=fields)

    def decode(self, records: RecordBatch) -> Decoded:
        """One event or one dead letter for every record; what is no record of a hop at all is in `Decoded.unreadable`."""
        found = hop_record.opened(records.values)
        inside = replace(records, values=[value if found.readable[row] else None for row, value in enumerate(found.values)])
        decoded = self._decoder.decode(inside)
        events = decoded.events
        heads = found.heads[events.rows]
        ours = self._ours(heads)
        carried = Carried(
            sent=self._sent(records, found),
            feeders=heads["feeder"].astype(np.int64),
            offsets=heads["feeder_offset"].astype(np.int64),
            watermarks_ms=heads["watermark_ms"].astype(np.int64),
            of=heads["of"].astype(np.int64),
            late=heads["late"].astype(np.bool_),
            values=self._values(found, events.rows, ours, records),
            ours=ours,
        )
        readable = found.readable
        return Decoded(
            events=replace(events, records=records, carried=carried),
            refused=[letter for letter in decoded.refused if readable[letter.row]],
            unreadable=[_unreadable(letter.row) for letter in decoded.refused if not readable[letter.row]],
            unknown_fields=decoded.unknown_fields,
        )

    def made_otherwise(self, records: RecordBatch) -> Bools:
        """Which records carry features that were made by other definitions than ours."""
        found = hop_record.opened(records.values)
        return found.readable & ~self._ours(found.heads)

    def sent(self, records: RecordBatch) -> tuple[RecordBatch, Bools]:
        """The records as they stand in the source's topic, and which of them can be told."""
        found = hop_record.opened(records.values)
        return self._sent(records, found), found.readable

    def _sent(self, records: RecordBatch, found: Opened) -> RecordBatch:
        return replace(
            records,
            topic=self._hop.source.topic,
            partitions=found.heads["partition"].astype(np.int32),
            offsets=found.heads["offset"].astype(np.int64),
            keys=found.keys,
            values=list(found.values),
        )

    def _ours(self, heads: NDArray[np.void]) -> Bools:
        ours: Bools = (heads["made_by"] == self._made_by) & (heads["features"] == len(self._hop.carried))
        return ours

    def _values(self, found: Opened, rows: Int64s, ours: Bools, records: RecordBatch) -> Float64s:
        count = len(self._hop.carried)
        if ours.all():
            return found.features(rows, records.values, count)
        values = np.full((len(rows), count), np.nan)
        values[ours] = found.features(rows[ours], records.values, count)
        return values


def _unreadable(row: int) -> DeadLetter:
    return dead_letter(row, Reason.MALFORMED, "not a record of this hop")
