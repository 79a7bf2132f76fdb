"""What must hold for every input: each record has one outcome, for the right reason, alone as in company."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from headrace.decode.cloudevents import Refusal, event_bytes
from headrace.decode.decoder import Decoded
from headrace.types import NO_WATERMARK_MS, Reason, RecordBatch
from tests.fuzz.records import Fuzzed
from tests.unit.decode.contracts import DEPARTURES, NOW_MS, batch
from tests.unit.decode.verdict import EARLIEST_MS, LATEST_MS, verdict

MAX_VALUE_BYTES = 3_000
"""Small, so that a fuzzer finds values that are too large."""

REASONS = frozenset(
    {
        *(Reason.NULL_VALUE, Reason.TOO_LARGE, Reason.ENVELOPE, Reason.MALFORMED, Reason.CONTRACT, Reason.BAD_KEY),
        *(Reason.EVENT_TIME_INVALID, Reason.EVENT_TIME_AHEAD),
    }
)
"""The closed list of what decoding may say."""

Decode = Callable[[RecordBatch], Decoded]


def batch_of(records: Sequence[Fuzzed]) -> RecordBatch:
    """Records as they are read."""
    return batch(
        [record.value for record in records], keys=[record.key for record in records], headers=[record.headers for record in records]
    )


def outcomes(decode: Decode, records: Sequence[Fuzzed]) -> list[Reason | None]:
    """The reason of each record, None for an event. Fails where a record has no outcome or two, or an event is none."""
    found = decode(batch_of(records))
    events, refused = found.events, found.refused
    rows = events.rows.tolist()
    places = sorted([*rows, *(letter.row for letter in refused)])
    assert places == list(range(len(records))), f"not one outcome for each of {len(records)} records: {places}"
    assert [letter.row for letter in refused] == sorted(letter.row for letter in refused), "dead letters are not in order"
    for letter in refused:
        assert letter.reason in REASONS, f"a reason that is not on the list: {letter.reason}"
        assert letter.stage == "decode", letter.stage
        assert letter.error.encode(), "no error text"
    for row, entity, time_ms in zip(rows, events.entities, events.event_times_ms.tolist(), strict=True):
        assert entity.encode() == records[row].key, f"the entity {entity!r} is not the key"
        assert NO_WATERMARK_MS < EARLIEST_MS <= time_ms <= LATEST_MS, f"event time {time_ms}"
    for name, column in events.columns.items():
        assert len(column) == len(rows), f"column {name} has {len(column)} rows"
        assert column.dtype == np.object_ or not np.isinf(column).any(), f"column {name} is not finite"
    reasons: list[Reason | None] = [None] * len(records)
    for letter in refused:
        reasons[letter.row] = letter.reason
    return reasons


def expected(record: Fuzzed) -> Reason | None:
    """The reason that the standard library and pydantic give, once the event is out of its envelope."""
    value = record.value
    if value is None:
        return Reason.NULL_VALUE
    if len(value) > MAX_VALUE_BYTES:
        return Reason.TOO_LARGE
    body = event_bytes(value, record.headers or [])
    if isinstance(body, Refusal):
        return body.reason
    return verdict(DEPARTURES, record.key, body, NOW_MS)


def check(decode: Decode, records: Sequence[Fuzzed]) -> None:
    """Everything, for the records of one input."""
    together = outcomes(decode, records)
    assert together == [expected(record) for record in records], f"{together}, by the contract {[expected(record) for record in records]}"
    if len(records) > 1:
        alone = [outcomes(decode, [record])[0] for record in records]
        assert together == alone, f"together {together}, one by one {alone}"
