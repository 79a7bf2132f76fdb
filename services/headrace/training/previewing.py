"""`headrace.preview`: what a feature, a view or a pipeline gives on history, before anything is deployed.

The values are those of a training frame (`building.py`), so of the one fold that serves; here they are only described. Limit: as there,
log, states and rows are in the memory of one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.definition import App, Pipeline
from headrace.errors import DefinitionError
from headrace.expression import Expression
from headrace.features.aggregation import Declaration
from headrace.features.view import Feature, FeatureView
from headrace.source import Source
from headrace.training import preview_shown
from headrace.training.building import chosen_pipeline, training_frame
from headrace.training.distribution import Distribution, distribution
from headrace.training.frame import LABEL, TrainingFrame
from headrace.training.history import Told, Topics
from headrace.training.tables import Tabular, arrow_table, column, instants_ms

NAME = "preview"
"""Of the view and pipeline that are made for what belongs to none yet."""
EXAMPLES = 3

Subject = App | Pipeline | FeatureView | Feature | Declaration | Sequence[Declaration]
Home = Source | FeatureView | Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePreview:
    """A feature and how its values are spread."""

    name: str
    description: str
    unit: str
    distribution: Distribution


class Preview:
    """What `headrace.preview` found. It shows itself in a notebook and, by `print`, in a terminal."""

    def __init__(self, training: TrainingFrame, names: Sequence[str], defaults: Mapping[str, float], *, outcome: str) -> None:
        """`outcome`: in words; empty where none was given."""
        self.training = training
        self.outcome = outcome
        self._names, self._defaults = tuple(names), defaults

    @property
    def frame(self) -> pa.Table:
        """The values: a row an event with what is known about it, as in a training frame, and the features previewed."""
        about = [name for name in self.training.table.column_names if name.startswith("_")]
        return self.training.table.select([*about, *self._names])

    @cached_property
    def features(self) -> tuple[FeaturePreview, ...]:
        """Each feature with its distribution, in the order of the vector."""
        outcome = self.training.labels if LABEL in self.training.table.column_names else None
        found = []
        for name in self._names:
            said = self.training.table.schema.field(name).metadata or {}
            values = np.asarray(column(self.training.table, name).to_numpy(zero_copy_only=False), dtype=np.float64)
            spread = distribution(values, default=self._defaults.get(name, np.nan), outcome=outcome)
            about = {word: said.get(word.encode(), b"").decode() for word in ("description", "unit")}
            found.append(FeaturePreview(name=name, distribution=spread, **about))
        return tuple(found)

    @property
    def examples(self) -> list[dict[str, Any]]:
        """A few rows, from beginning, middle and end."""
        count = len(self.training)
        places = sorted({int(place) for place in np.linspace(0, count - 1, min(EXAMPLES, count))})
        rows: list[dict[str, Any]] = self.frame.take(pa.array(places, pa.int64())).to_pylist()
        return rows

    @property
    def heading(self) -> list[str]:
        """What it is of, and what was left out, in a few lines."""
        lineage, events = self.training.lineage, len(self.training)
        found = [f"{lineage['pipeline']}: {len(self._names)} features of {events:,} events; definition {lineage['fingerprint'][:16]}"]
        left_out = [f"{count:,} {reason}" for reason, count in lineage["refused"].items()]
        left_out += [f"{lineage['incomplete']:,} before the windows are whole"] if lineage["incomplete"] else []
        found += [f"left out: {', '.join(left_out)}"] if left_out else []
        found += [f"late: {lineage['late']:,}"] if lineage.get("late") else []
        if self.outcome:
            known = self.training.labels[~np.isnan(self.training.labels)]
            mean = f", {known.mean():.4g} on average" if len(known) else ""
            found.append(f"outcome: {self.outcome}, known of {len(known):,}{mean}")
        return found

    def __str__(self) -> str:
        return preview_shown.text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return preview_shown.html(self)


def preview(
    subject: Subject,
    *,
    events: Topics | Tabular,
    outcome: Topics | Tabular | Expression | None = None,
    of: Home | None = None,
    features: Sequence[str] = (),
    pipeline: str | None = None,
    limit: int | None = None,
    told: Told = lambda _, __: None,
) -> Preview:
    """What a pipeline, a view or a single feature gives on history: values, distribution, share of nulls, and how they go with an outcome.

    `subject`: an app or a pipeline; a view; a feature of a view (then `of=` that view); or what is not in any view yet, such as
    `hr.mean("amount", over="3h")` or a list of such, then `of=` the source, or a view whose entity is meant. `events` and `outcome` as
    `events` and `labels` of `training_frame`, which makes the values; for a table of outcomes of a view or feature `of=` the pipeline that
    declares how to join them. `features`: only these, or those of these views, by name. `limit`: only so many of the oldest events of a
    table. Raises `DefinitionError`.
    """
    app, wanted = _pipeline_of(subject, of)
    chosen = chosen_pipeline(app, pipeline)
    _insist(app, chosen, events, outcome)
    names = _chosen_names(chosen, (*features, *wanted))
    if limit is not None:
        events = _oldest(chosen.source, events, limit)
    training = training_frame(app, events=events, labels=outcome, pipeline=chosen.name, told=told)
    defaults = {f"{view.name}.{feature.name}": feature.empty for view in chosen.views for feature in view.features}
    return Preview(training, names, defaults, outcome=_in_words(chosen, outcome))


def _pipeline_of(subject: Subject, of: Home | None) -> tuple[App | Pipeline, list[str]]:
    """A pipeline that has what is to be previewed, and which of its features are meant (none: all)."""
    if isinstance(subject, (App, Pipeline)):
        return subject, []
    if isinstance(subject, Feature):
        view = next((one for one in _views(of) if any(feature is subject for feature in one.features)), None)
        if view is None:
            raise DefinitionError(f"preview: say whose feature {subject.name!r} is: of=<the view that has it>")
        return _around(view, of), [f"{view.name}.{subject.name}"]
    if isinstance(subject, FeatureView):
        return _around(subject, of), []
    declared = [subject] if isinstance(subject, Declaration) else list(subject)
    if not all(isinstance(one, Declaration) for one in declared):
        raise DefinitionError("preview takes an app, a pipeline, a view, a feature, or features such as hr.mean('amount', over='3h')")
    source = of.source if isinstance(of, (FeatureView, Pipeline)) else of
    if source is None:
        raise DefinitionError("preview: say which events these features are of: of=<a source, or a view whose entity is meant>")
    entity = of.entity if isinstance(of, FeatureView) else source.key
    return _around(FeatureView(NAME, entity=entity, source=source, features=declared), of), []


def _views(of: Home | None) -> tuple[FeatureView, ...]:
    if isinstance(of, FeatureView):
        return (of,)
    return of.views if isinstance(of, Pipeline) else ()


def _around(view: FeatureView, of: Home | None) -> Pipeline:
    """A pipeline of one view alone; with the outcomes of the one that was named."""
    outcomes = of.outcomes if isinstance(of, Pipeline) else None
    return Pipeline(NAME, views=[view], predictions=f"{NAME}.v1", outcomes=outcomes)


def _insist(app: App | Pipeline, chosen: Pipeline, events: object, outcome: object) -> None:
    if isinstance(events, Topics) and not isinstance(app, App):
        raise DefinitionError(
            "preview: what topics hold is judged by the facts of their app: write hr.preview(app, events=topics, features=['<view>'])"
        )
    if outcome is not None and not isinstance(outcome, Expression) and chosen.outcomes is None:
        raise DefinitionError(
            "preview: nobody says how these outcomes are joined: by of=<pipeline> name one that declares outcomes=hr.Outcomes(...), or "
            "give an expression over a column of the events, such as outcome=hr.col('arr_delay') > 15"
        )


def _chosen_names(pipeline: Pipeline, wanted: Sequence[str]) -> list[str]:
    names = pipeline.feature_names
    if not wanted:
        return list(names)
    for one in wanted:
        if not any(_meant(name, one) for name in names):
            raise DefinitionError(f"preview: {pipeline!r} has neither a feature nor a view {one!r}; it has {', '.join(names)}")
    return [name for name in names if any(_meant(name, one) for one in wanted)]


def _meant(name: str, wanted: str) -> bool:
    view, _, feature = name.rpartition(".")
    return wanted in {name, feature} or (bool(view) and wanted == view)


def _oldest(source: Source, events: Topics | Tabular, limit: int) -> Tabular:
    """The oldest events of a table; of what is looked up in others, all are kept."""
    if limit < 1:
        raise DefinitionError(f"preview: limit={limit} keeps no event; give 1 or more")
    if isinstance(events, Topics):
        raise DefinitionError("preview: limit= is for events in tables; topics are read whole")
    if isinstance(events, Mapping):
        return {topic: _oldest(source, given, limit) if topic == source.topic else given for topic, given in events.items()}
    of = f"events of {source!r}"
    table = arrow_table(events, source.contract, of=of)
    if source.time not in table.column_names:
        return table  # what is missing is named where it is read
    times_ms, known = instants_ms(column(table, source.time), of=f"{of}: column {source.time!r}")
    order = np.argsort(np.where(known, times_ms, np.iinfo(np.int64).max), kind="stable")
    return table.take(pa.array(np.sort(order[:limit])))


def _in_words(pipeline: Pipeline, outcome: object) -> str:
    if outcome is None:
        return ""
    if isinstance(outcome, Expression):
        return repr(outcome)
    return "" if pipeline.outcomes is None else f"{pipeline.outcomes.value!r} of {pipeline.outcomes.topic}"
