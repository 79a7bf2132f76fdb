"""Records of what turned out to be true -> columns. A record that breaks its contract tells nothing and is counted."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from headrace.decode.cloudevents import Refusal, event_bytes
from headrace.decode.wire import struct_of
from headrace.expression import Column
from headrace.source import Outcomes
from headrace.types import Int64s, RecordBatch


class OutcomeDecoder:
    """Reads the records of one topic of outcomes, whatever their keys."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.refused = 0
        self._decode = msgspec.json.Decoder(struct_of(outcomes)).decode
        self._columns = [(field.name, np.object_ if field.kind == "text" else np.float64) for field in outcomes.contract]

    def decode(self, records: RecordBatch) -> tuple[dict[str, Column], Int64s]:
        """The columns of all fields, and the rows of the records they come from. Instants are exact to the millisecond as floats."""
        found, rows = [], []
        for row, (value, headers) in enumerate(zip(records.values, records.headers, strict=True)):
            body = event_bytes(value, headers) if value is not None and headers else value
            try:
                if body is None or isinstance(body, Refusal):
                    self.refused += 1
                    continue
                found.append(self._decode(body))
            except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
                self.refused += 1
            else:
                rows.append(row)
        columns: dict[str, Any] = {name: np.array(list(map(attrgetter(name), found)), dtype=kind) for name, kind in self._columns}
        return columns, np.array(rows, dtype=np.int64)
