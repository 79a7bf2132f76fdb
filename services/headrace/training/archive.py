"""Topics that were copied into Parquet files, record by record: what is left of a log that is too old, or too large, for its brokers.

    partition  offset  timestamp | timestamp_ms  key     value   [headers]                [topic]
    whole      whole   instant                   binary  binary  key, value of each       text

Those are the columns that Spark's own Kafka source gives, so `spark.read.format("kafka")...write.parquet(...)` makes such an archive. Texts
are taken for bytes in UTF-8; `partition` and `topic` may stand in the names of folders (`partition=3`). A sink that wrote a record twice
does no harm: offset and partition say that it is the same. Limits: whether files are missing nobody can see, as compaction and transactions
leave gaps as well, nor whether a topic has partitions beyond the last that holds records (which questions about entities would need to
know); `ArchiveReader` holds the records of a topic in memory, Spark does not (`spark_input.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from headrace.errors import DefinitionError
from headrace.training.tables import column, files, instants_ms
from headrace.types import Headers, Int64s, LogRange, RecordBatch, TopicPartition

AT_ONCE = 16_384
COORDINATES = ("partition", "offset")
TIMES = ("timestamp_ms", "timestamp")
"""One of them; the first that is there counts."""
NO_TIMESTAMP_MS = -1
"""What Kafka says of a record that has none."""


class Archive:
    """Where the records of topics are: one place for all, told apart by a column `topic`, or a place for each."""

    def __init__(self, given: str | Path | Mapping[str, str | Path]) -> None:
        self._all = None if isinstance(given, Mapping) else str(given)
        self._places = {topic: str(place) for topic, place in given.items()} if isinstance(given, Mapping) else {}

    def place(self, topic: str) -> str | None:
        """The path of the files in which records of a topic would be; None where nobody named any."""
        return self._all or self._places.get(topic)

    def is_shared(self, topic: str) -> bool:
        """Whether other topics may be in its files, too."""
        return topic not in self._places

    def __repr__(self) -> str:
        return f"archive {self._all or ', '.join(self._places.values())}"


def wanted_columns(names: Collection[str], *, of: str, shared: bool) -> list[str]:
    """Those of an archive's columns that make a record. Raises `DefinitionError` for one that is missing."""
    times = [name for name in TIMES if name in names][:1]
    missing = [name for name in (*COORDINATES, "key", "value") if name not in names] + ([] if times else ["timestamp"])
    if missing:
        raise DefinitionError(
            f"{of}: there is no column {missing[0]!r}; records have partition, offset, timestamp (or timestamp_ms), key, value, "
            "and headers and topic if you like. Are these events of a contract? Then give their path as events"
        )
    if shared and "topic" not in names:
        raise DefinitionError(f"{of}: there is no column 'topic', so nobody knows whose records these are; name it as TOPIC=PATH")
    return [*COORDINATES, *times, "key", "value", *(name for name in ("headers", "topic") if name in names)]


def records_in(table: pa.Table, topic: str, *, of: str) -> RecordBatch:
    """The rows as records of a topic, in their order. Raises `DefinitionError` for columns of other kinds."""
    when = next(name for name in TIMES if name in table.column_names)
    times_ms, known = instants_ms(column(table, when), of=f"{of}: column {when!r}")
    headers = column(table, "headers").to_pylist() if "headers" in table.column_names else [None] * table.num_rows
    return RecordBatch(
        topic=topic,
        partitions=_whole(table, "partition", of).astype(np.int32),
        offsets=_whole(table, "offset", of),
        timestamps_ms=np.where(known, times_ms, NO_TIMESTAMP_MS),
        keys=_bytes(table, "key", of),
        values=_bytes(table, "value", of),
        headers=[_headers(found, of) for found in headers],
    )


def _whole(table: pa.Table, name: str, of: str) -> Int64s:
    found = column(table, name)
    if not pa.types.is_integer(found.type) or found.null_count:
        raise DefinitionError(
            f"{of}: column {name!r} is {found.type}, or absent somewhere; it is the whole number of where a record stands"
        )
    return np.asarray(found.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)


def _bytes(table: pa.Table, name: str, of: str) -> list[bytes | None]:
    found = column(table, name)
    if pa.types.is_null(found.type):
        return [None] * len(found)
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    if not any(kind(found.type) for kind in kinds):
        raise DefinitionError(f"{of}: column {name!r} is {found.type}; the bytes of a record are binary, or text")
    values: list[bytes | None] = found.cast(pa.large_binary()).to_pylist()
    return values


def _headers(found: object, of: str) -> Headers | None:
    """The headers of a record: a list of structs of key and value, or a map."""
    if not found:
        return None
    headers: Headers = []
    for one in found if isinstance(found, list) else [found]:
        pair = (one.get("key"), one.get("value")) if isinstance(one, dict) else one
        if not isinstance(pair, tuple) or not isinstance(pair[0], str) or not isinstance(pair[1], bytes | str | None):
            raise DefinitionError(f"{of}: column 'headers' holds something else than pairs of key and value")
        headers.append((pair[0], pair[1].encode() if isinstance(pair[1], str) else pair[1]))
    return headers


class ArchiveReader:
    """`RecordReader` on an archive: topics are as long as the files say."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._topics: dict[str, RecordBatch | None] = {}

    def exists(self, topic: str) -> bool:
        """Whether there are records of it."""
        return self._records(topic) is not None

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Up to the highest that has records. Raises `DefinitionError` for a topic of which there are none."""
        return [TopicPartition(topic, number) for number in range(int(self._of(topic).partitions.max()) + 1)]

    def log_range(self, partition: TopicPartition) -> LogRange:
        """From the first offset up to, not with, the one after the last."""
        offsets = self._of(partition.topic).offsets[self._rows(partition)]
        return LogRange(start=int(offsets[0]), end=int(offsets[-1]) + 1) if len(offsets) else LogRange(start=0, end=0)

    def offset_at(self, partition: TopicPartition, time_ms: int) -> int | None:
        """The first offset with a timestamp of at least `time_ms`."""
        records = self._of(partition.topic)
        rows = self._rows(partition)
        young = rows[records.timestamps_ms[rows] >= time_ms]
        return int(records.offsets[young[0]]) if len(young) else None

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> ArchiveFeed:
        """The records of some partitions, one partition after another."""
        return ArchiveFeed([self._between(name, start, ends[name]) for name, start in sorted(starts.items()) if start < ends[name]])

    def batches(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None) -> Iterator[RecordBatch]:
        """The same, one batch after another."""
        feed = self.feed(starts, {name: self.log_range(name).end for name in starts} if ends is None else ends)
        while feed.left:
            yield from feed.take()

    def close(self) -> None:
        """Nothing is open."""

    def _between(self, name: TopicPartition, start: int, end: int) -> tuple[TopicPartition, RecordBatch]:
        records, rows = self._of(name.topic), self._rows(name)
        return name, records.select(rows[(records.offsets[rows] >= start) & (records.offsets[rows] < end)])

    def _rows(self, partition: TopicPartition) -> Int64s:
        return np.flatnonzero(self._of(partition.topic).partitions == partition.partition)

    def _of(self, topic: str) -> RecordBatch:
        found = self._records(topic)
        if found is None:
            raise DefinitionError(f"{self._archive!r} holds no records of the topic {topic}")
        return found

    def _records(self, topic: str) -> RecordBatch | None:
        if topic not in self._topics:
            place = self._archive.place(topic)
            found = None if place is None else _read(place, topic, shared=self._archive.is_shared(topic))
            self._topics[topic] = found if found is not None and len(found) else None
        return self._topics[topic]


def _read(place: str, topic: str, *, shared: bool) -> RecordBatch:
    """The records of a topic in the order of partition and offset, each once."""
    of = f"archive {place}"
    paths = [str(path) for path in files(place, of=of)]
    try:
        found = pyarrow.dataset.dataset(paths, format="parquet", partitioning="hive")
        wanted = wanted_columns(found.schema.names, of=of, shared=shared)
        table = found.to_table(columns=wanted, filter=pc.field("topic") == topic if "topic" in wanted else None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError) as error:
        raise DefinitionError(f"{of}: {error}") from error
    records = records_in(table, topic, of=of)
    order = np.lexsort((records.offsets, records.partitions))
    offsets, partitions = records.offsets[order], records.partitions[order]
    again = (np.diff(offsets, prepend=-1) == 0) & (np.diff(partitions, prepend=-1) == 0)
    return records.select(order[~again])


class ArchiveFeed:
    """Each partition gives its records, one after another."""

    def __init__(self, records: list[tuple[TopicPartition, RecordBatch]]) -> None:
        self._records = dict(records)
        self._done = dict.fromkeys(self._records, 0)
        self._held: AbstractSet[TopicPartition] = frozenset()
        self.left = {name for name, found in self._records.items() if len(found)}

    def hold(self, partitions: AbstractSet[TopicPartition]) -> None:
        """Give nothing of these until told otherwise."""
        self._held = frozenset(partitions)

    def take(self) -> list[RecordBatch]:
        """Some records of the first partition that has any."""
        ready = sorted(self.left - self._held)
        if not ready:
            return []
        name, begin = ready[0], self._done[ready[0]]
        end = min(begin + AT_ONCE, len(self._records[name]))
        self._done[name] = end
        if end == len(self._records[name]):
            self.left.discard(name)
        return [self._records[name].select(np.arange(begin, end))]

    def close(self) -> None:
        """Nothing is open."""
