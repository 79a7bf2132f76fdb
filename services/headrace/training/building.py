"""`headrace.training_frame`: history in, rows to train on out.

    events --History--> accepted events --HistoryFold--> vectors        } one row an event, or one answer a question
    outcomes ----------------join, within the declared time----> labels  } -> TrainingFrame

Nothing of the rows is computed anywhere else than in the fold that serves, so from topics they are bit for bit what was served. Limit: log,
states and rows of all entities are in the memory of one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace.definition import App, Pipeline
from headrace.errors import DefinitionError
from headrace.expression import Expression
from headrace.features.training import HistoryFold, Questions
from headrace.source import ContractField
from headrace.training.frame import INSTANT, LABEL, TrainingFrame, assemble_frame, notes_of
from headrace.training.history import Account, TableHistory, Told, TopicHistory, Topics, history_of
from headrace.training.labels import LabelTally, features_read, join, known_outcomes, label_column
from headrace.training.tables import Tabular, arrow_table, column, contract_columns, instants_ms, numeric
from headrace.types import Float64s, Int64s

VERSION = 1
"""Of the lineage's form."""


def training_frame(
    app: App | Pipeline,
    *,
    events: Topics | Tabular,
    labels: Topics | Tabular | Expression | None = None,
    at: Tabular | None = None,
    pipeline: str | None = None,
    label_time: str | None = None,
    told: Told = lambda _, __: None,
) -> TrainingFrame:
    """Point-in-time rows of a pipeline, with the outcomes beside them where `labels` are given.

    `events`: `Topics`, or a table: a Parquet or CSV file, a folder or glob of them, a pyarrow Table, a pandas or polars DataFrame with the
    fields of the source's contract. `labels`: the same for the pipeline's outcomes, or an expression over columns of the events' table.
    Without `at`, a row for each event that is no dead letter: the vector as it was served. With `at`, a table with the entity and an
    instant `as_of` (timestamp, or milliseconds UTC): row i is what a look-up of that entity at that instant would have answered; event
    features are those whose fields the table has. `pipeline`: which one, if the app has several. `label_time`: the column of the labels
    that says when each was known, if the contract of the outcomes does not. `told(records, of)` hears how far it is.
    Raises `DefinitionError` for what does not fit the definitions.
    """
    chosen = chosen_pipeline(app, pipeline)
    inside = sorted(labels.fields()) if isinstance(labels, Expression) else ()
    history = history_of(app if isinstance(app, App) else None, chosen.source, events, told=told, more=inside)
    rows = _event_rows(chosen, history, labels) if at is None else _asked_rows(chosen, history, at)
    about, tally = dict(rows.about), None
    if labels is not None:
        found, tally = _labels(chosen, history, rows, labels, label_time)
        about[LABEL] = pa.array(found, mask=np.isnan(found))
    lineage = _lineage(app, chosen, history.account, rows, tally)
    return assemble_frame(about, notes_of(chosen.views, rows.event_features), rows.values, lineage)


def chosen_pipeline(app: App | Pipeline, name: str | None) -> Pipeline:
    """The pipeline that is meant. Raises `DefinitionError` where that is not clear."""
    pipelines = {one.name: one for one in (app.pipelines if isinstance(app, App) else (app,))}
    if name is None and len(pipelines) > 1:
        raise DefinitionError(f"{app!r} has several pipelines; say which: {', '.join(pipelines)}")
    if name is not None and name not in pipelines:
        raise DefinitionError(f"{app!r} has no pipeline {name!r}; it has {', '.join(pipelines)}")
    return next(iter(pipelines.values())) if name is None else pipelines[name]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """What is known of all rows before labels are joined."""

    about: Mapping[str, pa.Array]
    values: Float64s
    event_features: Sequence[tuple[str, Expression]]
    times_ms: Int64s
    offsets: Int64s
    ids: Sequence[object] | None
    """What outcomes are joined by."""
    late: int | None


def _event_rows(pipeline: Pipeline, history: TopicHistory | TableHistory, labels: object) -> _Rows:
    """A row for every event, partition by partition in the order of their offsets."""
    joined = pipeline.outcomes.join if pipeline.outcomes is not None and labels is not None else None
    fields = set(features_read(pipeline)) | ({joined} if joined else set())
    fold = HistoryFold(pipeline.views)
    entities: list[str] = []
    ids: list[object] = []
    values: list[Float64s] = [np.empty((0, len(pipeline.feature_names)))]
    times_ms, offsets = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    partitions, late = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.bool_)]
    for events, incomplete in history.events(fields):
        found, were_late = fold.fold(events)
        own = [expression.evaluate(events.columns) for _, expression in pipeline.event_features]
        kept = slice(incomplete, None)
        entities.extend(events.entities[kept])
        ids.extend(events.columns[joined][kept].tolist() if joined else ())
        values.append(np.column_stack((found, *own))[kept])
        times_ms.append(events.event_times_ms[kept])
        offsets.append(events.records.offsets[events.rows][kept])
        partitions.append(events.records.partitions[events.rows][kept])
        late.append(were_late[kept])
    # Whatever order partitions were read in, or times brought the rows of a table into: the same events give the same frame.
    order = np.lexsort((np.concatenate(offsets), np.concatenate(partitions)))
    ordered_ms, ordered_offsets = np.concatenate(times_ms)[order], np.concatenate(offsets)[order]
    about = {
        "_entity": pa.array(entities, pa.string()).take(pa.array(order)),
        "_event_time": pa.array(ordered_ms).cast(INSTANT),
        "_partition": pa.array(np.concatenate(partitions)[order]),
        "_offset": pa.array(ordered_offsets),
        "_late": pa.array(np.concatenate(late)[order]),
    }
    return _Rows(
        about=about,
        values=np.concatenate(values)[order],
        event_features=pipeline.event_features,
        times_ms=ordered_ms,
        offsets=ordered_offsets,
        ids=[ids[place] for place in order.tolist()] if joined else None,
        late=int(np.concatenate(late).sum()),
    )


def _asked_rows(pipeline: Pipeline, history: TopicHistory | TableHistory, at: Tabular) -> _Rows:
    """A row for every question, in the order of the table that asks."""
    table = arrow_table(at, pipeline.source.contract, of="at")
    entities, times_ms = _questions(table, pipeline.source.key)
    places = {name: history.partition_of(name) for name in dict.fromkeys(entities)}
    partitions = np.array([places[name] for name in entities], dtype=np.int32)
    fold = HistoryFold(pipeline.views, Questions(partitions=partitions, entities=entities, times_ms=times_ms))
    for events, _ in history.events(set(features_read(pipeline))):
        fold.fold(events)
    answers = fold.answers()
    own = [(name, one) for name, one in pipeline.event_features if one.fields() <= set(table.column_names)]
    columns = {name: numeric(column(table, name)) for _, one in own for name in one.fields()}
    joined = pipeline.outcomes.join if pipeline.outcomes is not None else ""
    whole_ms = np.array([history.whole_from_ms(number) for number in partitions.tolist()])
    history.account.incomplete = int((times_ms < whole_ms).sum())
    about = {
        "_entity": pa.array(entities, pa.string()),
        "_as_of": pa.array(times_ms).cast(INSTANT),
        "_known": pa.array(answers.known),
        "_whole": pa.array(times_ms >= whole_ms),
    }
    return _Rows(
        about=about,
        values=np.column_stack((answers.values, *(one.evaluate(columns) for _, one in own))),
        event_features=own,
        times_ms=times_ms,
        offsets=np.arange(len(entities)),
        ids=column(table, joined).to_pylist() if joined in table.column_names else None,
        late=None,
    )


def _questions(table: pa.Table, key: str) -> tuple[list[str], Int64s]:
    """Whom and when a table asks for."""
    entity = key if key in table.column_names else "entity"
    for name, meaning in ((entity, f"{key!r} for the entity"), ("as_of", "'as_of' for the instant")):
        if name not in table.column_names:
            raise DefinitionError(f"at has no column {meaning}; it has {', '.join(table.column_names)}")
    entities = contract_columns(table, [ContractField(name=entity, kind="text")], of="at")[entity]
    times_ms, known = instants_ms(column(table, "as_of"), of="at: column 'as_of'")
    if None in entities or not known.all():
        raise DefinitionError("at: every row needs an entity and an instant")
    return entities, times_ms


def _labels(
    pipeline: Pipeline, history: TopicHistory | TableHistory, rows: _Rows, labels: object, label_time: str | None
) -> tuple[Float64s, LabelTally]:
    if isinstance(labels, Expression):
        if not isinstance(history, TableHistory) or rows.late is None:
            raise DefinitionError(f"labels={labels!r}: an expression reads columns of the events' table; give a table, and no `at`")
        found = label_column(labels, history.table, pipeline)[rows.offsets]
        return found, LabelTally(labelled=int((~np.isnan(found)).sum()), unknown=int(np.isnan(found).sum()))
    if pipeline.outcomes is None:
        raise DefinitionError(f"{pipeline!r} declares no outcomes, so labels cannot be joined; write outcomes=hr.Outcomes(...)")
    if rows.ids is None:
        raise DefinitionError(f"at has no column {pipeline.outcomes.join!r}, by which outcomes are joined")
    known = known_outcomes(pipeline.outcomes, labels, time=label_time)
    history.account.offsets |= known.offsets
    return join(known, rows.ids, rows.times_ms, pipeline.outcomes.within_ms)


def _lineage(app: App | Pipeline, pipeline: Pipeline, account: Account, rows: _Rows, tally: LabelTally | None) -> dict[str, object]:
    """Where the rows come from, as plain JSON."""
    found: dict[str, object] = {
        "version": VERSION,
        "app": app.name if isinstance(app, App) else None,
        "pipeline": pipeline.name,
        "fingerprint": pipeline.fingerprint,
        "views": {view.name: {"version": view.version, "fingerprint": view.fingerprint} for view in pipeline.views},
        "offsets": {topic: {str(number): list(span) for number, span in spans.items()} for topic, spans in account.offsets.items()},
        "records": account.records,
        "refused": {str(reason): count for reason, count in sorted(account.refused.items()) if count},
        "incomplete": account.incomplete,
        "labels": None if tally is None else tally.counts(),
    }
    return found if rows.late is None else {**found, "late": rows.late}
