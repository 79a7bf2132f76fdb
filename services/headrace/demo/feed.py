"""Departures and planted records on a source topic in memory; remembers which flight stands where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.demo.events import Departures
from headrace.demo.planted import BadRecord
from headrace.memory_log import MemoryLog
from headrace.partitioner import Partitioner
from headrace.types import Headers

PLANTED = -1
"""Stands where a planted record stands instead of a departure."""


@dataclass(slots=True, eq=False)
class _Buffer:
    """Records for one partition, not yet written."""

    rows: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    headers: list[Headers | None] = field(default_factory=list)

    def add(self, row: int, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers | None) -> None:
        self.rows.append(row)
        self.keys.append(key)
        self.values.append(value)
        self.timestamps_ms.append(timestamp_ms)
        self.headers.append(headers)


class Feed:
    """The whole year on a topic of `partitions` partitions that nobody else writes to."""

    def __init__(self, log: MemoryLog, topic: str, departures: Departures, planted: Mapping[int, BadRecord], *, partitions: int) -> None:
        """Writes everything at once: each departure behind the planted record that stands before it."""
        self.topic = topic
        self.rows: list[list[int]] = [[] for _ in range(partitions)]
        """For each partition and offset the departure's row, or `PLANTED`."""
        self.kinds: dict[tuple[int, int], str] = {}
        """What is planted where: the kind by partition and offset."""
        partitioner = Partitioner()
        buffers = [_Buffer() for _ in range(partitions)]
        numbers = partitioner.partitions(departures.keys, partitions)
        times = departures.departed_ms.tolist()
        for row, (number, key, value, time_ms) in enumerate(zip(numbers, departures.keys, departures.values, times, strict=True)):
            bad = planted.get(row)
            if bad is not None:
                (bad_number,) = partitioner.partitions([bad.key or b""], partitions)
                self.kinds[bad_number, len(buffers[bad_number].rows)] = bad.kind
                buffers[bad_number].add(PLANTED, bad.key, bad.value, bad.timestamp_ms, bad.headers)
            buffers[number].add(row, key, value, time_ms, None)
        for number, buffer in enumerate(buffers):
            log.extend(topic, number, buffer.keys, buffer.values, buffer.timestamps_ms, buffer.headers)
            self.rows[number] = buffer.rows
        self.written = sum(map(len, self.rows))
        """Records in all."""
