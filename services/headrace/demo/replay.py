"""The year through the real loop, in one process: log and store in memory, everything else as in production.

The year stands on the source topic as a backlog; the loop works it off, some thousand records and one transaction at a time. Meanwhile an
engineer moves versions of the model (`engineer.py`); the time that takes is told apart, as it is another process's.

Limits: one thread; the log in memory frees nothing, so the whole year and its predictions end up in memory, about a gigabyte.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headrace.apps.model_desk import Examine
from headrace.assembly import embedded, prepare_embedded, silent_watch
from headrace.clock import Clock
from headrace.definition import App, Pipeline
from headrace.demo.answers import Answers, Reader
from headrace.demo.engineer import Engineer
from headrace.demo.events import Departures
from headrace.demo.feed import Feed
from headrace.demo.planted import BadRecord
from headrace.demo.progress import Audience, Progress
from headrace.demo.versions import Versions, scored_by, switches_of, versions_of
from headrace.errors import FatalError
from headrace.features.memory_store import MemoryStore
from headrace.memory_log import MemoryLog
from headrace.parts import Limits
from headrace.predict.artifacts import MemoryArtifacts
from headrace.predict.gate import examine
from headrace.predict.onnx_model import OnnxModel
from headrace.timeline import Timeline
from headrace.types import Float64s, Int64s, Work

PARTITIONS = 4
BATCH = 2_048
"""Records of one transaction: a compromise between speed and delay."""
LEAST_BATCHES = 6
"""A short replay has smaller batches: versions change between two of them."""
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
    versions: Versions
    first: Float64s
    """By row of the departure, the score of version 1; where version 2 answered, of the vector that was published."""
    alone: Float64s
    """By row of the departure, the score without the features of airport and airline."""
    batch_ms: Float64s
    """How long each batch was in the loop, from before its poll to its definite commit."""
    batch_records: Int64s
    """How many records came to their end in each."""
    stage_us: Mapping[str, float]
    """Microseconds a record in each stage of the loop."""
    first_s: float
    """Until the first batch was committed, the compilation of the fold included."""
    replay_s: float
    """All others."""
    replay_records: int
    """How many those are."""
    moving_s: float
    """Commands to the registry in between, the gate included; not in `replay_s`."""
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
        self.batch_records.append(sum(sum(tally.scored.values()) + len(tally.refused) for tally in work.tallies))
        for tally in work.tallies:
            progress.predictions += sum(tally.scored.values())
            progress.refused += len(tally.refused)
            progress.records += sum(tally.scored.values()) + len(tally.refused)
            progress.late += tally.late if tally.scored else 0
            if len(tally.timestamps_ms):
                progress.newest_ms = max(progress.newest_ms, int(tally.timestamps_ms.max()))


class Replay:
    """One replay of `departures`, with `planted` records among them, through the one pipeline of `app`."""

    def __init__(
        self,
        app: App,
        departures: Departures,
        planted: Mapping[int, BadRecord],
        *,
        clock: Clock,
        alone: Pipeline,
        files: tuple[Path, Path],
        batch: int = BATCH,
        gate: Examine = examine,
    ) -> None:
        """Make topics, store and loop; nothing flows yet. `batch` is the most records of a transaction; `alone` is the pipeline whose model
        scores the published features for comparison; `files` are the two versions of the model, and `gate` what they have to pass.
        Raises `DefinitionError`.
        """
        (pipeline,) = app.registry_pipelines
        self._first = OnnxModel.load(files[0], pipeline.feature_names)
        self.model = {"name": self._first.name, "version": self._first.version}
        """Who scores at first."""
        self._pipeline, self._departures, self._clock = pipeline, departures, clock
        self._topics = [reads.topic for reads in app.inputs]
        self._alone = OnnxModel.load(alone.model or "", alone.feature_names)
        self._of_alone = [pipeline.feature_names.index(name) for name in alone.feature_names]
        self._told = _Told()
        self._log = log = MemoryLog(clock)
        artifacts = MemoryArtifacts()
        prepare_embedded(app, log, PARTITIONS)
        self._engineer = Engineer(app, log, artifacts, clock, files=files, gate=gate)
        self._feed = Feed(log, pipeline.source.topic, departures, planted, partitions=PARTITIONS)
        self._loop = embedded(
            app,
            log=log,
            store=MemoryStore(),
            clock=clock,
            artifacts=artifacts,
            limits=Limits(max_batch=min(batch, max(1, self._feed.written // LEAST_BATCHES)), overlap_from=NO_OVERLAP),
            watch=silent_watch(clock, committed=self._told.committed),
        )
        self._reader = Reader(log, self._feed, predictions=pipeline.predictions, shadow=pipeline.shadow, dead_letters=app.dead_letters)

    def register(self) -> str:
        """Register the first version and promote it, as `run` does where it was not done; gives what the gate said."""
        self._engineer.act(0, self._feed.written)
        return self._engineer.registered[0].gate

    def run(self, audience: Audience) -> Replayed:
        """Replay everything; the first prediction is shown as soon as it is committed."""
        told, progress, written = self._told, self._told.progress, self._feed.written
        self.register()
        begun_s = self._now_s()
        self._loop.start(self._topics)
        while not progress.predictions and progress.records < written:
            self._next_batch()
        first_s = self._now_s()
        audience.first(*self._reader.oldest())
        first_batch = progress.records
        told.begin()
        gc.collect()
        gc.freeze()
        spent_s, moving_s, replay_s = 0.0, 0.0, self._now_s()
        while progress.records < written:
            moving_s += self._act()
            self._next_batch()
            spent_s = self._now_s() - replay_s - moving_s
            progress.per_second = (progress.records - first_batch) / spent_s
            if audience.due() or progress.records == written:
                progress.newest = self._reader.newest(SHOWN)
                audience.moved(progress)
        self._act()
        for _ in self._engineer.moved:
            self._loop.turn()  # who scores next is told where nothing comes any more, too
        return self._replayed(first_s - begun_s, spent_s, moving_s, written - first_batch)

    def _replayed(self, first_s: float, spent_s: float, moving_s: float, records: int) -> Replayed:
        told, read_s = self._told, self._now_s()
        answers = self._reader.answers(len(self._departures), self._pipeline.feature_names)
        shadowed = self._reader.shadowed(len(self._departures))
        switches = switches_of(self._log, self._engineer, self._pipeline.name)
        read_s = self._now_s() - read_s
        first = scored_by(self._first, answers)
        alone = self._alone.score(answers.features[:, self._of_alone]).scores
        return Replayed(
            versions=versions_of(self._departures, answers, shadowed, first, switches, self._engineer),
            first=first,
            alone=np.where(np.isnan(answers.scores), np.nan, alone),
            records=self._feed.written,
            planted=Counter(self._feed.kinds.values()),
            answers=answers,
            batch_ms=np.array(told.batch_ms),
            batch_records=np.array(told.batch_records, dtype=np.int64),
            stage_us={stage: spent_ns / 1e3 / max(sum(told.batch_records), 1) for stage, spent_ns in told.stages_ns.items()},
            first_s=first_s,
            replay_s=spent_s,
            replay_records=records,
            moving_s=moving_s,
            reading_s=read_s,
        )

    def _act(self) -> float:
        """Let the engineer do what is due; gives how long it took."""
        begun_s = self._now_s()
        self._engineer.act(self._told.progress.records, self._feed.written)
        return self._now_s() - begun_s

    def _next_batch(self) -> None:
        """Turn until something more is committed. Raises `FatalError` when nothing ever is."""
        before = self._told.progress.records
        for _ in range(IDLE_TURNS):
            self._loop.turn()
            if self._told.progress.records > before:
                return
        raise FatalError(f"the loop stands still at record {before} of {self._feed.written}")

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9
