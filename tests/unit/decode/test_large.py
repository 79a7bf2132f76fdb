"""T54: records as large as they come, and many of them."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from headrace.decode.decoder import Decoder
from headrace.types import Reason
from tests.unit.decode.contracts import DEPARTURES, EVENT, batch, event, raw, reason_of

MIB = 1_048_576


def sized(size: int) -> bytes:
    """An event of exactly that many bytes."""
    return raw("unknown", b'"' + b"x" * (size - len(raw("unknown", b'""'))) + b'"')


@pytest.mark.parametrize(("size", "reason"), [(MIB - 1, None), (MIB, None), (MIB + 1, Reason.TOO_LARGE)])
def test_values_up_to_the_limit_are_read(size: int, reason: Reason | None) -> None:
    """T54: an event of 1 MiB is read, one of a byte more is refused."""
    assert len(sized(size)) == size
    assert reason_of(sized(size)) == reason


def test_a_value_over_the_limit_is_not_parsed() -> None:
    """T54: a value over the limit is refused unread, whatever is in it: no memory is taken for it."""
    records = batch([b"{" * (16 * MIB)])
    decoder = Decoder(DEPARTURES)
    tracemalloc.start()
    (letter,) = decoder.decode(records).refused
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert letter.reason is Reason.TOO_LARGE
    assert letter.error == "the value has 16777216 bytes, more than 1048576"
    assert peak < 100_000


def test_the_limit_is_a_parameter() -> None:
    """Another limit may be set for a source."""
    small = Decoder(DEPARTURES, max_value_bytes=len(event()))
    assert [letter.row for letter in small.decode(batch([event(), event() + b" "])).refused] == [1]


def test_ten_thousand_fields_are_skipped() -> None:
    """T54: an event with 10,000 fields nobody declared is an event; they are counted."""
    value = json.dumps({**EVENT, **{f"field_{number}": number for number in range(10_000)}}).encode()
    result = Decoder(DEPARTURES).decode(batch([value]))
    assert len(result.events) == 1
    assert result.unknown_fields == 10_000


def test_many_large_values_are_read_in_bounded_memory() -> None:
    """T54: a batch of 64 values of 1 MiB takes a few MiB more, as few are looked at together, and the bad one is found."""
    values = [sized(MIB)] * 64
    values[40] = values[40].replace(b"x", b"\xff", 1)
    records = batch(values)
    decoder = Decoder(DEPARTURES)
    tracemalloc.start()
    result = decoder.decode(records)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(letter.row, letter.reason) for letter in result.refused] == [(40, Reason.MALFORMED)]
    assert peak < 8 * MIB


def test_a_mebibyte_of_brackets_is_judged() -> None:
    """Values of nothing but brackets, side by side or nested, are judged by their depth."""
    pairs = b"[" + b",".join([b"[]"] * 300_000) + b"]"
    assert reason_of(raw("unknown", pairs)) is None
    assert reason_of(raw("unknown", b"[" * 400_000 + b"]" * 400_000)) is Reason.MALFORMED
