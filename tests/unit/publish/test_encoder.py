"""Columns and scores become predictions."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from headrace.publish.encoder import Encoder, HeaderPolicy, rfc3339
from headrace.publish.records import Prediction, decode_prediction, json_schema
from headrace.types import Headers, OutRecords, RecordBatch

NAMES = ("origin_activity.count_1h", "origin_activity.mean_dep_delay_3h", "dep_delay")
TIME_MS = 1_357_034_400_123
TRACE = ("traceparent", b"00-1-2-01")


def records(count: int, *, headers: Sequence[Headers | None] | None = None) -> RecordBatch:
    """Source records of two partitions, with offsets and timestamps of their own."""
    return RecordBatch(
        topic="flights.departures.v1",
        partitions=np.arange(count, dtype=np.int32) % 2,
        offsets=np.arange(count) * 10 + 5_000_000_000,
        timestamps_ms=np.arange(count) + TIME_MS,
        keys=[b"key-%d" % number for number in range(count)],
        values=[b"{}"] * count,
        headers=list(headers) if headers is not None else [None] * count,
    )


def encoder(**changes: Any) -> Encoder:
    """An encoder of three features, with changes."""
    settings: dict[str, Any] = {
        "app": "flights",
        "source_topic": "flights.departures.v1",
        "pipeline": "late_arrival",
        "predictions": "flights.predictions.v1",
        "feature_names": NAMES,
        "publish_features": True,
        "model_name": "late_arrival",
        "model_version": "3",
        "fingerprint": "abc",
        "headers": HeaderPolicy.FULL,
    }
    return Encoder(**{**settings, **changes})


def encoded(
    batch: RecordBatch,
    rows: Sequence[int],
    *,
    values: Sequence[Sequence[float]] | None = None,
    scores: Sequence[float] | None = None,
    joins: Sequence[str | None] | None = None,
    **changes: Any,
) -> OutRecords:
    """What an encoder makes of some rows; the score of row 1 is 0.1, and so on."""
    count = len(rows)
    return encoder(**changes).encode(
        batch,
        np.array(rows, dtype=np.int64),
        [f"key-{row}" for row in rows],
        np.array([TIME_MS - 1_000 + row for row in rows], dtype=np.int64),
        np.array([row % 2 == 1 for row in rows], dtype=np.bool_),
        np.array(scores if scores is not None else [row / 10 for row in rows], dtype=np.float64),
        np.array(values if values is not None else [[row, math.nan, -row / 3] for row in rows], dtype=np.float64).reshape(
            count, -1 if count else len(NAMES)
        ),
        TIME_MS + 7,
        joins,
    )


def predictions(out: OutRecords) -> list[Prediction]:
    """The predictions in the values."""
    return [decode_prediction(value or b"") for value in out.values]


def test_a_prediction_says_what_was_scored() -> None:
    """Every member is where the contract has it, with the value of its row."""
    assert json.loads(encoded(records(3), [2], joins=["UA1"]).values[0] or b"") == {
        "id": "flights.departures.v1-0-5000000020-late_arrival",
        "entity": "key-2",
        "event_time": TIME_MS - 998,
        "score": 0.2,
        "model": {"name": "late_arrival", "version": "3", "role": "champion"},
        "late": False,
        "join": "UA1",
        "features": {"origin_activity.count_1h": 2.0, "origin_activity.mean_dep_delay_3h": None, "dep_delay": -2 / 3},
        "scored_at": TIME_MS + 7,
    }


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 3], [3], []])
def test_rows_left_out_shift_nothing(rows: list[int]) -> None:
    """Key, timestamp, id, headers and value of each prediction are those of its own source record."""
    batch = records(4)
    out = encoded(batch, rows)
    assert len(out) == len(out.keys) == len(out.headers) == len(out.timestamps_ms) == len(rows)
    assert out.topic == "flights.predictions.v1"
    assert out.keys == [b"key-%d" % row for row in rows]
    assert out.timestamps_ms == [TIME_MS + row for row in rows]
    for row, prediction, headers in zip(rows, predictions(out), out.headers, strict=True):
        assert prediction.id == f"flights.departures.v1-{row % 2}-{5_000_000_000 + row * 10}-late_arrival"
        assert (prediction.entity, prediction.event_time, prediction.late) == (f"key-{row}", TIME_MS - 1_000 + row, row % 2 == 1)
        assert dict(headers)["ce_id"] == prediction.id.encode()
        assert dict(headers)["headrace-source"] == f"flights.departures.v1/{row % 2}/{5_000_000_000 + row * 10}".encode()


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(allow_infinity=False), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_numbers_arrive_bit_by_bit(vectors: list[list[float]], score: float) -> None:
    """Scores and features are read back as the same floats; a feature without a value is null."""
    out = encoded(records(len(vectors)), range(len(vectors)), values=vectors, scores=[score] * len(vectors))
    for vector, prediction in zip(vectors, predictions(out), strict=True):
        assert math.copysign(1, prediction.score) == math.copysign(1, score)
        assert prediction.score == score
        assert not isinstance(prediction.features, msgspec.UnsetType)
        assert tuple(prediction.features) == NAMES
        found = np.array(list(prediction.features.values()), dtype=np.float64)
        assert (np.isnan(found) == np.isnan(vector)).all()
        assert found[~np.isnan(found)].tobytes() == np.array(vector)[~np.isnan(found)].tobytes()


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_may_be_an_entity(entity: str, join: str) -> None:
    """Quotes, line ends, NULs and emoji in an entity or a join are read back as they were."""
    out = encoder(publish_features=False).encode(
        records(1), np.array([0]), [entity], np.array([TIME_MS]), np.array([False]), np.array([0.5]), None, 1, [join]
    )
    (prediction,) = predictions(out)
    assert (prediction.entity, prediction.join) == (entity, join)


def test_what_is_absent_is_left_out() -> None:
    """Without features and joins, and where an event has no join, there is no such member, not a null."""
    assert "features" not in json.loads(encoded(records(1), [0], publish_features=False).values[0] or b"")
    with_joins = [json.loads(value or b"") for value in encoded(records(2), [0, 1], joins=[None, "x"]).values]
    assert ["join" in value for value in with_joins] == [False, True]


def test_a_shadow_has_ids_of_its_own() -> None:
    """The id of a shadow's prediction names its version, as several shadows of one model may score the same event."""
    (prediction,) = predictions(encoded(records(1), [0], role="shadow"))
    assert prediction.id == "flights.departures.v1-0-5000000000-late_arrival@3"
    assert prediction.model.role == "shadow"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_never_published(score: float) -> None:
    """Such an event is a dead letter; if it gets here all the same, that is an error and no null goes out."""
    with pytest.raises(ValueError, match="not finite"):
        encoded(records(2), [0, 1], scores=[0.5, score])


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [[1.0, 2.0, 3.0, 4.0]]])
def test_a_vector_of_another_width_is_never_published(values: list[list[float]]) -> None:
    """Features under wrong names would be worse than none."""
    with pytest.raises(ValueError, match="do not have the 3 features"):
        encoded(records(1), [0], values=values)


FULL = ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type", "headrace-source", "headrace-fingerprint"]


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        (HeaderPolicy.FULL, FULL),
        (HeaderPolicy.CLOUDEVENTS, [name for name in FULL if name != "headrace-source"]),
        (HeaderPolicy.MINIMAL, ["content-type", "headrace-fingerprint"]),
    ],
)
def test_a_policy_decides_which_headers_there_are(policy: HeaderPolicy, names: list[str]) -> None:
    """Headers are those of the policy, in its order, and behind them what traces; nothing else of the source record's headers."""
    source_headers: list[Headers | None] = [None, [("other", b"x"), TRACE, ("tracestate", b"a=b"), ("ce_id", b"theirs")], []]
    out = encoded(records(3, headers=source_headers), [0, 1, 2], headers=policy)
    assert [[name for name, _ in headers] for headers in out.headers] == [names, [*names, "traceparent", "tracestate"], names]
    assert dict(out.headers[1])["traceparent"] == TRACE[1]


def test_a_trace_is_carried_on_by_the_right_record() -> None:
    """Where rows are left out, each prediction still has the trace of its own event."""
    batch = records(3, headers=[[("traceparent", b"0")], None, [("traceparent", b"2")]])
    assert [dict(headers).get("traceparent") for headers in encoded(batch, [1, 2]).headers] == [None, b"2"]
    assert encoded(batch, [1]).headers[0] is not encoded(batch, [1]).headers[0]


@pytest.mark.parametrize("policy", [HeaderPolicy.FULL, HeaderPolicy.CLOUDEVENTS])
def test_the_cloudevents_library_reads_a_prediction(policy: HeaderPolicy) -> None:
    """A prediction is a CloudEvent in binary mode: the library of that project finds its id, type, source, time and event."""
    out = encoded(records(2), [0, 1], headers=policy)
    headers = {name: text or b"" for name, text in out.headers[1]}
    found = from_binary_event(KafkaMessage(headers=headers, key=out.keys[1], value=out.values[1] or b""), JSONFormat())
    assert found.get_id() == predictions(out)[1].id
    assert (found.get_type(), found.get_source()) == ("headrace.prediction.v1", "/headrace/flights/late_arrival")
    time = found.get_time()
    assert time is not None
    assert int(time.timestamp() * 1000) == predictions(out)[1].event_time
    assert found.get_data() == json.loads(out.values[1] or b"")


@settings(deadline=None)
@given(st.lists(st.integers(946_684_800_000, 4_102_444_800_000), max_size=5))
def test_times_are_written_as_the_calendar_has_them(times: list[int]) -> None:
    """Event times from 2000 to 2100 are written as Python's calendar writes them, to the millisecond."""
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    expected = [(epoch + dt.timedelta(milliseconds=time)).isoformat(timespec="milliseconds").replace("+00:00", "Z") for time in times]
    assert [text.decode() for text in rfc3339(np.array(times, dtype=np.int64))] == expected


@pytest.mark.parametrize("changes", [{}, {"publish_features": False}, {"role": "shadow"}])
def test_what_is_written_is_what_the_schema_says(changes: dict[str, Any]) -> None:
    """Predictions fit their JSON Schema and hold no member it does not name."""
    schema = json_schema(Prediction, "prediction")
    for joins in (None, ["x", None]):
        for value in encoded(records(2), [0, 1], joins=joins, **changes).values:
            Draft202012Validator({**schema, "additionalProperties": False}).validate(json.loads(value or b""))
