"""Files and frames as columns of a contract.

What may be given: a Parquet or CSV file, a folder or a glob of them, a pyarrow Table, or whatever offers its columns to Arrow (pandas,
polars, duckdb, ...). A column is taken as the contract declares it, and refused as a whole where it is of another kind; whether a row is an
event is not decided here but by the decoder. Limit: everything is in memory at once.
"""

from __future__ import annotations

import difflib
import glob
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
from numpy.typing import NDArray

from headrace.errors import DefinitionError
from headrace.source import ContractField, FieldKind
from headrace.types import Int64s

Tabular = str | Path | Any
"""What `arrow_table` takes."""

_CSV, _PARQUET = {".csv", ".gz", ".tsv"}, {".parquet", ".pq"}
_NOT_THERE = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
_CSV_TYPES: Mapping[FieldKind, pa.DataType] = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}


def arrow_table(given: Tabular, contract: Sequence[ContractField], *, of: str, only: Collection[str] | None = None) -> pa.Table:
    """What was given as a table; of files only the columns `only`, if named, are read. Raises `DefinitionError`, beginning with `of`."""
    if isinstance(given, (str, Path)):
        return _read(files(given, of=of), contract, of, only)
    try:
        return _without_string_views(pa.table(given))
    except pa.ArrowException as error:
        raise DefinitionError(f"{of}: a column is not of one kind: {error}") from error
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"{of}: {type(given).__name__} is no table; give a path, a pyarrow Table, or a pandas or polars DataFrame"
        ) from error


def _without_string_views(table: pa.Table) -> pa.Table:
    """Rows cannot be taken by number out of columns of this kind, in which polars keeps texts."""
    for place, found in enumerate(table.schema):
        if pa.types.is_string_view(found.type):
            table = table.set_column(place, found.name, table.column(place).cast(pa.large_string()))
    return table


def files(given: str | Path, *, of: str) -> list[Path]:
    """The files that a path, a folder or a glob names, in the order of their names."""
    path = Path(given)
    if path.is_dir():
        found = [one for one in path.rglob("*") if one.is_file() and one.suffix in _CSV | _PARQUET]
    elif path.exists():
        return [path]
    else:
        found = [Path(name) for name in glob.glob(str(given), recursive=True)]  # noqa: PTH207 - an absolute pattern is none for pathlib
    if not found:
        raise DefinitionError(f"{of}: {given} names no Parquet or CSV file")
    return sorted(found)


def _read(paths: list[Path], contract: Sequence[ContractField], of: str, only: Collection[str] | None) -> pa.Table:
    kinds = {path.suffix in _CSV for path in paths}
    if len(kinds) > 1:
        raise DefinitionError(f"{of}: {paths[0].parent} holds Parquet and CSV; name one kind, for example with *.parquet")
    try:
        if kinds == {True}:
            return pa.concat_tables([_read_csv(path, contract) for path in paths], promote_options="default")
        found = pyarrow.dataset.dataset([str(path) for path in paths], format="parquet")
        return found.to_table(columns=None if only is None else [name for name in found.schema.names if name in only])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowKeyError, OSError) as error:
        raise DefinitionError(f"{of}: {paths[0]}: {error}") from error


def _read_csv(path: Path, contract: Sequence[ContractField]) -> pa.Table:
    found = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t" if ".tsv" in path.suffixes else ","),
        convert_options=pyarrow.csv.ConvertOptions(
            # Declared columns are read as they are declared: "007" stays text.
            column_types={field.name: _CSV_TYPES[field.kind] for field in contract if field.kind in _CSV_TYPES},
            null_values=_NOT_THERE,
            strings_can_be_null=False,  # NA is Namibia as well
        ),
    )
    for field in contract:
        if field.kind == "text" and field.optional and field.name in found.column_names:
            texts = column(found, field.name)
            absent = pc.if_else(pc.equal(texts, ""), pa.scalar(None, texts.type), texts)
            found = found.set_column(found.column_names.index(field.name), field.name, absent)
    return found


def contract_columns(table: pa.Table, contract: Sequence[ContractField], *, of: str) -> dict[str, list[Any]]:
    """The fields of a contract as Python values, None where absent. Raises `DefinitionError` for a column that is missing or another kind.

    An optional field may have no column; times are milliseconds or of Arrow's own kind, then UTC where they name no zone.
    """
    columns: dict[str, list[Any]] = {}
    for field in contract:
        if field.name in table.column_names:
            columns[field.name] = _typed(column(table, field.name), field.kind, of=f"{of}: column {field.name!r}")
        elif not field.optional:
            near = difflib.get_close_matches(field.name, table.column_names, n=1)
            hint = f"; is it {near[0]!r}? Rename it" if near else f"; it has {', '.join(table.column_names)}"
            raise DefinitionError(f"{of} has no column {field.name!r}{hint}")
    return columns


def column(table: pa.Table, name: str) -> pa.Array:
    """A column in one piece, dictionaries and other encodings resolved."""
    found = table.column(name).combine_chunks()
    if isinstance(found, pa.ChunkedArray):
        found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], found.type)
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    return found


def _typed(found: pa.Array, kind: FieldKind, *, of: str) -> list[Any]:
    """A column as the contract declares it, as Python values."""
    if pa.types.is_null(found.type):
        return [None] * len(found)
    if kind == "time":
        times_ms, known = instants_ms(found, of=of)
        return [time if there else None for time, there in zip(times_ms.tolist(), known.tolist(), strict=True)]
    target = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}[kind]
    taken = {"text": _is_text, "integer": _is_whole, "number": _is_number, "boolean": pa.types.is_boolean}[kind]
    if not taken(found.type):
        raise DefinitionError(f"{of} is {found.type}, the contract says {kind}; cast it, or change the contract")
    if kind == "integer" and pa.types.is_floating(found.type):
        found = pc.if_else(pc.is_finite(found), found, pa.scalar(None, found.type))
    try:
        values: list[Any] = found.cast(target).to_pylist()
    except pa.ArrowInvalid as error:
        raise DefinitionError(f"{of} is {found.type}, the contract says {kind}: {error}") from error
    return values


def instants_ms(found: pa.Array, *, of: str) -> tuple[Int64s, NDArray[np.bool_]]:
    """A column of instants in milliseconds UTC, and where there is one. Whole numbers are milliseconds already."""
    if _is_text(found.type):
        found = _parsed(found, of)
    if pa.types.is_timestamp(found.type):
        # A time without a zone is UTC; what is finer than a millisecond is cut off.
        found = found.cast(pa.timestamp("ms", found.type.tz), safe=False).cast(pa.int64())
    elif pa.types.is_date(found.type):
        found = found.cast(pa.timestamp("ms")).cast(pa.int64())
    elif _is_whole(found.type):
        if pa.types.is_floating(found.type):
            found = pc.if_else(pc.is_finite(found), found, pa.scalar(None, found.type))
        found = found.cast(pa.int64(), safe=False)
    else:
        raise DefinitionError(f"{of} is {found.type}: give whole milliseconds UTC, or timestamps")
    known = np.asarray(pc.is_valid(found).to_numpy(zero_copy_only=False), dtype=np.bool_)
    return np.asarray(pc.fill_null(found, 0).to_numpy(zero_copy_only=False), dtype=np.int64), known


def _parsed(found: pa.Array, of: str) -> pa.Array:
    """Texts in ISO 8601 as timestamps."""
    empty = pc.equal(found, "")
    texts = pc.if_else(empty, pa.scalar(None, found.type), found)
    zoned = pc.any(pc.match_substring_regex(texts, r":[0-9]{2}[^-+Z]*(Z|[+-][0-9:]{2,6})$")).as_py()
    try:
        return texts.cast(pa.timestamp("ns", "UTC" if zoned else None))
    except pa.ArrowInvalid as error:
        raise DefinitionError(f"{of} is text that is no time in ISO 8601, or not always with a zone: {error}") from error


def numeric(found: pa.Array) -> NDArray[Any]:
    """A column as expressions read it: float64 with NaN for what is absent, or objects for text."""
    if _is_text(found.type):
        return np.array(found.cast(pa.string()).to_pylist(), dtype=np.object_)
    if pa.types.is_timestamp(found.type):
        times_ms, known = instants_ms(found, of="column")
        return np.where(known, times_ms.astype(np.float64), np.nan)
    return np.asarray(found.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_whole(kind: pa.DataType) -> bool:
    """Floats are taken where all of them are whole: that is how pandas keeps whole numbers when one is missing."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
