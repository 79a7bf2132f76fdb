"""CloudEvents 1.0 on Kafka: finds the event inside the envelope, or says what is wrong with it.

The headers alone tell how a record is meant:

| headers | the event is |
| --- | --- |
| `content-type: application/cloudevents+json` (structured mode) | the member `data` of the value |
| any of `ce_specversion`, `ce_id`, `ce_source`, `ce_type` (binary mode) | the value |
| others, or none | the value: plain JSON |

In an envelope the version must be 1.0 and the four required attributes texts that are not empty, and the event must be JSON: as
`content-type` says in binary mode, `datacontenttype` in structured mode; where they say nothing, it is. Batches of events in one record,
`data_base64` and structured mode in other formats are refused. Optional attributes are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from headrace.decode.json_text import malformed
from headrace.types import Headers, Reason

REQUIRED = ("ce_specversion", "ce_id", "ce_source", "ce_type")
VERSION = "1.0"

_REQUIRED = frozenset(REQUIRED)
_TELLING = _REQUIRED | {"content-type"}
_Text = Annotated[str, msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a record holds no event."""

    reason: Reason
    error: str


class _Mode(Enum):
    """What a content type says about the value."""

    JSON = "json"
    STRUCTURED = "structured"
    UNSUPPORTED = "unsupported"
    OTHER = "other"


class _Structured(msgspec.Struct, gc=False):
    """The envelope of structured mode; attributes nobody asks for are skipped."""

    specversion: _Text
    id: _Text
    source: _Text
    type: _Text
    datacontenttype: str | None = None
    data: msgspec.Raw | UnsetType = UNSET
    data_base64: msgspec.Raw | UnsetType = UNSET


_STRUCTURED = msgspec.json.Decoder(_Structured)


def event_bytes(value: bytes, headers: Headers) -> bytes | Refusal:
    """The JSON of the event in a record with headers; the last header of a name counts."""
    if _TELLING.isdisjoint([name for name, _ in headers]):
        return value
    texts = dict(headers)
    mode = _mode(texts.get("content-type") or b"")
    if mode is _Mode.STRUCTURED:
        return _structured(value)
    if mode is _Mode.UNSUPPORTED:
        return _broken("structured mode takes application/cloudevents+json only")
    fault = None if _REQUIRED.isdisjoint(texts) else _binary_fault(texts, mode)
    return value if fault is None else _broken(fault)


def _binary_fault(texts: Mapping[str, bytes | None], mode: _Mode) -> str | None:
    """What is wrong with an envelope of binary mode, or None."""
    attributes = [texts.get(name) or b"" for name in REQUIRED]
    if not all(attributes):
        return f"header {REQUIRED[attributes.index(b'')]} is missing or empty"
    if attributes[0] != VERSION.encode():
        return f"header ce_specversion is not {VERSION}"
    try:
        b" ".join(attributes).decode("utf-8")
    except UnicodeDecodeError:
        return "a CloudEvents header is not UTF-8"
    return None if mode is _Mode.JSON else "header content-type is not JSON"


def _structured(value: bytes) -> bytes | Refusal:
    """The event in an envelope of structured mode."""
    fault = malformed(value)
    if fault is not None:
        return Refusal(reason=Reason.MALFORMED, error=fault)
    try:
        envelope = _STRUCTURED.decode(value)
    except msgspec.ValidationError as error:
        return _broken(f"CloudEvent: {error}")
    if envelope.specversion != VERSION:
        return _broken(f"CloudEvent: specversion is not {VERSION}")
    if envelope.datacontenttype is not None and not _is_json(_media_type(envelope.datacontenttype)):
        return _broken("CloudEvent: datacontenttype is not JSON")
    if isinstance(envelope.data, UnsetType) or envelope.data_base64 is not UNSET:
        return _broken("CloudEvent: the event does not stand in data alone, the only member that is read")
    return bytes(envelope.data)


def _broken(error: str) -> Refusal:
    return Refusal(reason=Reason.ENVELOPE, error=error)


@lru_cache(maxsize=64)
def _mode(content_type: bytes) -> _Mode:
    """What a content type says; where there is none, the value is JSON."""
    media_type = _media_type(content_type.decode("utf-8", "replace"))
    if media_type == "application/cloudevents+json":
        return _Mode.STRUCTURED
    if media_type.startswith("application/cloudevents"):
        return _Mode.UNSUPPORTED
    return _Mode.JSON if not media_type or _is_json(media_type) else _Mode.OTHER


def _media_type(content_type: str) -> str:
    """The media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    """Whether the subtype is json or ends in +json."""
    subtype = media_type.partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")
