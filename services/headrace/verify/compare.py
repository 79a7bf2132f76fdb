"""A result that was found beside the one that the definitions give.

Both are records as they are published. A prediction must be the same byte for byte, but for two members: when it was scored, and its score,
which kernels of the runtime may give with other last bits for a batch of one than for one of many. So nothing is parsed as long as nothing
is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from headrace import hop_record
from headrace.partitioner import Partitioner
from headrace.publish.records import LOOKED_UP, Correction, Prediction, beside_views, decode_prediction
from headrace.types import Headers, Record, RecordBatch
from headrace.verify.findings import Kind, Site, Violation
from headrace.verify.ledger import Expected, Place

LETTERS = "dead letters"
SCORE_TOLERANCE = 1e-6
NEVER = b"0}"
"""What an expected prediction ends with: it was never scored."""
_SCORE, _MODEL, _SCORED_AT = b',"score":', b',"model":', b',"scored_at":'
NAMED = ("features", "contributions")
"""Members of which each name is compared by itself."""
_FINGERPRINT = "headrace-fingerprint"
_NOT_COMPARED = frozenset({"headrace-version", "__streams.errors.message"})
"""Headers of a dead letter that another version of headrace may write differently."""


class PredictionPlaces:
    """Finds the source record of predictions, or of what shadows scored, by their ids."""

    def __init__(self, source_topic: str, model: str, *, shadows: bool = False) -> None:
        name = re.escape(f"{source_topic}-").encode() + rb"(\d+)-(\d+)" + re.escape(f"-{model}").encode()
        name += rb'@[^"]*' if shadows else b""
        self._id = re.compile(rb'\{"id":"' + name + rb'"')

    def of(self, value: bytes | None) -> Place | None:
        """The source record; None where it is no prediction of this model for this source."""
        found = self._id.match(value or b"")
        return None if found is None else (int(found[1]), int(found[2]))


def is_of_these_definitions(record: Record, fingerprint: str) -> bool:
    """Whether a prediction says that it comes from these definitions."""
    return text_of(record.headers, _FINGERPRINT) in (None, fingerprint)


def text_of(headers: Headers, name: str) -> str | None:
    """The last header of a name."""
    return next((value.decode(errors="replace") for found, value in reversed(headers) if found == name and value is not None), None)


Decode = Callable[[bytes], Prediction | Correction]
"""Reads what is compared. Raises `ValueError`."""


def compare_prediction(
    site: Site, record: Record, expected: Expected, of: str, untold: Collection[str] = frozenset(), decode: Decode = decode_prediction
) -> Iterator[Violation]:
    """Everything that is wrong with the prediction of a source record, or with a correction. Of `untold` views nobody knows what was looked
    up in them: what they gave is not compared, nor is the score.
    """
    record = replace(record, headers=_told_headers(record.headers, untold))
    headers = _told_headers(expected.headers, untold)
    if (record.key, record.timestamp_ms, record.headers) != (expected.key, expected.timestamp_ms, headers):
        yield from _record(site, record, of, _around(expected.key, expected.timestamp_ms, headers))
    found, wanted = _parts(record.value or b""), _parts(expected.value or b"")
    if untold or found is None or wanted is None or found[0] != wanted[0] or found[2] != wanted[2]:
        told = decode if not untold else lambda value: beside_views(decode_prediction(value), untold)
        yield from _members(site, record, expected, of, told)
    elif not abs(float(found[1]) - float(wanted[1])) <= SCORE_TOLERANCE:
        yield _violation(Kind.SCORE, site, record, of, wanted[1].decode(), found[1].decode())


def _parts(value: bytes) -> tuple[bytes, bytes, bytes] | None:
    """A prediction up to its score, its score, and from there to where it says when it was scored."""
    score = value.find(_SCORE)
    model = value.find(_MODEL, score)
    end = value.rfind(_SCORED_AT)
    return None if not 0 < score < model < end else (value[:score], value[score + len(_SCORE) : model], value[model:end])


def _told_headers(headers: Headers, untold: Collection[str]) -> Headers:
    """Headers without where untold views were read."""
    if not untold:
        return headers
    names = {view.encode() for view in untold}
    return [
        (name, b";".join(one for one in text.split(b";") if one.partition(b"=")[0] not in names) if name == LOOKED_UP and text else text)
        for name, text in headers
    ]


def _both(wanted: Prediction | Correction, found: Prediction | Correction, member: str) -> bool:
    """Whether both have a member whose names are compared one by one."""
    return all(isinstance(getattr(one, member, None), dict) for one in (wanted, found))


def _members(site: Site, record: Record, expected: Expected, of: str, decode: Decode) -> Iterator[Violation]:
    """Name the members that differ."""
    wanted = decode((expected.value or b"") + NEVER)
    try:
        found = decode(record.value or b"")
    except ValueError as error:
        yield _violation(Kind.RECORD, site, record, of, f"a {type(wanted).__name__.lower()}", f"what is none: {error}")
        return
    named = [member for member in NAMED if _both(wanted, found, member)]
    for member in named:
        ours, theirs = getattr(wanted, member), getattr(found, member)
        kind, what = (Kind.FEATURES, "") if member == "features" else (Kind.RECORD, "contribution of ")
        for name in ours.keys() | theirs.keys():
            if not _same(ours.get(name), theirs.get(name)):
                yield _violation(kind, site, record, of, f"{what}{name} = {ours.get(name)!r}", repr(theirs.get(name)))
    if not abs(found.score - wanted.score) <= SCORE_TOLERANCE:
        yield _violation(Kind.SCORE, site, record, of, repr(wanted.score), repr(found.score))
    for name in wanted.__struct_fields__:
        ours, theirs = getattr(wanted, name), getattr(found, name)
        if name not in {"score", "scored_at", *named} and ours != theirs:
            yield _violation(Kind.RECORD, site, record, of, f"{name} = {ours!r}", repr(theirs))


def compare_hop(carried: Sequence[str], site: Site, record: Record, expected: Expected, of: str) -> Iterator[Violation]:
    """Everything that is wrong with the record of a hop that a record leads to."""
    if (record.key, record.timestamp_ms, record.headers) != (expected.key, expected.timestamp_ms, expected.headers):
        yield from _record(site, record, of, _around(expected.key, expected.timestamp_ms, expected.headers))
    both = hop_record.opened([record.value, expected.value])
    if not both.readable[0]:
        yield _violation(Kind.RECORD, site, record, of, "a record of this hop", _shown(record.value))
        return
    for name in hop_record.HEAD.names or ():
        theirs, ours = both.heads[name].tolist()
        if theirs != ours:
            yield _violation(Kind.RECORD, site, record, of, f"{name} = {ours}", str(theirs))
    if (both.heads["features"] == len(carried)).all():
        found, wanted = both.features(np.arange(2), [record.value, expected.value], len(carried))
        for name, theirs, ours in zip(carried, found.tolist(), wanted.tolist(), strict=True):
            if np.float64(theirs).tobytes() != np.float64(ours).tobytes():
                yield _violation(Kind.FEATURES, site, record, of, f"{name} = {ours!r}", repr(theirs))
    if both.values[0] != both.values[1]:
        yield _violation(Kind.RECORD, site, record, of, f"the value of the record, {_shown(both.values[1])}", _shown(both.values[0]))


def _same(one: float | None, other: float | None) -> bool:
    """The same number, zero with its sign."""
    if one is None or other is None:
        return one is other
    return one == other and math.copysign(1, one) == math.copysign(1, other)


def compare_letter(site: Site, record: Record, expected: Expected, of: str, untold: Collection[str] = frozenset()) -> Iterator[Violation]:
    """Everything that is wrong with the dead letter of a source record, but for where `untold` views were read."""
    reason, wanted = text_of(record.headers, "headrace-reason"), text_of(expected.headers, "headrace-reason")
    if reason != wanted:
        yield _violation(Kind.REASON, site, record, of, str(wanted), str(reason))
        return
    if record.value != expected.value:
        yield _violation(Kind.LETTER, site, record, of, f"the value of the record, {_shown(expected.value)}", _shown(record.value))
    record = replace(record, headers=_told_headers(record.headers, untold))
    ours, theirs = _comparable(_told_headers(expected.headers, untold)), _comparable(record.headers)
    if (record.key, record.timestamp_ms, theirs) != (expected.key, expected.timestamp_ms, ours):
        yield from _record(site, record, of, _around(expected.key, expected.timestamp_ms, ours), kind=Kind.LETTER)


def _comparable(headers: Headers) -> Headers:
    return [header for header in headers if header[0] not in _NOT_COMPARED]


def _around(key: bytes | None, timestamp_ms: int, headers: Headers) -> dict[str, object]:
    """What stands around a value, by name."""
    found: dict[str, object] = {"key": key, "timestamp": timestamp_ms}
    found.update({f"header {name}": value for name, value in headers})
    return found


def _record(site: Site, record: Record, of: str, wanted: dict[str, object], *, kind: Kind = Kind.RECORD) -> Iterator[Violation]:
    """Name what differs around a value; where only the order of the headers does, that."""
    headers = _comparable(record.headers) if kind is Kind.LETTER else record.headers
    theirs = _around(record.key, record.timestamp_ms, headers)
    names = [name for name in {**wanted, **theirs} if wanted.get(name) != theirs.get(name)]
    for name in names:
        yield _violation(kind, site, record, of, f"{name} = {wanted.get(name)!r}", repr(theirs.get(name)))
    if not names:
        yield _violation(kind, site, record, of, "headers in another order or number", f"{len(headers)} headers")


def _shown(value: bytes | None) -> str:
    return "null" if value is None else f"{len(value)} bytes {value[:40]!r}"


def _violation(kind: Kind, site: Site, record: Record, of: str, expected: str, found: str) -> Violation:
    return Violation(kind=kind, **site._asdict(), at=where(record), of=of, expected=expected, found=found)


def where(record: Record) -> str:
    """The coordinates of a result."""
    return f"{record.topic}-{record.partition} offset {record.offset}"


class LetterPlace(NamedTuple):
    """Which refusal a dead letter is about: a source record, and the one model that refused it (None: all)."""

    topic: str
    partition: int
    offset: int
    model: str | None

    def site(self) -> Site:
        """The source record."""
        return Site(self.topic, self.partition, self.offset)

    def of(self) -> str:
        """Whose it is, for people."""
        return LETTERS if self.model is None else f"{LETTERS} of model {self.model}"


def letter_place(headers: Headers, topics: Container[str]) -> LetterPlace | None:
    """What the headers of a dead letter say; None where they name no record of these topics."""
    told = {name: (value or b"").decode(errors="replace") for name, value in headers}
    topic, partition, offset = (told.get(f"__streams.errors.{name}", "") for name in ("topic", "partition", "offset"))
    known = topic in topics and partition.isdecimal() and offset.isdecimal()
    return LetterPlace(topic, int(partition), int(offset), told.get("headrace-model")) if known else None


def misplaced(
    batch: RecordBatch, site_of: Callable[[RecordBatch, int], Site | None], partitions: int, partitioner: Partitioner, of: str
) -> Iterator[Violation]:
    """Results that are not in their key's partition."""
    there = batch.partitions.tolist()
    for row, number in enumerate(partitioner.partitions([key or b"" for key in batch.keys], partitions)):
        if number != there[row] and batch.keys[row] is not None:
            site = site_of(batch, row)
            if site is not None:
                at = f"{batch.topic}-{there[row]} offset {int(batch.offsets[row])}"
                wanted = f"partition {number}, that of key {batch.keys[row]!r}"
                yield Violation(kind=Kind.MISPLACED, **site._asdict(), at=at, of=of, expected=wanted, found=f"partition {there[row]}")
