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
from headrace.features.training import EntityFolds
from headrace.features.view import FeatureView
from headrace.source import ContractField, Hop, Source
from headrace.training.frame import INSTANT, LABEL, TrainingFrame, assemble_frame, notes_of
from headrace.training.history import Account, TableHistory, Told, TopicHistory, Topics, history_of
from headrace.training.labels import LabelTally, fields_read, founds, join, known_outcomes, label_column
from headrace.training.look_ups import Asking, HistoryAt, Part, answered, looked_up_parts
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
    fields of the source's contract; for a pipeline that looks views of other sources up, a mapping of such tables by topic. What is looked
    up is as of the event's time: all that the other source had seen by then, and nothing that lies after it. `labels`: the same for the
    pipeline's outcomes, or an expression over columns of the events' table. Without `at`, a row for each event that is no dead letter: the
    vector as it was served. With `at`, a table with the entity and an instant `as_of` (timestamp, or milliseconds UTC): row i is what a
    look-up of that entity at that instant would have answered; event features are those whose fields the table has. `pipeline`: which one,
    if the app has several. `label_time`: the column of the labels that says when each was known, if the contract of the outcomes does not.
    `told(records, of)` hears how far it is. Raises `DefinitionError` for what does not fit the definitions.
    """
    chosen = chosen_pipeline(app, pipeline)
    inside = sorted(labels.fields()) if isinstance(labels, Expression) else ()
    parts, looked_up = parts_of(app, chosen, events), looked_up_parts(app, chosen, events)
    keys_to_be = chosen.entities if chosen.source.rekey else chosen.entities[1:]

    def history_at(reads: Source) -> TopicHistory | TableHistory:
        given = given_of(reads, events)
        return history_of(app if isinstance(app, App) else None, reads, given, told=told, more=inside, keys_to_be=keys_to_be)

    history = history_at(parts[-1].reads)
    if at is None:
        rows = _event_rows(chosen, parts[-1], history, labels, Asking(chosen, looked_up, history_at))
    else:
        rows = _asked_rows(chosen, parts, looked_up, history, history_at, at)
    about, tally = dict(rows.about), None
    if labels is not None:
        offsets = None if rows.late is None else rows.offsets
        found, tally = labels_of(chosen, history, labels, label_time, ids=rows.ids, times_ms=rows.times_ms, offsets=offsets)
        about[LABEL] = pa.array(found, mask=np.isnan(found))
    lineage = lineage_of(app, chosen, history.account, tally, rows.late)
    return assemble_frame(about, notes_of(chosen.views, rows.event_features, chosen.source), rows.values, lineage)


def chosen_pipeline(app: App | Pipeline, name: str | None) -> Pipeline:
    """The pipeline that is meant. Raises `DefinitionError` where that is not clear."""
    pipelines = {one.name: one for one in (app.pipelines if isinstance(app, App) else (app,))}
    if name is None and len(pipelines) > 1:
        raise DefinitionError(f"{app!r} has several pipelines; say which: {', '.join(pipelines)}")
    if name is not None and name not in pipelines:
        raise DefinitionError(f"{app!r} has no pipeline {name!r}; it has {', '.join(pipelines)}")
    return next(iter(pipelines.values())) if name is None else pipelines[name]


def parts_of(app: App | Pipeline, pipeline: Pipeline, events: object) -> list[Part]:
    """The logs whose folds make the vectors of a pipeline; with the last of them all its own features are there."""
    source = pipeline.source
    if not isinstance(events, Topics) or not isinstance(app, App):
        return [Part(reads=source, key=source.key, views=pipeline.own_views)]
    stages = [stage for stage in app.stages if stage.pipeline is pipeline and not stage.keeps_only]
    return [
        Part(
            reads=stage.reads,
            key=stage.reads.key,
            views=stage.views,
            carried=stage.reads.carried if isinstance(stage.reads, Hop) else (),
        )
        for stage in stages
    ]


def given_of(reads: Source, events: object) -> object:
    """What was given of a source or hop."""
    if not isinstance(events, Mapping):
        return events
    topic = reads.source.topic if isinstance(reads, Hop) else reads.topic
    if topic not in events:
        raise DefinitionError(f"events has nothing of {topic!r}; it has {', '.join(map(str, events))}")
    return events[topic]


def columns_of(views: Sequence[FeatureView], names: Sequence[str]) -> Int64s:
    """Where the features of views stand among these names."""
    return np.array([names.index(name) for name in names_of(views)], dtype=np.int64)


def names_of(views: Sequence[FeatureView]) -> list[str]:
    """The names of the features of views, as they stand in a vector."""
    return [f"{view.name}.{feature}" for view in views for feature in view.feature_names]


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


def _event_rows(pipeline: Pipeline, part: Part, history: TopicHistory | TableHistory, labels: object, asking: Asking) -> _Rows:
    """A row for every event, partition by partition of the source in the order of their offsets."""
    joined = pipeline.outcomes.join if pipeline.outcomes is not None and labels is not None else None
    fields = fields_read(pipeline, joined)
    fold = EntityFolds(part.views, key=part.key, lateness_ms=pipeline.source.lateness_ms)
    columns = columns_of(pipeline.own_views, [*part.carried, *names_of(part.views)])
    entities: list[str] = []
    ids: list[object] = []
    values: list[Float64s] = [np.empty((0, len(pipeline.feature_names)))]
    times_ms, offsets = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    partitions, late = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.bool_)]
    last = pipeline.entities[-1]
    for events, incomplete in history.events(fields):
        found, were_late = fold.fold(events)
        if events.carried is not None:
            found = np.hstack((events.carried.values, found))
        own = [expression.evaluate(events.columns) for _, expression in pipeline.event_features]
        kept = slice(incomplete, None)
        entities.extend((events.entities if last == part.key else events.columns[last].tolist())[kept])
        ids.extend(events.columns[joined][kept].tolist() if joined else ())
        asking.ask(events, kept)
        values.append(np.column_stack((found[:, columns], np.empty((len(events), asking.features)), *own))[kept])
        times_ms.append(events.event_times_ms[kept])
        offsets.append(events.sent.offsets[events.rows][kept])
        partitions.append(events.sent.partitions[events.rows][kept])
        late.append(were_late[kept])
    vectors = np.concatenate(values)
    looked_up, whole = asking.answers(np.concatenate(times_ms), history.account)
    vectors[:, len(columns) : len(columns) + asking.features] = looked_up
    # Whatever order partitions were read in, or times brought the rows of a table into: the same events give the same frame.
    order = np.lexsort((np.concatenate(offsets), np.concatenate(partitions)))
    order = order[whole[order]]
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
        values=vectors[order],
        event_features=pipeline.event_features,
        times_ms=ordered_ms,
        offsets=ordered_offsets,
        ids=[ids[place] for place in order.tolist()] if joined else None,
        late=int(np.concatenate(late)[order].sum()),
    )


def _asked_rows(
    pipeline: Pipeline,
    parts: Sequence[Part],
    looked_up: Sequence[Part],
    history: TopicHistory | TableHistory,
    history_at: HistoryAt,
    at: Tabular,
) -> _Rows:
    """A row for every question, in the order of the table that asks."""
    table = arrow_table(at, pipeline.source.contract, of="at")
    entities, times_ms = _questions(table, pipeline)
    values: list[Float64s] = []
    known = np.ones(len(times_ms), dtype=np.bool_)
    whole_ms = np.full(len(times_ms), -np.inf)
    asked = [part for part in (*parts, *looked_up) if part.views]
    for part in asked:
        log = history if part is parts[-1] else history_at(part.reads)
        answers, was_known, whole_from_ms = answered(part, log, entities, times_ms)
        values.append(answers)
        known &= was_known
        whole_ms = np.maximum(whole_ms, whole_from_ms)
        if log is not history:
            history.account.add(log.account)
    found = np.hstack(values)[:, columns_of(pipeline.views, [name for part in asked for name in names_of(part.views)])]
    own = [(name, one) for name, one in pipeline.event_features if one.fields() <= set(table.column_names)]
    columns = {name: numeric(column(table, name)) for _, one in own for name in one.fields()}
    joined = pipeline.outcomes.join if pipeline.outcomes is not None else ""
    history.account.incomplete = int((times_ms < whole_ms).sum())
    about = {
        "_entity": pa.array(entities.get(pipeline.entities[-1], next(iter(entities.values()))), pa.string()),
        "_as_of": pa.array(times_ms).cast(INSTANT),
        "_known": pa.array(known),
        "_whole": pa.array(times_ms >= whole_ms),
    }
    return _Rows(
        about=about,
        values=np.column_stack((found, *(one.evaluate(columns) for _, one in own))),
        event_features=own,
        times_ms=times_ms,
        offsets=np.arange(len(times_ms)),
        ids=column(table, joined).to_pylist() if joined in table.column_names else None,
        late=None,
    )


def _questions(table: pa.Table, pipeline: Pipeline) -> tuple[dict[str, list[str]], Int64s]:
    """Whom and when a table asks for: by entity of the pipeline's views the one of each row."""
    wanted = list(dict.fromkeys(view.entity for view in pipeline.views))
    named = {entity: entity for entity in wanted}
    if len(wanted) == 1 and wanted[0] not in table.column_names:
        named[wanted[0]] = "entity"
    for name, meaning in [(column_, f"{entity!r} for the entity") for entity, column_ in named.items()] + [
        ("as_of", "'as_of' for the instant")
    ]:
        if name not in table.column_names:
            raise DefinitionError(f"at has no column {meaning}; it has {', '.join(table.column_names)}")
    found = contract_columns(table, [ContractField(name=name, kind="text") for name in named.values()], of="at")
    times_ms, known = instants_ms(column(table, "as_of"), of="at: column 'as_of'")
    if any(None in found[name] for name in named.values()) or not known.all():
        raise DefinitionError("at: every row needs an entity and an instant")
    return {entity: found[name] for entity, name in named.items()}, times_ms


def labels_of(
    pipeline: Pipeline,
    history: TopicHistory | TableHistory,
    labels: object,
    label_time: str | None,
    *,
    ids: Sequence[object] | None,
    times_ms: Int64s,
    offsets: Int64s | None,
) -> tuple[Float64s, LabelTally]:
    """The label of each row, NaN where it has none, and the tally of that; of rows that are no events there are no `offsets`."""
    if isinstance(labels, Expression):
        if not isinstance(history, TableHistory) or offsets is None:
            raise DefinitionError(f"labels={labels!r}: an expression reads columns of the events' table; give a table, and no `at`")
        found = label_column(labels, history.table, pipeline)[offsets]
        return found, LabelTally.of(founds(found))
    if pipeline.outcomes is None:
        raise DefinitionError(f"{pipeline!r} declares no outcomes, so labels cannot be joined; write outcomes=hr.Outcomes(...)")
    if ids is None:
        raise DefinitionError(f"at has no column {pipeline.outcomes.join!r}, by which outcomes are joined")
    known = known_outcomes(pipeline.outcomes, labels, time=label_time)
    history.account.offsets |= known.offsets
    labels_there, why = join(known, ids, times_ms, pipeline.outcomes.within_ms)
    return labels_there, LabelTally.of(why)


def lineage_of(app: App | Pipeline, pipeline: Pipeline, account: Account, tally: LabelTally | None, late: int | None) -> dict[str, object]:
    """Where the rows come from, as plain JSON; `late`: how many are marked so, where they are events'."""
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
    return found if late is None else {**found, "late": late}
