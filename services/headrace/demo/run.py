"""The whole demo in order: read the year, plant bad records, replay, judge."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.clock import Clock
from headrace.demo.events import Departures, read_departures
from headrace.demo.planted import plant
from headrace.demo.report import Report, report
from headrace.demo.screen import Stage

if TYPE_CHECKING:
    from headrace.demo.boarding_replay import Boarded


def run(stage: Stage, clock: Clock, *, bad: int, limit: int | None) -> Report:
    """Replay the first `limit` departures of the year (None: all) with `bad` records planted among them."""
    with _without_collections():
        with stage.phase("reading the flights", "reading the flights of 2013") as say:
            departures = read_departures(limit=limit)
            planted = plant(departures, bad)
            say(f"{len(departures):,} departures of {departures.flights:,} flights, {len(planted):,} bad records among them")
        with stage.phase("loading", "loading the engine and the models") as say:
            # These load numba and onnxruntime, a second that belongs to this phase: something is on the screen already.
            from headrace.demo.flights import MODEL, SECOND_MODEL, aircraft_alone, app_with_registry  # noqa: PLC0415
            from headrace.demo.replay import Replay  # noqa: PLC0415
            from headrace.features.warm_up import warm_up  # noqa: PLC0415

            replay = Replay(app_with_registry, departures, planted, clock=clock, alone=aircraft_alone, files=(MODEL, SECOND_MODEL))
            say("engine ready")
        with stage.phase("compiling", "compiling the fold (once)") as say:
            warm_up(app_with_registry.views)
            say("fold ready")
        with stage.phase("registering", "registering the first version") as say:
            gate = replay.register()
            say(f"{replay.model['name']} version {replay.model['version']} registered and champion; the gate: {gate}")
        with stage.replaying(departures, len(departures) + len(planted)):
            replayed = replay.run(stage)
        boarded = _boarding(stage, clock, departures)
        return report(departures, replayed, boarded, model=replay.model, seconds=stage.seconds)


def _boarding(stage: Stage, clock: Clock, departures: Departures) -> Boarded | None:
    """The second application; None where the departures end before its weeks."""
    from headrace.demo.boarding import app, by_timetable  # noqa: PLC0415
    from headrace.demo.boarding_replay import BoardingReplay, some_of  # noqa: PLC0415

    boardings = some_of(departures)
    if not boardings.events:
        return None
    with stage.phase("boarding", "scoring flights when they board, by what departures did up to then") as say:
        boarded = BoardingReplay(app, departures, boardings, clock=clock, bare=by_timetable).run(lambda _, __: None)
        say(f"{boarded.predictions:,} flights of two weeks of December scored when they boarded, by looking up what departures did")
    return boarded


@contextmanager
def _without_collections() -> Iterator[None]:
    """Everything made here lives until the end, so looking for garbage among millions of objects would only cost time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
