"""The plan that Spark carries out: what is read, shuffled and sorted, and what is decided between.

    read     files                                   -> a row a record, decoded, each once; kept, as it is used three times
    count    by partition, chunk and reason          -> the account, the watermark before each chunk, the file of each (`spark_count.py`)
    label    by a hash of the outcome's id           -> a label an event (`spark_labels.py`)
    fold     by a hash of partition and entity       -> vectors: `applyInArrow`, a group of entities at a time, in offset order; where views
                                                        are of several entities, by one after another
    write    file by file, sorted                    -> a folder, which is hashed and described when all of it is there

The watermark that an event finds is the greatest event time before it: of its own chunk by a window, of the chunks before from the count.
So no partition has to pass through one task, however long it is. A table has no partitions; its order is that of event time, in which every
event finds nothing newer than itself, and nothing is late.

Groups are of many entities, not of one: a group costs Spark as much as some hundred events. Nothing is ordered by sampling, as `orderBy`
does, which would fold everything twice: the count says where each row goes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import or_
from pathlib import Path

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Observation, SparkSession, Window
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.storagelevel import StorageLevel

from headrace.crashes import condemned_offsets
from headrace.definition import App, Pipeline
from headrace.errors import DefinitionError, FatalError
from headrace.expression import Expression
from headrace.source import Hop
from headrace.training import files, spark_tasks
from headrace.training.archive import Archive, records_in
from headrace.training.building import lineage_of
from headrace.training.frame import EVENT_COLUMNS, LABEL, frame_schema, hash_of, notes_of, with_lineage
from headrace.training.history import Account, Topics, reach_ms
from headrace.training.labels import Found, LabelTally, check_label_column, time_column
from headrace.training.spark_count import CHUNK_BITS, Chunk, Counted, chunks_of, cut_partitions, events_in, refused_in, spans_in
from headrace.training.spark_input import archived_records, check_instants, empty_like, event_table, own_session
from headrace.training.spark_labels import group_of, outcomes_in_archive, outcomes_in_files, with_labels
from headrace.training.spark_tasks import ROW, Task, shipped
from headrace.training.tables import contract_columns
from headrace.types import TopicPartition

EVENTS_A_GROUP = 250_000
"""About so many rows are in the memory of a task at once where labels are joined; where events are folded, the states of their entities."""
_RAISED = re.compile(r"headrace\.errors\.(DefinitionError|FatalError): (.*)")
"""How what a task raises comes back."""
_PART = ".partial"
_NEVER = (1 << 63) - 1


class Work:
    """One training set being made."""

    def __init__(
        self,
        app: App | Pipeline,
        pipeline: Pipeline,
        *,
        session: SparkSession,
        events: Topics | str | Path,
        labels: Topics | str | Path | Expression | None,
        label_time: str | None,
        told: Callable[[str], None],
    ) -> None:
        self._app, self._pipeline = app, pipeline
        self._session, self._told = own_session(session), told
        self._archive = _archive_of(events) if isinstance(events, Topics) else None
        self._events, self._labels = events, labels
        self._account = Account()
        self._task = self._task_of(label_time)

    def write(self, target: Path, rows_a_file: int) -> pa.Schema:
        """Do it; gives the schema, lineage and all."""
        notes = notes_of(self._pipeline.views, self._pipeline.event_features, self._pipeline.source)
        schema = frame_schema({**EVENT_COLUMNS, **({} if self._labels is None else {LABEL: pa.float64()})}, notes)
        beside = target.with_name(target.name + _PART)
        try:
            seen = self._written(beside, schema.names, rows_a_file)
            self._told("hashing what was written")
            rows = files.rows_in(beside)
            told = hash_of(schema, rows, lambda name: files.pieces(beside, name))
            tally = None if self._labels is None else LabelTally(**{word.name.lower(): seen[word.name] for word in Found})
            full = with_lineage(schema, lineage_of(self._app, self._pipeline, self._account, tally, seen["late"]), notes, rows, told)
            files.write_schema(beside, full)
            beside.rename(target)
        except PySparkException as error:
            said = _RAISED.search(str(error))
            if said is None:
                raise
            raise (DefinitionError if said[1] == "DefinitionError" else FatalError)(said[2]) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return full

    def _task_of(self, label_time: str | None) -> Task:
        """What the tasks must know. Raises `DefinitionError`."""
        if self._labels is None or isinstance(self._labels, Expression):
            return Task(pipeline=self._pipeline, label=self._labels, keys_to_be=self._keys_to_be(), left_out=self._condemned())
        outcomes = self._pipeline.outcomes
        if outcomes is None:
            raise DefinitionError(f"{self._pipeline!r} declares no outcomes, so labels cannot be joined; write outcomes=hr.Outcomes(...)")
        when = "" if isinstance(self._labels, Topics) else time_column(outcomes, label_time)
        task = Task(
            pipeline=self._pipeline,
            joined=outcomes.join,
            label_time=when,
            keys_to_be=self._keys_to_be(),
            left_out=self._condemned(),
        )
        kinds = task.kind(outcomes.join), spark_tasks.outcome_schema(task).field("id").type
        if kinds[0] != kinds[1]:
            raise DefinitionError(f"labels cannot be joined: the ids of outcomes are {kinds[1]}, those of events {kinds[0]}")
        return task

    def _keys_to_be(self) -> list[str]:
        """The fields that later stages are keyed by. Raises `DefinitionError` for a log whose frame is that of a hop."""
        source = self._pipeline.source
        if self._archive is None:
            return list(self._pipeline.entities if source.rekey else self._pipeline.entities[1:])
        app = self._app_itself()
        if isinstance([stage for stage in app.stages if stage.pipeline is self._pipeline][-1].reads, Hop):
            raise DefinitionError(
                f"{self._pipeline!r} goes through hops, and in which order they brought its events a log of {source!r} does not say; "
                "Spark makes its frame of a table of events; leave out --engine for that of archived topics, hops among them"
            )
        return [hop.key for hop in app.hops if hop.source.topic == source.topic]

    def _app_itself(self) -> App:
        if not isinstance(self._app, App):
            raise DefinitionError("write_training_set(pipeline, events=topics): give the app; its facts say which records no fold takes")
        return self._app

    def _condemned(self) -> dict[TopicPartition, list[int]]:
        """The records that no fold takes, by the facts in the archive."""
        if self._archive is None:
            return {}
        facts = archived_records(self._session, self._archive, self._app_itself().facts)
        if facts is None:
            return {}
        found = facts.orderBy("partition", "offset").select(sf.col("value").cast("binary")).collect()
        return condemned_offsets([None if row[0] is None else bytes(row[0]) for row in found])

    def _written(self, beside: Path, names: Sequence[str], rows_a_file: int) -> dict[str, int]:
        """Let Spark write the rows; gives what was seen in them."""
        self._told("reading and decoding")
        read = self._table_events if self._archive is None else self._archived_events
        decoded = read().persist(StorageLevel.MEMORY_AND_DISK)
        try:
            counted = self._counted(decoded)
            chunks, events = chunks_of(counted, rows_a_file), events_in(counted)
            parts = chunks[-1].part + 1 if chunks else 1
            groups = max(4 * self._session.sparkContext.defaultParallelism, -(-events // EVENTS_A_GROUP))
            self._told(f"folding {events:,} events, of {self._account.records:,} records, in {groups} groups into {parts} files")
            found = decoded.where(sf.col("reason").isNull())
            if self._task.joined is not None:
                found = with_labels(found, self._outcomes(), self._task, groups)
            rows = self._whole(decoded, self._folded(found, chunks, groups))
            seen = Observation("headrace")
            # Seen behind the last shuffle, by the tasks that write: each row once, also when a task is tried again.
            placed = rows.repartitionById(parts, sf.col("part")).sortWithinPartitions("partition", "offset").observe(seen, *self._seen())
            self._as_frame(placed, names).write.mode("overwrite").option("compression", "zstd").parquet(str(beside.resolve()))
            return {name: int(value or 0) for name, value in seen.get.items()}
        finally:
            decoded.unpersist()

    # --------------------------------------------------------------------------------------------- read

    def _table_events(self) -> DataFrame:
        """The rows of a table; what does not fit is refused before anything is read."""
        source, label = self._pipeline.source, self._task.label
        of = f"events of {source!r}"
        inside = label.fields() if label is not None else frozenset()
        table = event_table(self._session, _path_of(self._events), of=of, only={field.name for field in source.contract} | inside)
        none = empty_like(table)
        contract_columns(none, source.contract, of=of)
        if label is not None:
            check_label_column(label, [name for name in none.column_names if name != ROW], self._pipeline)
        for field in source.contract:
            if field.kind == "time":
                check_instants(table, field.name, of=of)
        pickled = shipped(self._task)

        def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return spark_tasks.read_table(pickled, batches)

        return self._read(table, read).withColumn("inside_ms", sf.col("time_ms"))

    def _archived_events(self) -> DataFrame:
        """The records of the topic, each once, with the watermark that those before it in its chunk have brought."""
        archive, topic = _archive_of(self._events), self._pipeline.source.topic
        records = archived_records(self._session, archive, topic)
        if records is None:
            raise DefinitionError(f"{archive!r} holds no records of the topic {topic}")
        of = f"archive {archive.place(topic)}"
        records_in(empty_like(records), topic, of=of)
        pickled = shipped(self._task)

        def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return spark_tasks.read_archive(pickled, of, batches)

        by_offset = Window.partitionBy("partition", "chunk").orderBy("offset")
        before = by_offset.rowsBetween(Window.unboundedPreceding, -1)
        found = self._read(records, read)
        found = found.select("*", sf.max("time_ms").over(before).alias("inside_ms"), sf.lag("offset").over(by_offset).alias("one_before"))
        return found.where(~sf.col("offset").eqNullSafe(sf.col("one_before"))).drop("one_before")

    def _read(self, frame: DataFrame, read: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]) -> DataFrame:
        decoded = frame.mapInArrow(read, from_arrow_schema(spark_tasks.decoded_schema(self._task)))
        return decoded.withColumn("chunk", sf.shiftrightunsigned("offset", CHUNK_BITS))

    # --------------------------------------------------------------------------------------------- count

    def _counted(self, decoded: DataFrame) -> list[Counted]:
        """Everything, counted by chunk and reason; the account is filled. Raises `DefinitionError` for an archive without the topic."""
        count = sf.count("*"), sf.max("time_ms"), sf.min("offset"), sf.max("offset")
        names = ("partition", "chunk", "reason", "records", "newest_ms", "first", "last")
        counted = [Counted(**dict(zip(names, row, strict=True))) for row in decoded.groupBy(*names[:3]).agg(*count).collect()]
        self._account.records = sum(one.records for one in counted)
        self._account.refused = refused_in(counted)
        if self._archive is None:
            self._account.offsets["rows"] = {0: (0, self._account.records)}
            return counted
        topic = self._pipeline.source.topic
        if not counted:
            raise DefinitionError(f"{self._archive!r} holds no records of the topic {topic}")
        self._account.offsets[topic] = spans_in((one.partition, one.first, one.last) for one in counted)
        return counted

    def _whole(self, decoded: DataFrame, rows: DataFrame) -> DataFrame:
        """The rows whose windows do not reach behind the beginning of the log; the others are counted."""
        source = self._pipeline.source
        cut = [] if self._archive is None else cut_partitions(self._account.offsets[source.topic])
        if not cut:
            return rows
        events = decoded.where(sf.col("reason").isNull() & sf.col("partition").isin(cut))
        reach = reach_ms(source, self._app_itself().views_of(source))
        begins = events.groupBy("partition").agg(sf.min_by("clock_ms", "offset").alias("begin_ms"))
        late_enough = events.join(sf.broadcast(begins), "partition").where(sf.col("clock_ms") >= sf.col("begin_ms") + reach)
        found = {row[0]: row[1] for row in late_enough.groupBy("partition").agg(sf.min("offset")).collect()}
        short = reduce(or_, ((sf.col("partition") == number) & (sf.col("offset") < found.get(number, _NEVER)) for number in cut))
        self._account.incomplete = events.where(short).count()
        return rows.where(~short)

    # --------------------------------------------------------------------------------------------- fold, label, write

    def _folded(self, found: DataFrame, chunks: Sequence[Chunk], groups: int) -> DataFrame:
        """The vectors of the events that were found."""
        known = [(chunk.partition, chunk.number, chunk.before_ms, chunk.part) for chunk in chunks]
        of_chunks = sf.broadcast(self._session.createDataFrame(known, "partition int, chunk long, before_ms long, part int"))
        found_ms = sf.col("inside_ms") if self._archive is None else sf.greatest("before_ms", "inside_ms")
        events = found.join(of_chunks, ["partition", "chunk"])
        taken = [name for name in found.columns if name not in {"reason", "chunk", "inside_ms", "clock_ms"}]
        rows = events.select("part", found_ms.alias("found_ms"), *taken)
        for number in range(len(self._task.entities)):
            rows = self._folded_by(number, rows, groups)
        return rows

    def _folded_by(self, number: int, events: DataFrame, groups: int) -> DataFrame:
        """Events with the features of the nth entity."""
        pickled, entity = shipped(self._task), self._task.column(self._task.entities[number])

        def fold(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return spark_tasks.fold(pickled, number, batches)

        placed = events.withColumn("group", group_of("partition", entity, groups=groups)).repartition("group")
        in_order = placed.sortWithinPartitions("group", "partition", "found_ms", "offset")
        return in_order.groupBy("group").applyInArrow(fold, from_arrow_schema(spark_tasks.row_schema(self._task, number)))

    def _outcomes(self) -> DataFrame:
        """The outcomes that rows are joined with."""
        outcomes = self._pipeline.outcomes
        if outcomes is None:
            raise DefinitionError(f"{self._pipeline!r} declares no outcomes")
        if not isinstance(self._labels, Topics):
            return outcomes_in_files(self._session, _path_of(self._labels), outcomes, self._task)
        found, self._account.offsets[outcomes.topic] = outcomes_in_archive(self._session, _archive_of(self._labels), outcomes, self._task)
        return found

    def _seen(self) -> list[Column]:
        """What is counted in the rows as they are written."""
        late = sf.sum(sf.col("late").cast("long")).alias("late")
        if self._labels is None:
            return [late]
        return [late, *(sf.sum((sf.col("found") == int(word)).cast("long")).alias(word.name) for word in Found)]

    def _as_frame(self, rows: DataFrame, names: Sequence[str]) -> DataFrame:
        """The columns of a frame, under their names."""
        about = [sf.col("entity"), sf.timestamp_millis("time_ms"), sf.col("partition"), sf.col("offset"), sf.col("late")]
        label = [] if self._labels is None else [sf.when(~sf.isnan("label"), sf.col("label"))]
        values = [sf.col(f"v{place}") for place in range(len(self._pipeline.feature_names))]
        return rows.select(*about, *label, *values).toDF(*names)


def _archive_of(topics: object) -> Archive:
    """The files of topics. Raises `DefinitionError` for topics that are in none."""
    if not isinstance(topics, Topics) or topics.archive is None:
        raise DefinitionError("Spark reads topics from files only: hr.Topics.archived(...)")
    return topics.archive


def _path_of(given: object) -> str | Path:
    """Raises `DefinitionError` for what is no path."""
    if not isinstance(given, str | Path):
        raise DefinitionError(f"Spark reads files: give a path instead of {type(given).__name__}")
    return given
