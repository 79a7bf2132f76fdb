"""Dead letters keep the refused record as it was, and too many of them stop the worker."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.errors import TooManyRefused
from headrace.publish.dead_letter import LEAST_RECORD_BYTES, DeadLetters, RefusedShare, installed_version, record_bytes
from headrace.publish.records import decode_dead_letter_headers, decode_pointer
from headrace.types import DeadLetter, Headers, Reason, RecordBatch

TOPIC = "flights.dead-letters.v1"
MIB = 1_048_576


def records(
    values: Sequence[bytes | None], *, keys: Sequence[bytes | None] | None = None, headers: Sequence[Headers | None] | None = None
) -> RecordBatch:
    """Source records of partition 3, from offset 70 on."""
    count = len(values)
    return RecordBatch(
        topic="flights.departures.v1",
        partitions=np.full(count, 3, dtype=np.int32),
        offsets=np.arange(70, 70 + count),
        timestamps_ms=np.arange(1_000, 1_000 + count),
        keys=list(keys) if keys is not None else [b"EWR"] * count,
        values=list(values),
        headers=list(headers) if headers is not None else [None] * count,
    )


def letter(row: int, reason: Reason = Reason.CONTRACT, error: str = "wrong - at `$.seats`", model: str | None = None) -> DeadLetter:
    """A refusal."""
    return DeadLetter(row=row, reason=reason, stage="decode", error=error, model=model)


def letters(max_record_bytes: int = 1_000_000) -> DeadLetters:
    """The dead letters of an app."""
    return DeadLetters("flights", TOPIC, version="0.1.0", max_record_bytes=max_record_bytes)


original_headers = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.none() | st.binary(max_size=5)), max_size=3)


@settings(deadline=None)
@given(st.none() | st.binary(max_size=300), st.none() | st.binary(max_size=5_000), st.none() | original_headers)
def test_a_dead_letter_is_the_original_record(key: bytes | None, value: bytes | None, headers: Headers | None) -> None:
    """Key, value, timestamp and headers are unchanged, whatever they are; ours stand behind."""
    batch = records([b"{}", value], keys=[b"EWR", key], headers=[None, headers])
    out = letters().encode(batch, [letter(1)])
    assert (out.topic, out.keys, out.values, out.timestamps_ms) == (TOPIC, [key], [value], [1_001])
    assert out.headers[0][: len(headers or [])] == (headers or [])
    assert batch.headers[1] == headers


def test_headers_say_who_refused_what_and_why() -> None:
    """The names of KIP-1034 and ours, as text, in a fixed order; the model only where one model's score is missing."""
    out = letters().encode(records([b"{}", b"{}"]), [letter(0), letter(1, Reason.MODEL_OUTPUT, "NaN", "late_arrival")])
    assert out.headers[0] == [
        ("__streams.errors.exception", b"headrace.Reason.CONTRACT"),
        ("__streams.errors.message", b"wrong - at `$.seats`"),
        ("__streams.errors.topic", b"flights.departures.v1"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"70"),
        ("headrace-reason", b"CONTRACT"),
        ("headrace-stage", b"decode"),
        ("headrace-app", b"flights"),
        ("headrace-version", b"0.1.0"),
        ("headrace-attempts", b"1"),
    ]
    assert out.headers[1][-1] == ("headrace-model", b"late_arrival")
    assert decode_dead_letter_headers(out.headers[1]).reason is Reason.MODEL_OUTPUT


def test_what_a_model_refused_tells_what_was_looked_up() -> None:
    """Where something is looked up, the letter says where it was read, last of all, even if it was nothing; else it says nothing of it."""
    places = (b"airport=1:70:1000", b"", None)
    refused = [replace(letter(0, Reason.MODEL_OUTPUT, "NaN", "late"), looked_up=text) for text in places]
    out = letters().encode(records([b"{}"]), refused)
    assert [headers[-1] for headers in out.headers] == [
        ("headrace-looked-up", b"airport=1:70:1000"),
        ("headrace-looked-up", b""),
        ("headrace-model", b"late"),
    ]
    assert decode_dead_letter_headers(out.headers[0]).looked_up == "airport=1:70:1000"


def test_a_record_refused_by_two_models_gives_two_dead_letters() -> None:
    """Each model's refusal is one result of its own."""
    refused = [letter(0, Reason.MODEL_OUTPUT, "NaN", name) for name in ("a", "b")]
    out = letters().encode(records([b"{}"]), refused)
    assert [decode_dead_letter_headers(headers).model for headers in out.headers] == ["a", "b"]
    assert out.values == [b"{}", b"{}"]


@pytest.mark.parametrize(
    ("before", "attempts"),
    [([], 1), ([b"1"], 2), ([b"1", b"2"], 3), ([b"999"], 1000), ([b"1000"], 1), ([b"x"], 1), ([b""], 1), ([None], 1), (["²".encode()], 1)],
)
def test_attempts_count_replays(before: list[bytes | None], attempts: int) -> None:
    """A replayed record that is refused again counts on from its last header; what is no count starts anew."""
    replayed: Headers = [("headrace-attempts", text) for text in before]
    out = letters().encode(records([b"{}"], headers=[replayed]), [letter(0)])
    assert decode_dead_letter_headers(out.headers[0]).attempts == str(attempts)


def test_an_error_text_is_cut() -> None:
    """A header never grows with what is wrong."""
    out = letters().encode(records([b"{}"]), [letter(0, error="é" * 100_000)])
    assert decode_dead_letter_headers(out.headers[0]).error == "é" * 1_000


def test_a_value_of_a_mebibyte_and_a_byte_is_kept_where_the_topic_takes_it() -> None:
    """T54: with a topic of 2 MiB records the dead letter of a value over the limit is the whole value."""
    value = b"x" * (MIB + 1)
    out = letters(2 * MIB).encode(records([value]), [letter(0, Reason.TOO_LARGE)])
    assert out.values == [value]
    assert decode_dead_letter_headers(out.headers[0]).pointer != "1"


def test_a_value_that_does_not_fit_becomes_a_pointer() -> None:
    """T54: coordinates, size, hash and the first 1,024 bytes stay; key, headers and timestamp are as they were."""
    value = bytes(range(256)) * 4_097
    out = letters().encode(records([b"{}", value], headers=[None, [("a", b"b")]]), [letter(1, Reason.TOO_LARGE)])
    pointer = decode_pointer(out.values[0] or b"")
    assert (pointer.topic, pointer.partition, pointer.offset, pointer.timestamp) == ("flights.departures.v1", 3, 71, 1_001)
    assert pointer.value is not None
    assert (pointer.value.size, pointer.value.sha256) == (len(value), hashlib.sha256(value).hexdigest())
    assert base64.b64decode(pointer.value.first) == value[:1_024]
    assert (out.keys, out.timestamps_ms, out.headers[0][0]) == ([b"EWR"], [1_001], ("a", b"b"))
    assert out.headers[0][-1] == ("headrace-pointer", b"1")
    assert b'"key"' not in (out.values[0] or b"")


def test_a_key_of_a_megabyte_becomes_part_of_the_pointer() -> None:
    """T54: where even key and headers do not fit, the dead letter has neither, and the pointer describes the key."""
    key = b"k" * 1_000_000
    out = letters().encode(records([b"{}"], keys=[key], headers=[[("a", b"b")]]), [letter(0, Reason.BAD_KEY)])
    pointer = decode_pointer(out.values[0] or b"")
    assert out.keys == [None]
    assert ("a", b"b") not in out.headers[0]
    assert pointer.headers == 1
    assert pointer.key
    assert pointer.key.sha256 == hashlib.sha256(key).hexdigest()
    assert pointer.value
    assert base64.b64decode(pointer.value.first) == b"{}"


def test_a_key_of_a_megabyte_without_a_value_is_pointed_at_too() -> None:
    """A null value is null in the pointer as well."""
    out = letters().encode(records([None], keys=[b"k" * 1_000_000]), [letter(0, Reason.NULL_VALUE)])
    assert decode_pointer(out.values[0] or b"").value is None


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_the_limit_counts_the_whole_record(over: int) -> None:
    """A record as large as the limit is kept, one of a byte more is pointed at."""
    batch = records([b"x" * 20_000])
    size = record_bytes(b"EWR", b"x" * 20_000, letters().encode(batch, [letter(0)]).headers[0])
    (value,) = letters(size - over).encode(batch, [letter(0)]).values
    assert (value == batch.values[0]) == (over <= 0)


@settings(deadline=None)
@given(
    st.integers(LEAST_RECORD_BYTES, 20_000),
    st.integers(0, 30_000),
    st.integers(0, 30_000),
    st.integers(0, 30_000),
    st.sampled_from(["", "é" * 2_000, "x" * 500]),
    st.sampled_from([None, b"", b"v" * 2_000]),
)
def test_every_dead_letter_fits_the_topic(limit: int, key: int, value: int, header: int, error: str, looked_up: bytes | None) -> None:
    """Whatever is large, the dead letter stays within the limit."""
    batch = records([b"\xff" * value], keys=[b"k" * key], headers=[[("h", b"x" * header)]])
    out = letters(limit).encode(batch, [replace(letter(0, error=error), looked_up=looked_up)])
    assert record_bytes(out.keys[0], out.values[0], out.headers[0]) <= limit


def test_a_limit_that_keeps_no_pointer_is_refused() -> None:
    """A topic that could not even take a pointer is an error at the start, not at the first dead letter."""
    with pytest.raises(ValueError, match="10000 bytes; 9999 are too few"):
        letters(LEAST_RECORD_BYTES - 1)


def test_the_version_is_the_one_that_runs() -> None:
    """Where no version is given, headers tell the one installed."""
    out = DeadLetters("flights", TOPIC).encode(records([b"{}"]), [letter(0)])
    assert decode_dead_letter_headers(out.headers[0]).version == installed_version()


def stops_after(pattern: Sequence[bool], cuts: Sequence[int], *, limit: float, window: int) -> bool:
    """Whether records refused by a pattern stop the worker, when cut into batches of these sizes."""
    share = RefusedShare(limit, window)
    sizes = itertools.cycle(cuts or [len(pattern) or 1])
    start = 0
    try:
        while start < len(pattern):
            part = pattern[start : start + next(sizes)]
            share.observe(len(part), [letter(row) for row, bad in enumerate(part) if bad])
            start += len(part)
    except TooManyRefused:
        return True
    return False


@settings(deadline=None)
@given(
    st.lists(st.booleans(), max_size=60),
    st.lists(st.integers(1, 20), max_size=4),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]),
    st.integers(1, 20),
)
@example(pattern=[True, False, True], cuts=[], limit=0.5, window=2)
@example(pattern=[True] * 4, cuts=[3], limit=1.0, window=3)
def test_too_many_refused_in_any_window_stop_the_worker(pattern: list[bool], cuts: list[int], limit: float, window: int) -> None:
    """The worker stops exactly if some window of records holds more than its share of refused ones, whatever the batches are."""
    expected = any(sum(pattern[max(0, end - window) : end]) > limit * window for end in range(len(pattern) + 1))
    assert stops_after(pattern, cuts, limit=limit, window=window) == expected


def test_the_error_names_the_reason_and_what_to_do() -> None:
    """The text has the count, the limit, the most frequent reason with its last error, and the next command."""
    share = RefusedShare(0.02, 100, app="flights")
    with pytest.raises(TooManyRefused) as raised:
        share.observe(50, [letter(1), letter(2), letter(9, Reason.MALFORMED, "not JSON")])
    assert str(raised.value) == (
        "3 of the last 100 records were refused, more than the limit of 2.0%; most often CONTRACT (2 times), the last of them:"
        " wrong - at `$.seats`. Look at them with: headrace dead-letters list --app flights"
    )


def test_a_record_that_several_models_refuse_counts_once() -> None:
    """The share is one of records, not of scores."""
    share = RefusedShare(0.1, 10)
    share.observe(10, [letter(4, Reason.MODEL_OUTPUT, "NaN", f"model-{number}") for number in range(5)])


@pytest.mark.parametrize(("limit", "window"), [(-0.1, 10), (1.1, 10), (0.5, 0)])
def test_a_limit_that_makes_no_sense_is_refused(limit: float, window: int) -> None:
    """A limit is a share, a window at least a record."""
    with pytest.raises(ValueError, match="a share from 0 to 1 of at least one record"):
        RefusedShare(limit, window)
