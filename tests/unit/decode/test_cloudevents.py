"""CloudEvents on Kafka, beside the library of the project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, from_structured_event, to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from headrace.types import Headers, Reason
from tests.unit.decode.contracts import EVENT, batch, decoded, event, reason_of

BINARY: dict[str, bytes | None] = {
    "ce_specversion": b"1.0",
    "ce_id": b"1",
    "ce_source": b"/flights",
    "ce_type": b"flights.departure.v1",
    "content-type": b"application/json",
}
STRUCTURED: Headers = [("content-type", b"application/cloudevents+json")]
ATTRIBUTES: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/flights", "type": "flights.departure.v1"}


def binary(**changes: bytes | None) -> Headers:
    """Headers of binary mode with changes; None leaves one out."""
    named = {name.replace("content_type", "content-type"): value for name, value in changes.items()}
    return [(name, value) for name, value in {**BINARY, **named}.items() if name not in named or value is not None]


def structured(**changes: object) -> bytes:
    """A value of structured mode with changes; None leaves a member out."""
    return json.dumps({name: value for name, value in {**ATTRIBUTES, "data": EVENT, **changes}.items() if value is not None}).encode()


def test_what_the_library_writes_in_binary_mode_is_read() -> None:
    """A record made by the CloudEvents library in binary mode is an event."""
    made = to_binary_event(CloudEvent({**ATTRIBUTES, "datacontenttype": "application/json"}, EVENT), JSONFormat())
    assert reason_of(made.value, headers=list(made.headers.items())) is None


def test_what_the_library_writes_in_structured_mode_is_read() -> None:
    """A record made by the CloudEvents library in structured mode is an event, with the same columns as plain JSON."""
    made = to_structured_event(CloudEvent({**ATTRIBUTES, "datacontenttype": "application/json"}, EVENT), JSONFormat())
    enveloped = decoded(made.value, headers=[list(made.headers.items())])
    plain = decoded(event())
    assert enveloped.refused == []
    assert {name: column.tolist() for name, column in enveloped.events.columns.items()} == {
        name: column.tolist() for name, column in plain.events.columns.items()
    }
    assert enveloped.unknown_fields == 0


def library_takes(value: bytes, headers: Headers, *, mode: str) -> bool:
    """Whether the CloudEvents library takes a record."""
    message = KafkaMessage(headers={name: text or b"" for name, text in headers}, key=b"EWR", value=value)
    try:
        (from_binary_event if mode == "binary" else from_structured_event)(message, JSONFormat())
    except Exception:  # noqa: BLE001 whatever it raises, it does not take the record
        return False
    return True


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ce_source": None},
        {"ce_type": None},
        {"ce_id": b""},
        {"ce_source": b""},
        {"ce_type": b""},
        {"ce_specversion": b"2.0"},
        {"ce_specversion": b""},
        {"ce_id": b"\xff"},
        {"content_type": None},
        {"ce_time": b"2013-01-01T10:00:00Z"},
        {"ce_subject": b"EWR", "ce_traceparent": b"x"},
    ],
)
def test_an_envelope_in_binary_mode_is_taken_as_the_library_does(changes: Mapping[str, bytes | None]) -> None:
    """The required attributes decide, here and there."""
    headers = binary(**changes)
    reason = reason_of(event(), headers=headers)
    assert reason in {None, Reason.ENVELOPE}
    assert (reason is None) == library_takes(event(), headers, mode="binary")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source": None},
        {"type": None},
        {"id": ""},
        {"source": ""},
        {"type": ""},
        {"datacontenttype": "application/json"},
        {"subject": "EWR", "time": "2013-01-01T10:00:00Z", "extension": "x"},
    ],
)
def test_an_envelope_in_structured_mode_is_taken_as_the_library_does(changes: Mapping[str, object]) -> None:
    """The required members decide, here and there."""
    value, headers = structured(**changes), STRUCTURED
    reason = reason_of(value, headers=headers)
    assert reason in {None, Reason.ENVELOPE}
    assert (reason is None) == library_takes(value, headers, mode="structured")


@pytest.mark.parametrize("lacking", ["id", "specversion", "0.3"])
def test_where_the_library_helps_out_the_specification_counts(lacking: str) -> None:
    """The library makes up an id or a version that is missing, and reads version 0.3; we refuse what 1.0 says must be there."""
    in_headers: dict[str, bytes | None] = {"ce_specversion": b"0.3"} if lacking == "0.3" else {f"ce_{lacking}": None}
    in_value: dict[str, object] = {"specversion": "0.3"} if lacking == "0.3" else {lacking: None}
    assert library_takes(event(), binary(**in_headers), mode="binary")
    assert reason_of(event(), headers=binary(**in_headers)) is Reason.ENVELOPE
    assert library_takes(structured(**in_value), STRUCTURED, mode="structured")
    assert reason_of(structured(**in_value), headers=STRUCTURED) is Reason.ENVELOPE


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (event(), binary(content_type=b"application/avro"), Reason.ENVELOPE),
        (event(), binary(content_type=b"text/plain"), Reason.ENVELOPE),
        (event(), binary(content_type=b"Application/JSON; charset=utf-8"), None),
        (event(), binary(content_type=b"application/vnd.flights+json"), None),
        (event(), binary(content_type=b"\xff"), Reason.ENVELOPE),
        (event(), [("ce_type", b"x")], Reason.ENVELOPE),
        (event(), [("ce_id", None)], Reason.ENVELOPE),
        (event(), [("ce_time", b"x")], None),
        (event(), [*binary(ce_id=b""), ("ce_id", b"1")], None),
        (event(), [*binary(), ("ce_id", b"")], Reason.ENVELOPE),
        (event()[:-1], binary(), Reason.MALFORMED),
        (event(seats="x"), binary(), Reason.CONTRACT),
        (event()[:-1], binary(ce_id=None), Reason.ENVELOPE),
        (None, binary(ce_id=None), Reason.NULL_VALUE),
        (event(), [("traceparent", b"00-1-2-01"), ("x", None)], None),
        (event(), [("content-type", b"application/json")], None),
        (event(), [("content-type", b"application/avro")], None),
        (event(), [("content-type", None)], None),
        (event(), [], None),
        (structured(), [], Reason.CONTRACT),
        (structured(), [("content-type", b"application/CloudEvents+JSON; charset=UTF-8")], None),
        (structured(), [("content-type", b"application/cloudevents-batch+json")], Reason.ENVELOPE),
        (structured(), [("content-type", b"application/cloudevents+avro")], Reason.ENVELOPE),
        (structured(), [("content-type", b"application/cloudevents")], Reason.ENVELOPE),
        (structured(), [*STRUCTURED, ("ce_id", b"")], None),
        (structured(datacontenttype="text/xml"), STRUCTURED, Reason.ENVELOPE),
        (structured(data=None), STRUCTURED, Reason.ENVELOPE),
        (structured(data=None, data_base64="e30="), STRUCTURED, Reason.ENVELOPE),
        (structured(data_base64="e30="), STRUCTURED, Reason.ENVELOPE),
        (structured(id=5), STRUCTURED, Reason.ENVELOPE),
        (structured(data="text"), STRUCTURED, Reason.CONTRACT),
        (structured(data={**EVENT, "seats": "x"}), STRUCTURED, Reason.CONTRACT),
        (structured(data={**EVENT, "departed_at": 0}), STRUCTURED, Reason.EVENT_TIME_INVALID),
        (structured()[:-1], STRUCTURED, Reason.MALFORMED),
        (structured(note="\\ud800").replace(b"\\\\ud800", b"\\ud800"), STRUCTURED, Reason.MALFORMED),
        (structured(id=5).replace(b"180", b"\xff"), STRUCTURED, Reason.MALFORMED),
        (structured(note="x").replace(b'"x"', b'"\xff"'), STRUCTURED, Reason.MALFORMED),
        (structured(note=[]).replace(b"[]", b"[" * 200 + b"]" * 200), STRUCTURED, Reason.MALFORMED),
        (b"[]", STRUCTURED, Reason.ENVELOPE),
        (b"null", STRUCTURED, Reason.ENVELOPE),
    ],
)
def test_an_event_is_found_by_the_headers_alone(value: bytes | None, headers: Headers, reason: Reason | None) -> None:
    """Plain, binary and structured records, whole and broken, get the reason expected."""
    assert reason_of(value, headers=headers) == reason


def test_records_of_all_modes_may_share_a_batch() -> None:
    """Each record is read by its own headers; refused ones keep their places."""
    values = [event(stops=1), structured(), event(stops=2), event(), structured(id=None), event(stops=3)]
    headers: list[Headers | None] = [None, STRUCTURED, binary(), binary(ce_id=b""), STRUCTURED, [("traceparent", b"x")]]
    result = decoded(*values, headers=headers)
    assert result.events.rows.tolist() == [0, 1, 2, 5]
    assert result.events.columns["stops"].tolist() == [1.0, 0.0, 2.0, 3.0]
    assert [(letter.row, letter.reason) for letter in result.refused] == [(3, Reason.ENVELOPE), (4, Reason.ENVELOPE)]
    assert result.events.records.values == batch(values).values


@pytest.mark.parametrize("value", [structured(id={"S3CRET": 1}), structured(specversion="S3CRET"), structured(datacontenttype="S3CRET")])
def test_an_envelope_error_holds_no_value(value: bytes) -> None:
    """What was wrong in an envelope is named by its member, not quoted."""
    (letter,) = decoded(value, headers=[STRUCTURED]).refused
    assert "S3CRET" not in letter.error
