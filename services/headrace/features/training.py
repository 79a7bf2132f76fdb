"""The fold over history: what was or would have been served for every event, and what a look-up would have answered at any instant.

A training set made any other way than the live features disagrees with them sooner or later. So this is the one fold (`rows.py`,
`kernel.py`), fed with a log from its start and with no store behind it, where every entity begins with nothing. Two things come out:

- a vector an event: bit for bit the one that was served for it;
- an answer a question (entity, T): what a look-up as of T gives at the moment at which the partition's event time has come to T, that is
  just before the first event that lies after T. So an answer never knows more than could be known then, in any order of events.

A question takes nothing, so it changes no state. Limits: the log must reach back to its start, or the first windows are incomplete; the
states of all entities are held in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from headrace.expression import Expression
from headrace.features import watermark
from headrace.features.rows import EntityRows
from headrace.features.tables import Events
from headrace.features.view import FeatureView
from headrace.types import NO_WATERMARK_MS, Bools, EventBatch, Float64s, Int32s, Int64s

_NEVER = np.iinfo(np.int64).max


class Vectored(Protocol):
    """What a pipeline says about its feature vector (`definition.Pipeline`)."""

    @property
    def views(self) -> tuple[FeatureView, ...]:
        """Its views, in order."""

    @property
    def event_features(self) -> tuple[tuple[str, Expression], ...]:
        """What follows the views' features."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventVectors:
    """One row an event, in the order of the log: its feature vector, and where it comes from."""

    names: tuple[str, ...]
    values: Float64s
    """[events, names]; absent is NaN."""
    entities: list[str]
    event_times_ms: Int64s
    partitions: Int32s
    offsets: Int64s
    late: Bools

    def __len__(self) -> int:
        return len(self.entities)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Questions:
    """What an entity of a partition looks like as of an instant, any number of times."""

    partitions: Int32s
    entities: list[str]
    times_ms: Int64s

    def __len__(self) -> int:
        return len(self.entities)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """The features of all views for each question, and whether the entity had been seen."""

    values: Float64s
    known: Bools


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GridRows:
    """The entities of a partition that some window can still see something of, as of one instant of a grid."""

    partition: int
    as_of_ms: int
    entities: list[str]
    values: Float64s
    seen: Bools
    """[entities, views]: whether a window of that view can."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Laid:
    """Events as the kernel reads them, which are late, and how far event time has come in the partition behind each."""

    events: Events
    late: Bools
    come_ms: Int64s


def event_vectors(pipeline: Vectored, batches: Iterable[EventBatch]) -> EventVectors:
    """The feature vectors of all events of a log. `batches` are its accepted events from the start, cut anywhere, partitions in order."""
    history = EntityFolds(pipeline.views, key=pipeline.views[0].source.key)
    values = [np.empty((0, len(pipeline.feature_names)))]
    times_ms, offsets = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    partitions, late = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.bool_)]
    entities: list[str] = []
    for events in batches:
        found, were_late = history.fold(events)
        own = [expression.evaluate(events.columns) for _, expression in pipeline.event_features]
        values.append(np.column_stack((found, *own)))
        entities.extend(events.entities)
        times_ms.append(events.event_times_ms)
        partitions.append(events.records.partitions[events.rows])
        offsets.append(events.records.offsets[events.rows])
        late.append(were_late)
    return EventVectors(
        names=pipeline.feature_names,
        values=np.concatenate(values),
        entities=entities,
        event_times_ms=np.concatenate(times_ms),
        partitions=np.concatenate(partitions),
        offsets=np.concatenate(offsets),
        late=np.concatenate(late),
    )


class EntityFolds:
    """The folds of views of several entities over one log: for each of its events each view takes the entity that is its own.

    `key` is the entity that the events are already kept by; the others are read from their columns. `questions`: by entity. Without views
    there is nothing but which events are late, and `lateness_ms` must be given.
    """

    def __init__(
        self,
        views: Sequence[FeatureView],
        *,
        key: str,
        questions: Mapping[str, Questions] | None = None,
        lateness_ms: int | None = None,
    ) -> None:
        self._key = key
        entities = dict.fromkeys(view.entity for view in views) or [key]
        of = {entity: [view for view in views if view.entity == entity] for entity in entities}
        self._folds = {entity: HistoryFold(some, (questions or {}).get(entity), lateness_ms) for entity, some in of.items()}
        names = [(view.name, feature) for some in of.values() for view in some for feature in view.feature_names]
        self._order = np.array([names.index((view.name, feature)) for view in views for feature in view.feature_names], dtype=np.int64)

    def fold(self, events: EventBatch) -> tuple[Float64s, Bools]:
        """As `HistoryFold.fold`, the vectors in the order of the views."""
        found = [fold.fold(self._by(events, entity)) for entity, fold in self._folds.items()]
        return np.hstack([values for values, _ in found])[:, self._order], found[0][1]

    def answers(self) -> Answers:
        """As `HistoryFold.answers`; known is who was seen in all of its parts."""
        found = [fold.answers() for fold in self._folds.values()]
        values = np.hstack([answers.values for answers in found])[:, self._order]
        return Answers(values=values, known=np.logical_and.reduce([answers.known for answers in found]))

    def _by(self, events: EventBatch, entity: str) -> EventBatch:
        return events if entity == self._key else replace(events, entities=events.columns[entity].tolist())


class HistoryFold:
    """Folds a log from its start, in memory. `questions` are answered on the way; `answers` has them all in the end.

    Without views there is nothing but which events are late, and `lateness_ms` must be given.
    """

    def __init__(self, views: Sequence[FeatureView], questions: Questions | None = None, lateness_ms: int | None = None) -> None:
        self._lateness_ms = views[0].source.lateness_ms if lateness_ms is None else lateness_ms
        self._spans_ms = np.array([view.longest_window_ms + view.longest_pane_ms for view in views], dtype=np.int64)
        self._table = EntityRows(views)
        self._rows: dict[int, dict[str, int]] = {}
        self._watermarks_ms: dict[int, int] = {}
        self._come_ms: dict[int, int] = {}
        """How far event time has come in each partition: in a hop further than its watermark."""
        self._folded = 0
        self._first = np.full(len(self._table), _NEVER, dtype=np.int64)
        """When each row took its first event: the number of events and questions before it."""
        self._questions = questions or Questions(partitions=np.empty(0, np.int32), entities=[], times_ms=np.empty(0, np.int64))
        self._pending = _in_order(self._questions)
        self._answers = Answers(
            values=np.empty((len(self._questions), self._table.features)), known=np.zeros(len(self._questions), dtype=np.bool_)
        )

    def fold(self, events: EventBatch) -> tuple[Float64s, Bools]:
        """Fold the next events, answering what falls between them; gives the vectors of all views, and which events were late."""
        before_ms = dict(self._come_ms)
        laid = self._laid(events)
        late = laid.late if events.carried is None else laid.late | events.carried.late
        places, due = self._due(events, laid, before_ms)
        taken = ~laid.late
        if not len(due):
            self._count(laid.events.rows, taken, np.arange(len(late)))
            values, _ = self._table.fold(laid.events)
            return values, late
        asked = self._asked(due)
        order = np.argsort(np.concatenate((2 * np.arange(len(late)) + 1, 2 * places)), kind="stable")
        at = np.empty(len(order), dtype=np.int64)
        at[order] = np.arange(len(order))
        asked_at = self._folded + at[len(late) :]
        self._count(laid.events.rows, taken, at[: len(late)])
        together: list[Any] = [np.concatenate((column, other))[order] for column, other in zip(laid.events, asked, strict=True)]
        values, _ = self._table.fold(Events(*together))
        self._answers.values[due] = values[at[len(late) :]]
        self._answers.known[due] = self._first[asked.rows] < asked_at
        return values[at[: len(late)]], late

    def fold_apart(self, events: EventBatch, found_ms: Int64s) -> tuple[Float64s, Bools]:
        """Fold the next events of some entities whose partitions' other events are folded elsewhere; gives what `fold` gives for them.

        `found_ms`: the watermark that each of the events found, moved by all events of its partition before it. Answers no questions.
        """
        late, horizons_ms = watermark.judge(events.event_times_ms, found_ms, self._lateness_ms)
        values, _ = self._table.fold(self._as_read(events, late, horizons_ms))
        return values, late

    def answers(self) -> Answers:
        """All answers, in the order of the questions; to be asked for when the log is over."""
        rest = np.concatenate([np.empty(0, dtype=np.int64), *self._pending.values()])
        self._pending = {}
        if len(rest):
            asked = self._asked(rest)
            self._answers.values[rest], _ = self._table.fold(asked)
            self._answers.known[rest] = self._first[asked.rows] != _NEVER
        return self._answers

    def fold_on_grid(self, events: EventBatch, step_ms: int) -> Iterator[GridRows]:
        """Fold the next events, and look at everybody at each multiple of `step_ms` that event time passes."""
        before_ms = dict(self._come_ms)
        laid = self._laid(events)
        numbers = events.records.partitions[events.rows]
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            after_ms = laid.come_ms[places]
            begin_ms = before_ms.get(number, int(after_ms[0]))
            instants = np.arange(-(-begin_ms // step_ms) * step_ms, int(after_ms[-1]), step_ms)
            done = 0
            for instant, end in zip(instants.tolist(), np.searchsorted(after_ms, instants, side="right").tolist(), strict=True):
                self._table.fold(_some(laid.events, places[done:end]))
                done = end
                yield self._everybody(number, instant)
            self._table.fold(_some(laid.events, places[done:]))

    def last_on_grid(self, step_ms: int) -> Iterator[GridRows]:
        """The instants that event time has come to and not passed, when the log is over."""
        for number, come_ms in self._come_ms.items():
            if come_ms % step_ms == 0:
                yield self._everybody(number, come_ms)

    def _laid(self, events: EventBatch) -> _Laid:
        """The events as the kernel reads them; the watermarks move."""
        numbers = events.records.partitions[events.rows]
        before_ms = {number: self._watermarks_ms.get(number, NO_WATERMARK_MS) for number in np.unique(numbers).tolist()}
        times_ms = events.event_times_ms
        if events.carried is None:
            advance = watermark.advance(numbers, times_ms, before_ms, self._lateness_ms)
        else:
            advance = watermark.advance_hop(numbers, times_ms, events.carried, before_ms, self._lateness_ms)
        self._watermarks_ms |= advance.watermarks_ms
        come_ms = np.empty(len(times_ms), dtype=np.int64)
        for number in before_ms:
            mine = np.flatnonzero(numbers == number)
            come_ms[mine] = np.maximum(np.maximum.accumulate(times_ms[mine]), self._come_ms.get(number, NO_WATERMARK_MS))
            self._come_ms[number] = int(come_ms[mine[-1]])
        return _Laid(events=self._as_read(events, advance.late, advance.horizons_ms), late=advance.late, come_ms=come_ms)

    def _as_read(self, events: EventBatch, late: Bools, horizons_ms: Int64s) -> Events:
        """The events as the kernel reads them."""
        return Events(
            rows=self._rows_of(events.records.partitions[events.rows], events.entities),
            times_ms=np.array(events.event_times_ms, dtype=np.int64),
            horizons_ms=horizons_ms,
            takes=np.repeat(~late[:, None], len(self._table.views), axis=1),
            given=self._table.given(events.columns, len(events)),
        )

    def _rows_of(self, numbers: Int32s, entities: Sequence[str]) -> Int64s:
        rows = np.empty(len(entities), dtype=np.int64)
        for number in np.unique(numbers).tolist():
            mine = np.flatnonzero(numbers == number)
            names = [entities[place] for place in mine.tolist()] if len(mine) < len(entities) else entities
            table = self._rows.setdefault(number, {})
            new = list(dict.fromkeys(name for name in names if name not in table))
            table.update(zip(new, self._table.take(len(new)), strict=True))
            rows[mine] = [table[name] for name in names]
        more = len(self._table) - len(self._first)
        self._first = np.concatenate((self._first, np.full(more, _NEVER, dtype=np.int64)))
        return rows

    def _count(self, rows: Int64s, taken: Bools, at: Int64s) -> None:
        """Remember which rows took something for the first time; `at`: the place of each event in this batch."""
        if len(self._questions):
            np.minimum.at(self._first, rows[taken], self._folded + at[taken])
            self._folded += int(at.max(initial=-1)) + 1

    def _due(self, events: EventBatch, laid: _Laid, before_ms: dict[int, int]) -> tuple[Int64s, Int64s]:
        """The questions that fall into this batch, and in front of which of its events; those of a partition in the order of time."""
        places, due = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        numbers = events.records.partitions[events.rows] if self._pending else np.empty(0, dtype=np.int32)
        for number in self._pending.keys() & set(np.unique(numbers).tolist()):
            pending = self._pending[number]
            times_ms = self._questions.times_ms[pending]
            count = int(np.searchsorted(times_ms, self._come_ms[number], side="left"))
            if self._come_ms[number] == before_ms.get(number) or not count:
                continue
            mine = np.flatnonzero(numbers == number)
            places.append(mine[np.searchsorted(laid.come_ms[mine], times_ms[:count], side="right")])
            due.append(pending[:count])
            self._pending[number] = pending[count:]
        return np.concatenate(places), np.concatenate(due)

    def _asked(self, which: Int64s) -> Events:
        entities = [self._questions.entities[place] for place in which.tolist()]
        rows = self._rows_of(self._questions.partitions[which], entities)
        return self._nothing(rows, self._questions.times_ms[which])

    def _nothing(self, rows: Int64s, times_ms: Int64s) -> Events:
        """Events that nobody takes: what a look-up folds."""
        return Events(
            rows=rows,
            times_ms=times_ms,
            horizons_ms=times_ms,
            takes=np.zeros((len(rows), len(self._table.views)), dtype=np.bool_),
            given=np.full((len(rows), len(self._table.streams)), np.nan),
        )

    def _everybody(self, number: int, as_of_ms: int) -> GridRows:
        names = np.array(list(self._rows[number]), dtype=np.object_)
        rows = np.fromiter(self._rows[number].values(), dtype=np.int64, count=len(names))
        seen = self._table.rows.newest_ms[rows] > as_of_ms - self._spans_ms
        some = seen.any(axis=1)
        values, _ = self._table.fold(self._nothing(rows[some], np.full(int(some.sum()), as_of_ms, dtype=np.int64)))
        return GridRows(partition=number, as_of_ms=as_of_ms, entities=names[some].tolist(), values=values, seen=seen[some])


def _in_order(questions: Questions) -> dict[int, Int64s]:
    """The questions of each partition in the order of their instants."""
    order = np.argsort(questions.times_ms, kind="stable")
    return {number: order[questions.partitions[order] == number] for number in np.unique(questions.partitions).tolist()}


def _some(laid: Events, places: Int64s) -> Events:
    found: list[Any] = [column[places] for column in laid]
    return Events(*found)
