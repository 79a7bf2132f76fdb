"""I1, as it was seen: what a `read_committed` reader was given while everything broke is what a fresh reader is given now.

The reader's file is what `headrace tail TOPIC --follow --from-beginning --output json` prints, of one topic after another or mixed: a JSON
object a line with `topic`, `partition`, `offset` and `sha256`. In each partition lines stand in the order of offsets, and so do the fresh
records; they are merged, and partitions that are read far ahead wait, so memory does not grow with the log.

Limits. The reader must have begun at the oldest record and have read to the end; with `live` only what stands before its last record of a
partition is compared. Topics that the file never names are not checked, and lines of topics that are no results of the app are passed over.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from headrace.consume.record_reader import RecordReader
from headrace.definition import App
from headrace.errors import FatalError
from headrace.types import Headers, TopicPartition
from headrace.verify.findings import Findings, Kind, Violation
from headrace.verify.subject import Subject

AS_SEEN = "I1+"
MOST_QUEUED = 5_000
"""How many fresh records of a partition may wait for their lines."""


def fingerprint(key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int) -> str:
    """A hash of everything a record holds."""
    whole = sha256()
    for part in (key, value, *(part for name, text in headers for part in (name.encode(), text))):
        whole.update(b"-" if part is None else b"%d:" % len(part))
        whole.update(part or b"")
    whole.update(b"@%d" % timestamp_ms)
    return whole.hexdigest()


class Sighting(NamedTuple):
    """A record that the reader was given."""

    partition: TopicPartition
    offset: int
    sha256: str


def sightings(lines: Iterable[str]) -> Iterator[Sighting]:
    """The lines of a reader's file; one that its end has cut off does not count. Raises `FatalError`, which names the line."""
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
            yield Sighting(TopicPartition(said["topic"], int(said["partition"])), int(said["offset"]), str(said["sha256"]))
        except (ValueError, KeyError, TypeError):
            if line.endswith("\n"):
                raise FatalError(
                    f"--seen: line {number} is no record as `headrace tail TOPIC --follow --from-beginning --output json` prints it"
                ) from None


class _Fresh:
    """What a fresh reader is given: a queue for each partition, filled as it is asked for."""

    def __init__(self, reader: RecordReader, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        self._feed = reader.feed(starts, ends)
        self._queues: dict[TopicPartition, deque[tuple[int, str]]] = {name: deque() for name in starts}
        self._held: frozenset[TopicPartition] = frozenset()

    def first(self, name: TopicPartition) -> tuple[int, str] | None:
        """Offset and hash of the next record of a partition; None at its end."""
        queue = self._queues[name]
        while not queue and name in self._feed.left:
            self._hold()
            for batch in self._feed.take():
                columns = (
                    batch.partitions.tolist(),
                    batch.offsets.tolist(),
                    batch.keys,
                    batch.values,
                    batch.headers,
                    batch.timestamps_ms.tolist(),
                )
                for partition, offset, key, value, headers, timestamp_ms in zip(*columns, strict=True):
                    digest = fingerprint(key, value, headers or [], timestamp_ms)
                    self._queues[TopicPartition(batch.topic, partition)].append((offset, digest))
        return queue[0] if queue else None

    def drop(self, name: TopicPartition) -> None:
        """The next one is dealt with."""
        self._queues[name].popleft()

    def close(self) -> None:
        """Stop reading."""
        self._feed.close()

    def _hold(self) -> None:
        held = frozenset(name for name, queue in self._queues.items() if len(queue) >= MOST_QUEUED)
        if held != self._held:
            self._feed.hold(held)
            self._held = held


def check_seen(
    app: App,
    subject: Subject,
    lines: Iterable[str],
    findings: Findings,
    *,
    live: bool = False,
    from_ms: int | None = None,
    to_ms: int | None = None,
) -> None:
    """Compare a reader's file with the result topics. Raises `FatalError` for a line that is no record."""
    findings.witnessed.add(AS_SEEN)
    reader = subject.reader()
    try:
        topics = [app.dead_letters, *app.result_topics]
        ranges = {name: reader.log_range(name) for topic in topics for name in reader.partitions(topic)}
        ends = {name: _at(reader, name, to_ms, found.end) for name, found in ranges.items()}
        starts = {name: min(ends[name], _at(reader, name, from_ms, found.start, none=found.end)) for name, found in ranges.items()}
        fresh = _Fresh(reader, starts, ends)
        try:
            merge = _Merge(fresh, starts, ends, findings, open_ended=live or to_ms is not None)
            for sighting in sightings(lines):
                merge.meet(sighting)
            merge.settle(live=live)
        finally:
            fresh.close()
    finally:
        reader.close()


class _Merge:
    """Lines and fresh records, side by side, partition by partition."""

    def __init__(
        self,
        fresh: _Fresh,
        starts: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        findings: Findings,
        *,
        open_ended: bool,
    ) -> None:
        self._fresh, self._starts, self._ends, self._findings = fresh, starts, ends, findings
        self._open_ended = open_ended
        self._newest: dict[TopicPartition, int] = {}
        self._topics: set[str] = set()

    def meet(self, sighting: Sighting) -> None:
        """One more line."""
        name, offset, digest = sighting
        if name not in self._starts:
            return
        self._topics.add(name.topic)
        if offset < self._starts[name] or (self._open_ended and offset >= self._ends[name]):
            return
        if offset <= self._newest.get(name, -1):
            self._add(Kind.REPEATED, name, offset, "each record once, in order", "one again")
            return
        self._newest[name] = offset
        self._findings.checked["seen records"] += 1
        found = self._fresh.first(name)
        while found is not None and found[0] < offset:
            self._add(Kind.UNSEEN, name, found[0], "a record that the reader was given", "one that it was not")
            self._fresh.drop(name)
            found = self._fresh.first(name)
        if found is None or found[0] > offset:
            self._add(Kind.VANISHED, name, offset, "the record that the reader was given", "none")
            return
        if found[1] != digest:
            self._add(Kind.CHANGED, name, offset, "the record that the reader was given", "another")
        self._fresh.drop(name)

    def settle(self, *, live: bool) -> None:
        """The file is over."""
        missing = set()
        for name in self._starts:
            if name.topic in self._topics and not live:
                while (found := self._fresh.first(name)) is not None:
                    self._add(Kind.UNSEEN, name, found[0], "a record that the reader was given", "one that it was not")
                    self._fresh.drop(name)
            elif name.topic not in self._topics and name.topic not in missing and self._fresh.first(name) is not None:
                missing.add(name.topic)
        if missing:
            self._findings.not_checked[AS_SEEN] = f"the file names nothing of {', '.join(sorted(missing))}"

    def _add(self, kind: Kind, name: TopicPartition, offset: int, expected: str, found: str) -> None:
        self._findings.add(Violation(kind=kind, **name._asdict(), offset=offset, of="the reader", expected=expected, found=found))


def _at(reader: RecordReader, name: TopicPartition, time_ms: int | None, otherwise: int, *, none: int | None = None) -> int:
    """The first offset from a time on; `otherwise` where no time is given, `none` where no record is that young."""
    if time_ms is None:
        return otherwise
    found = reader.offset_at(name, time_ms)
    return found if found is not None else otherwise if none is None else none
