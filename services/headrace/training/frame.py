"""The rows a model is trained on, as an Arrow table that says where it comes from.

    _entity _event_time _partition _offset _late [_label] | aircraft.count_6h  aircraft.mean_dep_delay_6h  ...  dep_delay
    -------------------- about the row ------------------ | ---- the feature vector, in the order the model takes it ----

Columns about the row begin with an underscore, which no field of a contract can; `names` are the feature vector. Answers to questions
have `_entity`, `_as_of`, `_known` (an event of it came before) and `_whole` (the log holds all that its windows reach back to). Features
are float64, absent is NaN, as it is when scoring; a label that is not there is null.

The schema carries, for every feature, what it means and its unit where that is known, and for the whole its lineage: fingerprints, offsets,
counts, and the hash of the content. All of it survives Parquet: in one file, or in a folder of many in the order of their names, whose
`_common_metadata` holds that schema (`files.py`).
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.errors import DefinitionError
from headrace.expression import Expression
from headrace.features.units import unit_of, unit_of_field
from headrace.features.view import Feature, FeatureView
from headrace.source import Source
from headrace.training.files import read_folder
from headrace.training.tables import column
from headrace.types import Float64s

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

LABEL = "_label"
INSTANT = pa.timestamp("ms", tz="UTC")
_LINEAGE = b"headrace"
_SHOWN = 8


class TrainingFrame:
    """Point-in-time rows. `table` is the pyarrow Table; the rest reads it."""

    def __init__(self, table: pa.Table) -> None:
        if _LINEAGE not in (table.schema.metadata or {}):
            raise DefinitionError("this table is no training frame: it carries no lineage of ours")
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in the order the model takes them."""
        return tuple(self.lineage["features"])

    @property
    def features(self) -> pa.Table:
        """The feature columns alone."""
        return self.table.select(list(self.names))

    @property
    def values(self) -> Float64s:
        """The feature vectors, [rows, features]."""
        found = [column(self.table, name).to_numpy(zero_copy_only=False) for name in self.names]
        return np.column_stack(found) if found else np.empty((len(self), 0))

    @property
    def labels(self) -> Float64s:
        """The label of each row, NaN where it has none. Raises `DefinitionError` for a frame without labels."""
        if LABEL not in self.table.column_names:
            raise DefinitionError("this frame has no labels; give labels= when it is made")
        return np.asarray(column(self.table, LABEL).to_numpy(zero_copy_only=False), dtype=np.float64)

    @property
    def lineage(self) -> dict[str, Any]:
        """Where it comes from: app, pipeline, fingerprints, offsets, counts and the hash of the content."""
        return lineage_in(self.table.schema)

    @property
    def hash(self) -> str:
        """The sha256 of names and values: equal for equal rows, wherever they come from."""
        return str(self.lineage["hash"])

    def to_pandas(self) -> pd.DataFrame:
        """As a pandas DataFrame."""
        return self.table.to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """As a polars DataFrame."""
        import polars as pl  # noqa: PLC0415 - only who asks for it needs it

        return pl.DataFrame(self.table)

    def to_parquet(self, path: str | Path) -> None:
        """As a Parquet file, lineage and descriptions in its schema."""
        pq.write_table(self.table, path, compression="zstd")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """A frame that `to_parquet` wrote, or the folder that `headrace.write_training_set` did.

        Raises `DefinitionError` where its content is not what its hash says.
        """
        found = cls(read_folder(Path(path)) if Path(path).is_dir() else pq.read_table(path))
        if content_hash(found.table) != found.hash:
            raise DefinitionError(f"{path}: its rows are not those that its lineage names (hash {found.hash[:16]})")
        return found

    def __repr__(self) -> str:
        return f"<TrainingFrame {len(self):,} rows, {len(self.names)} features, {self.hash[:16]}>"

    def _repr_html_(self) -> str:
        lineage, rows = self.lineage, self.table.slice(0, _SHOWN).to_pylist()
        head = "".join(f'<th title="{html.escape(self._says(name))}">{html.escape(name)}</th>' for name in self.table.column_names)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(_shown(value))}</td>" for value in row.values()) + "</tr>" for row in rows)
        counts = ", ".join(f"{count:,} {what}" for what, count in _told(lineage))
        name = html.escape(f"{lineage['pipeline']}: {len(self):,} rows, {len(self.names)} features")
        return (
            f"<div><b>{name}</b><br><small>{html.escape(counts)}; hash {self.hash[:16]}, definition {lineage['fingerprint'][:16]}</small>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _says(self, name: str) -> str:
        said: bytes = (self.table.schema.field(name).metadata or {}).get(b"description", b"")
        return said.decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureNote:
    """What stands in a schema beside a feature."""

    name: str
    description: str
    unit: str = ""

    def field(self) -> pa.Field:
        """The field of a schema."""
        said = {"description": self.description, **({"unit": self.unit} if self.unit else {})}
        return pa.field(self.name, pa.float64(), metadata=said)


def note_of(feature: Feature, name: str, source: Source) -> FeatureNote:
    """What stands beside a feature of a view, under the name it has there."""
    return FeatureNote(name=name, description=feature.description, unit=unit_of(feature, source))


def notes_of(views: Sequence[FeatureView], event_features: Sequence[tuple[str, Expression]], source: Source) -> list[FeatureNote]:
    """Of a whole vector, in order; `source`: of the events that bring the event features."""
    found = [note_of(feature, f"{view.name}.{feature.name}", view.source) for view in views for feature in view.features]
    for name, expression in event_features:
        unit = unit_of_field(expression, source)
        found.append(FeatureNote(name=name, description=f"{expression!r} of the event itself", unit=unit))
    return found


EVENT_COLUMNS: Mapping[str, pa.DataType] = {
    "_entity": pa.string(),
    "_event_time": INSTANT,
    "_partition": pa.int32(),
    "_offset": pa.int64(),
    "_late": pa.bool_(),
}
"""What stands about a row that is an event's."""


def frame_schema(about: Mapping[str, pa.DataType], notes: Sequence[FeatureNote]) -> pa.Schema:
    """The columns of a frame, without its lineage. Raises `DefinitionError` where two would have one name."""
    taken = sorted(about.keys() & {note.name for note in notes})
    if taken:
        raise DefinitionError(f"the event feature {taken[0]!r} has the name of a column about the row; give it another .alias(...)")
    return pa.schema([pa.field(name, kind) for name, kind in about.items()] + [note.field() for note in notes])


def with_lineage(schema: pa.Schema, lineage: Mapping[str, object], notes: Sequence[FeatureNote], rows: int, told: str) -> pa.Schema:
    """The schema with everything that is known of the rows; `told`: the hash of their content."""
    full = {**lineage, "features": [note.name for note in notes], "rows": rows, "hash": told}
    return schema.with_metadata({_LINEAGE: json.dumps(full, sort_keys=True).encode()})


def lineage_in(schema: pa.Schema) -> dict[str, Any]:
    """What `with_lineage` put there."""
    found: dict[str, Any] = json.loads(schema.metadata[_LINEAGE])
    return found


def assemble_frame(
    about: Mapping[str, pa.Array], notes: Sequence[FeatureNote], values: Float64s, lineage: Mapping[str, object]
) -> TrainingFrame:
    """A frame from its columns; the hash is made here."""
    schema = frame_schema({name: found.type for name, found in about.items()}, notes)
    columns = [*about.values(), *(pa.array(np.ascontiguousarray(values[:, place])) for place in range(len(notes)))]
    table = pa.Table.from_arrays(columns, schema=schema)
    full = with_lineage(schema, lineage, notes, table.num_rows, content_hash(table))
    return TrainingFrame(table.replace_schema_metadata(full.metadata))


def content_hash(table: pa.Table) -> str:
    """The sha256 over names, types and values of all columns in order; every NaN is the same one, and so are all absent values."""
    return hash_of(table.schema, table.num_rows, lambda name: iter([column(table, name)]))


def hash_of(schema: pa.Schema, rows: int, pieces: Callable[[str], Iterator[pa.Array]]) -> str:
    """The same of rows that need not be in memory: `pieces` gives those of a column, in order, as often as it is asked."""
    told = hashlib.sha256()
    for name, kind in zip(schema.names, schema.types, strict=True):
        told.update(json.dumps([name, str(kind), rows]).encode())
        if pa.types.is_string(kind):
            for found in pieces(name):
                told.update(np.asarray(pc.binary_length(found).to_numpy(zero_copy_only=False), dtype="<i8").tobytes())
        for found in pieces(name):
            told.update(_plain_bytes(found))
    return str(told.hexdigest())


def _plain_bytes(found: pa.Array) -> bytes:
    """Values as bytes, the same on every machine."""
    if pa.types.is_floating(found.type):
        plain = np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.float64)
        return np.where(np.isnan(plain), np.nan, plain).astype("<f8").tobytes()
    if pa.types.is_string(found.type):
        return "".join(found.to_pylist()).encode()
    whole = found.cast(pa.int64()) if not pa.types.is_boolean(found.type) else found.cast(pa.int8()).cast(pa.int64())
    return np.asarray(whole.to_numpy(zero_copy_only=False), dtype="<i8").tobytes()


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _told(lineage: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The counts worth a line."""
    found = [("late", lineage["late"])] if "late" in lineage else []
    found += [(f"left out as {reason}", count) for reason, count in lineage["refused"].items()]
    if lineage["labels"] is not None:
        found += [("without label", lineage["rows"] - lineage["labels"]["labelled"])]
    return found
