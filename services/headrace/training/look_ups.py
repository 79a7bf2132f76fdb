"""What a row of a training frame would have looked up: views of other sources, as of the event's own time.

Between two logs there is no order but time. So the row of an event at T knows all that the other source had seen when its event time had
come to T, and nothing that lies after it: the answer that a look-up as of T gives at that moment (`features/training.py`). What was served
for it depends on how far the store had come then; `served.py` counts how often that made a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.definition import App, Pipeline
from headrace.features.training import EntityFolds, Questions
from headrace.features.view import FeatureView
from headrace.source import Source
from headrace.training.history import Account, TableHistory, TopicHistory, Topics
from headrace.types import Bools, EventBatch, Float64s, Int64s

HistoryAt = Callable[[Source], TopicHistory | TableHistory]
NOBODY = ""
"""No key is empty, so nothing is known of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Views that are folded over one log: those of a stage, or of a table, which has everything, all."""

    reads: Source
    key: str
    """The entity that its events are kept by."""
    views: tuple[FeatureView, ...]
    carried: tuple[str, ...] = ()
    """The features that come with its events."""

    def fields(self) -> set[str]:
        """What is read of its events."""
        return set().union(*(view.fields for view in self.views), *({view.entity} for view in self.views))


def looked_up_parts(app: App | Pipeline, pipeline: Pipeline, events: object) -> list[Part]:
    """The logs that tell what a pipeline looks up: where the views are kept, or the tables of their sources."""
    wanted = () if pipeline.look_up is None else pipeline.look_up.views
    by_topic: dict[str, tuple[Source, list[FeatureView]]] = {}
    for view in wanted:
        reads = app.kept_at(view.name) if isinstance(events, Topics) and isinstance(app, App) else view.source
        by_topic.setdefault(reads.topic, (reads, []))[1].append(view)
    return [Part(reads=reads, key=reads.key, views=tuple(views)) for reads, views in by_topic.values()]


class Asking:
    """The questions that the events of a pipeline ask, gathered event by event."""

    def __init__(self, pipeline: Pipeline, parts: Sequence[Part], history_at: HistoryAt) -> None:
        self._views = () if pipeline.look_up is None else pipeline.look_up.views
        self._parts, self._history_at = parts, history_at
        self._entities: dict[str, list[str]] = {view.entity: [] for view in self._views}
        self.features = sum(len(view.feature_names) for view in self._views)
        """How many numbers an answer has."""

    def ask(self, events: EventBatch, kept: slice | Int64s) -> None:
        """These events ask, each as of its own time."""
        for entity, asked in self._entities.items():
            asked.extend(NOBODY if name is None else name for name in events.columns[entity][kept].tolist())

    def answers(self, times_ms: Int64s, account: Account) -> tuple[Float64s, Bools]:
        """[events, features of the views that are looked up], and whether their windows are whole, as far as the logs reach back; those
        that are not are counted. `times_ms` are those of all events that asked.
        """
        found = np.empty((len(times_ms), self.features))
        whole = np.ones(len(times_ms), dtype=np.bool_)
        begins = np.cumsum([0, *(len(view.feature_names) for view in self._views)])
        for part in self._parts:
            log = self._history_at(part.reads)
            values, _, whole_ms = answered(part, log, {view.entity: self._entities[view.entity] for view in part.views}, times_ms)
            whole &= times_ms >= whole_ms
            account.add(log.account)
            at = 0
            for view in part.views:
                begin, width = int(begins[self._views.index(view)]), len(view.feature_names)
                found[:, begin : begin + width] = values[:, at : at + width]
                at += width
        account.incomplete += int((~whole).sum())
        return found, whole


def answered(
    part: Part, log: TopicHistory | TableHistory, entities: dict[str, list[str]], times_ms: Int64s
) -> tuple[Float64s, Bools, Float64s]:
    """What a look-up as of each instant would have answered in the views of a part, whether the entities were known, and from which event
    time on the windows are whole.
    """
    asked = {}
    for entity in dict.fromkeys(view.entity for view in part.views):
        places = {name: log.partition_of(name) for name in dict.fromkeys(entities[entity])}
        partitions = np.array([places[name] for name in entities[entity]], dtype=np.int32)
        asked[entity] = Questions(partitions=partitions, entities=entities[entity], times_ms=times_ms)
    fold = EntityFolds(part.views, key=part.key, questions=asked)
    for events, _ in log.events(part.fields()):
        fold.fold(events)
    answers = fold.answers()
    whole_ms = np.full(len(times_ms), -np.inf)
    for questions in asked.values():
        whole_ms = np.maximum(whole_ms, [log.whole_from_ms(number) for number in questions.partitions.tolist()])
    return answers.values, answers.known, whole_ms
