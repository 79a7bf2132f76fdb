"""A worker on Kafka and Redis: the real ports, threads, metrics and probes around one loop.

`build` makes it from settings; `run` serves until SIGTERM or `stop`. The hot thread is the caller's; beside it run one thread each for
commits, store calls and claims, one for the probes, and librdkafka's own. Garbage is collected between batches, never in the middle of one.
"""

from __future__ import annotations

import gc
import os
import platform
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from types import FrameType

from headrace.apps.artifacts import artifact_store
from headrace.apps.cluster import LARGEST_RECORD_BYTES
from headrace.apps.health import Health, HealthServer, Progress
from headrace.assembly import Executors, Ports, assemble, load_models, thread_executors
from headrace.assignment import Assignment
from headrace.clock import Clock, SystemClock
from headrace.consume.facts import Facts
from headrace.consume.kafka_reader import KafkaReader
from headrace.consume.kafka_source import KafkaSource
from headrace.definition import App
from headrace.errors import DefinitionError, HeadraceError, SlotTaken, TransientError
from headrace.features.late_share import LateShare
from headrace.features.redis_connection import Tls
from headrace.features.redis_store import RedisStore
from headrace.features.state_store import StateStore
from headrace.features.warm_up import warm_up
from headrace.kafka_client import knock
from headrace.line_up import Standing
from headrace.loop import Loop
from headrace.metrics import Metrics
from headrace.parts import Limits, Watch
from headrace.predict import leaf_sets
from headrace.predict.commands import FALLBACK
from headrace.publish.encoder import HeaderPolicy
from headrace.publish.kafka_sink import KafkaAtLeastOnceSink, KafkaTransactionalSink
from headrace.publish.kafka_topics import KafkaTopics
from headrace.publish.record_sink import CommitResult, RecordSink
from headrace.recovery import Phase
from headrace.settings import Settings
from headrace.takeover import identity_of, is_newer, later_than, takeover_text
from headrace.timeline import Timeline
from headrace.types import NO_WATERMARK_MS, Delivery, TopicPartition, Work

Say = Callable[..., object]

REPORT_EVERY_MS, COLLECT_EVERY_MS, REPEAT_AFTER_MS = 500, 10_000, 5_000
RECORD_ROOM_BYTES = 10_240
"""Left free below a topic's limit for the record's own frame."""


def kafka_properties(settings: Settings) -> dict[str, str | int | float | bool]:
    """What every client is made with."""
    return {"bootstrap.servers": settings.kafka.bootstrap_servers, **settings.kafka.properties}


def redis_store(app: App, settings: Settings) -> RedisStore:
    """The online store of an app."""
    redis = settings.redis
    tls = Tls(ca=redis.tls_ca, certificate=redis.tls_certificate, key=redis.tls_key) if redis.url.startswith("rediss://") else None
    return RedisStore(
        app=app.name,
        url=redis.url,
        username=redis.username,
        password=None if redis.password is None else redis.password.get_secret_value(),
        tls=tls,
        timeout_s=redis.timeout_ms / 1_000,
    )


def dead_letter_bytes(app: App, settings: Settings, say: Say) -> int:
    """What the dead-letter topic takes; where the broker does not tell us, what a topic takes by default."""
    try:
        found = KafkaTopics(kafka_properties(settings)).describe([app.dead_letters])[app.dead_letters]
    except HeadraceError as error:
        say("dead-letter limit not known", reason=str(error))
        found = None
    largest = int(found.settings.get("max.message.bytes", 0)) if found else 0
    return (min(largest, LARGEST_RECORD_BYTES) or 1_048_588) - RECORD_ROOM_BYTES


class Worker:
    """One worker process of an app."""

    def __init__(self, app: App, settings: Settings, *, clock: Clock, say: Say) -> None:
        """Load the models, compile the fold, listen for probes; nothing is connected yet. Raises `DefinitionError`, `SettingsError`."""
        self._app, self._settings, self._clock, self._say = app, settings, clock, say
        self._slot = settings.worker.slot
        self._identity = identity_of(f"{socket.gethostname()} pid {os.getpid()}", clock.now_ms())
        self._loop: Loop | None = None
        self._stopping = False
        self._wake = threading.Event()
        self._models = load_models(app)
        self._metrics = Metrics(
            topics=[reads.topic for reads in app.inputs],
            models=[self._models[one.name].name if one.name in self._models else one.name for one in app.pipelines],
            hops=[hop.topic for hop in app.hops],
            looked_up=[view.name for one in app.pipelines if one.look_up is not None for view in one.look_up.views],
            corrected=[one.name for one in app.pipelines if one.corrections is not None],
            shadowed=[one.name for one in app.pipelines if one.shadow is not None],
        )
        self._late = {reads.topic: LateShare(reads.topic, reads.lateness_ms) for reads in app.inputs}
        self._health = Health(clock.monotonic_ns)
        self._newest_ms: dict[TopicPartition, int] = {}
        self._lag: Mapping[TopicPartition, int] = {}
        self._read_lag: Mapping[TopicPartition, int] = {}
        """The same without what was read and waits."""
        self._told_lag = self._moved = False
        self._still = 0
        self._catching_up: dict[TopicPartition, tuple[int, int]] = {}
        self._joined = self._draining = False
        self._reported_ms = self._collected_ms = 0
        self._said: dict[tuple[str, str], int] = {}
        self._live = {name: [(name, model.name, model.version, "champion")] for name, model in self._models.items()}
        self._metrics.models(one for found in self._live.values() for one in found)
        self._metrics.build(version=own_version(), python=platform.python_version())
        warm_up(app.views, corrections=any(pipeline.corrections is not None for pipeline in app.pipelines))
        if any(pipeline.contributions for pipeline in app.pipelines):
            leaf_sets.warm_up()
        self._server = HealthServer(self._health, self._metrics.exposition, host=settings.worker.http_host, port=settings.worker.http_port)

    def stop(self, *_: int | FrameType | None) -> None:
        """End after the batch at hand."""
        self._stopping = True
        self._wake.set()
        if self._loop is not None:
            self._loop.stop()

    def run(self, *, leave: bool = False) -> None:
        """Serve until `stop` or SIGTERM; raises whatever ends the worker for good. `leave` gives the partitions up at once then."""
        self._run([reads.topic for reads in self._app.inputs], leave=leave)

    def drain(self) -> None:
        """Take nothing from the sources: finish what is on the hops, leave, and end. Raises as `run` does."""
        if not self._app.hops:
            raise DefinitionError(f"{self._app!r} has no hops, so there is nothing to drain: every pipeline is of one stage")
        self._draining = True
        self._run([hop.topic for hop in self._app.hops], leave=True)

    def _run(self, topics: Sequence[str], *, leave: bool) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        host, port = self._server.address[:2]
        self._say("worker starts", app=self._app.name, slot=self._slot, pid=os.getpid(), probes=f"http://{host}:{port}")
        store = redis_store(self._app, self._settings)
        executors = thread_executors()
        try:
            for name, ask in (("Redis", partial(self._greet, store)), ("Kafka", partial(knock, self._consumer_properties()))):
                if not self._there(name, ask):
                    return
            self._warn_of_takeover()
            while not self._served(store, executors, topics, leave=leave):
                self._say("fenced by nobody", then="joining again")
            self._say("worker ends")
        except SlotTaken as taken:
            raise SlotTaken(f"{taken}{self._named(store)}") from taken
        finally:
            executors.close()
            store.close()
            self._server.close()

    def _served(self, store: RedisStore, executors: Executors, topics: Sequence[str], *, leave: bool) -> bool:
        """Serve until told to stop; False when we were fenced although nobody came after us in our slot.

        That happens when the answer to a join is lost with its broker: the group knows us by a member id that we were never told.
        """
        ports = self._ports(store)
        self._loop = self._assemble(ports, executors)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            if not self._stopping:
                self._loop.run(topics, leave=leave)
        except SlotTaken:
            if self._somebody_came(store):
                raise
            return False
        finally:
            executors.claims.submit(ports.facts.close)
            executors.models.submit(ports.control.close)
            executors.models.submit(ports.artifacts.close)
        return True

    def _somebody_came(self, store: RedisStore) -> bool:
        """Whether a newer process has announced our slot; while nobody can say, it may have.

        Where none has, we announce ourselves again: a store that was emptied knows nobody, and of two who both found nobody the newer
        must be seen by the older, or they would fence one another for ever.
        """
        try:
            return self._newer_holder(store) is not None
        except TransientError:
            return True

    def _newer_holder(self, store: StateStore) -> str | None:
        """Who came after us in our slot; where nobody did, we announce ourselves again. Raises `TransientError`."""
        holder = store.holder(self._slot)
        if is_newer(holder, self._identity):
            return holder
        store.announce(self._slot, self._identity)
        return None

    def _greet(self, store: RedisStore) -> None:
        """See that the store may be used, and announce who runs the slot."""
        for warning in store.check():
            self._say("store warning", warning=warning)
        self._identity = later_than(store.holder(self._slot), self._identity)
        store.announce(self._slot, self._identity)

    def _there(self, name: str, ask: Callable[[], None]) -> bool:
        """Ask a server until it is there; False when told to stop meanwhile. Raises what it refuses for good."""
        pause_ms = 200
        while not self._stopping:
            self._health.tick()
            try:
                ask()
            except TransientError as away:
                self._health.report(waits_for=[f"{name}: {away}"])
                self._once(f"{name.lower()} away", reason=str(away))
                self._wake.wait(pause_ms / 1_000)
                pause_ms = min(2 * pause_ms, 2_000)
            else:
                return True
        return False

    def _consumer_properties(self) -> dict[str, str | int | float | bool]:
        return {**kafka_properties(self._settings), **self._settings.kafka.consumer_properties}

    def _ports(self, store: RedisStore) -> Ports:
        kafka = self._settings.kafka
        producer = {"message.max.bytes": LARGEST_RECORD_BYTES, **kafka_properties(self._settings), **kafka.producer_properties}
        known_by = self._slot if self._settings.worker.static_membership else None
        source = KafkaSource(self._consumer_properties(), group=self._app.name, slot=known_by, on_lag=self._lagging)
        name = f"{self._app.name}.{self._slot}"
        sink: RecordSink
        if kafka.delivery is Delivery.EXACTLY_ONCE:
            sink = KafkaTransactionalSink(producer, transactional_id=name, say=self._once)
        else:
            sink = KafkaAtLeastOnceSink(producer, name=name, commit_offsets=source.commit)
        reader = partial(KafkaReader, kafka_properties(self._settings))
        return Ports(
            source=source,
            sink=sink,
            store=store,
            facts=Facts(self._app.facts, reader, source.written_end),
            control=Facts(self._app.control, reader, source.written_end),
            artifacts=artifact_store(self._app, self._settings),
            reader=reader,
        )

    def _assemble(self, ports: Ports, executors: Executors) -> Loop:
        worker = self._settings.worker
        watch = Watch(
            tick=self._tick,
            committed=self._committed,
            transaction=self._transaction,
            rebalanced=self._rebalanced,
            roles=self._roles,
            say=self._hear,
            timeline=lambda: Timeline(self._clock.monotonic_ns),
        )
        return assemble(
            self._app,
            ports=ports,
            models=self._models,
            clock=self._clock,
            executors=executors,
            watch=watch,
            applied=self._metrics.applied,
            limits=Limits(
                max_batch=worker.max_batch,
                overlap_from=worker.overlap_from,
                max_store_delay_ms=worker.max_store_delay_ms,
                resident_entities=worker.resident_entities,
                refused_share=worker.refused_share,
                refused_window=worker.refused_window,
                max_value_bytes=worker.max_value_bytes,
                max_record_bytes=dead_letter_bytes(self._app, self._settings, self._say),
            ),
            slot=self._slot,
            process=self._identity,
            delivery=self._settings.kafka.delivery,
            headers=HeaderPolicy(worker.headers),
            taken_by=lambda: self._other(ports),
        )

    def _warn_of_takeover(self) -> None:
        """Say how long it takes until somebody else serves our partitions, should we die."""
        try:
            brokers = KafkaTopics(kafka_properties(self._settings)).broker_settings()
        except HeadraceError as error:
            self._say("broker settings not known, defaults of Kafka assumed", reason=str(error))
            brokers = {}
        kafka = self._settings.kafka
        properties = {**kafka_properties(self._settings), **kafka.consumer_properties, **kafka.producer_properties}
        self._say("takeover", if_this_worker_dies=takeover_text(properties, brokers, static=self._settings.worker.static_membership))

    def _other(self, ports: Ports) -> str | None:
        """Who runs our slot, if somebody came after us."""
        try:
            return self._newer_holder(ports.store)
        except TransientError:
            return None  # nobody can be named; the group and the transactions fence all the same

    def _named(self, store: RedisStore) -> str:
        try:
            holder = store.holder(self._slot)
        except TransientError:
            return ""
        return f" (slot {self._slot} is run by {holder})" if holder not in (None, self._identity) else ""

    # ------------------------------------------------------------------------------------------------ what the loop tells us

    def _tick(self, assignment: Assignment) -> None:
        self._health.tick()
        now_ms = self._clock.monotonic_ns() // 1_000_000
        if now_ms - self._collected_ms > COLLECT_EVERY_MS:
            self._collected_ms = now_ms
            gc.collect()
        if now_ms - self._reported_ms > REPORT_EVERY_MS:
            self._reported_ms = now_ms
            self._lag = _with(self._read_lag, assignment.waiting())
            self._report(assignment, now_ms)
        if self._draining and self._told_lag:
            self._look_whether_drained(assignment)

    def _report(self, assignment: Assignment, now_ms: int) -> None:
        """Leave behind what probes and scrapes ask for."""
        partitions = assignment.partitions
        phases = Counter(mine.phase.value for mine in partitions.values())
        progress: list[Progress] = []
        for name, mine in partitions.items():
            if mine.phase is Phase.CATCHING_UP and mine.plan is not None:
                start, begun_ms = self._catching_up.setdefault(name, (mine.plan.start, now_ms))
                one = Progress.of(name, start=start, position=mine.position, goes_live_at=mine.plan.live_from, elapsed_ms=now_ms - begun_ms)
                progress.append(one)
                self._metrics.catching_up(name, remaining=mine.plan.live_from - mine.position, per_second=one.records_per_second)
            elif self._catching_up.pop(name, None) is not None:
                self._metrics.catching_up(name, remaining=0, per_second=0.0)
        waits = [] if self._joined else ["waiting for the group to assign partitions"]
        for name, mine in sorted(partitions.items()):
            if mine.phase is not Phase.LIVE:
                waits.append(f"{name.topic}-{name.partition} is {mine.phase.value}" + (f": {mine.trouble}" if mine.trouble else ""))
        self._health.report(waits_for=waits, progress=progress)
        self._metrics.phases(phases)
        self._metrics.ready(ready=self._health.ready())
        for topic, entities in assignment.path.entities().items():
            self._metrics.resident(topic, entities)
        wall_ms = self._clock.now_ms()
        for name in partitions:
            behind = self._lag.get(name)
            if behind is not None:
                newest_ms = self._newest_ms.get(name, wall_ms)
                self._metrics.lag(name, records=behind, age_s=max(wall_ms - newest_ms, 0) / 1_000 if behind else 0.0)

    def _committed(self, work: Work, timeline: Timeline) -> None:
        self._moved = True
        now_ms = self._clock.now_ms()
        for tally in work.tallies:
            refused = Counter(letter.reason for letter in tally.refused)
            self._metrics.batch(
                tally.topic,
                events=tally.events,
                late=tally.late,
                unknown_fields=tally.unknown_fields,
                refused=refused,
                predictions=tally.scored,
                passed_on=tally.passed_on,
                looked_up=tally.looked_up,
                shadowed=tally.shadowed,
                corrected=tally.corrected,
            )
            if tally.scored or not tally.passed_on:  # what is passed on has not come to its end
                self._metrics.committed(tally.timestamps_ms, now_ms)
            self._newest_ms.update(tally.newest_ms)
            complaint = self._late[tally.topic].observe(events=tally.events, late=tally.late)
            if complaint is not None:
                self._say("late source", cause=complaint)
        self._metrics.stages(timeline.stages_ns)
        for name, position in work.positions.items():
            if position.watermark_ms is not None and position.watermark_ms != NO_WATERMARK_MS:
                self._metrics.watermark(name, position.watermark_ms)

    def _roles(self, pipeline: str, standing: Standing) -> None:
        """Others score a pipeline from now on."""
        nobody = None if standing.cast is None else FALLBACK
        roles = [("champion", standing.roster.champion or nobody), ("challenger", standing.roster.challenger)]
        roles += [("shadow", version) for version in standing.roster.shadows]
        self._live[pipeline] = [(pipeline, pipeline, version, role) for role, version in roles if version is not None]
        self._metrics.models(one for found in self._live.values() for one in found)

    def _transaction(self, result: CommitResult) -> None:
        self._metrics.transaction(result.value)

    def _rebalanced(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        self._joined = True
        self._metrics.rebalanced(kind, partitions)
        if kind != "assigned":
            for name in partitions:
                self._newest_ms.pop(name, None)
        if partitions:
            self._say("rebalanced", kind=kind, partitions=[f"{name.topic}-{name.partition}" for name in partitions])

    def _lagging(self, behind: Mapping[TopicPartition, int]) -> None:
        self._read_lag, self._told_lag = dict(behind), True

    def _look_whether_drained(self, assignment: Assignment) -> None:
        """Nothing was behind twice, and nothing moved in between: what was on its way the first time would have come to a hop by then."""
        self._told_lag = False
        behind = _with(self._read_lag, assignment.waiting())
        self._still = self._still + 1 if behind and not any(behind.values()) and not self._moved else 0
        self._moved = False
        if self._still > 1:
            self._say("drained", partitions=len(behind))
            self.stop()

    def _hear(self, event: str, **fields: object) -> None:
        if event == "starting over":
            self._metrics.started_over()
        elif event == "partition catches up":
            self._metrics.catch_up_began()
        elif event == "replayed":
            self._metrics.replayed(int(str(fields["events"])))
            return
        self._once(event, **fields)

    def _once(self, event: str, **fields: object) -> None:
        """Say it, unless the same was said a moment ago: an outage is one line every few seconds, not one a turn."""
        now_ms = self._clock.monotonic_ns() // 1_000_000
        if "reason" in fields:
            key = (event, f"{fields.get('partition')} {fields['reason']}")
            if now_ms - self._said.get(key, -REPEAT_AFTER_MS) < REPEAT_AFTER_MS:
                return
            self._said[key] = now_ms
        partition = fields.get("partition")
        if isinstance(partition, TopicPartition):
            fields["partition"] = f"{partition.topic}-{partition.partition}"
        self._say(event, **fields)


def own_version() -> str:
    """The version of the installed package."""
    try:
        return installed_version("headrace")
    except PackageNotFoundError:
        return "source"


def build(app: App, settings: Settings, *, clock: Clock | None = None, say: Say) -> Worker:
    """A worker for this app, by these settings."""
    return Worker(app, settings, clock=clock or SystemClock(), say=say)


def _with(behind: Mapping[TopicPartition, int], waiting: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """How many records partitions are behind, those included that were read and wait."""
    return {name: behind.get(name, 0) + waiting.get(name, 0) for name in behind.keys() | waiting.keys()}
