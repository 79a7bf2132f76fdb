"""Which topics of an app keep pace with one another in event time, and what their records wait for (`consume/aligned_source`).

    what                                            keeps pace with                            at most ahead of the slowest by
    ---------------------------------------------   ----------------------------------------   --------------------------------
    a source or hop that feeds a hop                its own partitions                         half its lateness
    a source that is looked up by a pipeline        the source that is scored, and the others  nothing
    a source that is scored by what is looked up    those sources, and its last hop            `stale_after`, or a quarter of it
    the last hop of such a source                   the same                                   the same

The second rule lets a store not know the future of what is scored, the others let it know the past. A commit is in the store a moment later
only, so what the last stage of a pipeline with look-ups reads waits for the store as well, up to `wait`; without any `wait` a quarter of
`stale_after` leaves room for that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from headrace.consume.pace_group import Pace, Waits
from headrace.decode.time_peek import TimePeek
from headrace.definition import App, LookUp, Pipeline
from headrace.features.state_store import LookupStore
from headrace.freshness import Awaited, Freshness
from headrace.paths import decoder_of
from headrace.source import Source


def rules_of(app: App, store: LookupStore, now_ms: Callable[[], int], *, still_ms: int) -> dict[str, Pace]:
    """The rule for each topic that has one; a store that was the same for `still_ms` does not move."""
    slacks = _slacks_ms(app)
    groups = _groups(app)
    waits = {reads.topic: _waits(app, reads, store, now_ms, still_ms) for reads in app.inputs}
    return {
        reads.topic: Pace(
            times_of=TimePeek(reads).times_ms,
            group=groups.get(reads.topic, reads.topic),
            slack_ms=slacks.get(reads.topic),
            waits=waits[reads.topic],
        )
        for reads in app.inputs
        if reads.topic in slacks or waits[reads.topic] is not None
    }


def _slacks_ms(app: App) -> dict[str, int]:
    found = {hop.feeds.topic: hop.feeds.lateness_ms // 2 for hop in app.hops}
    for pipeline, wanted in _looking_up(app):
        allowed = dict.fromkeys((view.source.topic for view in wanted.views), 0)
        allowed |= dict.fromkeys((pipeline.source.topic, _scored(app, pipeline).topic), _behind_ms(wanted))
        for topic, slack_ms in allowed.items():
            found[topic] = min(slack_ms, found.get(topic, slack_ms))
    return found


def _behind_ms(wanted: LookUp) -> int:
    """How far ahead of what is looked up an event may be."""
    return wanted.stale_after_ms if wanted.wait_ms else wanted.stale_after_ms // 4


def _groups(app: App) -> dict[str, str]:
    """The group of each source that keeps pace with another one; who shares a member shares the group."""
    found: dict[str, str] = {}
    for pipeline, wanted in _looking_up(app):
        members = [pipeline.source.topic, _scored(app, pipeline).topic, *(view.source.topic for view in wanted.views)]
        joined = {found.get(topic, topic) for topic in members}
        name = min(joined)
        found |= dict.fromkeys((topic for topic, group in found.items() if group in joined), name) | dict.fromkeys(members, name)
    return found


def _scored(app: App, pipeline: Pipeline) -> Source:
    """The source or hop that the last stage of a pipeline reads."""
    return next(reads for reads in app.inputs if pipeline in app.pipelines_of(reads))


def _looking_up(app: App) -> Iterator[tuple[Pipeline, LookUp]]:
    return ((pipeline, pipeline.look_up) for pipeline in app.pipelines if pipeline.look_up is not None)


def _waits(app: App, reads: Source, store: LookupStore, now_ms: Callable[[], int], still_ms: int) -> Waits | None:
    """What the records wait for that are scored here, if anything."""
    waiting = [wanted for pipeline in app.pipelines_of(reads) if (wanted := pipeline.look_up) is not None and wanted.wait_ms]
    if not waiting:
        return None
    return Freshness(
        [
            Awaited(view=view, topic=app.kept_at(view.name).topic, stale_after_ms=wanted.stale_after_ms)
            for wanted in waiting
            for view in wanted.views
        ],
        decoder=decoder_of(app, reads, fields={view.entity for wanted in waiting for view in wanted.views}),
        wait_ms=max(wanted.wait_ms for wanted in waiting),
        still_ms=still_ms,
        store=store,
        now_ms=now_ms,
    )
