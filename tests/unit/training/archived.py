"""Topics copied into Parquet files, as sinks do it: in any order, over many files, some records twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.memory_log import MemoryLog
from headrace.types import TopicPartition

SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)
"""What Spark's own Kafka source gives."""


def records(log: MemoryLog, topics: Sequence[str]) -> pa.Table:
    """Every committed record of some topics, in order."""
    found = [
        {
            "topic": topic,
            "partition": number,
            "offset": record.offset,
            "timestamp": record.timestamp_ms * 1_000,
            "key": record.key,
            "value": record.value,
            "headers": [{"key": name, "value": value} for name, value in record.headers] or None,
        }
        for topic in topics
        for number in range(log.topics().get(topic, 0))
        for record in log.read(TopicPartition(topic, number), log.log_range(TopicPartition(topic, number)).start)
        if record.offset < log.log_range(TopicPartition(topic, number)).end
    ]
    return pa.Table.from_pylist(found, schema=SCHEMA)


def write(table: pa.Table, folder: Path, *, files: int = 3, twice: int = 20, seed: int = 7) -> Path:
    """The records in files below a folder, shuffled, the first `twice` of them a second time."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(table))
    order = np.concatenate((order, order[:twice]))
    for place, rows in enumerate(np.array_split(order, files)):
        part = folder / f"day={place}"
        part.mkdir(parents=True)
        pq.write_table(table.take(pa.array(rows)), part / "records.parquet")
    return folder
