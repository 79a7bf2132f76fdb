"""The year through the real loop, in one process: log and store in memory, everything else as in production.

The records are written to the source topic some thousand at a time, as a producer would, and the loop turns until they are committed.

Limits: one thread; the log in memory frees nothing, so the whole year ends up in memory.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from headrace.assembly import Limits, embedded, load_models, prepare_embedded, silent_watch
from headrace.clock import Clock
from headrace.definition import App
from headrace.demo.answers import Answers, Reader
from headrace.demo.events import Departures
from headrace.demo.feed import Feed
from headrace.demo.planted import BadRecord
from headrace.demo.progress import Audience, Progress
from headrace.errors import FatalError
from headrace.features.memory_store import MemoryStore
from headrace.memory_log import MemoryLog
from headrace.timeline import Timeline
from headrace.types import Float64s, Int64s, Work

PARTITIONS = 4
CHUNK = 4_096
"""Records written at a time."""
NO_OVERLAP = 1 << 40
"""A drain is never that large: in memory a commit takes no time that could be used."""
SHOWN = 6
IDLE_TURNS = 1_000
"""So many turns without a committed record mean that the loop stands still."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What came of the year, and how long it took."""

    records: int
    planted: Mapping[str, int]
    """How many bad records were planted, by kind."""
    answers: Answers
    batch_ms: Float64s
    """How long each batch was in the loop, from before its poll to its definite commit."""
    batch_records: Int64s
    stage_us: Mapping[str, float]
    """Microseconds a record in each stage of the loop."""
    first_s: float
    """Until the first prediction, the compilation of the fold included."""
    replay_s: float
    """All others."""
    reading_s: float
    """Reading every prediction back."""


@dataclass(slots=True, eq=False)
class _Told:
    """What the loop tells of its batches."""

    progress: Progress = field(default_factory=Progress)
    batch_ms: list[float] = field(default_factory=list)
    batch_records: list[int] = field(default_factory=list)
    stages_ns: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        """Forget the times measured so far."""
        self.batch_ms.clear()
        self.batch_records.clear()
        self.stages_ns.clear()

    def committed(self, work: Work, timeline: Timeline) -> None:
        """A batch is definite."""
        progress = self.progress
        self.stages_ns.update(timeline.stages_ns)
        self.batch_ms.append(sum(timeline.stages_ns.values()) / 1e6)
        self.batch_records.append(sum(len(tally.timestamps_ms) for tally in work.tallies))
        for tally in work.tallies:
            progress.records += len(tally.timestamps_ms)
            progress.predictions += sum(tally.scored.values())
            progress.refused += len(tally.refused)
            progress.late += tally.late
            if len(tally.timestamps_ms):
                progress.newest_ms = max(progress.newest_ms, int(tally.timestamps_ms.max()))


class Replay:
    """One replay of `departures`, with `planted` records among them, through the one pipeline of `app`."""

    def __init__(self, app: App, departures: Departures, planted: Mapping[int, BadRecord], *, clock: Clock) -> None:
        """Make topics, store and loop; nothing flows yet. Loads the model: raises `DefinitionError`."""
        (pipeline,) = app.pipelines
        models = load_models(app)
        model = models[pipeline.name]
        self.model = {"name": model.name, "version": model.version}
        """Who scores."""
        self._departures, self._clock = departures, clock
        self._told = _Told()
        log = MemoryLog(clock)
        prepare_embedded(app, log, PARTITIONS)
        self._loop = embedded(
            app,
            log=log,
            store=MemoryStore(),
            clock=clock,
            models=models,
            limits=Limits(overlap_from=NO_OVERLAP),
            watch=silent_watch(clock, committed=self._told.committed),
        )
        self._feed = Feed(log, pipeline.source.topic, departures, planted, partitions=PARTITIONS)
        self._reader = Reader(log, self._feed, predictions=pipeline.predictions, dead_letters=app.dead_letters)

    def run(self, audience: Audience) -> Replayed:
        """Replay everything. The first departure goes through alone, so that its prediction is there at once."""
        begun_s = self._now_s()
        self._loop.start([self._feed.topic])
        self._pass_on(0, 1)
        first_s = self._now_s()
        audience.first(*self._reader.newest(1)[0])
        told, progress = self._told, self._told.progress
        told.begin()
        gc.collect()
        gc.freeze()
        replay_s = self._now_s()
        for row in range(1, len(self._departures), CHUNK):
            self._pass_on(row, min(row + CHUNK, len(self._departures)))
            if audience.due():
                progress.seconds = self._now_s() - replay_s
                progress.newest = self._reader.newest(SHOWN)
                audience.moved(progress)
        progress.seconds = self._now_s() - replay_s
        audience.moved(progress)
        read_s = self._now_s()
        answers = self._reader.answers(len(self._departures))
        return Replayed(
            records=self._feed.written,
            planted=Counter(self._feed.kinds.values()),
            answers=answers,
            batch_ms=np.array(told.batch_ms),
            batch_records=np.array(told.batch_records, dtype=np.int64),
            stage_us={stage: spent_ns / 1e3 / max(sum(told.batch_records), 1) for stage, spent_ns in told.stages_ns.items()},
            first_s=first_s - begun_s,
            replay_s=progress.seconds,
            reading_s=self._now_s() - read_s,
        )

    def _pass_on(self, first: int, end: int) -> None:
        """Write some departures and turn until they are committed."""
        self._feed.write(first, end)
        progress = self._told.progress
        idle = 0
        while progress.records < self._feed.written:
            before = progress.records
            self._loop.turn()
            idle = 0 if progress.records > before else idle + 1
            if idle > IDLE_TURNS:
                raise FatalError(f"the loop stands still at record {progress.records} of {self._feed.written}")

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9
