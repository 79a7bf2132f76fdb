"""Records -> columns of events, and a dead letter for every record that is no event of the source.

A record is judged in this order, and the first thing wrong is its reason:

    NULL_VALUE  TOO_LARGE  ENVELOPE  MALFORMED  CONTRACT  BAD_KEY  EVENT_TIME_INVALID  EVENT_TIME_AHEAD

All of it is a function of the record and the source's definition: no clock, no state, no other record of the batch. An event time that
is missing or no integer is a breach of CONTRACT like any other field's; EVENT_TIME_INVALID is one outside the years 2000 to 2100. A
record's key is the entity key in UTF-8, 1 to 256 bytes without NUL.

A batch without a refusal costs one pass over its values, one over the events per column, and a few operations on whole columns.

Limits: integers are exact up to 2^53 as columns (event time always); unknown fields are counted on the first event of each batch only.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.decode.cloudevents import Refusal, event_bytes
from headrace.decode.json_text import malformed, suspects
from headrace.decode.wire import error_text, struct_of
from headrace.errors import DefinitionError
from headrace.source import Source
from headrace.types import MAX_KEY_BYTES, Bools, DeadLetter, EventBatch, Headers, Int64s, Reason, RecordBatch

MAX_VALUE_BYTES = 1_048_576
EARLIEST_MS = 946_684_800_000
"""2000-01-01T00:00:00Z, the first event time that is believed."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01T00:00:00Z, the last one."""

_UNKNOWN = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True, kw_only=True, eq=False)
class Decoded:
    """What became of a batch: each record is either an event or refused; `refused` stands in the order of the records."""

    events: EventBatch
    refused: list[DeadLetter]
    unknown_fields: int
    """How many fields of the first event the contract does not know."""
    unreadable: list[DeadLetter] = field(default_factory=list)
    """Of a hop: records of which not even the source's record can be told."""


class Decoder:
    """Reads the records of one source. Not to be used from two threads at once."""

    def __init__(
        self,
        source: Source,
        *,
        max_value_bytes: int = MAX_VALUE_BYTES,
        fields: Collection[str] | None = None,
        keys_to_be: Collection[str] = (),
    ) -> None:
        """`fields` are the columns to build, None for all; the whole contract is checked in any case. `keys_to_be` are the fields that
        later stages are keyed by. Raises `DefinitionError`.
        """
        declared = {field.name: field for field in source.contract}
        unknown = sorted(set(fields or ()) - declared.keys())
        if unknown:
            raise DefinitionError(f"{source!r}: {unknown[0]!r} is no field of {source.event.__name__}; it has {', '.join(declared)}")
        self._source, self._max_value_bytes = source, max_value_bytes
        self._known = declared.keys()
        self._decode = msgspec.json.Decoder(struct_of(source)).decode
        self._entity, self._time = attrgetter(source.key), attrgetter(source.time)
        self._keys_to_be = [(name, attrgetter(name)) for name in sorted(keys_to_be)]
        self._columns = [
            (name, attrgetter(name), np.object_ if field.kind == "text" else np.float64)
            for name, field in declared.items()
            if fields is None or name in fields
        ]

    def decode(self, records: RecordBatch) -> Decoded:
        """One event or one dead letter for every record."""
        refused: list[DeadLetter] = []
        bodies = self._bodies(records, refused)
        events, rows = self._events(bodies, refused)
        unknown_fields = len(_UNKNOWN.decode(bodies[rows[0]] or b"").keys() - self._known) if events else 0
        entities: list[str] = list(map(self._entity, events))
        times = np.array(list(map(self._time, events)), dtype=np.int64)
        bad = self._unbelievable(records, rows, events, entities, times, refused)
        if bad is not None:
            good = np.flatnonzero(~bad)
            events, entities = [events[number] for number in good], [entities[number] for number in good]
            times, rows = times[good], rows[good]
        refused.sort(key=attrgetter("row"))
        columns: dict[str, NDArray[Any]] = {name: np.array(list(map(of, events)), dtype=kind) for name, of, kind in self._columns}
        return Decoded(
            events=EventBatch(records=records, rows=rows, entities=entities, event_times_ms=times, columns=columns),
            refused=refused,
            unknown_fields=unknown_fields,
        )

    def _bodies(self, records: RecordBatch, refused: list[DeadLetter]) -> list[bytes | None]:
        """The JSON of each event, out of its envelope; None where a record was refused before parsing."""
        values = records.values
        if None not in values and records.headers.count(None) == len(values):
            whole = cast("list[bytes]", values)
            if max(map(len, whole), default=0) <= self._max_value_bytes:
                return values
        bodies: list[bytes | None] = []
        for row, (value, headers) in enumerate(zip(values, records.headers, strict=True)):
            body = self._body(value, headers)
            if isinstance(body, Refusal):
                refused.append(dead_letter(row, body.reason, body.error))
            bodies.append(None if isinstance(body, Refusal) else body)
        return bodies

    def _body(self, value: bytes | None, headers: Headers | None) -> bytes | Refusal:
        """The JSON of one event, out of its envelope."""
        if value is None:
            return Refusal(reason=Reason.NULL_VALUE, error="the record has no value")
        if len(value) > self._max_value_bytes:
            return Refusal(reason=Reason.TOO_LARGE, error=f"the value has {len(value)} bytes, more than {self._max_value_bytes}")
        return event_bytes(value, headers) if headers else value

    def _events(self, bodies: Sequence[bytes | None], refused: list[DeadLetter]) -> tuple[list[Any], Int64s]:
        """The events that are JSON text and keep the contract, and their rows."""
        events: list[Any] = []
        failed: list[int] = []
        decode, take = self._decode, events.append
        remaining = iter(bodies)
        while len(events) + len(failed) < len(bodies):
            # The loop goes on behind a record that raised, because the iterator does: one pass, whatever is refused.
            try:
                for body in remaining:
                    take(decode(body))  # type: ignore[arg-type] # None raises like any other that is no event
            except (TypeError, UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
                row = len(events) + len(failed)
                failed.append(row)
                refused_body = bodies[row]
                if refused_body is not None:
                    refused.append(breach(row, refused_body, error))
        rows = np.arange(len(bodies))
        if failed:
            rows = np.delete(rows, failed)
        parsed = cast("Sequence[bytes]", [bodies[row] for row in rows.tolist()] if failed else bodies)
        faults = {number: fault for number in suspects(parsed) if (fault := malformed(parsed[number])) is not None}
        if faults:
            refused.extend(dead_letter(int(rows[number]), Reason.MALFORMED, fault) for number, fault in faults.items())
            rows = np.delete(rows, list(faults))
            events = [event for number, event in enumerate(events) if number not in faults]
        return events, rows

    def _unbelievable(
        self, records: RecordBatch, rows: Int64s, events: Sequence[Any], entities: Sequence[str], times: Int64s, refused: list[DeadLetter]
    ) -> Bools | None:
        """Which events have a wrong key or an event time that cannot be; None for none of them."""
        keys = records.keys if len(rows) == len(records) else [records.keys[row] for row in rows]
        invalid = (times < EARLIEST_MS) | (times > LATEST_MS)
        bad = invalid | self._source.ahead(times, records.timestamps_ms[rows])
        agree = self._source.rekey or keys_agree(keys, entities)
        unusable = self._no_keys(events)
        if agree and not unusable and not bad.any():
            return None
        for number, row in enumerate(rows.tolist()):
            fault = None if agree else key_fault(keys[number], entities[number], self._source.key)
            fault = unusable.get(number) if fault is None else fault
            if fault is not None:
                bad[number] = True
                refused.append(dead_letter(row, Reason.BAD_KEY, fault))
            elif invalid[number]:
                refused.append(dead_letter(row, Reason.EVENT_TIME_INVALID, f"before 2000 or after 2100 - at `$.{self._source.time}`"))
            elif bad[number]:
                error = f"more than {self._source.max_ahead_ms} ms ahead of the record's timestamp - at `$.{self._source.time}`"
                refused.append(dead_letter(row, Reason.EVENT_TIME_AHEAD, error))
        return bad

    def _no_keys(self, events: Sequence[Any]) -> dict[int, str]:
        """The events that a later stage cannot be keyed by, and why."""
        found: dict[int, str] = {}
        for name, of in self._keys_to_be:
            texts: list[str] = list(map(of, events))
            if "" not in texts and max(map(len, texts), default=0) <= MAX_KEY_BYTES // 4 and "\0" not in "".join(texts):
                continue
            for number, text in enumerate(texts):
                fault = entity_fault(text)
                if fault is not None:
                    found.setdefault(number, f"{fault}, so no stage can be keyed by it - at `$.{name}`")
        return found


def dead_letter(row: int, reason: Reason, error: str) -> DeadLetter:
    """A refusal of this stage."""
    return DeadLetter(row=row, reason=reason, stage="decode", error=error)


def breach(row: int, body: bytes, error: Exception) -> DeadLetter:
    """Why a body that msgspec refused is no event: text that is not JSON is MALFORMED, whatever was found before its fault."""
    fault = malformed(body)
    if fault is not None:
        return dead_letter(row, Reason.MALFORMED, fault)
    if isinstance(error, msgspec.ValidationError):
        return dead_letter(row, Reason.CONTRACT, error_text(error))
    raise error


def keys_agree(keys: Sequence[bytes | None], entities: Sequence[str]) -> bool:
    """Whether all records have the keys of their entities, decided on all of them at once.

    As no key holds a NUL, keys joined by NUL are the entities joined by NUL only if they agree one by one.
    """
    if None in keys:
        return False
    present = cast("Sequence[bytes]", keys)
    joined = b"\0".join(present)
    return (
        joined == "\0".join(entities).encode()
        and joined.count(b"\0") == max(len(keys) - 1, 0)
        and b"" not in present
        and max(map(len, present), default=0) <= MAX_KEY_BYTES
    )


def entity_fault(entity: str) -> str | None:
    """Why an entity cannot be the key of a record, or None."""
    size = len(entity.encode())
    if not entity:
        return "it is empty"
    if size > MAX_KEY_BYTES:
        return f"it has {size} bytes, more than {MAX_KEY_BYTES}"
    return "it holds a NUL" if "\0" in entity else None


def key_fault(key: bytes | None, entity: str, field: str) -> str | None:
    """What is wrong with a record's key, or None."""
    if key is None:
        return "the record has no key"
    if not key:
        return "the record's key is empty"
    if len(key) > MAX_KEY_BYTES:
        return f"the record's key has {len(key)} bytes, more than {MAX_KEY_BYTES}"
    if b"\0" in key:
        return "the record's key holds a NUL"
    return None if key == entity.encode() else f"the record's key is not the entity key - at `$.{field}`"
