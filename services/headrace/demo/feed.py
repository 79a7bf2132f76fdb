"""Departures and planted records on a source topic in memory, as a producer would write them; remembers which flight stands where."""

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
    """Writes to a topic of `partitions` partitions that nobody else writes to."""

    def __init__(self, log: MemoryLog, topic: str, departures: Departures, planted: Mapping[int, BadRecord], *, partitions: int) -> None:
        self.topic, self.partitions, self.written = topic, partitions, 0
        self.rows: list[list[int]] = [[] for _ in range(partitions)]
        """For each partition and offset the departure's row, or `PLANTED`."""
        self.kinds: dict[tuple[int, int], str] = {}
        """What is planted where: the kind by partition and offset."""
        self._log, self._departures, self._planted = log, departures, planted
        self._partitioner = Partitioner()

    def write(self, first: int, end: int) -> None:
        """Write departures `first` up to, not with, `end`, each behind the planted record that stands before it."""
        departures = self._departures
        buffers = [_Buffer() for _ in range(self.partitions)]
        numbers = self._partitioner.partitions(departures.keys[first:end], self.partitions)
        times = departures.departed_ms[first:end].tolist()
        for row, number, time_ms in zip(range(first, end), numbers, times, strict=True):
            if row in self._planted:
                self._plant(self._planted[row], buffers)
            buffers[number].add(row, departures.keys[row], departures.values[row], time_ms, None)
        for number, buffer in enumerate(buffers):
            if buffer.rows:
                self._log.extend(self.topic, number, buffer.keys, buffer.values, buffer.timestamps_ms, buffer.headers)
                self.rows[number] += buffer.rows
                self.written += len(buffer.rows)

    def _plant(self, bad: BadRecord, buffers: list[_Buffer]) -> None:
        (number,) = self._partitioner.partitions([bad.key or b""], self.partitions)
        self.kinds[number, len(self.rows[number]) + len(buffers[number].rows)] = bad.kind
        buffers[number].add(PLANTED, bad.key, bad.value, bad.timestamp_ms, bad.headers)
