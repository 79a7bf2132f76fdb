"""Corrections as records."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headrace.publish.correction_encoder import CorrectionEncoder
from headrace.publish.encoder import HeaderPolicy
from headrace.publish.records import decode_correction
from headrace.types import Corrected, EventBatch, Headers, RecordBatch

NOON_MS = 1_700_000_000_000
TRACE: Headers = [("traceparent", b"00-abc-def-01"), ("other", b"x")]


def encoder(*, publish_features: bool = True, headers: HeaderPolicy = HeaderPolicy.FULL) -> CorrectionEncoder:
    """Of two features."""
    return CorrectionEncoder(
        app="cards",
        source_topic="payments.v1",
        pipeline="fraud",
        corrections="fraud.v1.corrections",
        feature_names=["spending.count_1h", "amount"],
        publish_features=publish_features,
        model_name="fraud",
        model_version="3",
        fingerprint="f00d",
        headers=headers,
    )


EVENTS = EventBatch(
    records=RecordBatch(
        topic="payments.v1",
        partitions=np.array([1, 1, 0], dtype=np.int32),
        offsets=np.array([7, 8, 3]),
        timestamps_ms=np.array([NOON_MS, NOON_MS + 5, NOON_MS + 9]),
        keys=[b"bad", b"a", b"b"],
        values=[b"{", b"{}", b"{}"],
        headers=[None, list(TRACE), None],
    ),
    rows=np.array([1, 2]),
    entities=["a", "b"],
    event_times_ms=np.array([NOON_MS - 50, NOON_MS - 60]),
    columns={},
)


def corrected(*, joins: bool = True) -> Corrected:
    """Two that the first event caused, and one of the second."""
    return Corrected(
        causes=np.array([0, 0, 1]),
        offsets=np.array([8, 5, 2]),
        event_times_ms=np.array([NOON_MS - 50, NOON_MS - 20, NOON_MS - 30]),
        revisions=np.array([1, 2, 1]),
        values=np.array([[1.0, 2.5], [2.0, np.nan], [-0.0, 1.0]]),
        joins=np.array(["x", None, "z"] if joins else [], dtype=object),
    )


def test_a_correction_names_its_event_and_its_cause() -> None:
    """Id, coordinates, features and join are those of the corrected event; key, timestamp and trace those of the record that caused it."""
    found = encoder().encode(EVENTS, corrected(), np.array([0.5, 0.25, 0.125]), 42)
    first, second, third = (json.loads(value or b"") for value in found.values)
    assert found.topic == "fraud.v1.corrections"
    assert second == {
        "id": "payments.v1-1-5-fraud-r2",
        "corrects": "payments.v1-1-5-fraud",
        "revision": 2,
        "source": {"topic": "payments.v1", "partition": 1, "offset": 5},
        "caused_by": {"topic": "payments.v1", "partition": 1, "offset": 8},
        "entity": "a",
        "event_time": NOON_MS - 20,
        "score": 0.25,
        "model": {"name": "fraud", "version": "3", "role": "champion"},
        "features": {"spending.count_1h": 2.0, "amount": None},
        "scored_at": 42,
    }
    assert (first["source"], first["join"]) == (first["caused_by"], "x")
    assert (third["id"], third["entity"], third["join"]) == ("payments.v1-0-2-fraud-r1", "b", "z")
    assert b'"spending.count_1h":-0.0' in (found.values[2] or b"")
    assert found.keys == [b"a", b"a", b"b"]
    assert found.timestamps_ms == [NOON_MS + 5, NOON_MS + 5, NOON_MS + 9]
    assert decode_correction(found.values[1] or b"").source.offset == 5


def test_headers_follow_the_policy() -> None:
    """CloudEvents with a type of its own, the coordinates of the corrected event where asked for, the trace of the cause in any case."""
    full = encoder().encode(EVENTS, corrected(), np.zeros(3), 42).headers[1]
    assert dict(full) == {
        "ce_specversion": b"1.0",
        "ce_id": b"payments.v1-1-5-fraud-r2",
        "ce_type": b"headrace.correction.v1",
        "ce_source": b"/headrace/cards/fraud",
        "ce_time": b"2023-11-14T22:13:19.980Z",
        "content-type": b"application/json",
        "headrace-source": b"payments.v1/1/5",
        "headrace-fingerprint": b"f00d",
        "traceparent": b"00-abc-def-01",
    }
    minimal = encoder(headers=HeaderPolicy.MINIMAL).encode(EVENTS, corrected(), np.zeros(3), 42).headers[2]
    assert dict(minimal) == {"content-type": b"application/json", "headrace-fingerprint": b"f00d"}


def test_features_and_joins_may_be_left_out() -> None:
    """Where features are not published or outcomes not declared, the members are not there."""
    (value, *_) = encoder(publish_features=False).encode(EVENTS, corrected(joins=False), np.zeros(3), 42).values
    assert not {"features", "join"} & json.loads(value or b"").keys()


def test_a_score_that_is_not_finite_is_refused() -> None:
    """Whoever scores leaves those out."""
    with pytest.raises(ValueError, match="not finite"):
        encoder().encode(EVENTS, corrected(), np.array([0.0, np.nan, 0.0]), 42)
