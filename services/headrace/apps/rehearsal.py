"""The last real vectors that a pipeline was fed with: what a new version is rehearsed on before it is registered.

They stand in the predictions, so they are the very numbers that were served, looked-up ones too. Limit: a pipeline that does not publish
its features, or that has published nothing under its present definition, has none.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headrace.consume.record_reader import RecordReader
from headrace.definition import Pipeline
from headrace.publish.records import decode_prediction
from headrace.types import Float64s, Record, TopicPartition
from headrace.verify.compare import is_of_these_definitions

MOST = 1_000


def last_vectors(reader: RecordReader, pipeline: Pipeline, most: int = MOST) -> Float64s | None:
    """Up to `most` of the newest vectors, each partition's share of them, [events, features]; None where there are none.

    Raises `TransientError`, `BrokerRefused`.
    """
    if not pipeline.publish_features or most < 1 or not reader.exists(pipeline.predictions):
        return None
    partitions = reader.partitions(pipeline.predictions)
    each = -(-most // len(partitions))
    rows = [row for partition in partitions for row in _last(reader, pipeline, partition, each)]
    return np.array(rows[:most]) if rows else None


def _last(reader: RecordReader, pipeline: Pipeline, partition: TopicPartition, most: int) -> list[list[float]]:
    """Transactions leave offsets without records, so it is looked back further until there are enough."""
    log = reader.log_range(partition)
    wide = 2 * most
    while True:
        start = max(log.start, log.end - wide)
        records = (record for batch in reader.batches({partition: start}, {partition: log.end}) for record in batch.records())
        rows = [row for record in records for row in _row(pipeline, record)]
        if len(rows) >= most or start == log.start:
            return rows[-most:]
        wide *= 4


def _row(pipeline: Pipeline, record: Record) -> Iterator[list[float]]:
    """The vector in a prediction, where it is one of these definitions."""
    if not is_of_these_definitions(record, pipeline.fingerprint):
        return
    try:
        features = decode_prediction(record.value or b"").features
    except ValueError:
        return
    if isinstance(features, dict) and features.keys() >= set(pipeline.feature_names):
        yield [np.nan if (value := features[name]) is None else value for name in pipeline.feature_names]
