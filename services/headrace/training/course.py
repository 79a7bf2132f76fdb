"""One entity's features over time: what a look-up would have answered at the instants of a grid, and just behind each of its events.

The answers are those of the one fold (`features/training.py`). Limit: the log is read twice, once to find the entity's events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.definition import App
from headrace.duration import duration_ms
from headrace.errors import DefinitionError
from headrace.features.view import Feature, FeatureView
from headrace.training.history import Told, Topics, history_of
from headrace.training.look_ups import Part, answered
from headrace.training.tables import Tabular
from headrace.types import Bools, Float64s, Int64s

POINTS = 600
"""So many instants at least, where no grid is asked for."""
MOST_POINTS = 200_000
_GRIDS_MS = [length * unit for unit, lengths in ((1_000, (1, 5, 15)), (60_000, (1, 5, 15)), (3_600_000, (1, 6))) for length in lengths]
"""What a grid is rounded down to; below a second it is as fine as it must be."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """The features of an entity at some instants, in order; `event_times_ms` are those of its events among them."""

    view: FeatureView
    entity: str
    instants_ms: Int64s
    values: Float64s
    """[instants, features]; absent is NaN."""
    whole: Bools
    """Of each instant, whether the log still holds all that the windows reach back to."""
    event_times_ms: Int64s

    def empty(self, feature: Feature) -> Bools:
        """At which instants a feature is what is declared for nothing, and no event of the entity lies as near as its window reaches."""
        values = self.values[:, self.view.feature_names.index(feature.name)]
        newest = np.searchsorted(self.event_times_ms, self.instants_ms, side="right") - 1
        age_ms = self.instants_ms - self.event_times_ms[np.maximum(newest, 0)]
        declared = np.isnan(values) if np.isnan(feature.empty) else values == feature.empty
        found: Bools = declared & ((newest < 0) | (age_ms >= feature.window_ms))
        return found


def entity_course(
    app: App,
    view: str,
    entity: str,
    *,
    events: Topics | Tabular,
    from_ms: int | None = None,
    until_ms: int | None = None,
    grid: str | int | None = None,
    told: Told = lambda _, __: None,
) -> Course:
    """The course of one entity in a view, from its first to its last event, or between the instants given.

    `events` as for `training_frame`; a table holds the events of the view's source. `grid`: an instant every so often ("1h"); else about
    `POINTS`. Raises `DefinitionError`.
    """
    views = {one.name: one for one in app.views}
    if view not in views:
        raise DefinitionError(f"{app!r} has no view {view!r}; it has {', '.join(views)}")
    found = views[view]
    reads = app.kept_at(view) if isinstance(events, Topics) else found.source
    times_ms = _event_times_ms(Part(reads=reads, key=reads.key, views=(found,)), app, entity, events, told)
    if not len(times_ms):
        raise DefinitionError(f"the events hold none of {found.entity} {entity!r}; check its spelling, or give other events")
    begin_ms = int(times_ms[0]) if from_ms is None else from_ms
    end_ms = int(times_ms[-1]) if until_ms is None else until_ms
    if end_ms < begin_ms:
        raise DefinitionError(f"{entity!r}: its course would end before it begins; its events are from {times_ms[0]} to {times_ms[-1]} ms")
    instants = _instants(begin_ms, end_ms, _step_ms(begin_ms, end_ms, grid), times_ms)
    part = Part(reads=reads, key=reads.key, views=(found,))
    values, _, whole_ms = answered(part, history_of(app, reads, events, told=told), {found.entity: [entity] * len(instants)}, instants)
    return Course(view=found, entity=entity, instants_ms=instants, values=values, whole=instants >= whole_ms, event_times_ms=times_ms)


def _event_times_ms(part: Part, app: App, entity: str, events: Topics | Tabular, told: Told) -> Int64s:
    (view,) = part.views
    found = [np.empty(0, dtype=np.int64)]
    for some, _ in history_of(app, part.reads, events, told=told).events({view.entity}):
        names = some.entities if view.entity == part.key else some.columns[view.entity].tolist()
        found.append(some.event_times_ms[np.fromiter((name == entity for name in names), dtype=np.bool_, count=len(names))])
    return np.sort(np.concatenate(found))


def _step_ms(begin_ms: int, end_ms: int, grid: str | int | None) -> int:
    if grid is None:
        wanted_ms = max(1, (end_ms - begin_ms) // POINTS)
        return max((step_ms for step_ms in _GRIDS_MS if step_ms <= wanted_ms), default=wanted_ms)
    step_ms = duration_ms(grid, of="grid")
    if (end_ms - begin_ms) // step_ms > MOST_POINTS:
        raise DefinitionError(f"grid={grid!r} makes more than {MOST_POINTS:,} instants; take a coarser one, or a shorter time")
    return step_ms


def _instants(begin_ms: int, end_ms: int, step_ms: int, times_ms: Int64s) -> Int64s:
    """The grid, aligned to the epoch, with both ends and the events between them."""
    grid = np.arange(-(-begin_ms // step_ms) * step_ms, end_ms + 1, step_ms, dtype=np.int64)
    inside = times_ms[(times_ms >= begin_ms) & (times_ms <= end_ms)]
    return np.unique(np.concatenate(([begin_ms, end_ms], grid, inside)).astype(np.int64))
