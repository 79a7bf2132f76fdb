"""Files as Spark reads them: event tables with the numbers of their rows, and archives of topics.

What a file must hold is checked by the same functions as in one process, here on a table of no rows, so a refusal comes before the work. A
path is that of a file system which driver and executors share; an address such as `s3a://...` is read as Spark is set up to. Limit: of an
address Spark alone sees the files, so there a column of nanoseconds, which it does not know, is refused by it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import to_arrow_schema

from headrace.errors import DefinitionError
from headrace.training.archive import Archive, wanted_columns
from headrace.training.history import AT_ONCE
from headrace.training.spark_tasks import ROW
from headrace.training.tables import files

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_ZONED = r":[0-9]{2}[^-+Z]*(Z|[+-][0-9:]{2,6})$"
_BYTES_AT_ONCE = 64 << 20


def own_session(session: SparkSession) -> SparkSession:
    """A session beside the user's, on the same cluster, whose settings are ours."""
    own = session.newSession()
    settings = {
        "spark.sql.caseSensitive": True,  # fields are
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": AT_ONCE,
        "spark.sql.execution.arrow.maxBytesPerBatch": _BYTES_AT_ONCE,
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MILLIS",
    }
    for name, value in settings.items():
        own.conf.set(name, value)
    return own


def event_table(session: SparkSession, given: str | Path, *, of: str, only: Collection[str]) -> DataFrame:
    """The columns `only`, as far as there are such, of Parquet files, and in `ROW` the numbers that their rows have in one table of all.

    Raises `DefinitionError`.
    """
    frame = _parquet(session, given, of=of, only=only)
    numbered = frame.select("*", sf.col("_metadata.file_path").alias("_file"), sf.col("_metadata.row_index").alias("_index"))
    counts = numbered.groupBy("_file").count().collect()
    begin, begins = 0, []
    for found in sorted(counts, key=lambda row: PurePosixPath(unquote(urlparse(row["_file"]).path))):
        begins.append((found["_file"], begin))
        begin += found["count"]
    of_files = sf.broadcast(session.createDataFrame(begins, "_file string, _begin long"))
    return numbered.join(of_files, "_file").withColumn(ROW, sf.col("_begin") + sf.col("_index")).drop("_file", "_index", "_begin")


def empty_like(frame: DataFrame) -> pa.Table:
    """A table of no rows with the columns that tasks will see."""
    return to_arrow_schema(frame.schema, timezone="UTC").empty_table()


def check_instants(frame: DataFrame, name: str, *, of: str) -> None:
    """Raises `DefinitionError` where some of a column's texts name a zone and some do not: a batch alone cannot see that."""
    if dict(frame.dtypes).get(name) != "string":
        return
    texts = frame.where(sf.col(_quoted(name)) != "").select(sf.col(_quoted(name)).rlike(_ZONED).alias("zoned"))
    found = texts.agg(sf.min("zoned").alias("least"), sf.max("zoned").alias("most")).first()
    if found is not None and found["least"] != found["most"]:
        raise DefinitionError(f"{of}: column {name!r} is text, and not always with a zone")


def archived_records(session: SparkSession, archive: Archive, topic: str) -> DataFrame | None:
    """The records of a topic, with the columns of an archive; None where the archive has no place for it. Raises `DefinitionError`."""
    place = archive.place(topic)
    if place is None:
        return None
    of, shared = f"archive {place}", archive.is_shared(topic)
    frame = _parquet(session, place, of=of, only=None)
    wanted = wanted_columns(frame.columns, of=of, shared=shared)
    if "topic" in wanted:
        frame = frame.where(sf.col("topic") == topic)
    return frame.select(*(name for name in wanted if name != "topic"))


def _parquet(session: SparkSession, given: str | Path, *, of: str, only: Collection[str] | None) -> DataFrame:
    """The columns of some Parquet files; without `only` all of them, those in the names of folders too."""
    address = str(given) if _ADDRESS.match(str(given)) else None
    paths = [address] if address is not None else [str(path.resolve()) for path in _files(given, of)]
    finer = [] if address is not None else _nanoseconds(paths[0], of)
    session.conf.set("spark.sql.legacy.parquet.nanosAsLong", bool(finer))
    reader = session.read.option("recursiveFileLookup", only is not None)
    if only is None and address is None:
        reader = reader.option("basePath", "/")
    try:
        frame = reader.parquet(*paths)
    except AnalysisException as error:
        raise DefinitionError(f"{of}: {str(error).partition(chr(10))[0]}") from error
    names = frame.columns if only is None else [name for name in frame.columns if name in only]
    return frame.select(*(_in_microseconds(name) if name in finer else sf.col(_quoted(name)) for name in names))


def _files(given: str | Path, of: str) -> Sequence[Path]:
    found = files(given, of=of)
    others = [path for path in found if path.suffix not in {".parquet", ".pq"}]
    if others:
        raise DefinitionError(f"{of}: {others[0]} is no Parquet file; Spark needs the numbers of rows, which no CSV has: convert it")
    return found


def _nanoseconds(path: str, of: str) -> list[str]:
    """The columns that hold nanoseconds, as pandas writes instants: Spark takes them for whole numbers, if that is allowed."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DefinitionError(f"{of}: {path}: {error}") from error
    return [found.name for found in schema if pa.types.is_timestamp(found.type) and found.type.unit == "ns"]


def _in_microseconds(name: str) -> Column:
    """Of whole numbers: as a fraction, which `/` gives, today's nanoseconds are not exact."""
    return sf.timestamp_micros(sf.expr(f"{_quoted(name)} div 1000")).alias(name)


def _quoted(name: str) -> str:
    """A name as Spark takes it, whatever is in it."""
    return f"`{name.replace('`', '``')}`"
