"""The generated struct and the pydantic contract decide alike."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from headrace.decode.decoder import Decoder
from headrace.decode.wire import error_text, struct_of
from headrace.errors import DefinitionError
from headrace.source import Event, EventTime, Source
from headrace.types import Reason
from tests.unit.decode.contracts import DEPARTURES, EVENT, NOW_MS, batch, event, raw, reason_of
from tests.unit.decode.verdict import contract_holds, grammar, verdict

NESTED = b"[" * 100_000 + b"]" * 100_000
NESTED_OBJECTS = b'{"a":' * 100_000 + b"1" + b"}" * 100_000

# How each kind of value is written, on fields of each kind: what FACTS found the readers to differ about, and then some.
TEXTS: list[bytes] = [
    *(b"null", b"true", b"false", b"0", b"-0", b"-0.0", b"1", b"5", b"5.0", b"1e2", b"1E+2", b"1e-400", b"1e400", b"-1e400", b"0.1"),
    *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"+1", b"01", b"-01", b"1.", b".5", b"1e", b"--1", b"0x10", b"1_000", b"1,0"),
    *(b"9007199254740993", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809"),
    *(b"18446744073709551615", b"18446744073709551616", b"9" * 100, b"9" * 400, b"9" * 5_000, b"0." + b"1" * 5_000),
    *(
        b'""',
        b'"5"',
        b'"true"',
        b'"economy"',
        b'"Economy"',
        b'"UA"',
        b'"U"',
        b'"UAAA"',
        b'"U A"',
        b'"UA\\n"',
        b'"\\u0055A"',
        b'"UA\\u0000"',
    ),
    *(
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"\xf0\x9f\x98\x80"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
    ),
    *(
        b'"\\x41"',
        b'"\\u12"',
        b'"a\nb"',
        b'"\t"',
        b'"\x7f"',
        b'"\\/"',
        b'"',
        b"'UA'",
        b"[]",
        b"{}",
        b'["UA"]',
        b'{"UA":1}',
        b"[1,]",
        b"",
        b"UA",
    ),
    *(b"1356998400000", b"1356998400000.0", b'"2013-01-01T00:00:00Z"', NESTED, NESTED_OBJECTS),
    *(b"[" * depth + b"]" * depth for depth in (198, 199, 200, 201, 990)),
]
FIELDS = [*EVENT, "unknown"]


@pytest.mark.parametrize("name", FIELDS)
def test_every_way_to_write_a_value_has_the_verdict_of_the_contract(name: str) -> None:
    """For a field of each kind, and for one nobody declared, each text gets the reason that pydantic's verdict gives it."""
    for text in TEXTS:
        value = raw(name, text)
        assert reason_of(value) == verdict(DEPARTURES, b"EWR", value, NOW_MS), (name, text[:60])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (event(), None),
        (b" \r\n\t" + event() + b" \n", None),
        (b"\xef\xbb\xbf" + event(), Reason.MALFORMED),
        (event() + b"\0", Reason.MALFORMED),
        (event() + b"}", Reason.MALFORMED),
        (event() + event(), Reason.MALFORMED),
        (event()[:-1], Reason.MALFORMED),
        (event()[:-1] + b",}", Reason.MALFORMED),
        (b"", Reason.MALFORMED),
        (b" ", Reason.MALFORMED),
        (b"{", Reason.MALFORMED),
        (b"{}", Reason.CONTRACT),
        (b"[]", Reason.CONTRACT),
        (b"null", Reason.CONTRACT),
        (b"5", Reason.CONTRACT),
        (b'"EWR"', Reason.CONTRACT),
        (b"NaN", Reason.MALFORMED),
        (b'[{"a":]', Reason.MALFORMED),
        (raw("seats", b'"many", "seats": 5'), Reason.CONTRACT),
        (raw("seats", b'5, "seats": "many"'), Reason.CONTRACT),
        (raw("seats", b'5, "seats": 6'), None),
        (raw("unknown", b'1, "unknown": "2"'), None),
        (raw("unknown", b'"\xff", "dep_delay": "late"'), Reason.MALFORMED),
        (raw("seats", b'"many"')[:-1], Reason.MALFORMED),
        (raw("\\u0073eats", b"7"), None),
        (raw("\\u0073eats", b'"x"'), Reason.CONTRACT),
        (event().replace(b'"seats"', b'"\\u0073eats"'), None),
        (raw("se\\ud800ats", b"7"), Reason.MALFORMED),
    ],
)
def test_whole_values_have_the_verdict_of_the_contract(value: bytes, reason: Reason | None) -> None:
    """Blanks, marks, repeated and escaped names, and texts that are no object get the reason expected, and the reference says so too."""
    assert verdict(DEPARTURES, b"EWR", value, NOW_MS) == reason
    assert reason_of(value) == reason


def values_of(value: bytes) -> dict[str, Any]:
    """The columns of one event, as plain values; absent numbers as None."""
    found = {name: column[0] for name, column in Decoder(DEPARTURES).decode(batch([value])).events.columns.items()}
    return {name: None if one != one else one for name, one in found.items()}  # noqa: PLR0124 only NaN differs from itself


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["economy", "UA", "business", "EWR"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
changes = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4)


@settings(max_examples=500, deadline=None)
@given(changed=changes, dropped=st.sets(st.sampled_from(FIELDS), max_size=2))
@example(changed={"carrier": "É9"}, dropped=set())
@example(changed={"carrier": "UA\n"}, dropped=set())
@example(changed={"carrier": "😀😀"}, dropped=set())
@example(changed={"stops": 9, "distance": 20_000}, dropped=set())
@example(changed={"stops": 10, "distance": 0}, dropped=set())
def test_generated_events_have_the_verdict_of_the_contract(changed: dict[str, object], dropped: set[str]) -> None:
    """Events with any values in any fields, or with fields missing, are taken and refused as pydantic does, and read to the same values."""
    fields = {name: value for name, value in {**EVENT, **changed}.items() if name not in dropped}
    for value in (json.dumps(fields).encode(), json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")):
        reason = verdict(DEPARTURES, b"EWR", value, NOW_MS)
        assert reason_of(value) == reason, value
        if reason is None:
            read = contract_holds(DEPARTURES, grammar(value))
            assert read is not None
            assert values_of(value) == {name: float(one) if isinstance(one, int) else one for name, one in read.items()}


@settings(max_examples=500, deadline=None)
@given(
    number=st.from_regex(rb"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?\Z")
    | st.integers().map(lambda n: str(n).encode())
)
@example(number=b"9007199254740993")
@example(number=b"18446744073709551617")
def test_numbers_are_read_to_the_nearest_float(number: bytes) -> None:
    """A number that is taken has the value that Python gives the same text, to the last bit, and integers are exact."""
    result = Decoder(DEPARTURES).decode(batch([raw("dep_delay", number), raw("seats", number)]))
    taken = dict(zip(result.events.rows.tolist(), range(len(result.events)), strict=True))
    assert (0 in taken) == (abs(float(number)) != float("inf"))
    if 0 in taken:
        assert result.events.columns["dep_delay"][taken[0]] == float(number)
    if 1 in taken:
        assert result.events.columns["seats"][taken[1]] == float(int(number))


class Patterned(Event):
    """Patterns that are not anchored, lengths in characters."""

    key: Annotated[str, Field(pattern="[0-9]")]
    at: EventTime
    name: Annotated[str, Field(min_length=2, max_length=3)] | None = None
    line: Annotated[str, Field(pattern=r"^a.c$")] | None = None
    word: Annotated[str, Field(pattern=r"\bb\w")] | None = None


PATTERNED = Source("t", Patterned, key="key", time="at")


@settings(max_examples=300, deadline=None)
@given(
    key=st.text(alphabet="a1٣-", max_size=3), name=st.text(max_size=4), line=st.text("abc\n", max_size=5), word=st.text("abé ", max_size=4)
)
@example(key="a1", name="😀😀😀", line="abc\n", word=" bé")
@example(key="٣", name="e\u0301e\u0301", line="a\nc", word="ébb")
def test_patterns_and_lengths_are_those_of_the_contract(key: str, name: str, line: str, word: str) -> None:
    """A pattern is searched for, not matched at the start, and lengths count code points, for both readers."""
    value = json.dumps({"key": key, "at": NOW_MS, "name": name, "line": line, "word": word}).encode()
    records = batch([value], keys=[key.encode()])
    refused = Decoder(PATTERNED).decode(records).refused
    assert (refused[0].reason if refused else None) == verdict(PATTERNED, key.encode(), value, NOW_MS)


class Bounded(Event):
    """Bounds of every kind on both kinds of numbers."""

    key: str
    at: EventTime
    a: Annotated[int, Field(gt=1, le=4.0)]
    b: Annotated[int, Field(ge=2, gt=0, lt=4, le=9)]
    c: Annotated[float, Field(gt=1, ge=1, lt=4, le=4)]
    d: Annotated[float, Field(ge=2, gt=1, le=3, lt=4)]
    e: Annotated[int, Field(ge=-(2**63), le=2**63)]


BOUNDED = Source("t", Bounded, key="key", time="at")
NUMBERS = [
    "0",
    "1",
    "1.0",
    "1.5",
    "2",
    "2.0",
    "3",
    "3.999",
    "4",
    "4.0",
    "4.5",
    "5",
    "-0",
    "1e300",
    "9223372036854775807",
    "9223372036854775808",
]


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "e"])
def test_bounds_are_those_of_the_contract(name: str) -> None:
    """Open, closed and doubled bounds take the same numbers as pydantic."""
    read = msgspec.json.Decoder(struct_of(BOUNDED))
    for number in NUMBERS:
        fields = {"key": '"k"', "at": "1", "a": "2", "b": "2", "c": "2", "d": "2", "e": "2", name: number}
        value = ("{" + ",".join(f'"{field}":{text}' for field, text in fields.items()) + "}").encode()
        try:
            read.decode(value)
            taken = True
        except msgspec.ValidationError:
            taken = False
        assert taken == (contract_holds(BOUNDED, grammar(value)) is not None), (name, number)


def test_bounds_no_integer_satisfies_are_refused_with_the_definition() -> None:
    """A contract that could take no event at all is an error of its definition, which names the field."""

    class Empty(Event):
        """Nothing lies between 1 and 2."""

        key: str
        at: EventTime
        n: Annotated[int, Field(gt=1, lt=2)]

    with pytest.raises(DefinitionError, match="n: no integer"):
        struct_of(Source("t", Empty, key="key", time="at"))


CANARY = "CANARY-4111111111111111"


@pytest.mark.parametrize(
    "value",
    [
        *(raw(name, json.dumps(CANARY).encode()) for name in EVENT if name != "origin"),
        *(raw(name, json.dumps({CANARY: CANARY}).encode()) for name in EVENT),
        event(cabin=f"{CANARY} - at `$.{CANARY}`"),
        raw("seats", b'"' + CANARY.encode()),
        raw("cabin", b'"' + CANARY.encode() + b'\xff"'),
        raw(CANARY, b"\xff"),
    ],
)
def test_no_error_text_holds_the_offending_value(value: bytes) -> None:
    """Whatever is wrong with a value, the error says where it stands but not what it is."""
    (letter,) = Decoder(DEPARTURES).decode(batch([value])).refused
    assert "CANARY" not in letter.error
    assert "4111" not in letter.error
    assert letter.error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (event(dep_delay="late"), "Expected `float`, got `str` - at `$.dep_delay`"),
        (event(cabin="first"), "Not one of the declared values - at `$.cabin`"),
        (event(stops=10), "Expected `int` <= 9 - at `$.stops`"),
        (raw("seats", b"9223372036854775808"), "Expected `int` <= 9223372036854775807 - at `$.seats`"),
        (raw("dep_delay", b"1e400"), "Number out of range - at `$.dep_delay`"),
        (b"{}", "Object missing required field `origin`"),
        (b"[]", "Expected `object`, got `array`"),
    ],
)
def test_an_error_names_the_field_and_what_was_expected(value: bytes, text: str) -> None:
    """The error text of a breach of contract is one an engineer can act on."""
    (letter,) = Decoder(DEPARTURES).decode(batch([value])).refused
    assert letter.error == text


def test_an_error_text_that_is_not_known_is_not_passed_on() -> None:
    """Should a release of msgspec word an error in a new way, with the value in it, that text is dropped."""
    assert error_text(msgspec.ValidationError(f"Strange {CANARY} - at `$.cabin`")) == "Not one of the declared values - at `$.cabin`"
    assert error_text(msgspec.ValidationError(f"Strange {CANARY}")) == "Not one of the declared values"


def test_the_last_of_a_repeated_field_counts() -> None:
    """Where a field is named twice and right both times, the last value is read, as pydantic does."""
    assert values_of(raw("seats", b'5, "seats": 6'))["seats"] == 6.0
