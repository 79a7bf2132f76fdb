"""What Spark's Python processes do with a batch or a group: decode, fold, join. Nothing here knows Spark: Arrow in, Arrow out.

    read     a batch of rows or records   -> one row each: an event with its columns, or the reason why it is none   (any batch, any order)
    label    events and outcomes of ids   -> where the events stand, and their labels                               (any order)
    fold     all events of some entities  -> their feature vectors                                                  (in offset order)

Decoder, fold and join are those of `building.py`; only who calls them is another. What a task must know comes in one pickle (`shipped`),
in which the classes of contracts are replaced by their names: tasks read the plain contract, so the modules of the app need not be
installed where Spark works, and definitions typed into a notebook will do.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.crashes import rows_at
from headrace.decode.decoder import Decoder
from headrace.decode.outcomes import OutcomeDecoder
from headrace.decode.table_rows import records_of
from headrace.definition import Pipeline
from headrace.errors import FatalError
from headrace.expression import Expression
from headrace.features.training import HistoryFold
from headrace.source import Event
from headrace.training.archive import records_in
from headrace.training.history import clock_of
from headrace.training.labels import KnownOutcomes, fields_read, founds, id_kind, join, outcomes_in, outcomes_of
from headrace.training.tables import column, contract_columns, numeric
from headrace.types import EventBatch, Float64s, Int64s, Reason, RecordBatch, TopicPartition

ROW = "_headrace_row"
"""The column that numbers the rows of a table; no field of a contract begins with an underscore."""
PLACE = [("partition", pa.int32()), ("offset", pa.int64())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be made."""

    pipeline: Pipeline
    joined: str | None = None
    """The field that outcomes are joined by, where they are."""
    label: Expression | None = None
    """The label, where it stands beside the event."""
    label_time: str = ""
    """The column that says when an outcome was known."""
    keys_to_be: Sequence[str] = ()
    """Fields that must be fit to be keys, as later stages have them as such."""
    left_out: Mapping[TopicPartition, Sequence[int]] = field(default_factory=dict)
    """Records that were condemned."""

    @property
    def entities(self) -> list[str]:
        """Those of the views, in order: each has a fold of its own."""
        return list(dict.fromkeys(view.entity for view in self.pipeline.views))

    @property
    def is_labelled(self) -> bool:
        """Whether rows have labels."""
        return self.joined is not None or self.label is not None

    @property
    def fields(self) -> list[str]:
        """Those of the contract that are read; column `c<n>` holds the nth."""
        return sorted(fields_read(self.pipeline, self.joined))

    def column(self, name: str) -> str:
        """The column of a field."""
        return f"c{self.fields.index(name)}"

    def kind(self, name: str) -> pa.DataType:
        """How a field travels."""
        return pa.string() if self.pipeline.source.kinds[name] == "text" else pa.float64()


# ------------------------------------------------------------------------------------------------- what travels


def shipped(task: Task) -> bytes:
    """The task for other processes."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(task)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, found: object) -> Any:  # noqa: ANN401 - as pickle wants it
        """A contract's class is its name."""
        if isinstance(found, type) and issubclass(found, Event) and found is not Event:
            return _named, (found.__name__,)
        return NotImplemented


def _named(name: str) -> type[Event]:
    return type(name, (Event,), {})


@lru_cache(maxsize=4)
def _task(pickled: bytes) -> Task:
    found: Task = pickle.loads(pickled)  # noqa: S301 - it is our own, out of `shipped`
    return found


LABELS = [("label", pa.float64()), ("found", pa.int8())]
"""The label, NaN where there is none, and what was found for it."""


def decoded_schema(task: Task) -> pa.Schema:
    """What `read_table` and `read_archive` give."""
    event = [("reason", pa.string()), ("time_ms", pa.int64()), ("clock_ms", pa.int64())]
    return pa.schema([*PLACE, *event, *_columns(task), *(LABELS if task.label is not None else [])])


def _columns(task: Task) -> list[tuple[str, pa.DataType]]:
    return [(task.column(name), task.kind(name)) for name in task.fields]


def label_schema() -> pa.Schema:
    """What `label` gives."""
    return pa.schema([*PLACE, *LABELS])


def row_schema(task: Task, number: int) -> pa.Schema:
    """What `fold` by the nth entity gives: what it got and the features of that entity; by the last one, rows.

    `part` and labels are handed through, `v<n>` holds the nth feature.
    """
    about = [("part", pa.int32()), *PLACE, ("time_ms", pa.int64()), *(LABELS if task.is_labelled else [])]
    if number + 1 < len(task.entities):
        values = [(f"v{place}", pa.float64()) for some in task.entities[: number + 1] for place in _places(task, some)]
        return pa.schema([*about, ("found_ms", pa.int64()), *_columns(task), *values])
    values = [(f"v{place}", pa.float64()) for place in range(len(task.pipeline.feature_names))]
    return pa.schema([*about, ("entity", pa.string()), ("late", pa.bool_()), *values])


def _places(task: Task, entity: str) -> list[int]:
    """Where the features of an entity stand in the vector."""
    of = [view.entity for view in task.pipeline.views for _ in view.features]
    return [place for place, name in enumerate(of) if name == entity]


def outcome_schema(task: Task) -> pa.Schema:
    """What `table_outcomes` and `archive_outcomes` give; the place decides between outcomes of one instant."""
    if task.pipeline.outcomes is None:
        raise FatalError(f"{task.pipeline!r} declares no outcomes")
    return pa.schema([*PLACE, ("id", id_kind(task.pipeline.outcomes)), ("time_ms", pa.int64()), ("value", pa.float64())])


# ------------------------------------------------------------------------------------------------- read


def read_table(pickled: bytes, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of a table of events, each with its number in `ROW`."""
    task = _task(pickled)
    source, decoder = task.pipeline.source, _decoder(task)
    for batch in batches:
        table = pa.Table.from_batches([batch])
        columns = contract_columns(table, source.contract, of=f"events of {source!r}")
        records = records_of(source, columns, np.zeros(len(table), dtype=np.int32), column(table, ROW).to_numpy())
        label = None
        if task.label is not None:
            label = task.label.evaluate({name: numeric(column(table, name)) for name in task.label.fields()})
        yield _decoded(task, decoder, records, label)


def read_archive(pickled: bytes, of: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Records of the source's topic."""
    task = _task(pickled)
    decoder = _decoder(task)
    for batch in batches:
        yield _decoded(task, decoder, records_in(pa.Table.from_batches([batch]), task.pipeline.source.topic, of=of), None)


def _decoder(task: Task) -> Decoder:
    return Decoder(task.pipeline.source, fields=task.fields, keys_to_be=task.keys_to_be)


def _decoded(task: Task, decoder: Decoder, records: RecordBatch, label: Float64s | None) -> pa.RecordBatch:
    """A row a record."""
    condemned = rows_at(records, task.left_out)
    kept = np.flatnonzero(~condemned)
    decoded = decoder.decode(records.select(kept) if condemned.any() else records)
    reasons = np.full(len(records), None, dtype=object)
    reasons[condemned] = str(Reason.CRASH_LOOP)
    for letter in decoded.refused:
        reasons[kept[letter.row]] = str(letter.reason)
    events = decoded.events
    rows = kept[events.rows]
    found: dict[str, Any] = {"time_ms": events.event_times_ms, "clock_ms": clock_of(task.pipeline.source, events)}
    found |= {task.column(name): events.columns[name] for name in task.fields}
    arrays = {"partition": pa.array(records.partitions), "offset": pa.array(records.offsets), "reason": pa.array(reasons, pa.string())}
    schema = decoded_schema(task)
    for name, values in found.items():
        arrays[name] = _spread(values, rows, len(records), schema.field(name).type)
    if label is not None:
        arrays |= {"label": pa.array(label), "found": pa.array(founds(label))}
    return pa.record_batch([arrays[name] for name in schema.names], schema=schema)


def _spread(values: Any, rows: Int64s, count: int, kind: pa.DataType) -> pa.Array:  # noqa: ANN401 - a column of any kind
    """The values at their rows, nothing at the others."""
    absent = np.ones(count, dtype=np.bool_)
    absent[rows] = False
    whole: Any = np.full(count, None, dtype=object) if pa.types.is_string(kind) else np.zeros(count, dtype=kind.to_pandas_dtype())
    whole[rows] = values
    return pa.array(whole, kind, mask=absent, from_pandas=False)


# ------------------------------------------------------------------------------------------------- fold


def fold(pickled: bytes, number: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """All events of some of the nth entities, by partition in offset order; `found_ms` is the watermark that each of them found.

    Raises `FatalError` where they come in another order.
    """
    task = _task(pickled)
    entity, schema = task.entities[number], row_schema(task, number)
    history, places = HistoryFold([view for view in task.pipeline.views if view.entity == entity]), _places(task, entity)
    last = (-1, 0, 0)
    for batch in batches:
        last = _in_order(batch, last)
        events = _events(task, batch, entity)
        values, late = history.fold_apart(events, batch.column("found_ms").to_numpy())
        arrays = {name: batch.column(name) for name in schema.names if name in batch.schema.names}
        arrays |= {f"v{place}": pa.array(np.ascontiguousarray(values[:, at])) for at, place in enumerate(places)}
        if number + 1 == len(task.entities):
            arrays |= {"entity": batch.column(task.column(task.pipeline.entities[-1])), "late": pa.array(late)}
            first = len(task.pipeline.feature_names) - len(task.pipeline.event_features)
            for place, (_, expression) in enumerate(task.pipeline.event_features, first):
                arrays[f"v{place}"] = pa.array(expression.evaluate(events.columns))
        yield pa.record_batch([arrays[name] for name in schema.names], schema=schema)


def _in_order(batch: pa.RecordBatch, last: tuple[int, int, int]) -> tuple[int, int, int]:
    """The place of the last event. That they come in order is how Spark plans it, not what it promises: so it is seen to."""
    places = [
        np.append(before, batch.column(name).to_numpy()) for before, name in zip(last, ("partition", "found_ms", "offset"), strict=True)
    ]
    partitions, found_ms, offsets = (np.diff(column.astype(np.int64)) for column in places)
    if not ((partitions > 0) | ((partitions == 0) & ((found_ms > 0) | ((found_ms == 0) & (offsets > 0))))).all():
        raise FatalError("Spark handed over events out of order; headrace does not know this version of it well enough")
    return int(places[0][-1]), int(places[1][-1]), int(places[2][-1])


def _events(task: Task, batch: pa.RecordBatch, entity: str) -> EventBatch:
    count = len(batch)
    columns: dict[str, Any] = {}
    for name in task.fields:
        found = batch.column(task.column(name))
        is_text = pa.types.is_string(found.type)
        columns[name] = np.array(found.to_pylist(), dtype=object) if is_text else found.to_numpy(zero_copy_only=False)
    return EventBatch(
        records=RecordBatch(
            topic=task.pipeline.source.topic,
            partitions=batch.column("partition").to_numpy(),
            offsets=batch.column("offset").to_numpy(),
            timestamps_ms=np.zeros(count, dtype=np.int64),
            keys=[None] * count,
            values=[None] * count,
            headers=[None] * count,
        ),
        rows=np.arange(count),
        entities=columns[entity].tolist(),
        event_times_ms=batch.column("time_ms").to_numpy(),
        columns=columns,
    )


# ------------------------------------------------------------------------------------------------- label


def table_outcomes(pickled: bytes, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows of a table of outcomes, each with its number in `ROW`."""
    task = _task(pickled)
    for batch in batches:
        table = pa.Table.from_batches([batch])
        known = outcomes_in(table, _outcomes(task), task.label_time)
        numbers = column(table, ROW).to_numpy()[known.rows]
        yield _as_batch(task, known, np.zeros(len(numbers), dtype=np.int32), numbers)


def archive_outcomes(pickled: bytes, of: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Records of the topic of outcomes."""
    task = _task(pickled)
    outcomes = _outcomes(task)
    decoder = OutcomeDecoder(outcomes)
    for batch in batches:
        records = records_in(pa.Table.from_batches([batch]), outcomes.topic, of=of)
        known = outcomes_of(records, outcomes, decoder)
        yield _as_batch(task, known, records.partitions[known.rows], records.offsets[known.rows])


def _outcomes(task: Task) -> Any:  # noqa: ANN401 - the checker need not be told that there are some
    return task.pipeline.outcomes


def _as_batch(task: Task, known: KnownOutcomes, partitions: Any, offsets: Int64s) -> pa.RecordBatch:  # noqa: ANN401
    schema = outcome_schema(task)
    ids = known.ids.cast(schema.field("id").type)
    return pa.record_batch([pa.array(partitions), pa.array(offsets), ids, pa.array(known.times_ms), pa.array(known.values)], schema=schema)


def label(pickled: bytes, events: pa.Table, outcomes: pa.Table) -> pa.Table:
    """Events of some ids and all outcomes of these."""
    outcomes = outcomes.sort_by([("partition", "ascending"), ("offset", "ascending")])
    known = KnownOutcomes(
        ids=column(outcomes, "id"),
        times_ms=column(outcomes, "time_ms").to_numpy(),
        values=column(outcomes, "value").to_numpy(zero_copy_only=False),
    )
    ids = column(events, "id").to_numpy(zero_copy_only=False)
    labels, found = join(known, ids, column(events, "time_ms").to_numpy(), _outcomes(_task(pickled)).within_ms)
    columns = [column(events, "partition"), column(events, "offset"), pa.array(labels), pa.array(found)]
    return pa.table(columns, schema=label_schema())
