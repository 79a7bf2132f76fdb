"""A frame as a folder of Parquet files, for more rows than a process holds: written by an engine, finished here, read as a whole.

    rows/
        _common_metadata                  the schema: what each feature means, and the lineage with the hash of all content
        part-00000-....zstd.parquet       rows in the order of partition and offset, on through the files in the order of their names
        part-00001-....zstd.parquet

Readers of Parquet pass over names that begin with an underscore, or take the schema from there. Limit: the hash is that of a single file
with the same rows, column after column, so one process reads all of it once, a piece at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import DefinitionError

SCHEMA = "_common_metadata"


def parts(folder: Path) -> list[Path]:
    """The files with rows, in order."""
    return sorted(folder.glob("part-*.parquet"))


def rows_in(folder: Path) -> int:
    """How many rows they hold, as they say themselves."""
    return sum(int(pq.read_metadata(path).num_rows) for path in parts(folder))


def pieces(folder: Path, name: str) -> Iterator[pa.Array]:
    """A column, in order."""
    for path in parts(folder):
        with pq.ParquetFile(path) as found:
            for batch in found.iter_batches(columns=[name]):
                yield batch.column(0)


def write_schema(folder: Path, schema: pa.Schema) -> None:
    """Say what the files are."""
    pq.write_metadata(schema, folder / SCHEMA)


def read_folder(folder: Path) -> pa.Table:
    """All rows. Raises `DefinitionError` for a folder that was not finished."""
    if not (folder / SCHEMA).is_file():
        raise DefinitionError(f"{folder} is no training set: it has no {SCHEMA}")
    schema = pq.read_schema(folder / SCHEMA)
    tables = [pq.read_table(path, partitioning=None) for path in parts(folder)]
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])
