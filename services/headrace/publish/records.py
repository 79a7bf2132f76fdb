"""What we write, as structs: the JSON Schemas in `schemas/` come from here, and so does every example that must decode for ever.

A prediction is one JSON object; its Kafka key is the source record's key and its timestamp the source record's. Members that are absent
are left out, never null; inside `features` null says that a feature has no value (NaN) for this event. Inside a major version members may
be added, never removed, renamed or given another type (FULL_TRANSITIVE), so readers must ignore members they do not know.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from headrace.types import Reason, Role

PREDICTION_TYPE = "headrace.prediction.v1"
"""The CloudEvents type of a prediction; the number is the major version of the contract."""

CORRECTION_TYPE = "headrace.correction.v1"
"""The same of a correction."""

LOOKED_UP = "headrace-looked-up"
"""The header that tells what a prediction, or the dead letter of what a model refused, looked up; under every policy, as without it the
features cannot be computed again.
"""

CONTRIBUTIONS = (
    "What features contributed most to the score, the largest first, in the units in which it adds up: log-odds for the probability of "
    "boosted trees or a logistic model, else those of the score. With those left out, and what the model gives in the mean, they are it."
)

FIRST_BYTES = 1024
"""How much of a value a pointer keeps."""


class ModelVersion(Struct, frozen=True, kw_only=True):
    """Who gave the score."""

    name: Annotated[str, Meta(description="Name of the model.")]
    version: Annotated[str, Meta(description="Its version: one immutable registration.")]
    role: Annotated[Role, Meta(description="champion or challenger: published and acted on; shadow: kept apart.")]


class Prediction(Struct, frozen=True, kw_only=True):
    """The score that one model version gave one event."""

    id: Annotated[
        str,
        Meta(
            description="<source topic>-<partition>-<offset>-<model>, for a shadow with @<version> behind it:"
            " the same event and model always give the same id, so a reader can drop repeats."
        ),
    ]
    entity: Annotated[str, Meta(description="The entity key of the event; also the key of the record.")]
    event_time: Annotated[int, Meta(description="When the event happened, milliseconds UTC.")]
    score: Annotated[float, Meta(description="The model's output, finite.")]
    model: ModelVersion
    late: Annotated[bool, Meta(description="The event came later than the source allows: it was scored, but changed no state.")]
    join: Annotated[str, Meta(description="What the event's outcome will be joined by.")] | UnsetType = UNSET
    stale: (
        Annotated[list[str], Meta(description="Views looked up whose store had not seen enough of the time before the event.")] | UnsetType
    ) = UNSET
    ahead: (
        Annotated[list[str], Meta(description="Views looked up whose store had seen newer events; these are left out, pane by pane.")]
        | UnsetType
    ) = UNSET
    segments: Annotated[dict[str, str], Meta(description="Declared segments of the event.")] | UnsetType = UNSET
    features: (
        Annotated[dict[str, float | None], Meta(description="The feature vector that was scored, by name; null: no value.")] | UnsetType
    ) = UNSET
    contributions: Annotated[dict[str, float], Meta(description=CONTRIBUTIONS)] | UnsetType = UNSET
    scored_at: Annotated[int, Meta(description="When the score was computed, milliseconds UTC: the only wall clock in the record.")]


class Place(Struct, frozen=True, kw_only=True):
    """Where a record of the source stands."""

    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]


class Correction(Struct, frozen=True, kw_only=True):
    """What an event that came out of order changed: the vector of an event in the order of event time, and its score.

    The last one of an event stands for it; each is published once, in the transaction of the event that caused it.
    """

    id: Annotated[str, Meta(description="<id of the prediction>-r<revision>: the same correction always has the same id.")]
    corrects: Annotated[str, Meta(description="The id of the prediction.")]
    revision: Annotated[
        int, Meta(ge=1, description="How often the vector was corrected, with this one; one is missing where the model gave no score.")
    ]
    source: Annotated[Place, Meta(description="The event that is corrected.")]
    caused_by: Annotated[Place, Meta(description="The event that came out of order: a later offset, or this event itself.")]
    entity: Annotated[str, Meta(description="The entity key of the event; also the key of the record.")]
    event_time: Annotated[int, Meta(description="When the corrected event happened, milliseconds UTC.")]
    score: Annotated[float, Meta(description="The model's output for the corrected vector, finite.")]
    model: ModelVersion
    join: Annotated[str, Meta(description="What the event's outcome will be joined by.")] | UnsetType = UNSET
    features: Annotated[dict[str, float | None], Meta(description="The corrected feature vector, by name; null: no value.")] | UnsetType = (
        UNSET
    )
    scored_at: Annotated[int, Meta(description="When the score was computed, milliseconds UTC: the only wall clock in the record.")]


class PredictionHeaders(Struct, frozen=True, kw_only=True, rename={"content_type": "content-type"}):
    """The Kafka headers of a prediction, all UTF-8 text: CloudEvents 1.0 in binary mode, then ours.

    A setting of the app leaves some out: `full` has all, `cloudevents` no `headrace-source`, `minimal` no CloudEvents ones either.
    """

    ce_specversion: Literal["1.0"] | UnsetType = UNSET
    ce_id: Annotated[str, Meta(description="The prediction's id.")] | UnsetType = UNSET
    ce_type: Literal["headrace.prediction.v1"] | UnsetType = UNSET
    ce_source: Annotated[str, Meta(description="/headrace/<app>/<pipeline>")] | UnsetType = UNSET
    ce_time: Annotated[str, Meta(description="The event time, RFC 3339.")] | UnsetType = UNSET
    content_type: Literal["application/json"]
    traceparent: Annotated[str, Meta(description="Carried on from the source record.")] | UnsetType = UNSET
    tracestate: Annotated[str, Meta(description="Carried on from the source record.")] | UnsetType = UNSET
    source: Annotated[str, Meta(description="<topic>/<partition>/<offset> of the source record.")] | UnsetType = msgspec.field(
        default=UNSET, name="headrace-source"
    )
    fingerprint: Annotated[str, Meta(description="Names the definitions the features came from.")] | UnsetType = msgspec.field(
        default=UNSET, name="headrace-fingerprint"
    )
    looked_up: (
        Annotated[
            str,
            Meta(description="What was read of other sources: <view>=<partition>:<applied offset>:<event time come to>, joined by ;"),
        ]
        | UnsetType
    ) = msgspec.field(default=UNSET, name=LOOKED_UP)


class CorrectionHeaders(Struct, frozen=True, kw_only=True, rename={"content_type": "content-type"}):
    """The Kafka headers of a correction, all UTF-8 text, by the same setting as those of a prediction."""

    ce_specversion: Literal["1.0"] | UnsetType = UNSET
    ce_id: Annotated[str, Meta(description="The correction's id.")] | UnsetType = UNSET
    ce_type: Literal["headrace.correction.v1"] | UnsetType = UNSET
    ce_source: Annotated[str, Meta(description="/headrace/<app>/<pipeline>")] | UnsetType = UNSET
    ce_time: Annotated[str, Meta(description="The time of the corrected event, RFC 3339.")] | UnsetType = UNSET
    content_type: Literal["application/json"]
    traceparent: Annotated[str, Meta(description="Carried on from the record that caused it.")] | UnsetType = UNSET
    tracestate: Annotated[str, Meta(description="Carried on from the record that caused it.")] | UnsetType = UNSET
    source: Annotated[str, Meta(description="<topic>/<partition>/<offset> of the record of the corrected event.")] | UnsetType = (
        msgspec.field(default=UNSET, name="headrace-source")
    )
    fingerprint: Annotated[str, Meta(description="Names the definitions the features came from.")] | UnsetType = msgspec.field(
        default=UNSET, name="headrace-fingerprint"
    )


class DeadLetterHeaders(Struct, frozen=True, kw_only=True):
    """The headers of a dead letter behind its original ones, all UTF-8 text: KIP-1034 names, then ours. The last of a name counts."""

    exception: Annotated[str, Meta(description="headrace.Reason.<reason>")] = msgspec.field(name="__streams.errors.exception")
    error: Annotated[str, Meta(description="What is wrong and where, never the offending value.")] = msgspec.field(
        name="__streams.errors.message"
    )
    topic: Annotated[str, Meta(description="Topic of the refused record.")] = msgspec.field(name="__streams.errors.topic")
    partition: Annotated[str, Meta(pattern="^[0-9]+$")] = msgspec.field(name="__streams.errors.partition")
    offset: Annotated[str, Meta(pattern="^[0-9]+$")] = msgspec.field(name="__streams.errors.offset")
    reason: Annotated[Reason, Meta(description="From the closed list of reasons.")] = msgspec.field(name="headrace-reason")
    stage: Annotated[str, Meta(description="The stage that refused it.")] = msgspec.field(name="headrace-stage")
    app: Annotated[str, Meta(description="The app that refused it.")] = msgspec.field(name="headrace-app")
    version: Annotated[str, Meta(description="The version of headrace that refused it.")] = msgspec.field(name="headrace-version")
    attempts: Annotated[str, Meta(pattern="^[0-9]+$", description="How often it was refused, replays included.")] = msgspec.field(
        name="headrace-attempts"
    )
    model: Annotated[str, Meta(description="The one model whose score is missing; absent: all of them.")] | UnsetType = msgspec.field(
        default=UNSET, name="headrace-model"
    )
    looked_up: (
        Annotated[str, Meta(description="What a model that refused was given of other sources, as in the headers of a prediction.")]
        | UnsetType
    ) = msgspec.field(default=UNSET, name=LOOKED_UP)
    pointer: Annotated[Literal["1"], Meta(description="The value is a pointer, version 1.")] | UnsetType = msgspec.field(
        default=UNSET, name="headrace-pointer"
    )


class Notice(Struct, frozen=True, kw_only=True):
    """A record of the facts topic `<app>.facts.v1`: who answers for a pipeline is going to change, or changes now.

    Other records there have another `kind`; a reader passes over those it does not know.
    """

    kind: Literal["notice"]
    pipeline: Annotated[str, Meta(description="The pipeline whose predictions come from another version then.")]
    what: Annotated[
        Literal["champion", "challenger"], Meta(description="Whose role changes: who answers for all entities, or for a share.")
    ]
    before: Annotated[str, Meta(description="The version that has the role; null: nobody has.")] | None = msgspec.field(name="from")
    to: Annotated[str, Meta(description="The version that gets it; null: nobody does, and the fallback score is given.")] | None
    share: Annotated[float, Meta(description="Of a challenger: the share of the entities.")] | UnsetType = UNSET
    at_ms: Annotated[int, Meta(description="It does not come before then, milliseconds UTC.")]
    given: Annotated[
        Literal["ahead", "elsewhere", "emergency"],
        Meta(description="ahead: the declared time before; elsewhere: notice was given in another way; emergency: there was none."),
    ]
    given_ms: Annotated[int, Meta(description="When it was given, milliseconds UTC, by the clock of who gave it.")]
    expects: Annotated[int, Meta(ge=0, description="The offset behind the last record of the control topic that its author had read.")]
    by: Annotated[str, Meta(description="Who gave it.")]
    reason: Annotated[str, Meta(description="Why.")] | UnsetType = UNSET


class Bytes(Struct, frozen=True, kw_only=True):
    """What a pointer keeps of bytes that did not fit."""

    size: Annotated[int, Meta(ge=0, description="Bytes.")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    first: Annotated[str, Meta(description="The first 1,024 bytes, base64.")]


class DeadLetterPointer(Struct, frozen=True, kw_only=True):
    """The value of a dead letter whose original does not fit the dead-letter topic: where to find it and how to know it.

    `key` and `headers` are there where even the original key and headers did not fit; then the dead letter has no key and only our headers.
    """

    topic: str
    partition: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]
    timestamp: Annotated[int, Meta(description="Of the refused record, milliseconds UTC.")]
    value: Bytes | None
    key: Bytes | UnsetType | None = UNSET
    headers: Annotated[int, Meta(ge=0, description="How many headers were left out.")] | UnsetType = UNSET


def kept_of(content: bytes | None) -> Bytes | None:
    """Size, hash and beginning of bytes that do not fit; None stays None."""
    if content is None:
        return None
    return Bytes(
        size=len(content), sha256=hashlib.sha256(content).hexdigest(), first=base64.b64encode(content[:FIRST_BYTES]).decode("ascii")
    )


def encode(written: Struct) -> bytes:
    """The JSON of one struct of this module: for what is written one at a time."""
    return msgspec.json.encode(written)


def decode_prediction(value: bytes) -> Prediction:
    """The prediction in a record's value; members it does not know are ignored. Raises `ValueError`."""
    return msgspec.json.decode(value, type=Prediction)


def decode_correction(value: bytes) -> Correction:
    """The correction in a record's value; members it does not know are ignored. Raises `ValueError`."""
    return msgspec.json.decode(value, type=Correction)


def decode_notice(value: bytes) -> Notice:
    """The notice in a record's value; members it does not know are ignored. Raises `ValueError`."""
    return msgspec.json.decode(value, type=Notice)


def beside_views(prediction: Prediction, views: Collection[str]) -> Prediction:
    """A prediction without all that was looked up in some views: their features, their marks, and the score and contributions, which were
    made of them.
    """
    if not views:
        return prediction
    stale, ahead = (
        [view for view in marked if view not in views] or UNSET if isinstance(marked, list) else marked
        for marked in (prediction.stale, prediction.ahead)
    )
    features = prediction.features
    if isinstance(features, dict):
        begins = tuple(f"{view}." for view in views)
        features = {name: value for name, value in features.items() if not name.startswith(begins)}
    return msgspec.structs.replace(prediction, score=0.0, stale=stale, ahead=ahead, features=features, contributions=UNSET)


def decode_pointer(value: bytes) -> DeadLetterPointer:
    """The pointer in a dead letter's value (header `headrace-pointer`). Raises `ValueError`."""
    return msgspec.json.decode(value, type=DeadLetterPointer)


def decode_dead_letter_headers(headers: Sequence[tuple[str, bytes | None]]) -> DeadLetterHeaders:
    """What the headers of a dead letter say; the last of a name counts, others are ignored. Raises `ValueError`."""
    texts = {name: (text or b"").decode("utf-8", "replace") for name, text in headers}
    return msgspec.convert(texts, type=DeadLetterHeaders)


def json_schema(struct: type[Struct], name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one struct of this module, its `$id` made of `name`."""
    (root,), definitions = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    schema = cast("dict[str, Any]", definitions.pop(root["$ref"].rsplit("/", 1)[1]))
    for described in (schema, *definitions.values()):
        described["description"] = inspect.cleandoc(described["description"])
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:headrace:{name}:v1", **schema}
    return {**schema, "$defs": definitions} if definitions else schema
