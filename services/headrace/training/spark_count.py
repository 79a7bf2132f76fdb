"""What the driver concludes from a count of the records: the account, the watermark before each chunk, and the file of each (pure).

A chunk is 65,536 offsets of a partition. Chunks are few where records are many, so what depends on all that came before is decided here, in
one pass over them, and within a chunk by Spark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from headrace.types import NO_WATERMARK_MS

CHUNK_BITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The records of a chunk that were refused for one reason, or with None its events."""

    partition: int
    chunk: int
    reason: str | None
    records: int
    newest_ms: int | None
    """The greatest event time."""
    first: int
    """The lowest offset."""
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A chunk with events."""

    partition: int
    number: int
    before_ms: int
    """The watermark of its partition before it."""
    part: int
    """The file that its rows go into."""


def chunks_of(counted: Iterable[Counted], rows_a_file: int) -> list[Chunk]:
    """Those with events, in order; a file is full when it has `rows_a_file`."""
    events, watermarks_ms, chunks = 0, dict[int, int](), list[Chunk]()
    for one in sorted((one for one in counted if one.reason is None), key=attrgetter("partition", "chunk")):
        before_ms = watermarks_ms.get(one.partition, NO_WATERMARK_MS)
        chunks.append(Chunk(partition=one.partition, number=one.chunk, before_ms=before_ms, part=events // rows_a_file))
        watermarks_ms[one.partition] = max(before_ms, NO_WATERMARK_MS if one.newest_ms is None else one.newest_ms)
        events += one.records
    return _without_gaps(chunks)


def _without_gaps(chunks: Sequence[Chunk]) -> list[Chunk]:
    """The same with files numbered from 0 on: a chunk that is larger than a file leaves out numbers."""
    places = {part: place for place, part in enumerate(dict.fromkeys(chunk.part for chunk in chunks))}
    return [Chunk(partition=chunk.partition, number=chunk.number, before_ms=chunk.before_ms, part=places[chunk.part]) for chunk in chunks]


def events_in(counted: Iterable[Counted]) -> int:
    """How many records are events."""
    return sum(one.records for one in counted if one.reason is None)


def refused_in(counted: Iterable[Counted]) -> Counter[str]:
    """How many are not, by reason."""
    found = Counter[str]()
    for one in counted:
        if one.reason is not None:
            found[one.reason] += one.records
    return found


def spans_in(bounds: Iterable[tuple[int, int, int]]) -> dict[int, tuple[int, int]]:
    """Of partition, lowest and highest offset: from where up to, not with, where each partition reaches; empty ones between are there."""
    firsts: dict[int, int] = {}
    lasts: dict[int, int] = {}
    for partition, first, last in bounds:
        firsts[partition] = min(firsts.get(partition, first), first)
        lasts[partition] = max(lasts.get(partition, last), last)
    return {number: (firsts.get(number, 0), lasts.get(number, -1) + 1) for number in range(max(lasts, default=-1) + 1)}


def cut_partitions(spans: Mapping[int, tuple[int, int]]) -> list[int]:
    """Those that have lost their beginning."""
    return [number for number, (first, _) in spans.items() if first]
