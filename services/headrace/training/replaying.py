"""A span of a log folded twice: as its events were, and as a scenario has them.

              as it was  --fold of all views----------------> vectors before
    event  <
              changed  ----fold of the views that are touched-> vectors after: before, but for their features, for features of the event
                                                                that read what is changed, and for what is emptied

Up to the span both folds see the same events, so at its beginning the windows hold what they held. One pass over the log does both. Of a
pipeline of several entities each stage is folded over its own topic, in its own order: what an earlier stage gives for a changed event is
kept until the event comes out of the last hop. What is looked up in other sources is as in a training frame, as of the event's own time; a
scenario does not change it.

Rows come in stretches, so no more than a batch of vectors is in memory; only where views are looked up, whose answers come last, are all of
them. Limit: the log is read from its beginning, as a fold needs it, and states of all entities are in memory, of touched views twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace.definition import App, Pipeline
from headrace.expression import Column, Expression
from headrace.features.training import EntityFolds
from headrace.source import Source
from headrace.training.building import columns_of, given_of, names_of, parts_of
from headrace.training.changed_inputs import ChangedInputs
from headrace.training.history import TableHistory, Told, TopicHistory, Topics, history_of
from headrace.training.labels import fields_read
from headrace.training.look_ups import Asking, Part, looked_up_parts
from headrace.training.span import Span
from headrace.types import Bools, EventBatch, Float64s, Int32s, Int64s

_MOST_OFFSETS = 1 << 44


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """Some rows of a span, one an event."""

    entities: pa.Array
    ids: pa.Array | None
    """What outcomes are joined by."""
    segments: Column | None
    times_ms: Int64s
    record_times_ms: Int64s
    partitions: Int32s
    """Of the source."""
    offsets: Int64s
    before: Float64s
    """[rows, features]"""
    after: Float64s
    """The very same array where nothing is changed."""

    def __len__(self) -> int:
        return len(self.times_ms)

    def select(self, which: Bools) -> Stretch:
        """The same of some rows."""
        if which.all():
            return self
        before = self.before[which]
        return Stretch(
            entities=self.entities.filter(pa.array(which)),
            ids=None if self.ids is None else self.ids.filter(pa.array(which)),
            segments=None if self.segments is None else self.segments[which],
            times_ms=self.times_ms[which],
            record_times_ms=self.record_times_ms[which],
            partitions=self.partitions[which],
            offsets=self.offsets[which],
            before=before,
            after=before if self.after is self.before else self.after[which],
        )


def places_of(partitions: Int32s, offsets: Int64s) -> Int64s:
    """Partition and offset as one number."""
    return partitions.astype(np.int64) * _MOST_OFFSETS + offsets


class Replay:
    """One pass over the history of a pipeline. When all stretches were taken, `broken` and the account of the history are complete."""

    def __init__(
        self,
        app: App | Pipeline,
        pipeline: Pipeline,
        events: object,
        *,
        change: ChangedInputs,
        span: Span,
        joined: str | None = None,
        by: Expression | None = None,
        more: Sequence[str] = (),
        told: Told = lambda _, __: None,
    ) -> None:
        """`joined`: the field that outcomes are joined by, where they are; `more`: columns of a table beside its contract."""
        keys_to_be = pipeline.entities if pipeline.source.rekey else pipeline.entities[1:]

        def history_at(reads: Source) -> TopicHistory | TableHistory:
            given = given_of(reads, events)
            return history_of(app if isinstance(app, App) else None, reads, given, told=told, more=more, keys_to_be=keys_to_be)

        self.broken: dict[str, int] = {}
        """By field, in how many changed events the contract forbids what is there now."""
        self._pipeline, self._change, self._span, self._joined, self._by = pipeline, change, span, joined, by
        self._history_at = history_at
        self._parts = parts_of(app, pipeline, events)
        self._asking = Asking(pipeline, looked_up_parts(app, pipeline, events), history_at)
        self._position = {name: place for place, name in enumerate(pipeline.feature_names)}
        self.history = history_at(self._parts[-1].reads)
        """Where the rows come from."""
        span.check(lambda: _partitions(pipeline.source.topic, events))

    def stretches(self) -> Iterator[Stretch]:
        """The rows of the span, in the order in which they are read; once."""
        if not self._asking.features:
            yield from map(self._emptied, self._folded())
            return
        found = list(self._folded())
        times_ms = np.concatenate([np.empty(0, dtype=np.int64), *(one.times_ms for one in found)])
        answers, whole = self._asking.answers(times_ms, self.history.account)
        begin, at = sum(len(view.feature_names) for view in self._pipeline.own_views), 0
        for one in found:
            rows = slice(at, at + len(one))
            at += len(one)
            for vectors in (one.before, one.after):
                vectors[:, begin : begin + self._asking.features] = answers[rows]
            yield self._emptied(one.select(whole[rows]))

    def _folded(self) -> Iterator[Stretch]:
        """The same without what is looked up."""
        part, earlier = self._parts[-1], self._earlier()
        fold = EntityFolds(part.views, key=part.key, lateness_ms=self._pipeline.source.lateness_ms)
        again = _Again(part, self._change)
        for events, incomplete in self.history.events(self._fields()):
            vectors, _ = fold.fold(events)
            inside = self._inside(events)
            changed, broken = self._change.applied(events, inside)
            for name, count in broken.items():
                self.broken[name] = self.broken.get(name, 0) + count
            other = again.fold(changed)
            inside[:incomplete] = False
            kept = np.flatnonzero(inside)
            if not len(kept):
                continue
            vectors = vectors if events.carried is None else np.hstack((events.carried.values, vectors))
            found = [(again.names, other[kept], np.ones(len(kept), dtype=np.bool_))]
            found += [one.of(_places(events)[kept]) for one in earlier]
            whole = np.logical_and.reduce([there for _, _, there in found])
            self.history.account.incomplete += int((~whole).sum())
            before = self._before(events, vectors, kept)
            after = self._after(changed, before, kept, {name: values[:, at] for names, values, _ in found for at, name in enumerate(names)})
            stretch = self._stretch(events, kept, before, after).select(whole)
            self._asking.ask(events, kept[whole])
            yield stretch

    def _earlier(self) -> list[_EarlierStage]:
        """What touched views of earlier stages give for the events of the span, stage by stage."""
        found = []
        for part in self._parts[:-1]:
            again = _Again(part, self._change)
            if not again.names:
                continue
            history = self._history_at(part.reads)
            places, values = [np.empty(0, dtype=np.int64)], [np.empty((0, len(again.names)))]
            for events, incomplete in history.events(part.fields() | self._change.reads):
                inside = self._inside(events)
                vectors = again.fold(self._change.applied(events, inside)[0])
                inside[:incomplete] = False
                places.append(_places(events)[inside])
                values.append(vectors[inside])
            self.history.account.offsets |= history.account.offsets
            order = np.argsort(np.concatenate(places), kind="stable")
            found.append(_EarlierStage(again.names, np.concatenate(places)[order], np.concatenate(values)[order]))
        return found

    def _before(self, events: EventBatch, vectors: Float64s, kept: Int64s) -> Float64s:
        part, columns = self._parts[-1], {name: values[kept] for name, values in events.columns.items()}
        own = vectors[np.ix_(kept, columns_of(self._pipeline.own_views, [*part.carried, *names_of(part.views)]))]
        of_event = [expression.evaluate(columns) for _, expression in self._pipeline.event_features]
        return np.column_stack((own, np.empty((len(kept), self._asking.features)), *of_event))

    def _after(self, changed: EventBatch, before: Float64s, kept: Int64s, found: dict[str, Float64s]) -> Float64s:
        if not self._change.fields and not self._change.empties:
            return before
        after, columns = before.copy(), {name: values[kept] for name, values in changed.columns.items()}
        for name, expression in self._pipeline.event_features:
            if expression.fields() & self._change.fields:
                found[name] = expression.evaluate(columns)
        for name, values in found.items():
            after[:, self._position[name]] = values
        return after

    def _stretch(self, events: EventBatch, kept: Int64s, before: Float64s, after: Float64s) -> Stretch:
        last = self._pipeline.entities[-1]
        entities = np.array(events.entities, dtype=np.object_) if last == self._parts[-1].key else events.columns[last]
        rows, ids, segments = events.rows[kept], None, None
        if self._joined is not None:
            kind = pa.string() if self._pipeline.source.kinds[self._joined] == "text" else pa.float64()
            ids = pa.array(events.columns[self._joined][kept], kind, from_pandas=True)
        if self._by is not None:
            segments = self._by.column({name: events.columns[name][kept] for name in self._by.fields()})
        return Stretch(
            entities=pa.array(entities[kept], pa.string()),
            ids=ids,
            segments=segments,
            times_ms=events.event_times_ms[kept],
            record_times_ms=events.sent.timestamps_ms[rows],
            partitions=events.sent.partitions[rows],
            offsets=events.sent.offsets[rows],
            before=before,
            after=after,
        )

    def _emptied(self, stretch: Stretch) -> Stretch:
        """With nothing in the features that are to be empty; after what is looked up, for that may be emptied, too."""
        stretch.after[:, [self._position[name] for name in self._change.empties]] = np.nan
        return stretch

    def _fields(self) -> set[str]:
        return fields_read(self._pipeline, self._joined) | self._change.reads | (set() if self._by is None else set(self._by.fields()))

    def _inside(self, events: EventBatch) -> Bools:
        sent = events.sent
        return self._span.inside(events.event_times_ms, sent.partitions[events.rows], sent.offsets[events.rows])


class _Again:
    """The fold of those views of a part that a scenario touches, over changed events."""

    def __init__(self, part: Part, change: ChangedInputs) -> None:
        views = [view.lacking(change.fields) for view in part.views if change.touches(view)]
        self.names = names_of(views)
        self._fold = EntityFolds(views, key=part.key) if views else None

    def fold(self, events: EventBatch) -> Float64s:
        """The features `names` of some events, row by row."""
        return np.empty((len(events), 0)) if self._fold is None else self._fold.fold(events)[0]


@dataclass(frozen=True, slots=True, eq=False)
class _EarlierStage:
    """What the touched views of an earlier stage give, by the places of the events, which are in order."""

    names: list[str]
    places: Int64s
    values: Float64s

    def of(self, places: Int64s) -> tuple[list[str], Float64s, Bools]:
        """Names, values, and for which of some events there are any."""
        if not len(self.places):
            return self.names, np.full((len(places), len(self.names)), np.nan), np.zeros(len(places), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self.places, places), len(self.places) - 1)
        return self.names, self.values[at], self.places[at] == places


def _places(events: EventBatch) -> Int64s:
    return places_of(events.sent.partitions[events.rows], events.sent.offsets[events.rows])


def _partitions(topic: str, events: object) -> list[int]:
    """Those that offsets may name."""
    if not isinstance(events, Topics):
        return [0]
    with closing(events.subject.reader()) as reader:
        return [name.partition for name in reader.partitions(topic)]
