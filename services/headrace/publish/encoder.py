"""Columns and scores -> predictions, a batch at a time.

The JSON is written by msgspec from a struct type generated for one pipeline: the features are members of a sub-struct, so that no dict is
built, and the model, which is the same in every record, is pasted as bytes. Most of the time of a prediction with features goes into the
digits of its floating-point numbers.

Headers cost more than they look: the eight of `HeaderPolicy.FULL` take 0.4 us a record to build, about as long as writing a prediction
without features, then 0.1 us each in the producer's call, and their bytes are compressed, sent and kept. So the policy is a setting; what a
prediction is does not depend on it. What the default leaves out, the source's coordinates, stands in the id anyway. `ce_time` is not left
out, though CloudEvents does not require it: libraries put in the time of reading where it is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from itertools import repeat, starmap
from typing import Any, cast

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from headrace.publish.records import LOOKED_UP, PREDICTION_TYPE, ModelVersion
from headrace.types import Bools, Float64s, Headers, Int64s, LookedUp, OutRecords, RecordBatch, Role

TRACE_HEADERS = frozenset({"traceparent", "tracestate"})
FIRST_DAY, LAST_DAY = np.datetime64("2000-01-01", "D"), np.datetime64("2100-01-01", "D")
DAY_MS, MINUTE_MS, SECOND_MS = 86_400_000, 60_000, 1_000

Bytestrings = NDArray[np.bytes_]


class HeaderPolicy(StrEnum):
    """Which headers a prediction carries. Under each of them `traceparent` and `tracestate` of the source record are carried on."""

    FULL = "full"
    """What `CLOUDEVENTS` has, and `headrace-source`."""
    CLOUDEVENTS = "cloudevents"
    """CloudEvents 1.0 in binary mode, and `headrace-fingerprint`."""
    MINIMAL = "minimal"
    """What is the same for all records: `content-type` and `headrace-fingerprint`. Not CloudEvents."""


class Encoder:
    """Writes the predictions of one model version for one pipeline. Not to be used from two threads at once."""

    def __init__(
        self,
        *,
        app: str,
        source_topic: str,
        pipeline: str,
        predictions: str,
        feature_names: Sequence[str],
        publish_features: bool,
        model_name: str,
        model_version: str,
        role: Role = "champion",
        contributions: int = 0,
        fingerprint: str,
        headers: HeaderPolicy = HeaderPolicy.CLOUDEVENTS,
    ) -> None:
        """`predictions` is the topic written to; `feature_names` the columns of the feature vectors, published or not."""
        self.topic = predictions
        self._source_topic = source_topic
        self._id_end = f"-{model_name}@{model_version}" if role == "shadow" else f"-{model_name}"
        self._model = msgspec.Raw(msgspec.json.encode(ModelVersion(name=model_name, version=model_version, role=role)))
        self._feature_count = len(feature_names)
        self._features = feature_struct(feature_names) if publish_features else None
        self._names, self._contributions = list(feature_names), contributions
        self._prediction = prediction_struct(self._features, contributions=contributions > 0)
        self._json = msgspec.json.Encoder()
        self._heading = Heading(
            kind=PREDICTION_TYPE, app=app, source_topic=source_topic, pipeline=pipeline, fingerprint=fingerprint, policy=headers
        )

    def encode(  # noqa: PLR0917 the columns of one batch
        self,
        records: RecordBatch,
        rows: Int64s,
        entities: Sequence[str],
        event_times_ms: Int64s,
        late: Bools,
        scores: Float64s,
        values: Float64s | None,
        scored_at_ms: int,
        joins: Sequence[str | None] | None = None,
        looked_up: LookedUp | None = None,
        contributions: Float64s | None = None,
    ) -> OutRecords:
        """One prediction per row of `rows`, in their order; the other columns are aligned to `rows`.

        `values` is float64 [rows, features] and may be None where features are not published; NaN becomes null. `joins` holds what each
        outcome is joined by, None where the event has none; `looked_up` what came from other sources; `contributions` is [rows, features],
        too, and None where nothing tells them. Raises `ValueError` for a score that is not finite: such an event is a dead letter
        (`MODEL_OUTPUT`) and must not get here.
        """
        if not np.isfinite(scores).all():
            raise ValueError(f"{self.topic}: a score is not finite")
        partitions, offsets = records.partitions[rows].tolist(), records.offsets[rows].tolist()
        starts = {number: f"{self._source_topic}-{number}-" for number in set(partitions)}
        ids = [f"{starts[number]}{offset}{self._id_end}" for number, offset in zip(partitions, offsets, strict=True)]
        columns: list[Any] = [ids, entities, event_times_ms.tolist(), scores.tolist(), repeat(self._model), late.tolist()]
        columns.append(repeat(UNSET) if joins is None else [UNSET if join is None else join for join in joins])
        columns += [repeat(UNSET)] * 2 if looked_up is None else [_marks(looked_up, looked_up.stale), _marks(looked_up, looked_up.ahead)]
        if self._features is not None:
            columns.append(starmap(self._features, self._vectors(values)))
        if self._contributions:
            columns.append(repeat(UNSET) if contributions is None else self._largest(contributions))
        predictions = map(self._prediction, *columns, repeat(scored_at_ms))
        whole = len(rows) == len(records)
        numbers = rows.tolist()
        headers = self._heading.of(ids, event_times_ms, partitions, offsets)
        if looked_up is not None:
            for ours, places in zip(headers, looked_up.places, strict=True):
                ours.append((LOOKED_UP, places))
        if records.headers.count(None) < len(records):
            carry_trace([records.headers[row] for row in numbers], headers)
        return OutRecords(
            topic=self.topic,
            keys=records.keys if whole else [records.keys[row] for row in numbers],
            values=list(map(self._json.encode, predictions)),
            headers=headers,
            timestamps_ms=(records.timestamps_ms if whole else records.timestamps_ms[rows]).tolist(),
            rows=rows,
        )

    def _largest(self, contributions: Float64s) -> list[dict[str, float]]:
        """Of each row the largest contributions, as far as they are some, by name; of equal ones the first features."""
        order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, : self._contributions]
        taken = np.take_along_axis(contributions, order, axis=1).tolist()
        names = self._names
        return [
            {names[place]: value for place, value in zip(places, values, strict=True) if value}
            for places, values in zip(order.tolist(), taken, strict=True)
        ]

    def _vectors(self, values: Float64s | None) -> list[list[float]]:
        """Feature vectors as lists; a wrong number of features must never be published under wrong names."""
        if values is None or values.shape[1] != self._feature_count:
            raise ValueError(f"{self.topic}: the feature vectors do not have the {self._feature_count} features declared")
        return cast("list[list[float]]", values.tolist())


class Heading:
    """Writes the headers of the results of one pipeline."""

    def __init__(self, *, kind: str, app: str, source_topic: str, pipeline: str, fingerprint: str, policy: HeaderPolicy) -> None:
        """`kind` is their CloudEvents type."""
        self._source_topic, self._policy = source_topic, policy
        self._fixed: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_type", kind.encode()),
            ("ce_source", f"/headrace/{app}/{pipeline}".encode()),
            ("content-type", b"application/json"),
            ("headrace-fingerprint", fingerprint.encode()),
        ]

    def of(self, ids: list[str], event_times_ms: Int64s, partitions: list[int], offsets: list[int]) -> list[Headers]:
        """The headers of every result, by policy; `partitions` and `offsets` are where the events stand."""
        version, kind, source, content, fingerprint = self._fixed
        if self._policy is HeaderPolicy.MINIMAL:
            return [[content, fingerprint] for _ in ids]
        times = rfc3339(event_times_ms)
        if self._policy is HeaderPolicy.CLOUDEVENTS:
            return [
                [version, ("ce_id", name.encode()), kind, source, ("ce_time", time), content, fingerprint]
                for name, time in zip(ids, times, strict=True)
            ]
        starts = {number: f"{self._source_topic}/{number}/".encode() for number in set(partitions)}
        origins = [b"%b%d" % (starts[number], offset) for number, offset in zip(partitions, offsets, strict=True)]
        return [
            [version, ("ce_id", name.encode()), kind, source, ("ce_time", time), content, ("headrace-source", origin), fingerprint]
            for name, time, origin in zip(ids, times, origins, strict=True)
        ]


def _marks(looked_up: LookedUp, marked: Bools) -> list[Any]:
    """Of each event the names of the views that are marked, unset where there is none."""
    codes = marked @ (1 << np.arange(len(looked_up.views), dtype=np.int64))
    names = {code: [name for bit, name in enumerate(looked_up.views) if code >> bit & 1] or UNSET for code in np.unique(codes).tolist()}
    return [names[code] for code in codes.tolist()]


def carry_trace(originals: Sequence[Headers | None], headers: Sequence[Headers]) -> None:
    """Append the trace headers of the source records to those of their predictions."""
    for original, ours in zip(originals, headers, strict=True):
        if original:
            ours.extend(header for header in original if header[0] in TRACE_HEADERS)


def feature_struct(names: Sequence[str]) -> type[msgspec.Struct]:
    """A struct with one member per feature, in their order, so that a vector becomes JSON without a dict; NaN is written as null."""
    fields = [f"f{number}" for number in range(len(names))]
    return msgspec.defstruct("Features", [(field, float) for field in fields], rename=dict(zip(fields, names, strict=True)), gc=False)


def prediction_struct(features: type[msgspec.Struct] | None, *, contributions: bool) -> Callable[..., msgspec.Struct]:
    """The struct that is written: `records.Prediction` with the model as bytes and the features as a struct."""
    fields: list[tuple[str, Any]] = [("id", str), ("entity", str), ("event_time", int), ("score", float)]
    fields += [("model", msgspec.Raw), ("late", bool), ("join", str | UnsetType)]
    fields += [("stale", list[str] | UnsetType), ("ahead", list[str] | UnsetType)]
    if features is not None:
        fields.append(("features", features))
    if contributions:
        fields.append(("contributions", dict[str, float] | UnsetType))
    return msgspec.defstruct("PredictionOut", [*fields, ("scored_at", int)], gc=False)


@cache
def calendar() -> tuple[Bytestrings, Bytestrings, Bytestrings, Bytestrings]:
    """The parts of an RFC 3339 text: every day from 2000 to 2100, every minute of a day, every second of a minute, every millisecond."""
    days = np.datetime_as_string(np.arange(FIRST_DAY, LAST_DAY + 1)).astype("S10")
    minutes = np.array([f"T{minute // 60:02}:{minute % 60:02}:" for minute in range(1_440)], "S7")
    seconds = np.array([f"{second:02}." for second in range(60)], "S3")
    milliseconds = np.array([f"{millisecond:03}Z" for millisecond in range(1_000)], "S4")
    return days, minutes, seconds, milliseconds


def rfc3339(times_ms: Int64s) -> list[bytes]:
    """Times of 2000 to 2100 as text, `2013-01-01T10:00:00.000Z`: put together from tables, 0.1 us each in place of 0.4."""
    days, minutes, seconds, milliseconds = calendar()
    day, within_day = np.divmod(times_ms, DAY_MS)
    minute, within_minute = np.divmod(within_day, MINUTE_MS)
    second, millisecond = np.divmod(within_minute, SECOND_MS)
    text = np.empty(len(times_ms), [("day", "S10"), ("minute", "S7"), ("second", "S3"), ("millisecond", "S4")])
    text["day"] = days[day - FIRST_DAY.astype(np.int64)]
    text["minute"], text["second"], text["millisecond"] = minutes[minute], seconds[second], milliseconds[millisecond]
    return cast("list[bytes]", text.view("S24").tolist())
