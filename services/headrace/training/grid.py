"""Features on a grid of time, for analysts and dashboards: what a look-up would have answered every hour, as Parquet.

One file a view, `<view>.parquet`: `_entity`, `_as_of`, and the features by their names in the view, with descriptions and units in the
schema; its metadata names app, view, fingerprint, grid and the offsets that were read. An entity has a row as long as some window of the
view can still see an event of it: whoever has none has the values for nothing. Of a log that has lost its beginning the grid begins where
every window is whole. Rows stand in the order of time within a partition. A file appears when it is complete. Limit: the states of all
entities are in memory, the rows are not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.definition import App
from headrace.duration import duration_ms, duration_text
from headrace.errors import DefinitionError
from headrace.features.training import GridRows, HistoryFold
from headrace.features.view import FeatureView
from headrace.source import Hop, Source
from headrace.training.frame import INSTANT, note_of
from headrace.training.history import TableHistory, Told, TopicHistory, Topics, history_of
from headrace.training.tables import Tabular
from headrace.types import Float64s

ROWS_AT_ONCE = 131_072


@dataclass(frozen=True, slots=True, kw_only=True)
class GridFile:
    """What was written of a view."""

    view: str
    path: Path
    rows: int
    refused: dict[str, int]
    """Records of its source that are no events, by reason."""


def export_features(
    app: App,
    *,
    events: Topics | Tabular,
    grid: str | int,
    to: str | Path,
    views: Collection[str] = (),
    told: Told = lambda _, __: None,
) -> list[GridFile]:
    """Write the features of the app's views (or of those named) as of every multiple of `grid` ("1h") since the epoch into the folder `to`.

    `events` as for `training_frame`; a table holds the events of one source. Raises `DefinitionError`.
    """
    step_ms = duration_ms(grid, of="grid")
    by_source = _wanted(app, views)
    if len({reads.source.topic if isinstance(reads, Hop) else reads.topic for reads, _ in by_source}) > 1 and not isinstance(
        events, Topics
    ):
        raise DefinitionError(f"a table holds the events of one source, and {app!r} has several; name views of one of them")
    folder = Path(to)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for reads, wanted in by_source:
        found += _of_source(reads, wanted, history_of(app, reads, events, told=told), app, step_ms, folder)
    return found


def _wanted(app: App, names: Collection[str]) -> list[tuple[Source, tuple[FeatureView, ...]]]:
    known = {view.name for view in app.views}
    unknown = sorted(set(names) - known)
    if unknown:
        raise DefinitionError(f"{app!r} has no view {unknown[0]!r}; it has {', '.join(sorted(known))}")
    taken: set[str] = set()
    found = []
    for reads in app.inputs:
        views = tuple(view for view in app.views_of(reads) if (not names or view.name in names) and view.name not in taken)
        taken |= {view.name for view in views}
        found += [(reads, views)] if views else []
    return found


def _of_source(
    reads: Source, views: Sequence[FeatureView], history: TopicHistory | TableHistory, app: App, step_ms: int, folder: Path
) -> list[GridFile]:
    fold = HistoryFold(views)
    fields = frozenset[str]().union(*(view.fields for view in views))
    kept_by = reads.key if isinstance(history, TableHistory) and isinstance(reads, Hop) else None
    told = {"app": app.name, "grid": duration_text(step_ms)}
    with ExitStack() as files:
        writers = [files.enter_context(_Writer(view, place, folder, told, history)) for place, view in enumerate(views)]
        for rows in _on_grid(fold, history, fields, step_ms, kept_by):
            first = 0
            for writer in writers:
                writer.take(rows, rows.values[:, first : first + len(writer.view.features)])
                first += len(writer.view.features)
        for writer in writers:
            writer.finish()
    refused = {str(reason): count for reason, count in sorted(history.account.refused.items()) if count}
    return [GridFile(view=writer.view.name, path=writer.path, rows=writer.rows, refused=refused) for writer in writers]


def _on_grid(
    fold: HistoryFold, history: TopicHistory | TableHistory, fields: frozenset[str], step_ms: int, kept_by: str | None
) -> Iterator[GridRows]:
    """`kept_by`: another entity than the key of the source, where a table is read for views that are kept behind a hop."""
    for events, _ in history.events(fields | ({kept_by} if kept_by else frozenset())):
        if len(events):
            mine = events if kept_by is None else replace(events, entities=events.columns[kept_by].tolist())
            yield from (rows for rows in fold.fold_on_grid(mine, step_ms) if rows.as_of_ms >= history.whole_from_ms(rows.partition))
    yield from (rows for rows in fold.last_on_grid(step_ms) if rows.as_of_ms >= history.whole_from_ms(rows.partition))


class _Writer:
    """The file of one view; some thousand rows wait until they are worth a row group."""

    def __init__(self, view: FeatureView, place: int, folder: Path, told: dict[str, str], history: TopicHistory | TableHistory) -> None:
        self.view, self.path, self.rows = view, folder / f"{view.name}.parquet", 0
        self._place, self._told, self._history = place, told, history
        self._part = self.path.with_suffix(".parquet.part")
        self._file: pq.ParquetWriter | None = None
        self._entities: list[str] = []
        self._instants: list[np.ndarray] = []
        self._values: list[Float64s] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """What is not finished leaves nothing behind."""
        if self._file is not None:
            self._file.close()
        self._part.unlink(missing_ok=True)

    def take(self, rows: GridRows, values: Float64s) -> None:
        """The rows of an instant, those that this view has something of."""
        mine = np.flatnonzero(rows.seen[:, self._place])
        self._entities += [rows.entities[row] for row in mine.tolist()]
        self._instants.append(np.full(len(mine), rows.as_of_ms, dtype=np.int64))
        self._values.append(values[mine])
        if len(self._entities) >= ROWS_AT_ONCE:
            self._write()

    def finish(self) -> None:
        """Let the file appear."""
        self._write()
        if self._file is not None:
            self._file.close()
        self._file = None
        self._part.replace(self.path)

    def _write(self) -> None:
        schema = self._schema()
        if self._file is None:
            self._file = pq.ParquetWriter(self._part, schema, compression="zstd")
        values = np.concatenate([np.empty((0, len(self.view.features))), *self._values])
        instants = np.concatenate([np.empty(0, dtype=np.int64), *self._instants])
        columns = [pa.array(self._entities, pa.string()), pa.array(instants).cast(INSTANT)]
        columns += [pa.array(np.ascontiguousarray(values[:, place])) for place in range(values.shape[1])]
        self._file.write_table(pa.Table.from_arrays(columns, schema=schema))
        self.rows += len(self._entities)
        self._entities, self._instants, self._values = [], [], []

    def _schema(self) -> pa.Schema:
        spans = self._history.account.offsets
        told = {
            **self._told,
            "view": self.view.name,
            "version": self.view.version,
            "entity": self.view.entity,
            "fingerprint": self.view.fingerprint,
            "offsets": {topic: {str(number): span for number, span in found.items()} for topic, found in spans.items()},
        }
        about = [pa.field("_entity", pa.string()), pa.field("_as_of", INSTANT)]
        notes = [note_of(feature, feature.name, self.view.source).field() for feature in self.view.features]
        return pa.schema(about + notes, metadata={"headrace": json.dumps(told, sort_keys=True)})
