"""What an engineer declares above feature views: pipelines (source -> views -> model -> prediction topic) and the app they make up.

Everything is checked here, before anything runs; an error names the definition, the field and the fix. Limit: all views of a pipeline
come from one source, and their entity is its key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from headrace.errors import DefinitionError
from headrace.expression import Expression, col
from headrace.features.streams import canonical_json
from headrace.features.view import FeatureView, fingerprint_of
from headrace.source import Outcomes, Source, topic_name

_PIPELINE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}", re.ASCII)
_APP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)


class Pipeline:
    """Source -> feature views -> model -> prediction topic, as declared. Raises `DefinitionError`.

    Its feature vector holds the features of each view in order, then `event_features`: fields of the scored event itself, or expressions
    over them. `model` is the path of an ONNX file, or None to publish features without a score.
    """

    def __init__(
        self,
        name: str,
        *,
        views: Sequence[FeatureView],
        event_features: Sequence[str | Expression] = (),
        predictions: str,
        model: str | None = None,
        outcomes: Outcomes | None = None,
        publish_features: bool = True,
    ) -> None:
        where = f"Pipeline({name!r})"
        if not _PIPELINE_NAME.fullmatch(name):
            raise DefinitionError(f"{where}: a name is up to 100 letters, digits and underscores, beginning with a letter")
        if not views:
            raise DefinitionError(f"{where} has no views; write views=[...]")
        self.name = name
        self.views = tuple(views)
        self.source = self.views[0].source
        self.predictions = topic_name(predictions, of=f"{where}: predictions")
        self.model = model
        self.outcomes = outcomes
        self.publish_features = publish_features
        for view in self.views:
            if canonical_json(view.source.canonical()) != canonical_json(self.source.canonical()):
                raise DefinitionError(f"{where}: {view!r} reads {view.source!r}, {self.views[0]!r} reads {self.source!r}; use one source")
        _no_twice(where, "view", [view.name for view in self.views])
        self.event_features = tuple(_event_feature(one, self.source, where) for one in event_features)
        _no_twice(where, "feature", self.feature_names)
        if self.predictions in {self.source.topic, outcomes and outcomes.topic}:
            raise DefinitionError(f"{where}: predictions={predictions!r} is read by this pipeline; give it a topic of its own")
        if outcomes is not None and outcomes.join not in self.source.kinds:
            raise DefinitionError(f"{where}: {self.source!r} has no field {outcomes.join!r} to join {outcomes!r} by")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the feature vector, in order: `<view>.<feature>` for each view, then the event features."""
        of_views = tuple(f"{view.name}.{feature}" for view in self.views for feature in view.feature_names)
        return of_views + tuple(name for name, _ in self.event_features)

    def canonical(self) -> dict[str, object]:
        """A JSON form of everything that decides about its feature vectors."""
        return {
            "name": self.name,
            "views": [view.canonical() for view in self.views],
            "event_features": [[name, expression.canonical()] for name, expression in self.event_features],
        }

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the canonical JSON, in hex: equal fingerprints mean equal feature vectors."""
        return fingerprint_of(self.canonical())

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r})"


class App:
    """Pipelines that run together, as one consumer group named like the app. Raises `DefinitionError`."""

    def __init__(self, name: str, *, pipelines: Sequence[Pipeline]) -> None:
        where = f"App({name!r})"
        if not _APP_NAME.fullmatch(name):
            raise DefinitionError(f"{where}: a name is up to 100 letters, digits, dashes and underscores, without dots")
        if not pipelines:
            raise DefinitionError(f"{where} has no pipelines; write pipelines=[...]")
        self.name = name
        self.pipelines = tuple(pipelines)
        _no_twice(where, "pipeline", [pipeline.name for pipeline in self.pipelines])
        _no_twice(where, "prediction topic", [pipeline.predictions for pipeline in self.pipelines])
        self.sources = self._sources(where)
        self._views = self._all_views(where)
        read = {source.topic for source in self.sources}
        for pipeline in self.pipelines:
            if pipeline.predictions in read | {self.dead_letters}:
                raise DefinitionError(
                    f"{where}: {pipeline!r} publishes to {pipeline.predictions!r}, which the app uses already; choose another"
                )
        if self.facts in read | {pipeline.predictions for pipeline in self.pipelines}:
            raise DefinitionError(f"{where}: {self.facts!r} holds the app's own facts; name that topic otherwise")
        if self.dead_letters in read:
            raise DefinitionError(f"{where} reads its own dead letters; replay them instead")

    @property
    def dead_letters(self) -> str:
        """The topic of its dead letters."""
        return f"{self.name}.dead-letters.v1"

    @property
    def facts(self) -> str:
        """The topic of its facts: what is true of it and no function of its log."""
        return f"{self.name}.facts.v1"

    def views_of(self, source: Source) -> tuple[FeatureView, ...]:
        """The views over a source, in the order of the pipelines; one that several pipelines use comes once."""
        return tuple(view for view in self._views if view.source.topic == source.topic)

    def pipelines_of(self, source: Source) -> tuple[Pipeline, ...]:
        """The pipelines that score the events of a source."""
        return tuple(pipeline for pipeline in self.pipelines if pipeline.source.topic == source.topic)

    def __repr__(self) -> str:
        return f"App({self.name!r})"

    def _sources(self, where: str) -> tuple[Source, ...]:
        by_topic: dict[str, Source] = {}
        for pipeline in self.pipelines:
            known = by_topic.setdefault(pipeline.source.topic, pipeline.source)
            if canonical_json(known.canonical()) != canonical_json(pipeline.source.canonical()):
                raise DefinitionError(f"{where} reads {known.topic!r} under two contracts; use one Source for both pipelines")
        return tuple(by_topic.values())

    def _all_views(self, where: str) -> tuple[FeatureView, ...]:
        by_name: dict[str, FeatureView] = {}
        for view in (view for pipeline in self.pipelines for view in pipeline.views):
            if by_name.setdefault(view.name, view).fingerprint != view.fingerprint:
                raise DefinitionError(f"{where} has two different views named {view.name!r}; rename one")
        return tuple(by_name.values())


def _event_feature(one: str | Expression, source: Source, where: str) -> tuple[str, Expression]:
    expression = col(one) if isinstance(one, str) else one
    where = f"{where}: event feature {expression.name()}"
    if expression.kind(source.kinds, where=where) == "text":
        raise DefinitionError(f"{where} is text; compare it, for example {expression!r} == 'AA'")
    return expression.name(), expression


def _no_twice(where: str, noun: str, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DefinitionError(f"{where} has the {noun} {name!r} twice; rename or drop one")
