"""Does a row know anything that came after it? Tests for definitions, and for frames that were made in any other way.

    future   the frame is made again without the events after an instant: not a bit of the rows up to then may change
    time     the event times are dealt out anew among the events: rolling features must change, or they do not look at time at all; and in a
             log of which a large part is late the times, or the lateness, are wrong
    label    what the label is made of is read by a feature; dealing the labels out anew changes a feature; or one feature alone tells the
             label, which happens when the answer was smuggled in under another name

The fold cannot look ahead, and a row as of T is read before anything later is folded; what remains are events that were not yet known at
the time they name, answers among the fields, and frames made by hand (`build`). Limit: the last is a suspicion, drawn from the events
given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from headrace.definition import App, Pipeline
from headrace.expression import Expression
from headrace.training.building import chosen_pipeline, training_frame
from headrace.training.history import Topics, history_of
from headrace.training.labels import features_read
from headrace.training.tables import Tabular, arrow_table, column, instants_ms, numeric
from headrace.types import Float64s, Int64s

Kind = Literal["future", "time", "label"]
Build = Callable[[pa.Table], Tabular]
"""Makes the features of events: a table with one row for each of theirs, in their order; columns that are no numbers are not compared."""

MOST_LATE = 0.05
"""A larger share of late events is no accident."""
TELLING = 0.999
"""A feature that parts the labels better than this, alone, is taken for the label itself."""
LEAST_LABELS = 20
"""Of fewer labels of a kind nothing is concluded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One thing a row should not know."""

    kind: Kind
    says: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.says}"


class LeakageFound(AssertionError):
    """Rows know what they should not; `leaks` says what."""

    def __init__(self, leaks: Sequence[Leak]) -> None:
        super().__init__("\n".join(str(leak) for leak in leaks))
        self.leaks = tuple(leaks)


def find_leaks(
    app: App | Pipeline,
    events: Topics | Tabular,
    *,
    labels: Topics | Tabular | Expression | None = None,
    pipeline: str | None = None,
    label_time: str | None = None,
    build: Build | None = None,
    seed: int = 0,
) -> list[Leak]:
    """Everything found; see above. `build` makes the features in place of the definitions; the rest is as for `training_frame`."""
    chosen = chosen_pipeline(app, pipeline)
    table, leaks = _as_table(app, chosen, events)
    made = build or (lambda some: _vectors(chosen, some))
    whole = _numbers(made(table))
    times_ms, known = instants_ms(column(table, chosen.source.time), of="events")
    draw = np.random.default_rng(seed)
    leaks += _future(table, np.where(known, times_ms, 0), whole, made)
    leaks += _shuffled(table, chosen, whole, made, draw)
    leaks += _smuggled(chosen, labels)
    if isinstance(labels, Expression):
        leaks += _dealt_out(table, labels, whole, made, draw)
    if labels is not None:
        leaks += _telling(whole, _labels(chosen, table, labels, label_time))
    return leaks


def _as_table(app: App | Pipeline, pipeline: Pipeline, events: object) -> tuple[pa.Table, list[Leak]]:
    """The events as a table, and what a log says about its times."""
    if not isinstance(events, Topics):
        return arrow_table(events, pipeline.source.contract, of="events"), []
    history = history_of(app if isinstance(app, App) else None, pipeline.source, events)
    fields = {field.name: field.kind for field in pipeline.source.contract}
    parts = [
        pa.table({name: _of_kind(values, fields[name]) for name, values in batch.columns.items()})
        for batch, _ in history.events(set(fields))
        if len(batch)
    ]
    frame = training_frame(app, events=events, pipeline=pipeline.name)
    share = frame.lineage["late"] / max(len(frame), 1)
    says = f"{share:.0%} of the events are older than the lateness allows: their times are wrong, or the lateness is too short"
    return pa.concat_tables(parts), [Leak(kind="time", says=says)] if share > MOST_LATE else []


def _of_kind(values: object, kind: str) -> pa.Array:
    found = pa.array(values, from_pandas=True)
    return found.cast(pa.bool_()) if kind == "boolean" else found


def _vectors(pipeline: Pipeline, table: pa.Table) -> pa.Table:
    """The feature vectors of all rows of a table, in their order; of those that are no events nothing."""
    frame = training_frame(pipeline, events=table)
    values = np.full((len(table), len(frame.names)), np.nan)
    values[frame.table["_offset"].to_numpy()] = frame.values
    return pa.table({name: values[:, place] for place, name in enumerate(frame.names)})


def _numbers(given: Tabular) -> dict[str, Float64s]:
    """The numeric columns of what was built."""
    table = arrow_table(given, (), of="build")
    kinds = {name: table.schema.field(name).type for name in table.column_names}
    plain = [name for name, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)]
    return {name: numeric(column(table, name)) for name in plain}


def _future(table: pa.Table, times_ms: Int64s, whole: dict[str, Float64s], made: Build) -> list[Leak]:
    """Whether rows change when the events after them are taken away."""
    leaks: dict[str, Leak] = {}
    for share in (0.25, 0.5, 0.75, 0.95):
        instant = np.quantile(times_ms, share, method="lower")
        kept = np.flatnonzero(times_ms <= instant)
        if len(kept) == len(table):
            continue
        part = _numbers(made(table.take(pa.array(kept))))
        for name, values in whole.items():
            changed = _differ(values[kept], part[name])
            if changed:
                says = f"{name} of {changed:,} of {len(kept):,} rows changes with events that came later than {instant} ms"
                leaks.setdefault(name, Leak(kind="future", says=says))
    return list(leaks.values())


def _shuffled(table: pa.Table, pipeline: Pipeline, whole: dict[str, Float64s], made: Build, draw: np.random.Generator) -> list[Leak]:
    """Whether it makes no difference when things happened."""
    name = pipeline.source.time
    order = draw.permutation(len(table))
    times = column(table, name).take(pa.array(order))
    dealt = _numbers(made(table.set_column(table.column_names.index(name), name, times)))
    own = {one for one, _ in pipeline.event_features}
    rolling = [one for one in whole if one not in own]
    if not rolling or any(_differ(whole[one], dealt[one]) for one in rolling):
        return []
    return [Leak(kind="time", says=f"no feature changes when {name!r} is dealt out anew among the events: nothing looks at time")]


def _smuggled(pipeline: Pipeline, labels: object) -> list[Leak]:
    """Whether a feature reads what the label is made of."""
    if isinstance(labels, Expression):
        answers = labels.fields()
    elif pipeline.outcomes is not None:
        answers = pipeline.outcomes.value.fields() - {pipeline.outcomes.join}
    else:
        return []
    read = features_read(pipeline)
    return [
        Leak(
            kind="label", says=f"{read[name]} reads {name!r}, which the label is made of; the answer is not known at the time of the event"
        )
        for name in sorted(answers & read.keys())
    ]


def _dealt_out(table: pa.Table, labels: Expression, whole: dict[str, Float64s], made: Build, draw: np.random.Generator) -> list[Leak]:
    """Whether features change with the label's columns."""
    order = pa.array(draw.permutation(len(table)))
    for name in labels.fields():
        table = table.set_column(table.column_names.index(name), name, column(table, name).take(order))
    dealt = _numbers(made(table))
    changed = [name for name, values in whole.items() if _differ(values, dealt[name])]
    return [Leak(kind="label", says=f"{name} changes when the labels are dealt out anew") for name in changed]


def _labels(pipeline: Pipeline, table: pa.Table, labels: object, label_time: str | None) -> Float64s:
    if isinstance(labels, Expression):
        return labels.evaluate({name: numeric(column(table, name)) for name in labels.fields()})
    frame = training_frame(pipeline, events=table, labels=labels, label_time=label_time)
    found = np.full(len(table), np.nan)
    found[frame.table["_offset"].to_numpy()] = frame.labels
    return found


def _telling(whole: dict[str, Float64s], labels: Float64s) -> list[Leak]:
    """Whether a feature alone tells the label."""
    leaks = []
    for name, values in whole.items():
        both = ~np.isnan(values) & ~np.isnan(labels)
        told = _apart(values[both], labels[both])
        if told > TELLING:
            leaks.append(Leak(kind="label", says=f"{name} alone tells the label ({told:.2%}); it is the answer, or made of it"))
    return leaks


def _apart(values: Float64s, labels: Float64s) -> float:
    """How well a number tells a label: of two kinds of labels the distance of their distributions (Kolmogorov-Smirnov), else |r|."""
    kinds, counts = np.unique(labels, return_counts=True)
    if len(kinds) < 2 or len(np.unique(values)) < 2:  # noqa: PLR2004 - what is all the same tells nothing
        return 0.0
    if len(kinds) > 2:  # noqa: PLR2004
        return abs(float(np.corrcoef(values, labels)[0, 1])) if len(values) >= LEAST_LABELS else 0.0
    if counts.min() < LEAST_LABELS:
        return 0.0
    order = np.argsort(values, kind="stable")
    steps = np.where(labels[order] == kinds[0], 1.0 / counts[0], -1.0 / counts[1])
    at_ends = np.append(np.diff(values[order]) > 0, True)
    return float(np.abs(np.cumsum(steps)[at_ends]).max())


def _differ(one: Float64s, other: Float64s) -> int:
    """How many numbers are not the same bits; two that are absent are the same."""
    alike = (one.view(np.int64) == other.view(np.int64)) | (np.isnan(one) & np.isnan(other))
    return int((~alike).sum())
