"""What the names in an app stand for: its views, features, event features, event fields and topics; each as JSON, and who uses it.

A name is taken whole (`aircraft.count_6h`, `late_arrival.dep_delay`) or, where that is clear, by its last part (`count_6h`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from headrace.definition import App, Pipeline
from headrace.duration import duration_text
from headrace.errors import DefinitionError
from headrace.expression import Expression
from headrace.features.view import Feature, FeatureView
from headrace.source import Source

Form = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """Something with a name: a view, one of its features (then both are set), or an event feature of a pipeline."""

    name: str
    view: FeatureView | None = None
    feature: Feature | None = None
    pipeline: Pipeline | None = None
    expression: Expression | None = None


def subjects(app: App) -> list[Subject]:
    """Everything that `show` can show, by its whole name."""
    found = []
    for view in app.views:
        found.append(Subject(name=view.name, view=view))
        found.extend(Subject(name=f"{view.name}.{feature.name}", view=view, feature=feature) for feature in view.features)
    for pipeline in app.pipelines:
        for name, expression in pipeline.event_features:
            found.append(Subject(name=f"{pipeline.name}.{name}", pipeline=pipeline, expression=expression))
    return found


def named(app: App, name: str) -> Subject:
    """The one that a name stands for. Raises `DefinitionError`, with those that are near."""
    found = meant(subjects(app), name)
    if not found:
        raise unknown(app, name, [one.name for one in subjects(app)])
    if len(found) > 1:
        raise DefinitionError(f"{name!r} is the name of {' and '.join(one.name for one in found)}; write one of these")
    return found[0]


def meant(among: Sequence[Subject], name: str) -> list[Subject]:
    """Those of that whole name, else those whose last part it is."""
    return [one for one in among if one.name == name] or [one for one in among if one.name.partition(".")[2] == name]


def unknown(app: App, name: str, names: Sequence[str]) -> DefinitionError:
    """What to say of a name that stands for nothing."""
    whole = {part: one for one in names for part in (one, one.partition(".")[2] or one)}
    near = list(dict.fromkeys(whole[part] for part in get_close_matches(name, whole, n=5)))
    hint = f"did you mean {', '.join(near)}?" if near else "`headrace features list` shows all"
    return DefinitionError(f"the app {app.name} has nothing named {name!r}; {hint}")


# ------------------------------------------------------------------------------------------------- each as JSON


def feature_form(feature: Feature) -> Form:
    """One line of `list`."""
    return {
        "name": feature.name,
        "description": feature.description,
        "window": span(feature.window_ms),
        "pane": span(feature.pane_ms),
        "empty": known(feature.empty),
    }


def view_form(view: FeatureView) -> Form:
    """A view and its features, as `list` shows them."""
    return {
        "view": view.name,
        "version": view.version,
        "entity": view.entity,
        "source": view.source.topic,
        "fingerprint": view.fingerprint,
        "bytes_per_entity": view.bytes_per_entity()["total"],
        "features": [feature_form(feature) for feature in view.features],
    }


def app_form(app: App) -> Form:
    """All views of an app, and what its pipelines take from the event itself."""
    return {
        "app": app.name,
        "views": [view_form(view) for view in app.views],
        "event_features": [
            {"pipeline": pipeline.name, "name": name, "description": repr(expression)}
            for pipeline in app.pipelines
            for name, expression in pipeline.event_features
        ],
    }


def documented_form(app: App) -> Form:
    """The same with where each view comes from and who uses it."""
    form = app_form(app)
    for view, one in zip(app.views, form["views"], strict=True):
        one |= {"lineage": source_form(view.source), "used_by": [pipeline_form(user) for user in users(app, view)]}
    return form


def whole_form(app: App, subject: Subject) -> Form:
    """Everything there is to know of one subject."""
    view, feature, pipeline, expression = subject.view, subject.feature, subject.pipeline, subject.expression
    if view is not None and feature is None:
        found: Form = {**view_form(view), "bytes_per_entity": view.bytes_per_entity(), "fields": fields_form(view.source, view.fields)}
        return {**found, "lineage": source_form(view.source), "used_by": [pipeline_form(one) for one in users(app, view)]}
    if view is not None and feature is not None:
        return {
            "feature": subject.name,
            **{name: value for name, value in feature_form(feature).items() if name != "name"},
            "definition": feature.canonical(),
            "view": {"name": view.name, "version": view.version, "entity": view.entity, "fingerprint": view.fingerprint},
            "fields": fields_form(view.source, fields_of(view, feature)),
            "lineage": source_form(view.source),
            "used_by": [pipeline_form(one) for one in users(app, view)],
        }
    if pipeline is None or expression is None:
        raise DefinitionError(f"{subject.name!r} is neither a view nor a feature")
    return {
        "event_feature": subject.name,
        "description": repr(expression),
        "definition": expression.canonical(),
        "fields": fields_form(pipeline.source, expression.fields()),
        "lineage": source_form(pipeline.source),
        "used_by": [pipeline_form(pipeline)],
    }


def source_form(source: Source) -> Form:
    """Where values come from."""
    return {
        "topic": source.topic,
        "contract": source.event.__name__,
        "entity_key": source.key,
        "event_time": source.time,
        "lateness": duration_text(source.lateness_ms),
    }


def fields_form(source: Source, names: frozenset[str]) -> list[Form]:
    """The event fields that are read, in the order of the contract."""
    return [{"name": one.name, "kind": one.kind, "optional": one.optional} for one in source.contract if one.name in names]


def pipeline_form(pipeline: Pipeline) -> Form:
    """A pipeline as a user of something."""
    return {"pipeline": pipeline.name, "model": pipeline.model, "predictions": pipeline.predictions, "fingerprint": pipeline.fingerprint}


# ------------------------------------------------------------------------------------------------- who uses what


def fields_of(view: FeatureView, feature: Feature) -> frozenset[str]:
    """The event fields that one feature reads; those of a derived one are read by what it is made of."""
    parts = [one for one in view.features if one.name in {feature.options.left, feature.options.right}]
    own = (one.fields() for one in (feature.value, feature.where) if one is not None)
    return frozenset().union(*own, *(fields_of(view, part) for part in parts))


def users(app: App, view: FeatureView) -> list[Pipeline]:
    """The pipelines whose vectors hold the features of a view."""
    return [pipeline for pipeline in app.pipelines if view.fingerprint in {one.fingerprint for one in pipeline.views}]


def uses(app: App, name: str) -> list[Form]:
    """Everything that `name` stands for, and for each what depends on it. Raises `DefinitionError` for a name of nothing."""
    found = [_use_of_subject(app, one) for one in meant(subjects(app), name)]
    for source in app.sources:
        views = _views_of(app, source)
        if name == source.topic:
            pipelines = [one for one in app.pipelines if one.source is source or any(view in views for view in one.views)]
            found.append(_use(f"topic of {source.event.__name__}", name, [view.name for view in views], pipelines))
        if name in source.kinds:
            found.append(_use_of_field(app, source, name))
    for pipeline in app.pipelines:
        if pipeline.outcomes is not None and name == pipeline.outcomes.topic:
            found.append(_use("topic of outcomes", name, [], [pipeline]))
        if name == pipeline.predictions:
            found.append(_use("topic of predictions", name, [], [pipeline]))
        if name == pipeline.corrections:
            found.append(_use("topic of corrections", name, [], [pipeline]))
    if not found:
        names = [one.name for one in subjects(app)] + [topic for source in app.sources for topic in (source.topic, *source.kinds)]
        raise unknown(app, name, names)
    return found


def _use(what: str, name: str, features: Sequence[str], pipelines: Sequence[Pipeline]) -> Form:
    return {"name": name, "is": what, "features": list(features), "pipelines": [pipeline_form(one) for one in pipelines]}


def _use_of_subject(app: App, subject: Subject) -> Form:
    if subject.view is None:
        return _use("event feature", subject.name, [], [one for one in app.pipelines if one is subject.pipeline])
    if subject.feature is None:
        return _use("view", subject.name, [f"{subject.name}.{one}" for one in subject.view.feature_names], users(app, subject.view))
    made = [
        f"{subject.view.name}.{one.name}" for one in subject.view.features if subject.feature.name in {one.options.left, one.options.right}
    ]
    return _use("feature", subject.name, made, users(app, subject.view))


def _use_of_field(app: App, source: Source, name: str) -> Form:
    """Entities and event times decide about every feature of a view; other fields about those that read them."""
    role = {source.key: ", the entity key", source.time: ", the event time"}.get(name, "")
    features, pipelines = [], []
    for view in _views_of(app, source):
        decides = name in {view.entity, source.key, source.time}
        reading = [f"{view.name}.{one.name}" for one in view.features if decides or name in fields_of(view, one)]
        features.extend(reading)
        pipelines.extend(users(app, view) if reading else [])
    for pipeline in (one for one in app.pipelines if one.source is source):
        reading = [f"{pipeline.name}.{one}" for one, expression in pipeline.event_features if name in expression.fields()]
        looked_up = () if pipeline.look_up is None else pipeline.look_up.views
        reading += [f"{view.name}.{one}" for view in looked_up if view.entity == name for one in view.feature_names]
        features.extend(one for one in reading if one not in features)
        joins = pipeline.outcomes is not None and pipeline.outcomes.join == name
        pipelines.extend([pipeline] if reading or joins else [])
    return _use(
        f"field of {source.event.__name__} on {source.topic}{role}", name, features, [one for one in app.pipelines if one in pipelines]
    )


def _views_of(app: App, source: Source) -> list[FeatureView]:
    """The views that are made of a source's events, wherever they are kept."""
    return [view for view in app.views if view.source.topic == source.topic]


def span(length_ms: int) -> str | None:
    """A duration as text; None where there is none."""
    return duration_text(length_ms) if length_ms else None


def known(number: float) -> float | None:
    """A number; None for an absent one."""
    return number if math.isfinite(number) else None
