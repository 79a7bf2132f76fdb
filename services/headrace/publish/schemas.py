"""The contract of our topics as files: `schemas/`, generated from the code and compared with it in a test.

    python -m headrace.publish.schemas schemas

writes a JSON Schema for every struct of `records`, and examples that the encoder itself made of made-up flights. An example shows key,
headers and value of one record; headers as text, the value as JSON. When a format gains a member, move the examples it had to
`schemas/examples/kept/`: nothing writes there, and every reader must take them for ever.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.publish.correction_encoder import CorrectionEncoder
from headrace.publish.dead_letter import DeadLetters
from headrace.publish.encoder import Encoder, HeaderPolicy
from headrace.publish.records import (
    Correction,
    CorrectionHeaders,
    DeadLetterHeaders,
    DeadLetterPointer,
    Notice,
    Prediction,
    PredictionHeaders,
    encode,
    json_schema,
)
from headrace.types import Corrected, DeadLetter, EventBatch, Headers, OutRecords, Reason, RecordBatch, Role

SCHEMAS: dict[str, type[Any]] = {
    "prediction": Prediction,
    "prediction-headers": PredictionHeaders,
    "correction": Correction,
    "correction-headers": CorrectionHeaders,
    "dead-letter-headers": DeadLetterHeaders,
    "dead-letter-pointer": DeadLetterPointer,
    "notice": Notice,
}

TRACE: Headers = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
DEPARTED_MS = 1_357_034_400_000


def schema_files() -> dict[str, Any]:
    """The JSON Schemas by file name."""
    return {f"{name}.schema.json": json_schema(struct, name) for name, struct in SCHEMAS.items()}


def example_files() -> dict[str, Any]:
    """The examples by file name."""
    names = ["origin_activity.count_1h", "origin_activity.mean_dep_delay_3h", "dep_delay"]
    values = np.array([[3.0, float("nan"), -2.5]])
    flights = flight_records([b'{"origin":"EWR","departed_at":1357034400000,"dep_delay":-2.5}', b'{"origin":"EWR","dep_delay":"late"}'])
    files = {
        "prediction.full.json": prediction(flights, names, values, headers=HeaderPolicy.FULL, join="UA-1545-2013-01-01"),
        "prediction.minimal.json": prediction(flights, names, None, headers=HeaderPolicy.MINIMAL),
        "prediction.shadow.json": prediction(flights, names, values, headers=HeaderPolicy.CLOUDEVENTS, role="shadow"),
        "prediction.contributions.json": prediction(
            flights, names, None, headers=HeaderPolicy.CLOUDEVENTS, contributions=np.array([[-0.25, 0.0, 0.5]])
        ),
        "correction.json": correction(flights, names, values, join="UA-1545-2013-01-01"),
        "notice.json": notice(),
    }
    letters = {
        "dead-letter.contract": DeadLetter(
            row=1, reason=Reason.CONTRACT, stage="decode", error="Expected `float`, got `str` - at `$.dep_delay`"
        ),
        "dead-letter.model": DeadLetter(row=0, reason=Reason.MODEL_OUTPUT, stage="predict", error="the score is NaN", model="late_arrival"),
        "dead-letter.looked-up": DeadLetter(
            row=0,
            reason=Reason.MODEL_OUTPUT,
            stage="predict",
            error="the score is NaN",
            model="late_arrival",
            looked_up=b"airport=3:70112:1357034100000",
        ),
    }
    whole = DeadLetters("flights", "flights.dead-letters.v1", version="0.1.0")
    small = DeadLetters("flights", "flights.dead-letters.v1", version="0.1.0", max_record_bytes=10_000)
    files |= {f"{name}.json": example(whole.encode(flights, [letter])) for name, letter in letters.items()}
    large = flight_records([b'{"origin":"EWR","note":"' + b"x" * 12_000 + b'"}'])
    refused = DeadLetter(row=0, reason=Reason.TOO_LARGE, stage="decode", error="the value has 12026 bytes, more than 10000")
    files["dead-letter.pointer.json"] = example(small.encode(large, [refused]))
    large.keys[0] = b"k" * 10_000
    files["dead-letter.pointer-alone.json"] = example(small.encode(large, [refused]))
    return files


def prediction(
    flights: RecordBatch,
    names: Sequence[str],
    values: np.ndarray[Any, np.dtype[np.float64]] | None,
    *,
    headers: HeaderPolicy,
    role: Role = "champion",
    join: str | None = None,
    contributions: np.ndarray[Any, np.dtype[np.float64]] | None = None,
) -> dict[str, Any]:
    """The prediction of the first flight, as an example."""
    encoder = Encoder(
        app="flights",
        source_topic=flights.topic,
        pipeline="late_arrival",
        predictions="flights.late_arrival.predictions.v1",
        feature_names=names,
        publish_features=values is not None,
        model_name="late_arrival",
        model_version="3",
        role=role,
        contributions=0 if contributions is None else 2,
        fingerprint="5e0d51aa64a6ecf0a85a6b3a71b1e2f3",
        headers=headers,
    )
    row = np.array([0])
    times, late, scores = flights.timestamps_ms[:1] - 500, np.array([False]), np.array([0.0625])
    about = flights, row, ["EWR"], times, late, scores, values, DEPARTED_MS + 12, [join]
    return example(encoder.encode(*about, contributions=contributions))


def correction(flights: RecordBatch, names: Sequence[str], values: np.ndarray[Any, np.dtype[np.float64]], *, join: str) -> dict[str, Any]:
    """What the first flight, come out of order, corrects of one that stands before it, as an example."""
    encoder = CorrectionEncoder(
        app="flights",
        source_topic=flights.topic,
        pipeline="late_arrival",
        corrections="flights.late_arrival.predictions.v1.corrections",
        feature_names=names,
        publish_features=True,
        model_name="late_arrival",
        model_version="3",
        fingerprint="5e0d51aa64a6ecf0a85a6b3a71b1e2f3",
    )
    causes = EventBatch(
        records=flights, rows=np.array([0]), entities=["EWR"], event_times_ms=flights.timestamps_ms[:1] - 90_500, columns={}
    )
    corrected = Corrected(
        causes=np.array([0]),
        offsets=np.array([39]),
        event_times_ms=flights.timestamps_ms[:1] - 30_500,
        revisions=np.array([1]),
        values=values,
        joins=np.array([join], dtype=object),
    )
    return example(encoder.encode(causes, corrected, np.array([0.0703125]), DEPARTED_MS + 12))


def notice() -> dict[str, Any]:
    """What is told a day before another version of the model answers, as an example."""
    told = Notice(
        kind="notice",
        pipeline="late_arrival",
        what="champion",
        before="3",
        to="4",
        at_ms=DEPARTED_MS + 86_400_000,
        given="ahead",
        given_ms=DEPARTED_MS,
        expects=17,
        by="ann@desk",
    )
    records = OutRecords(topic="flights.facts.v1", keys=[b"notice"], values=[encode(told)], headers=[[]], timestamps_ms=[DEPARTED_MS])
    return example(records)


def flight_records(values: Sequence[bytes]) -> RecordBatch:
    """Records of the demo's source topic."""
    count = len(values)
    return RecordBatch(
        topic="flights.departures.v1",
        partitions=np.full(count, 2, dtype=np.int32),
        offsets=np.arange(41, 41 + count),
        timestamps_ms=np.full(count, DEPARTED_MS + 500),
        keys=[b"EWR"] * count,
        values=list(values),
        headers=[list(TRACE) for _ in values],
    )


def example(records: OutRecords) -> dict[str, Any]:
    """The only record of a batch, readable."""
    (key,), (value,), (headers,), (timestamp_ms,) = records.keys, records.values, records.headers, records.timestamps_ms
    return {
        "topic": records.topic,
        "timestamp": timestamp_ms,
        "key": None if key is None else key.decode(),
        "headers": {name: None if text is None else text.decode() for name, text in headers},
        "value": json.loads(value or b"null"),
    }


def text_of(content: Mapping[str, Any]) -> str:
    """A file's text."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write all files below a folder and tell which."""
    files = {folder / name: content for name, content in schema_files().items()}
    files |= {folder / "examples" / name: content for name, content in example_files().items()}
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(content), encoding="utf-8")
    return list(files)


if __name__ == "__main__":
    for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else "schemas")):
        sys.stdout.write(f"{written}\n")
