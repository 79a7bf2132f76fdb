"""The second application on two weeks of the year: boardings are scored by what departures did up to then, in one process.

Both topics stand there as a backlog from the beginning. The loop lets them keep pace, half an hour at a time, as the look-ups of an
event want the store to have come as far; so this is slower than scoring departures, and two weeks of December are enough to show it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headrace.assembly import embedded, load_models, prepare_embedded, silent_watch
from headrace.clock import Clock
from headrace.definition import App, Pipeline
from headrace.demo.boarding_events import Boardings, boardings_of
from headrace.demo.evaluation import auc
from headrace.demo.events import Departures
from headrace.demo.flights import departures as departed
from headrace.errors import FatalError
from headrace.features.memory_store import MemoryStore
from headrace.memory_log import MemoryLog
from headrace.partitioner import Partitioner
from headrace.parts import Limits
from headrace.predict.onnx_model import OnnxModel
from headrace.publish.records import decode_prediction
from headrace.types import Float64s, TopicPartition

PARTITIONS = 4
HOUR_MS = 3_600_000
MONTH, DAYS = 12, 14
BEFORE_MS = 96 * HOUR_MS
"""Departures from so long before on: what the windows reach back to, and a day."""
IDLE_S = 30.0
"""Without a prediction for so long the loop stands still."""
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boarded:
    """What came of it."""

    boardings: int
    predictions: int
    stale: int
    ahead: int
    seconds: float
    events: int
    """Boardings whose flights arrived."""
    auc: float
    auc_without: float
    """Of the model that knows the timetable alone."""

    def failures(self) -> list[str]:
        """What should not be; empty when all is well."""
        found = []
        if self.predictions != self.boardings:
            found.append(f"{self.boardings} boardings became {self.predictions} predictions")
        if not self.auc > self.auc_without:
            found.append("what is looked up does not help to tell which flights will be late")
        return found


def some_of(departures: Departures) -> Boardings:
    """The boardings that are replayed; none where the departures end before."""
    found = boardings_of(departures, np.flatnonzero(departures.months == MONTH))
    some = found.times_ms < found.times_ms.min(initial=np.iinfo(np.int64).max - DAYS * 24 * HOUR_MS) + DAYS * 24 * HOUR_MS
    count = int(some.sum())
    return Boardings(rows=found.rows[:count], events=found.events[:count], times_ms=found.times_ms[:count])


class BoardingReplay:
    """One replay of some boardings, and of the departures up to then, through the pipeline of `app`."""

    def __init__(self, app: App, departures: Departures, boardings: Boardings, *, clock: Clock, bare: Pipeline) -> None:
        """`bare` is the pipeline whose model scores the published event features for comparison; there is at least one boarding."""
        (self._pipeline,) = app.pipelines
        self._clock, self._departures = clock, departures
        self._bare, self._names = OnnxModel.load(bare.model or "", bare.feature_names), bare.feature_names
        self._boardings = boardings
        self._log = MemoryLog(clock)
        prepare_embedded(app, self._log, PARTITIONS)
        self._rows = self._fill()
        self._done = 0
        self._loop = embedded(
            app,
            log=self._log,
            store=MemoryStore(),
            clock=clock,
            models=load_models(app),
            limits=Limits(overlap_from=1 << 40, store_every_ms=0),
            watch=silent_watch(clock, committed=lambda work, _: self._count(sum(sum(one.scored.values()) for one in work.tallies))),
        )
        self._loop.start([reads.topic for reads in app.inputs])

    def run(self, told: Told) -> Boarded:
        """Replay everything; `told` hears how many boardings are scored, of how many."""
        begun_s = self._clock.monotonic_ns() / 1e9
        of, moved_s, before = len(self._boardings.events), begun_s, 0
        while self._done < of:
            self._loop.turn()
            now_s = self._clock.monotonic_ns() / 1e9
            if self._done > before:
                moved_s, before = now_s, self._done
                told(before, of)
            elif now_s - moved_s > IDLE_S:
                raise FatalError(f"the loop stands still at boarding {self._done} of {of}")
        return self._judged(self._clock.monotonic_ns() / 1e9 - begun_s)

    def _count(self, scored: int) -> None:
        self._done += scored

    def _fill(self) -> list[list[int]]:
        """Write both topics; gives the row of each boarding by partition and offset."""
        first_ms, last_ms = int(self._boardings.times_ms[0]) - BEFORE_MS, int(self._boardings.times_ms[-1])
        partitioner = Partitioner()
        keys, values, times_ms = self._departures.keys, self._departures.values, self._departures.departed_ms
        wanted = np.flatnonzero((times_ms >= first_ms) & (times_ms <= last_ms))
        numbers = np.array(partitioner.partitions([keys[row] for row in wanted.tolist()], PARTITIONS), dtype=np.int64)
        for number in range(PARTITIONS):
            mine = wanted[numbers == number].tolist()
            self._append(departed.topic, number, [(keys[row], values[row], int(times_ms[row])) for row in mine])
        return self._fill_boardings(self._boardings, partitioner)

    def _fill_boardings(self, boardings: Boardings, partitioner: Partitioner) -> list[list[int]]:
        tails = [event["tail"].encode() for event in boardings.events]
        numbers = partitioner.partitions(tails, PARTITIONS)
        rows: list[list[int]] = [[] for _ in range(PARTITIONS)]
        records: list[list[tuple[bytes, bytes, int]]] = [[] for _ in range(PARTITIONS)]
        columns = zip(numbers, tails, boardings.events, boardings.rows.tolist(), boardings.times_ms.tolist(), strict=True)
        for number, tail, event, row, time_ms in columns:
            rows[number].append(row)
            records[number].append((tail, json.dumps(event).encode(), time_ms))
        for number, some in enumerate(records):
            self._append(self._pipeline.source.topic, number, some)
        return rows

    def _append(self, topic: str, number: int, records: list[tuple[bytes, bytes, int]]) -> None:
        keys: list[bytes | None] = [key for key, _, _ in records]
        values: list[bytes | None] = [value for _, value, _ in records]
        self._log.extend(topic, number, keys, values, [time_ms for _, _, time_ms in records], [None] * len(records))

    def _judged(self, seconds: float) -> Boarded:
        scores, features = np.full(len(self._departures), np.nan), np.full((len(self._departures), len(self._names)), np.nan)
        predictions = stale = ahead = 0
        for number in range(PARTITIONS):
            for record in self._log.read(TopicPartition(self._pipeline.predictions, number)):
                prediction = decode_prediction(record.value or b"")
                _, source, offset, _ = prediction.id.rsplit("-", 3)
                row = self._rows[int(source)][int(offset)]
                scores[row] = prediction.score
                if isinstance(prediction.features, dict):
                    features[row] = [prediction.features[name] for name in self._names]
                predictions, stale, ahead = predictions + 1, stale + bool(prediction.stale), ahead + bool(prediction.ahead)
        known = ~np.isnan(scores) & ~np.isnan(self._departures.late)
        true = self._departures.late[known] == 1
        bare: Float64s = self._bare.score(features[known]).scores
        return Boarded(
            boardings=len(self._boardings.events),
            predictions=predictions,
            stale=stale,
            ahead=ahead,
            seconds=seconds,
            events=int(known.sum()),
            auc=auc(scores[known], true),
            auc_without=auc(bare, true),
        )
