"""Records become events or dead letters: one result each, for the right reason, in the right columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import create_model

from headrace.decode.decoder import EARLIEST_MS, LATEST_MS, Decoder
from headrace.errors import DefinitionError
from headrace.source import Event, EventTime, Source
from headrace.types import Reason
from tests.unit.decode.contracts import DEPARTURES, EVENT, HISTORICAL, NOW_MS, batch, decoded, event, raw, reason_of
from tests.unit.decode.verdict import verdict

AHEAD_MS = 300_000

# T53, the part that is JSON.
REFUSED: list[tuple[str, bytes | None, Reason | None]] = [
    ("100,000 nested arrays", raw("unknown", b"[" * 100_000 + b"]" * 100_000), Reason.MALFORMED),
    ("100,000 nested objects", raw("unknown", b'{"a":' * 100_000 + b"1" + b"}" * 100_000), Reason.MALFORMED),
    ("100,000 nested arrays and nothing else", b"[" * 100_000 + b"]" * 100_000, Reason.MALFORMED),
    ("100,000 arrays that never end", raw("unknown", b"[" * 100_000), Reason.MALFORMED),
    ("201 levels, counting the event", raw("unknown", b"[" * 200 + b"]" * 200), Reason.MALFORMED),
    ("200 levels, counting the event", raw("unknown", b"[" * 199 + b"]" * 199), None),
    ("300 arrays side by side", raw("unknown", b"[" + b",".join([b"[]"] * 300) + b"]"), None),
    ("300 braces in a string", raw("unknown", b'"' + b"{" * 300 + b'"'), None),
    ("NaN", raw("dep_delay", b"NaN"), Reason.MALFORMED),
    ("Infinity", raw("dep_delay", b"Infinity"), Reason.MALFORMED),
    ("-Infinity", raw("dep_delay", b"-Infinity"), Reason.MALFORMED),
    ("NaN in a field nobody declared", raw("unknown", b"NaN"), Reason.MALFORMED),
    ("1e400", raw("dep_delay", b"1e400"), Reason.CONTRACT),
    ("1e400 in a field nobody declared", raw("unknown", b"1e400"), None),
    ("an integer of 5,000 digits", raw("seats", b"7" * 5_000), Reason.CONTRACT),
    ("an integer of 5,000 digits as a number", raw("dep_delay", b"7" * 5_000), Reason.CONTRACT),
    ("2^63", raw("seats", b"9223372036854775808"), Reason.CONTRACT),
    ("2^63 - 1", raw("seats", b"9223372036854775807"), None),
    ("-2^63 - 1", raw("seats", b"-9223372036854775809"), Reason.CONTRACT),
    ("duplicate keys, both right", raw("seats", b'1, "seats": 2'), None),
    ("duplicate keys, the first wrong", raw("seats", b'"1", "seats": 2'), Reason.CONTRACT),
    ("duplicate keys, the last wrong", raw("seats", b'1, "seats": "2"'), Reason.CONTRACT),
    ("a lone surrogate", raw("carrier", b'"\\ud800"'), Reason.MALFORMED),
    ("a lone surrogate in a field nobody declared", raw("unknown", b'"\\udfff"'), Reason.MALFORMED),
    ("true for a number", raw("dep_delay", b"true"), Reason.CONTRACT),
    ("text for a number", raw("dep_delay", b'"5"'), Reason.CONTRACT),
    ("true for an integer", raw("seats", b"true"), Reason.CONTRACT),
    ("text for an integer", raw("seats", b'"5"'), Reason.CONTRACT),
    ("5.0 for an integer", raw("seats", b"5.0"), Reason.CONTRACT),
    ("an integer for a number", raw("dep_delay", b"5"), None),
    ("1 for true", raw("cancelled", b"1"), Reason.CONTRACT),
    ("null for a required field", raw("seats", b"null"), Reason.CONTRACT),
    ("null for an optional field", raw("stops", b"null"), None),
    ("bad UTF-8 in a text", raw("carrier", b'"\xff"'), Reason.MALFORMED),
    ("bad UTF-8 in a field nobody declared", raw("unknown", b'"\xc3"'), Reason.MALFORMED),
    ("bad UTF-8 in a name", event().replace(b"stops", b"st\xffps"), Reason.MALFORMED),
    ("an overlong UTF-8 sequence", raw("unknown", b'"\xc0\xaf"'), Reason.MALFORMED),
    ("UTF-16", event().decode().encode("utf-16"), Reason.MALFORMED),
    ("truncated JSON", event()[:-20], Reason.MALFORMED),
    ("no bytes", b"", Reason.MALFORMED),
    ("null value", None, Reason.NULL_VALUE),
    ("JSON null", b"null", Reason.CONTRACT),
    ("event time missing", json.dumps({k: v for k, v in EVENT.items() if k != "departed_at"}).encode(), Reason.CONTRACT),
    ("event time null", event(departed_at=None), Reason.CONTRACT),
    ("event time not a number", event(departed_at="2013-01-01T10:00:00Z"), Reason.CONTRACT),
    ("event time with a point", event(departed_at=float(NOW_MS)), Reason.CONTRACT),
    ("event time outside 64 bits", event(departed_at=1 << 63), Reason.CONTRACT),
    ("event time the least of 64 bits", event(departed_at=-(1 << 63)), Reason.EVENT_TIME_INVALID),
    ("event time the largest of 64 bits", event(departed_at=(1 << 63) - 1), Reason.EVENT_TIME_INVALID),
    ("event time before 2000", event(departed_at=EARLIEST_MS - 1), Reason.EVENT_TIME_INVALID),
    ("event time 2000", event(departed_at=EARLIEST_MS), None),
    ("event time after 2100", event(departed_at=LATEST_MS + 1), Reason.EVENT_TIME_INVALID),
    ("event time 2100 on a record of 2013", event(departed_at=LATEST_MS), Reason.EVENT_TIME_AHEAD),
    ("event time in seconds", event(departed_at=NOW_MS // 1000), Reason.EVENT_TIME_INVALID),
    ("ahead by max_ahead - 1 ms", event(departed_at=NOW_MS + AHEAD_MS - 1), None),
    ("ahead by max_ahead", event(departed_at=NOW_MS + AHEAD_MS), None),
    ("ahead by max_ahead + 1 ms", event(departed_at=NOW_MS + AHEAD_MS + 1), Reason.EVENT_TIME_AHEAD),
    ("a field nobody declared", raw("unknown", b'{"a": [1]}'), None),
]


@pytest.mark.parametrize(("value", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_each_bad_value_is_refused_for_its_exact_reason(value: bytes | None, reason: Reason | None) -> None:
    """T53: the reason is the one expected, and the one the reference gives."""
    assert verdict(DEPARTURES, b"EWR", value, NOW_MS) == reason
    assert reason_of(value) == reason


KEYS: list[tuple[str, bytes | None, str, Reason | None]] = [
    ("null", None, "EWR", Reason.BAD_KEY),
    ("empty", b"", "", Reason.BAD_KEY),
    ("257 bytes", b"k" * 257, "k" * 257, Reason.BAD_KEY),
    ("256 bytes", b"k" * 256, "k" * 256, None),
    ("256 bytes of 128 characters", "é".encode() * 128, "é" * 128, None),
    ("257 bytes of 129 characters", b"k" + "é".encode() * 128, "k" + "é" * 128, Reason.BAD_KEY),
    ("NUL inside", b"E\0R", "E\0R", Reason.BAD_KEY),
    ("NUL alone", b"\0", "\0", Reason.BAD_KEY),
    ("another entity", b"JFK", "EWR", Reason.BAD_KEY),
    ("a longer key", b"EWR ", "EWR", Reason.BAD_KEY),
    ("not UTF-8", b"\xff", "EWR", Reason.BAD_KEY),
    ("1 MB", b"k" * 1_000_000, "EWR", Reason.BAD_KEY),
    ("not ASCII", "Zürich".encode(), "Zürich", None),
    ("braces", b"{a}", "{a}", None),
]


@pytest.mark.parametrize(("key", "entity", "reason"), [case[1:] for case in KEYS], ids=[case[0] for case in KEYS])
def test_a_record_has_the_key_of_its_entity(key: bytes | None, entity: str, reason: Reason | None) -> None:
    """T53, the keys: null, empty, too long, NUL, another value; the error text never holds the key."""
    value = event(origin=entity)
    assert verdict(DEPARTURES, key, value, NOW_MS) == reason
    assert reason_of(value, keys=key) == reason
    result = decoded(event(origin="LGA"), value, event(origin="JFK"), keys=[b"LGA", key, b"JFK"])
    assert [(letter.row, letter.reason) for letter in result.refused] == ([(1, reason)] if reason else [])
    assert all("EWR" not in letter.error and "JFK" not in letter.error for letter in result.refused)


@settings(deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(["a", "a\0b", "b", "", "\0", "ab"]), st.sampled_from([b"a", b"a\0b", b"b", b"", b"\0", b"ab", None])),
        max_size=5,
    )
)
def test_keys_judged_together_are_judged_as_one_by_one(pairs: list[tuple[str, bytes | None]]) -> None:
    """Comparing all keys of a batch at once hides no difference, wherever NULs stand."""
    result = decoded(*(event(origin=entity) for entity, _ in pairs), keys=[key for _, key in pairs])
    expected = [row for row, (entity, key) in enumerate(pairs) if verdict(DEPARTURES, key, event(origin=entity), NOW_MS)]
    assert [letter.row for letter in result.refused] == expected


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"value": None, "key": None}, Reason.NULL_VALUE),
        ({"value": b"{" * 1_048_577, "key": None}, Reason.TOO_LARGE),
        ({"value": b"{", "key": None, "headers": [("ce_id", b"")]}, Reason.ENVELOPE),
        ({"value": event(seats="x", departed_at=0)[:-1], "key": None}, Reason.MALFORMED),
        ({"value": event(seats="x", departed_at=0), "key": None}, Reason.CONTRACT),
        ({"value": event(departed_at=0), "key": None}, Reason.BAD_KEY),
        ({"value": event(departed_at=1 << 62), "key": b"EWR"}, Reason.EVENT_TIME_INVALID),
    ],
)
def test_the_first_thing_wrong_is_the_reason(wrong: dict[str, object], reason: Reason) -> None:
    """A record that is wrong in several ways is refused for the first of them, in the documented order."""
    assert reason_of(wrong["value"], keys=wrong["key"], headers=wrong.get("headers")) == reason  # type: ignore[arg-type]


def test_a_historical_source_takes_event_times_ahead_of_the_record() -> None:
    """A source declared historical accepts any event time from 2000 to 2100."""
    assert reason_of(event(departed_at=NOW_MS + 86_400_000), HISTORICAL) is None
    assert reason_of(event(departed_at=LATEST_MS), HISTORICAL) is None
    assert reason_of(event(departed_at=LATEST_MS + 1), HISTORICAL) is Reason.EVENT_TIME_INVALID


def test_fields_become_columns() -> None:
    """Numbers, integers, times and booleans are float64 with NaN for absent, texts objects with None for absent, in the order of events."""
    result = decoded(event(), event(cancelled=True, stops=None, carrier=None, landed_at=None, dep_delay=-3), raw("stops", b"3"))
    columns = result.events.columns
    assert result.refused == []
    assert set(columns) == set(EVENT)
    assert columns["dep_delay"].tolist() == [2.5, -3.0, 2.5]
    assert columns["cancelled"].tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_array_equal(columns["stops"], [0.0, np.nan, 3.0])
    np.testing.assert_array_equal(columns["landed_at"], [NOW_MS + 1.0, np.nan, NOW_MS + 1.0])
    assert columns["carrier"].tolist() == ["UA", None, "UA"]
    assert {name: column.dtype for name, column in columns.items()} == {
        name: np.dtype(object if name in {"origin", "cabin", "carrier"} else np.float64) for name in EVENT
    }
    assert result.events.entities == ["EWR"] * 3
    assert result.events.rows.tolist() == [0, 1, 2]


def test_event_times_are_exact_integers() -> None:
    """Event times are int64, not rounded through a float."""
    times = [NOW_MS, NOW_MS + 1, EARLIEST_MS]
    result = decoded(*(event(departed_at=time) for time in times))
    assert result.events.event_times_ms.dtype == np.int64
    assert result.events.event_times_ms.tolist() == times


def test_only_the_columns_asked_for_are_built_but_the_whole_contract_is_checked() -> None:
    """Which fields features use does not change which records are dead letters."""
    decoder = Decoder(DEPARTURES, fields={"dep_delay"})
    result = decoder.decode(batch([event(), event(seats="x"), event(carrier="toolong")]))
    assert set(result.events.columns) == {"dep_delay"}
    assert [(letter.row, letter.reason) for letter in result.refused] == [(1, Reason.CONTRACT), (2, Reason.CONTRACT)]
    assert Decoder(DEPARTURES, fields=()).decode(batch([event()])).events.columns == {}


def test_a_column_nobody_declared_is_an_error_of_the_definition() -> None:
    """Asking for a field the contract does not have says which one and what there is."""
    with pytest.raises(DefinitionError, match="'delay' is no field of Departure; it has origin"):
        Decoder(DEPARTURES, fields={"delay"})


def test_unknown_fields_are_counted_on_the_first_event() -> None:
    """A batch tells how many fields of its first event the contract does not know; repeated names count once."""
    assert decoded(event()).unknown_fields == 0
    assert decoded(event(gate="C1", terminal={"a": 1}), event(x=1)).unknown_fields == 2
    assert decoded(None, event(gate="C1", seats="x"), raw("a", b'1, "a": 2')).unknown_fields == 1
    assert decoded(b"{}").unknown_fields == 0


def test_a_batch_without_records_is_a_batch_without_events() -> None:
    """Nothing in, nothing out, with columns of the right types."""
    result = decoded()
    assert (len(result.events), result.refused, result.unknown_fields) == (0, [], 0)
    assert result.events.columns["dep_delay"].dtype == np.float64
    assert result.events.columns["carrier"].shape == (0,)


def test_a_batch_of_nothing_but_dead_letters_has_no_events() -> None:
    """Every record may be refused; dead letters stand in the order of the records and name their stage."""
    result = decoded(None, b"{", event(seats=True), event(origin="JFK"), event(departed_at=0), event(departed_at=NOW_MS + 10**9))
    assert len(result.events) == 0
    assert [(letter.row, letter.reason.value) for letter in result.refused] == [
        (0, "NULL_VALUE"),
        (1, "MALFORMED"),
        (2, "CONTRACT"),
        (3, "BAD_KEY"),
        (4, "EVENT_TIME_INVALID"),
        (5, "EVENT_TIME_AHEAD"),
    ]
    assert {letter.stage for letter in result.refused} == {"decode"}


POOL = [
    event(),
    event(dep_delay=7, carrier=None),
    event(origin="JFK"),
    event(departed_at=1),
    event(departed_at=NOW_MS + 10**8),
    event(seats=None),
    raw("unknown", b'"\xff"'),
    raw("unknown", b"[" * 250 + b"]" * 250),
    raw("unknown", b'"\xc3\xa9"'),
    b"{",
    b"",
    None,
]


@settings(deadline=None)
@given(picks=st.lists(st.sampled_from(POOL), max_size=12))
def test_a_record_is_judged_alike_in_every_batch(picks: list[bytes | None]) -> None:
    """What becomes of a record does not depend on its neighbours: columns, rows and reasons equal those of batches of one."""
    together = decoded(*picks)
    alone = [decoded(value) for value in picks]
    assert [(letter.row, letter.reason, letter.error) for letter in together.refused] == [
        (row, result.refused[0].reason, result.refused[0].error) for row, result in enumerate(alone) if result.refused
    ]
    taken = [(row, result.events) for row, result in enumerate(alone) if not result.refused]
    assert together.events.rows.tolist() == [row for row, _ in taken]
    assert together.events.entities == [events.entities[0] for _, events in taken]
    assert together.events.event_times_ms.tolist() == [int(events.event_times_ms[0]) for _, events in taken]
    for name, column in together.events.columns.items():
        np.testing.assert_array_equal(column, np.array([events.columns[name][0] for _, events in taken], dtype=column.dtype))


def test_the_verdict_does_not_depend_on_how_deep_the_caller_stands() -> None:
    """200 levels of nesting are taken and 201 refused, even 600 calls down Python's stack."""

    def down(calls: int) -> list[Reason | None]:
        if calls:
            return down(calls - 1)
        return [reason_of(raw("unknown", b"[" * depth + b"]" * depth)) for depth in (199, 200)]

    assert down(0) == down(600) == [None, Reason.MALFORMED]


def test_a_stack_without_room_is_no_fault_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a sound value cannot be read because Python's own stack is used up, that is raised and makes no dead letter."""

    def exhausted(_: bytes) -> None:
        raise RecursionError

    decoder = Decoder(DEPARTURES)
    monkeypatch.setattr(decoder, "_decode", exhausted)
    with pytest.raises(RecursionError):
        decoder.decode(batch([event()]))


def test_a_contract_may_have_names_beyond_ascii() -> None:
    """A field whose name is not ASCII is read like any other, and named in errors."""
    fields: dict[str, Any] = {"flughafen": (str, ...), "zeit": (EventTime, ...), "verspätung": (float, ...)}
    source = Source("fluege.v1", create_model("Flug", __base__=Event, **fields), key="flughafen", time="zeit")
    good = json.dumps({"flughafen": "MUC", "zeit": NOW_MS, "verspätung": 1.5}, ensure_ascii=False).encode()
    escaped = json.dumps({"flughafen": "MUC", "zeit": NOW_MS, "verspätung": "x"}).encode()
    result = Decoder(source).decode(batch([good, escaped], keys=[b"MUC", b"MUC"]))
    assert result.events.columns["verspätung"].tolist() == [1.5]
    assert result.refused[0].error == "Expected `float`, got `str` - at `$.verspätung`"
