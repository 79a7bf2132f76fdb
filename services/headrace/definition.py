"""What an engineer declares above feature views: pipelines (source -> views -> model -> prediction topic) and the app they make up.

An event is kept by one entity at a time. So a pipeline is a chain of *stages*, one for each entity of its views: first the key of its
source, then the others in the order in which they are named. A stage adds the features of its views to the event and passes it on, by a
*hop*: an internal topic keyed by the next entity, `<app>.<pipeline>.by-<entity>.v1`. The last stage scores. A pipeline whose views all keep
the key of the source has one stage and no hop; one with no view of the key has a first stage that only passes on.

A pipeline may also *look up* views of another source than the one it scores (`LookUp`). Those are kept by stages that score nothing, unless
another pipeline keeps them anyway, and are read from the store at the moment of scoring.

Everything is checked here, before anything runs; an error names the definition, the field and the fix. Limit: all views that a pipeline
does not look up come from one source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from headrace.duration import duration_ms, duration_text
from headrace.errors import DefinitionError
from headrace.expression import Expression, col
from headrace.features.retained_view import Kept, RetainedView
from headrace.features.shown import vector_html
from headrace.features.streams import canonical_json
from headrace.features.view import FeatureView, fingerprint_of
from headrace.source import Hop, Outcomes, Source, topic_name

MOST_WAIT_MS = 60_000

_PIPELINE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}", re.ASCII)
_APP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)


class LookUp:
    """Views of other sources, read from the store as they are when an event is scored. Raises `DefinitionError`.

    The scored event must have a field for the entity of each. What the store has seen up to `stale_after` before the event's time is fresh;
    what is older is marked `stale` in the prediction, after the event was kept waiting for up to `wait`. Events that the store has seen
    already and that are newer than the scored one are left out as far as their panes can be told apart, and marked `ahead`.
    """

    def __init__(self, *views: FeatureView, stale_after: str | int = "10m", wait: str | int = 0) -> None:
        if not views:
            raise DefinitionError("LookUp() names no views; write for example hr.LookUp(airport, stale_after='10m')")
        self.views = tuple(views)
        self.stale_after_ms = duration_ms(stale_after, of="LookUp: stale_after", least_ms=0)
        self.wait_ms = duration_ms(wait, of="LookUp: wait", least_ms=0)
        if self.wait_ms > MOST_WAIT_MS:
            raise DefinitionError(f"LookUp: wait is {duration_text(self.wait_ms)}; an event is kept waiting for a minute at most")

    def canonical(self) -> dict[str, object]:
        """A JSON form of everything that decides about its values and marks."""
        return {"views": [view.canonical() for view in self.views], "stale_after_ms": self.stale_after_ms}


class Pipeline:
    """Source -> feature views -> model -> prediction topic, as declared. Raises `DefinitionError`.

    Its feature vector holds the features of each view in order, then those of `look_up`, then `event_features`: fields of the scored event
    itself, or expressions over them. `source` may be left out where there are views of it. Without views it keeps no state: what it scores
    is looked up, or stands in the event.

    `model` is the path of an ONNX file that never changes. Without it versions come from the registry (`headrace model`), and `fallback` is
    the score while none of them is champion. With `notice` ("24h") whoever reads its predictions is told so long before who answers changes
    (`notices.py`).

    With `corrections` the vectors that an event out of order changed after they were published are published again, to
    `<predictions>.corrections` and in the transaction of that event, told in the order of event time.

    With `contributions` each prediction says what so many of its features, the most important ones, contributed to the score
    (`predict/explain.py`); its models need background rows: `headrace.models.stamp(..., background=rows)`.
    """

    def __init__(
        self,
        name: str,
        *,
        views: Sequence[FeatureView] = (),
        look_up: LookUp | None = None,
        source: Source | None = None,
        event_features: Sequence[str | Expression] = (),
        predictions: str,
        model: str | None = None,
        outcomes: Outcomes | None = None,
        publish_features: bool = True,
        corrections: bool = False,
        contributions: int = 0,
        fallback: float | None = None,
        notice: str | int | None = None,
    ) -> None:
        where = f"Pipeline({name!r})"
        if not _PIPELINE_NAME.fullmatch(name):
            raise DefinitionError(f"{where}: a name is up to 100 letters, digits and underscores, beginning with a letter")
        if not views and (source is None or not (look_up or event_features)):
            raise DefinitionError(
                f"{where} has no views; write views=[...], or source=... with look_up=hr.LookUp(...) or event_features=[...]"
            )
        self.name = name
        self.own_views = tuple(views)
        self.look_up = look_up
        self.views = self.own_views + (() if look_up is None else look_up.views)
        self.source = source if source is not None else self.own_views[0].source
        self.predictions = topic_name(predictions, of=f"{where}: predictions")
        self.model = model
        self.outcomes = outcomes
        self.publish_features = publish_features
        self._check_sources(where)
        _no_twice(where, "view", [view.name for view in self.views])
        self.event_features = tuple(_event_feature(one, self.source, where) for one in event_features)
        _no_twice(where, "feature", self.feature_names)
        if self.predictions in {self.source.topic, outcomes and outcomes.topic}:
            raise DefinitionError(f"{where}: predictions={predictions!r} is read by this pipeline; give it a topic of its own")
        if outcomes is not None and outcomes.join not in self.source.kinds:
            raise DefinitionError(f"{where}: {self.source!r} has no field {outcomes.join!r} to join {outcomes!r} by")
        self.corrections = topic_name(f"{predictions}.corrections", of=f"{where}: its corrections") if corrections else None
        """Where corrections go; None: there are none."""
        self.retained = self._retained(where) if corrections else None
        """What is kept for them."""
        if isinstance(contributions, bool) or not 0 <= contributions <= len(self.feature_names):
            raise DefinitionError(
                f"{where}: contributions={contributions!r}; say of how many features each prediction tells what they contributed, up to "
                f"the {len(self.feature_names)} there are, or leave it out"
            )
        self.contributions = contributions
        """How many contributions each prediction carries."""
        if fallback is not None and (model is not None or not math.isfinite(fallback)):
            raise DefinitionError(f"{where}: fallback={fallback} is the finite score of a pipeline without model=..., which has its model")
        self.fallback = fallback
        if notice is not None and model is not None:
            raise DefinitionError(f"{where}: notice={notice!r} is for a pipeline without model=...: this one's model never changes")
        self.notice_ms = None if notice is None else duration_ms(notice, of=f"{where}: notice")
        """How long before a change of who answers a notice of it is given; None: none is."""

    @property
    def shadow(self) -> str | None:
        """Where the scores of shadows go; None: its model never changes."""
        return f"{self.predictions}.shadow" if self.model is None else None

    def _retained(self, where: str) -> RetainedView:
        """The events that corrections are told from. Raises `DefinitionError` where they could not be."""
        where = f"{where}: corrections=True"
        if not self.own_views:
            raise DefinitionError(f"{where} needs views=[...]: without state nothing can change that was published; leave it out")
        if self.look_up is not None:
            raise DefinitionError(
                f"{where} and look_up: what the store held at an earlier moment is not kept, so a vector with look-ups cannot be told "
                "again; leave one of the two out"
            )
        hopped = [view for view in self.own_views if view.entity != self.source.key or self.source.rekey]
        if hopped:
            raise DefinitionError(
                f"{where}: {hopped[0]!r} keeps {hopped[0].entity!r}, to which events come by a hop, and corrections do not pass hops; "
                f"leave it out, or keep only views of the key {self.source.key!r} of a source without rekey"
            )
        if not self.source.lateness_ms:
            raise DefinitionError(
                f"{where}: {self.source!r} has lateness 0, so nothing out of order is ever in time; say lateness=... there"
            )
        for view in self.own_views:
            ordered = [feature.name for feature in view.features if feature.aggregation.in_offset_order]
            if ordered:
                raise DefinitionError(
                    f"{where}: {ordered[0]} of {view!r} follows the order of offsets and ignores an event out of order, so there is "
                    "nothing to correct it by; leave corrections out, or put streak, lag and change into a view of another pipeline"
                )
        join = None if self.outcomes is None else self.outcomes.join
        return RetainedView(self.name, self.own_views, extras=self.event_features, join=join)

    def _check_sources(self, where: str) -> None:
        ours = canonical_json(self.source.canonical())
        for view in self.own_views:
            if canonical_json(view.source.canonical()) != ours:
                raise DefinitionError(
                    f"{where}: {view!r} reads {view.source!r}, and what is scored is of {self.source!r}; use one source, or look the view "
                    f"up: look_up=hr.LookUp({view.name})"
                )
        for view in () if self.look_up is None else self.look_up.views:
            if view.source.topic == self.source.topic:
                raise DefinitionError(f"{where} looks up {view!r} of the source it scores; name it among its views=[...]")
            if self.source.kinds.get(view.entity) != "text":
                raise DefinitionError(
                    f"{where} looks up {view!r}, whose entity is {view.entity!r}: {self.source!r} needs a field of that name of type str, "
                    "or str | None = None where events may have none"
                )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the feature vector, in order: `<view>.<feature>` for each view, then the event features."""
        of_views = tuple(f"{view.name}.{feature}" for view in self.views for feature in view.feature_names)
        return of_views + tuple(name for name, _ in self.event_features)

    def canonical(self) -> dict[str, object]:
        """A JSON form of everything that decides about its feature vectors."""
        return {
            "name": self.name,
            "views": [view.canonical() for view in self.own_views],
            "event_features": [[name, expression.canonical()] for name, expression in self.event_features],
            **({} if self.look_up is None else {"look_up": self.look_up.canonical()}),
        }

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the canonical JSON, in hex: equal fingerprints mean equal feature vectors."""
        return fingerprint_of(self.canonical())

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities of its stages; the first is the key of the source, unless records may have any key."""
        first = () if self.source.rekey and self.own_views else (self.source.key,)
        return tuple(dict.fromkeys((*first, *(view.entity for view in self.own_views))))

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r})"

    def _repr_html_(self) -> str:
        """For notebooks: its feature vector, a row each."""
        notes = [f"scores {self.source.topic} into {self.predictions}; definition {self.fingerprint[:16]}"]
        return vector_html(f"Pipeline {self.name}", self.views, [("of the event", self.event_features, self.source)], notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a pipeline that keeps one entity: what it reads, the views it adds, and where it passes events on to.

    One that passes nothing on scores, unless it only keeps views that the pipeline looks up.
    """

    pipeline: Pipeline
    reads: Source
    views: tuple[FeatureView, ...]
    passes_on: Hop | None
    keeps_only: bool = False

    @property
    def writes(self) -> tuple[str, ...]:
        """The topics of its results, corrections apart."""
        if self.passes_on is not None:
            return (self.passes_on.topic,)
        topics = (self.pipeline.predictions, self.pipeline.shadow) if self.scores else ()
        return tuple(topic for topic in topics if topic is not None)

    @property
    def scores(self) -> bool:
        """Whether it is the last stage of its pipeline."""
        return self.passes_on is None and not self.keeps_only


def stages_of(pipeline: Pipeline, app: str) -> Iterator[Stage]:
    """The stages of a pipeline of an app, first to last."""
    reads, carried = pipeline.source, list[FeatureView]()
    entities = pipeline.entities
    if not pipeline.source.rekey:
        entities = entities[1:]
        carried += [view for view in pipeline.own_views if view.entity == pipeline.source.key]
    views = tuple(carried)
    for entity in entities:
        made_by = [pipeline.source.canonical(), *(view.fingerprint for view in carried)]
        hop = Hop(
            topic_name(f"{app}.{pipeline.name}.by-{entity}.v1", of=f"Pipeline({pipeline.name!r}): its hop by {entity!r}"),
            source=pipeline.source,
            entity=entity,
            feeds=reads,
            carried=[f"{view.name}.{feature}" for view in carried for feature in view.feature_names],
            made_by=fingerprint_of(made_by),
        )
        yield Stage(pipeline=pipeline, reads=reads, views=views, passes_on=hop)
        reads, views = hop, tuple(view for view in pipeline.own_views if view.entity == entity)
        carried += views
    yield Stage(pipeline=pipeline, reads=reads, views=views, passes_on=None)


def keeping_stages(pipeline: Pipeline, app: str, kept: Collection[str]) -> Iterator[Stage]:
    """The stages that keep what a pipeline looks up and nobody keeps yet; events go to each entity straight from their source."""
    wanted = [view for view in (() if pipeline.look_up is None else pipeline.look_up.views) if view.name not in kept]
    for source in {view.source.topic: view.source for view in wanted}.values():
        of_source = [view for view in wanted if view.source.topic == source.topic]
        for entity in dict.fromkeys(view.entity for view in of_source):
            views = tuple(view for view in of_source if view.entity == entity)
            if entity == source.key and not source.rekey:
                yield Stage(pipeline=pipeline, reads=source, views=views, passes_on=None, keeps_only=True)
                continue
            hop = Hop(
                topic_name(f"{app}.{pipeline.name}.keep-{entity}.v1", of=f"Pipeline({pipeline.name!r}): its hop to keep {entity!r}"),
                source=source,
                entity=entity,
                feeds=source,
                carried=(),
                made_by=fingerprint_of([source.canonical()]),
            )
            yield Stage(pipeline=pipeline, reads=source, views=(), passes_on=hop, keeps_only=True)
            yield Stage(pipeline=pipeline, reads=hop, views=views, passes_on=None, keeps_only=True)


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
        _no_twice(where, "prediction topic", self.result_topics)
        self.sources = self._sources(where)
        stages = [stage for pipeline in self.pipelines for stage in stages_of(pipeline, name)]
        for pipeline in self.pipelines:
            stages += keeping_stages(pipeline, name, {view.name for stage in stages for view in stage.views})
        self.stages = tuple(stages)
        self.hops = tuple(stage.passes_on for stage in self.stages if stage.passes_on is not None)
        self.views = self._all_views(where)
        read = {one.topic for one in self.inputs}
        for pipeline in self.pipelines:
            for topic in (pipeline.predictions, pipeline.corrections, pipeline.shadow):
                if topic in read | {self.dead_letters}:
                    raise DefinitionError(f"{where}: {pipeline!r} publishes to {topic!r}, which the app uses already; choose another")
        for own, what in ((self.facts, "own facts"), (self.control, "commands to its registry")):
            if own in read | set(self.result_topics):
                raise DefinitionError(f"{where}: {own!r} holds the app's {what}; name that topic otherwise")
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

    @property
    def control(self) -> str:
        """The topic of the commands to its registry of models."""
        return f"{self.name}.control.v1"

    @property
    def registry_pipelines(self) -> tuple[Pipeline, ...]:
        """The pipelines whose models come from its registry."""
        return tuple(pipeline for pipeline in self.pipelines if pipeline.model is None)

    @property
    def result_topics(self) -> tuple[str, ...]:
        """The topics of its predictions, of their corrections and of what shadows score."""
        topics = (topic for one in self.pipelines for topic in (one.predictions, one.corrections, one.shadow))
        return tuple(topic for topic in topics if topic is not None)

    @property
    def inputs(self) -> tuple[Source, ...]:
        """Everything it reads: its sources, then its hops, each behind what feeds it."""
        return (*self.sources, *self.hops)

    def stages_at(self, reads: Source) -> tuple[Stage, ...]:
        """The stages that read a source or hop."""
        return tuple(stage for stage in self.stages if stage.reads.topic == reads.topic)

    def views_of(self, reads: Source) -> tuple[FeatureView, ...]:
        """The views that are kept of a source or hop, in the order of the pipelines; one that several pipelines use comes once."""
        return tuple({view.name: view for stage in self.stages_at(reads) for view in stage.views}.values())

    def retained_of(self, reads: Source) -> tuple[RetainedView, ...]:
        """What is kept of a source for corrections."""
        return tuple(pipeline.retained for pipeline in self.pipelines_of(reads) if pipeline.retained is not None)

    def kept_of(self, reads: Source) -> tuple[Kept, ...]:
        """All that the store keeps of a source or hop: its views, then what is kept for corrections."""
        return (*self.views_of(reads), *self.retained_of(reads))

    def pipelines_of(self, reads: Source) -> tuple[Pipeline, ...]:
        """The pipelines that score the events of a source or hop."""
        return tuple(stage.pipeline for stage in self.stages_at(reads) if stage.scores)

    def kept_at(self, view: str) -> Source:
        """The source or hop whose partitions hold the state of a view, the first if there are several."""
        return next(stage.reads for stage in self.stages for one in stage.views if one.name == view)

    def __repr__(self) -> str:
        return f"App({self.name!r})"

    def _repr_html_(self) -> str:
        """For notebooks: all its features, a row each, and what each pipeline is made of."""
        notes = [
            f"{one.name}: {', '.join(view.name for view in one.views) or 'no view'} -> {one.predictions}; definition {one.fingerprint[:16]}"
            for one in self.pipelines
        ]
        of_events = [(f"{one.name}: of the event", one.event_features, one.source) for one in self.pipelines]
        return vector_html(f"App {self.name}", self.views, of_events, notes)

    def _sources(self, where: str) -> tuple[Source, ...]:
        by_topic: dict[str, Source] = {}
        for source in (source for pipeline in self.pipelines for source in (pipeline.source, *(view.source for view in pipeline.views))):
            known = by_topic.setdefault(source.topic, source)
            if canonical_json(known.canonical()) != canonical_json(source.canonical()):
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
