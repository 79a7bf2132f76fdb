"""Records as the bytes that a fuzzer changes, and back.

Records are divided by 0x1e. The parts of a record are divided by 0x1f: the value, the key, then names and values of headers in turn. A
part that is one NUL is null; a record without a key has the usual one. JSON text holds neither divider, so a change of one byte mostly
leaves the rest as it was; values that do hold them are tried in `tests/unit/decode`.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.types import Headers

BETWEEN_RECORDS, BETWEEN_PARTS, NULL = b"\x1e", b"\x1f", b"\0"
KEY = b"EWR"
"""The key where nothing is said."""
MOST = 8
"""Records that are taken of one input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """A record of an input."""

    value: bytes | None
    key: bytes | None = KEY
    headers: Headers | None = None


def taken_apart(fuzzed: bytes) -> list[Fuzzed]:
    """The records that an input stands for: any bytes stand for some."""
    return [_record(one.split(BETWEEN_PARTS)) for one in fuzzed.split(BETWEEN_RECORDS)[:MOST]]


def put_together(records: list[Fuzzed]) -> bytes:
    """The input that stands for some records, as a seed."""
    return BETWEEN_RECORDS.join(BETWEEN_PARTS.join(_parts(record)) for record in records)


def _record(parts: list[bytes]) -> Fuzzed:
    values = [None if part == NULL else part for part in parts]
    names = [part.decode("utf-8", "replace") for part in parts[2::2]]
    headers = list(zip(names, [*values[3::2], None], strict=False))
    return Fuzzed(value=values[0], key=values[1] if len(values) > 1 else KEY, headers=headers or None)


def _parts(record: Fuzzed) -> list[bytes]:
    parts = [record.value, record.key]
    for name, value in record.headers or []:
        parts += [name.encode(), value]
    return [NULL if part is None else part for part in parts]
