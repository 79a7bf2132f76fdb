"""Records that no source should ever send, planted among the flights: each kind with the reason it must be refused for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.demo.events import Departures
from headrace.types import Headers, Reason

DAY_MS = 86_400_000
TOO_MANY_BYTES = 1_048_577
DEEP = 100_000
BROKEN_ENVELOPE: Headers = [("ce_specversion", b"1.0"), ("ce_type", b"flights.departure"), ("content-type", b"application/json")]
"""A CloudEvent without id and source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A record to plant; its timestamp is the event time of the flight it was made from."""

    kind: str
    expected: Reason
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to be bad: what becomes of a good key and value."""

    name: str
    expected: Reason
    key: Callable[[bytes], bytes | None] = lambda key: key
    value: Callable[[bytes], bytes | None] = lambda value: value
    headers: Headers | None = None


def _changed(**changes: object) -> Callable[[bytes], bytes]:
    return lambda value: json.dumps({**json.loads(value), **changes}, separators=(",", ":")).encode()


def _without(field: str) -> Callable[[bytes], bytes]:
    return lambda value: json.dumps({name: found for name, found in json.loads(value).items() if name != field}).encode()


def _a_day_ahead(value: bytes) -> bytes:
    return _changed(departed_at=json.loads(value)["departed_at"] + DAY_MS)(value)


KINDS: Sequence[Kind] = (
    Kind(name="not JSON", expected=Reason.MALFORMED, value=lambda _: b"departed, a little late"),
    Kind(name="cut off", expected=Reason.MALFORMED, value=lambda value: value[: len(value) // 2]),
    Kind(name="broken UTF-8", expected=Reason.MALFORMED, value=lambda value: value.replace(b'"carrier":"', b'"carrier":"\xff')),
    Kind(name="NaN", expected=Reason.MALFORMED, value=_changed(dep_delay=float("nan"))),
    Kind(name="100,000 nested arrays", expected=Reason.MALFORMED, value=lambda _: b"[" * DEEP + b"]" * DEEP),
    Kind(name="wrong type", expected=Reason.CONTRACT, value=_changed(dep_delay="12")),
    Kind(name="missing field", expected=Reason.CONTRACT, value=_without("distance")),
    Kind(name="no value", expected=Reason.NULL_VALUE, value=lambda _: None),
    Kind(name="no key", expected=Reason.BAD_KEY, key=lambda _: None),
    Kind(name="key of another aircraft", expected=Reason.BAD_KEY, key=lambda key: b"X" + key),
    Kind(name="event time in 1970", expected=Reason.EVENT_TIME_INVALID, value=_changed(departed_at=0)),
    Kind(name="event time a day ahead", expected=Reason.EVENT_TIME_AHEAD, value=_a_day_ahead),
    Kind(name="CloudEvent without id", expected=Reason.ENVELOPE, headers=BROKEN_ENVELOPE),
    Kind(name="too large", expected=Reason.TOO_LARGE, value=lambda value: value[:-1] + b" " * (TOO_MANY_BYTES - len(value)) + b"}"),
)
"""All kinds, in the order in which they are planted."""

TAKEN_BY_A_BROKER: Sequence[Kind] = tuple(kind for kind in KINDS if kind.expected is not Reason.TOO_LARGE)
"""The kinds a broker lets in: by its default limit it refuses the too large ones itself."""


def plant(departures: Departures, count: int, kinds: Sequence[Kind] = KINDS) -> dict[int, BadRecord]:
    """`count` bad records, the kinds in turn, evenly over the year: by the number of the departure before which each stands."""
    step = len(departures) / max(count, 1)
    planted: dict[int, BadRecord] = {}
    for number in range(min(count, len(departures))):
        row = int((number + 0.5) * step)
        kind = kinds[number % len(kinds)]
        planted[row] = BadRecord(
            kind=kind.name,
            expected=kind.expected,
            key=kind.key(departures.keys[row]),
            value=kind.value(departures.values[row]),
            timestamp_ms=int(departures.departed_ms[row]),
            headers=kind.headers,
        )
    return planted
