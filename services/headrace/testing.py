"""The test kit: the embedded engine under your own tests, with a clock and faults in your hands.

    >>> with Driver(app, models={"late_arrival": my_model}) as driver:        # doctest: +SKIP
    ...     driver.send("flights.departures.v1", flight_id="1", tail="N1", departed_at=..., ...)
    ...     driver.results("late_arrival")
    [{'id': 'flights.departures.v1-0-0-...', 'score': 0.12, ...}]

It is the engine that runs on Kafka and Redis, on a log and a store in memory that keep the same promises; so `crash`, `rebalance` and
`roll_back_state` do what they do in production. Everything runs in the calling thread and is over when a method returns.
Limit: one process; what only a network does (delay, half-open connections) is not here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from headrace.apps.model_desk import Desk
from headrace.apps.model_desk import embedded as embedded_registry
from headrace.assembly import embedded, prepare_embedded, silent_watch
from headrace.clock import ManualClock
from headrace.definition import App, Pipeline
from headrace.errors import FatalError
from headrace.features.memory_store import MemoryStore, Snapshot
from headrace.features.reader import StateReader
from headrace.features.view import FeatureView
from headrace.loop import Loop
from headrace.memory_log import MemoryLog
from headrace.partitioner import partition_of
from headrace.parts import Limits
from headrace.predict.artifacts import MemoryArtifacts
from headrace.predict.scores import Model
from headrace.types import Headers, Record, TopicPartition

_TURNS_AT_REST = 3
_TURNS_STUCK = 200


def check_no_leakage(app: App | Pipeline, events: Any, **options: Any) -> None:  # noqa: ANN401 - as `training.leakage.find_leaks` has it
    """Let no row of a training frame know anything that came after it.

    Takes what `headrace.training_frame` takes: `labels`, `pipeline`, `label_time`; and `build`, a function from a table of events to a
    table of features in the same order, to judge frames that were made in another way. Raises `LeakageFound`, an AssertionError that names
    each feature and what it knows.
    """
    # pyarrow comes with headrace[training]; the driver does without.
    from headrace.training.leakage import LeakageFound, find_leaks  # noqa: PLC0415

    leaks = find_leaks(app, events, **options)
    if leaks:
        raise LeakageFound(leaks)


class Crash(BaseException):
    """What a crash at a step looks like from inside; never seen by users."""


class Driver:
    """An app in one process. `models` replaces the models of the definitions, by pipeline name."""

    def __init__(
        self,
        app: App,
        *,
        models: Mapping[str, Model] | None = None,
        partitions: int = 2,
        now_ms: int = 1_700_000_000_000,
        limits: Limits | None = None,
    ) -> None:
        self.app = app
        self.clock = ManualClock(now_ms)
        self.log = MemoryLog(self.clock)
        self.store = MemoryStore(pause=self._step)
        self.artifacts = MemoryArtifacts()
        """The files of registered versions, by their sha256."""
        self._models = models
        self._limits = limits or Limits()
        self._partitions = partitions
        self._snapshots: list[Snapshot] = []
        self._crash_before: str | None = None
        self._events: list[str] = []
        self._said: list[str] = []
        prepare_embedded(app, self.log, partitions)
        self._workers = [self._start("0")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing outlives the driver."""

    def send(
        self,
        topic: str,
        event: object | None = None,
        /,
        *,
        timestamp_ms: int | None = None,
        headers: Headers | None = None,
        **fields: object,
    ) -> int:
        """Put an event on a source topic, as an `hr.Event` or by its fields; returns its offset. The key is the entity, the timestamp the
        event time.
        """
        source = next((source for source in self.app.sources if source.topic == topic), None)
        if source is None:
            raise ValueError(f"{self.app!r} reads no topic {topic!r}, only {', '.join(source.topic for source in self.app.sources)}")
        if event is not None:
            fields = {name: getattr(event, name) for name in type(event).model_fields}  # type: ignore[attr-defined]
        value = json.dumps(fields).encode()
        when = fields.get(source.time) if timestamp_ms is None else timestamp_ms
        return self.send_bytes(
            topic, key=str(fields[source.key]).encode(), value=value, timestamp_ms=when if isinstance(when, int) else None, headers=headers
        )

    def send_bytes(
        self, topic: str, *, key: bytes | None, value: bytes | None, timestamp_ms: int | None = None, headers: Headers | None = None
    ) -> int:
        """Put any record on a source topic, good or bad; returns its offset."""
        return self.log.append(topic, None, key, value, headers, timestamp_ms)

    def registry(self, by: str = "driver") -> Desk:
        """The registry of the app's models, for pipelines without `model=` and without one in `models`."""
        return embedded_registry(self.app, self.log, self.artifacts, self.clock, by=by)

    def shadows(self, pipeline: str) -> list[dict[str, Any]]:
        """What shadows of a pipeline scored, in order of partition and offset."""
        self.run()
        topic = next(one.shadow for one in self.app.pipelines if one.name == pipeline)
        return [json.loads(record.value or b"null") for record in ([] if topic is None else self._records(topic))]

    def run(self) -> None:
        """Let the engine work until everything sent is done and stored; results and features do this by themselves.

        Raises `FatalError` when nothing moves although not all is done: a partition was given up, or waits for a champion of its pipeline.
        """
        quiet = still = 0
        while quiet < _TURNS_AT_REST:
            before = self._where()
            try:
                for worker in self._workers:
                    worker.turn()
            except Crash:
                self.crash()
            self.clock.advance(self._limits.max_store_delay_ms // 10 + 1)
            still = still + 1 if self._where() == before else 0
            quiet = quiet + 1 if still and self._behind() == 0 else 0
            if still > _TURNS_STUCK:
                raise FatalError(f"nothing moves any more, and not all is done; the engine said last: {'; '.join(self._said[-3:])}")
        self._snapshots.append(self.store.snapshot())

    def results(self, pipeline: str) -> list[dict[str, Any]]:
        """The predictions of a pipeline, as a `read_committed` reader has them, in order of partition and offset."""
        self.run()
        topic = next(one.predictions for one in self.app.pipelines if one.name == pipeline)
        return [json.loads(record.value or b"null") for record in self._records(topic)]

    def corrections(self, pipeline: str) -> list[dict[str, Any]]:
        """The corrections of a pipeline, in order of partition and offset; none where it has none."""
        self.run()
        topic = next(one.corrections for one in self.app.pipelines if one.name == pipeline)
        return [] if topic is None else [json.loads(record.value or b"") for record in self._records(topic)]

    def dead_letters(self) -> list[Record]:
        """The dead letters; `reason(record)` reads the reason from the headers."""
        self.run()
        return self._records(self.app.dead_letters)

    def features(self, view: FeatureView, entity: str, *, as_of_ms: int | None = None) -> dict[str, float]:
        """The features of an entity as a look-up gives them, as of now or a given instant."""
        self.run()
        key = entity.encode()
        partition = TopicPartition(self.app.kept_at(view.name).topic, partition_of(key, self._partitions))
        packed = self.store.states(partition, view.fp).get(key)
        return StateReader(view).features(packed, as_of_ms=self.clock.now_ms() if as_of_ms is None else as_of_ms)

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.clock.advance(ms)

    def crash(self, *, before: str | None = None) -> None:
        """Kill -9 the workers, now or when one is about to do a step ("end" of a transaction, "apply" to the store, ...); a new one
        starts.
        """
        if before is None:
            self._workers = [self._start("0")]
        else:
            self._crash_before = before

    def rebalance(self) -> None:
        """Another worker joins and takes every partition, in an orderly way; the older ones stay as members without any."""
        worker = self._start(str(len(self._workers)))
        self._workers.append(worker)
        worker.turn()
        group = self.log.group(self.app.name)
        group.reassign(
            {
                list(group.members)[-1]: [
                    TopicPartition(reads.topic, number) for reads in self.app.inputs for number in range(self._partitions)
                ]
            }
        )

    def deploy(self, app: App, *, models: Mapping[str, Model] | None = None) -> None:
        """End the worker in order and start one with other definitions of the app, on the same log and store."""
        self._workers[0].stop()
        self._workers[0].run([reads.topic for reads in self.app.inputs])
        self.app, self._models = app, models if models is not None else self._models
        prepare_embedded(app, self.log, self._partitions)
        self._workers = [self._start("0")]

    def roll_back_state(self) -> None:
        """The store forgets everything since the run before the last one, as a Redis does that lost its last writes."""
        if self._snapshots:
            self._snapshots.pop()
        if self._snapshots:
            self.store.restore(self._snapshots[-1])
        else:
            self.store.flush()

    def events(self) -> list[str]:
        """What the engine said so far, one line each."""
        return list(self._events)

    def _start(self, slot: str) -> Loop:
        if slot == "0":
            for member in list(self.log.group(self.app.name).members):
                self.log.group(self.app.name).evict(member)
        loop = embedded(
            self.app,
            log=self.log,
            store=self.store,
            clock=self.clock,
            models=self._models,
            artifacts=self.artifacts,
            slot=slot,
            limits=self._limits,
            watch=silent_watch(self.clock, say=self._hear),
            pause=self._step,
        )
        loop.start([reads.topic for reads in self.app.inputs])
        return loop

    def _hear(self, event: str, **fields: object) -> None:
        self._events.append(event)
        self._said.append(f"{event}, {fields['reason']}" if "reason" in fields else event)

    def _step(self, step: str) -> None:
        if step == self._crash_before:
            self._crash_before = None
            raise Crash

    def _where(self) -> tuple[object, ...]:
        group = self.log.group(self.app.name)
        heads = [
            self.store.head(TopicPartition(reads.topic, number), view.fp)
            for reads in self.app.inputs
            for view in self.app.kept_of(reads)
            for number in range(self._partitions)
        ]
        return (*(position.offset for position in group.offsets.values()), *heads)

    def _behind(self) -> int:
        """Records not yet committed and states not yet applied."""
        behind = 0
        for reads in self.app.inputs:
            for number in range(self._partitions):
                partition = TopicPartition(reads.topic, number)
                committed = self.log.group(self.app.name).offsets[partition].offset
                behind += len(self.log.read(partition, committed))
                behind += sum(self.store.head(partition, view.fp).offset != committed for view in self.app.kept_of(reads))
        return behind

    def _records(self, topic: str) -> list[Record]:
        return [record for number in range(self._partitions) for record in self.log.read(TopicPartition(topic, number))]


def reason(dead_letter: Record) -> str:
    """Why a record was refused, from its headers."""
    return next((value or b"").decode() for name, value in dead_letter.headers if name == "headrace-reason")
