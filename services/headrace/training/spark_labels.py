"""Labels in Spark: outcomes as rows, and events and outcomes of the same ids together, a group at a time, for the join of `labels.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_schema

from headrace.definition import App
from headrace.errors import DefinitionError
from headrace.source import Outcomes
from headrace.training import spark_tasks
from headrace.training.archive import Archive
from headrace.training.history import Topics
from headrace.training.labels import outcomes_in
from headrace.training.spark_count import spans_in
from headrace.training.spark_input import archived_records, check_instants, empty_like, event_table, own_session
from headrace.training.spark_tasks import Task, shipped


def archived_outcomes(session: SparkSession, app: App, pipeline: str, events: object) -> Topics | None:
    """The topics that events come from, if the outcomes of the pipeline are archived there, too."""
    outcomes = next(one.outcomes for one in app.pipelines if one.name == pipeline)
    if outcomes is None or not isinstance(events, Topics) or events.archive is None:
        return None
    records = archived_records(own_session(session), events.archive, outcomes.topic)
    return None if records is None or records.isEmpty() else events


def outcomes_in_files(session: SparkSession, given: str | Path, outcomes: Outcomes, task: Task) -> DataFrame:
    """The outcomes of a table. Raises `DefinitionError`."""
    of = f"labels of {outcomes!r}"
    table = event_table(session, given, of=of, only={outcomes.join, task.label_time} | outcomes.value.fields())
    outcomes_in(empty_like(table), outcomes, task.label_time)
    check_instants(table, task.label_time, of=of)
    pickled = shipped(task)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return spark_tasks.table_outcomes(pickled, batches)

    return table.mapInArrow(read, from_arrow_schema(spark_tasks.outcome_schema(task)))


def outcomes_in_archive(
    session: SparkSession, archive: Archive, outcomes: Outcomes, task: Task
) -> tuple[DataFrame, dict[int, tuple[int, int]]]:
    """The outcomes of a topic, and the offsets at which its partitions begin and end. Raises `DefinitionError` where there are none."""
    records = archived_records(session, archive, outcomes.topic)
    bounds = [] if records is None else records.groupBy("partition").agg(sf.min("offset"), sf.max("offset")).collect()
    if records is None or not bounds:
        raise DefinitionError(f"{archive!r} holds no records of the topic {outcomes.topic}")
    pickled, of = shipped(task), f"archive {archive.place(outcomes.topic)}"

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return spark_tasks.archive_outcomes(pickled, of, batches)

    found = records.mapInArrow(read, from_arrow_schema(spark_tasks.outcome_schema(task)))
    return found, spans_in((int(row[0]), int(row[1]), int(row[2])) for row in bounds)


def with_labels(events: DataFrame, outcomes: DataFrame, task: Task, groups: int) -> DataFrame:
    """Every event with its label, and what was found for it. Only what the join reads goes through Python."""
    pickled = shipped(task)

    def label(mine: pa.Table, known: pa.Table) -> pa.Table:
        return spark_tasks.label(pickled, mine, known)

    def grouped(frame: DataFrame) -> DataFrame:
        return frame.withColumn("group", group_of("id", groups=groups))

    asking = events.select("partition", "offset", "time_ms", sf.col(task.column(task.joined or "")).alias("id"))
    both = grouped(asking).groupBy("group").cogroup(grouped(outcomes).groupBy("group"))
    return events.join(both.applyInArrow(label, from_arrow_schema(spark_tasks.label_schema())), ["partition", "offset"])


def group_of(*columns: str, groups: int) -> Column:
    """The number of the group that rows with these values are in."""
    return sf.pmod(sf.xxhash64(*columns), sf.lit(groups)).cast("int")
