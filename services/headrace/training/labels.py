"""Which outcome belongs to which row: joined by the declared field, in time, and never used for anything else.

A row of time T takes the first outcome of its id within [T, T + within]. Not before: an outcome that was known before the event is that of
another event under the same id. Not after: live quality is judged within the same time, and a label that came later would be one the model
is never measured by. So a row may lack a label, and the tally says why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.decode.outcomes import OutcomeDecoder
from headrace.definition import Pipeline
from headrace.errors import DefinitionError
from headrace.expression import Column, Expression
from headrace.source import Outcomes
from headrace.training.history import Topics
from headrace.training.tables import Tabular, arrow_table, column, contract_columns, instants_ms, numeric
from headrace.types import Float64s, Int64s, RecordBatch

Founds = NDArray[np.int8]


class Found(IntEnum):
    """What was found for a row; the words are those of `LabelTally`."""

    LABELLED = 0
    NONE = 1
    TOO_LATE = 2
    BEFORE = 3
    UNKNOWN = 4


@dataclass(slots=True, kw_only=True)
class LabelTally:
    """How many rows have a label, and why the others have none."""

    labelled: int = 0
    none: int = 0
    """No outcome of that id is known at all."""
    too_late: int = 0
    """The first one came later than `within` after the event."""
    before: int = 0
    """All of them came before the event."""
    unknown: int = 0
    """There is one, but its value is absent."""

    @property
    def missing(self) -> int:
        """How many rows have no label."""
        return self.none + self.too_late + self.before + self.unknown

    def counts(self) -> dict[str, int]:
        """As plain numbers."""
        return asdict(self)

    @classmethod
    def of(cls, found: Founds) -> Self:
        """The tally of some rows."""
        counts = np.bincount(found, minlength=len(Found)).tolist()
        return cls(**{word.name.lower(): counts[word] for word in Found})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownOutcomes:
    """Outcomes as columns: whose, when, what."""

    ids: pa.Array
    times_ms: Int64s
    values: Float64s
    rows: Int64s = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Where they stand in the table, or among the records, that they come from."""
    offsets: Mapping[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    """Of a topic: from where up to, not with, where it was read, by partition."""


def known_outcomes(outcomes: Outcomes, given: object, *, time: str | None) -> KnownOutcomes:
    """Outcomes out of a table or topics. `time` names the column of their instants where the contract does not say it.

    Raises `DefinitionError`.
    """
    if isinstance(given, Topics):
        return _from_topic(outcomes, given)
    return _from_table(outcomes, given, time)


def _from_table(outcomes: Outcomes, given: Tabular, time: str | None) -> KnownOutcomes:
    when = time_column(outcomes, time)
    wanted = {outcomes.join, when} | outcomes.value.fields()
    table = arrow_table(given, outcomes.contract, of=f"labels of {outcomes!r}", only=wanted)
    return outcomes_in(table, outcomes, when)


def time_column(outcomes: Outcomes, named: str | None) -> str:
    """The column that says when an outcome was known. Raises `DefinitionError` where nobody says which."""
    when = named or _only_time(outcomes)
    if when is None:
        raise DefinitionError(
            f"labels of {outcomes!r}: nobody says when an outcome became known, so `within` cannot be kept; name a column with label_time= "
            f"or declare one hr.EventTime in {outcomes.event.__name__}"
        )
    return when


def outcomes_in(table: pa.Table, outcomes: Outcomes, when: str) -> KnownOutcomes:
    """The rows of a table that have an instant, in the column `when`, as outcomes. Raises `DefinitionError` for columns of other kinds."""
    of = f"labels of {outcomes!r}"
    if when not in table.column_names:
        raise DefinitionError(f"{of} has no column {when!r} for the time of an outcome; it has {', '.join(table.column_names)}")
    wanted = {outcomes.join} | outcomes.value.fields()
    contract = [field for field in outcomes.contract if field.name in wanted]
    columns = contract_columns(table, contract, of=of)
    times_ms, known = instants_ms(column(table, when), of=f"{of}: column {when!r}")
    kept = np.flatnonzero(known)
    texts = {field.name for field in contract if field.kind == "text"}
    values = outcomes.value.evaluate({name: _as_column(values, text=name in texts) for name, values in columns.items()})
    ids = ids_of(columns[outcomes.join]).take(pa.array(kept))
    return KnownOutcomes(ids=ids, times_ms=times_ms[kept], values=values[kept], rows=kept)


def _as_column(values: Sequence[object], *, text: bool) -> Column:
    if text:
        return np.array(values, dtype=np.object_)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _only_time(outcomes: Outcomes) -> str | None:
    """The instant of an outcome, where the contract has just one."""
    times = [field.name for field in outcomes.contract if field.kind == "time"]
    return times[0] if len(times) == 1 else None


def _from_topic(outcomes: Outcomes, topics: Topics) -> KnownOutcomes:
    """Every record of the topic that keeps the contract; its instant is the one the contract declares, else the record's."""
    decoder = OutcomeDecoder(outcomes)
    with closing(topics.subject.reader()) as reader:
        ranges = {partition: reader.log_range(partition) for partition in reader.partitions(outcomes.topic)}
        starts, ends = {name: found.start for name, found in ranges.items()}, {name: found.end for name, found in ranges.items()}
        found = [outcomes_of(batch, outcomes, decoder) for batch in reader.batches(starts, ends)]
    return KnownOutcomes(
        ids=pa.concat_arrays([pa.array([], id_kind(outcomes)), *(one.ids for one in found)]),
        times_ms=np.concatenate([np.empty(0, dtype=np.int64), *(one.times_ms for one in found)]),
        values=np.concatenate([np.empty(0), *(one.values for one in found)]),
        offsets={outcomes.topic: {name.partition: (span.start, span.end) for name, span in sorted(ranges.items())}},
    )


def outcomes_of(batch: RecordBatch, outcomes: Outcomes, decoder: OutcomeDecoder) -> KnownOutcomes:
    """The outcomes among some records."""
    when = _only_time(outcomes)
    columns, rows = decoder.decode(batch)
    return KnownOutcomes(
        ids=pa.array(columns[outcomes.join], id_kind(outcomes), from_pandas=True),
        times_ms=batch.timestamps_ms[rows] if when is None else columns[when].astype(np.int64),
        values=outcomes.value.evaluate(columns),
        rows=rows,
    )


def id_kind(outcomes: Outcomes) -> pa.DataType:
    """Texts, or numbers of any kind."""
    kinds = {field.name: field.kind for field in outcomes.contract}
    return pa.string() if kinds[outcomes.join] == "text" else pa.float64()


def join(known: KnownOutcomes, ids: Sequence[object], times_ms: Int64s, within_ms: int) -> tuple[Float64s, Founds]:
    """The label of each row, NaN where it has none, and what was found for it."""
    count = len(ids)
    codes = _codes(known.ids, ids_of(ids))
    # Outcomes and rows in one line, by id and time; at the same time the row comes first, as its outcome may be known at once.
    all_codes = np.concatenate((codes[0], codes[1]))
    all_times = np.concatenate((times_ms, known.times_ms))
    is_outcome = np.concatenate((np.zeros(count, dtype=np.int8), np.ones(len(known.times_ms), dtype=np.int8)))
    order = np.lexsort((is_outcome, all_times, all_codes))
    length = len(order)
    here = np.where(is_outcome[order] == 1, np.arange(length), length)
    following = np.minimum.accumulate(here[::-1])[::-1]
    follower = np.append(order, -1)[following]
    first = np.empty(count, dtype=np.int64)
    rows = order < count
    first[order[rows]] = follower[rows]
    found = (first >= 0) & (all_codes[first] == codes[0]) & (codes[0] >= 0)
    outcome = np.where(found, first - count, 0)
    if not len(known.times_ms):
        return np.full(count, np.nan), np.full(count, Found.NONE, dtype=np.int8)
    too_late = found & (known.times_ms[outcome] - times_ms > within_ms)
    labels = np.where(found & ~too_late, known.values[outcome], np.nan)
    has_any = np.isin(codes[0], codes[1]) & (codes[0] >= 0)
    why = np.select(
        [~np.isnan(labels), ~has_any, too_late, ~found], [Found.LABELLED, Found.NONE, Found.TOO_LATE, Found.BEFORE], Found.UNKNOWN
    )
    return labels, why.astype(np.int8)


def ids_of(ids: Sequence[object]) -> pa.Array:
    """Ids as a column; an absent number is no id."""
    return pa.array(ids, from_pandas=True)


def _codes(outcomes: pa.Array, rows: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids as whole numbers, equal where the ids are, -1 where there is none: of rows, of outcomes."""
    kind = rows.type if len(rows) and not pa.types.is_null(rows.type) else outcomes.type
    kind = pa.string() if pa.types.is_string(kind) else pa.float64()
    if pa.types.is_string(outcomes.type) != pa.types.is_string(kind) and len(outcomes) and len(rows):
        raise DefinitionError(f"labels cannot be joined: the ids of outcomes are {outcomes.type}, those of events {rows.type}")
    distinct = pc.unique(outcomes.cast(kind).drop_null())
    both = (pc.fill_null(pc.index_in(ids.cast(kind), value_set=distinct), -1) for ids in (rows, outcomes))
    of_rows, of_outcomes = (np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64) for found in both)
    return of_rows, of_outcomes


def founds(labels: Float64s) -> Founds:
    """What was found where the label stands beside the event."""
    return np.where(np.isnan(labels), Found.UNKNOWN, Found.LABELLED).astype(np.int8)


def label_column(labels: Expression, table: pa.Table, pipeline: Pipeline) -> Float64s:
    """A label that stands in the table of the events itself, for every row of it. Raises `DefinitionError` where a feature reads it too."""
    check_label_column(labels, table.column_names, pipeline)
    return labels.evaluate({name: numeric(column(table, name)) for name in labels.fields()})


def check_label_column(labels: Expression, names: Collection[str], pipeline: Pipeline) -> None:
    """Raises `DefinitionError` where the events have no such columns, or a feature reads them too."""
    read = features_read(pipeline)
    for name in sorted(labels.fields()):
        if name not in names:
            raise DefinitionError(f"labels={labels!r}: the events have no column {name!r}; they have {', '.join(names)}")
        if name in read:
            raise DefinitionError(
                f"labels={labels!r}: {name!r} is read by the feature {read[name]}, which would tell the model the answer; drop that feature"
            )


def fields_read(pipeline: Pipeline, joined: str | None) -> set[str]:
    """The fields of an event that its row is made of; `joined`: the one that outcomes are joined by, where they are."""
    asked = set() if pipeline.look_up is None else {view.entity for view in pipeline.look_up.views}
    return set(features_read(pipeline)) | set(pipeline.entities) | asked | ({joined} if joined else set())


def features_read(pipeline: Pipeline) -> Mapping[str, str]:
    """The fields of the scored source that features read, each with the name of such a feature."""
    found = {field: name for name, expression in pipeline.event_features for field in expression.fields()}
    for view in pipeline.own_views:
        for feature in view.features:
            for expression in (feature.value, feature.where):
                found |= dict.fromkeys(() if expression is None else expression.fields(), f"{view.name}.{feature.name}")
    return found
