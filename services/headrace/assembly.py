"""A worker's parts, put together by hand.

`assemble` wires the loop from ports, for every kind of worker; `embedded` gives it the log and the store in memory (the demo,
`headrace.testing`); `apps/worker.py` gives it Kafka, Redis and threads. Nothing else constructs these parts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Protocol

from headrace.assignment import Assignment
from headrace.batch_size import BatchSize
from headrace.clock import Clock
from headrace.consume.aligned_source import AlignedSource
from headrace.consume.facts import Facts
from headrace.consume.record_reader import RecordReader
from headrace.consume.record_source import RecordSource
from headrace.control_log import ControlLog
from headrace.crashes import CrashWatch
from headrace.definition import App, Pipeline
from headrace.executor import Executor, InlineExecutor, ThreadExecutor
from headrace.features.applier import Applier
from headrace.features.looked_up import LooksUp, ViewLookUps
from headrace.features.memory_store import MemoryStore
from headrace.features.resident import ResidentStates
from headrace.features.state_store import LookupStore, StateStore
from headrace.line_up import LineUp, Patience
from headrace.loop import Loop
from headrace.memory_log import Hook, MemoryLog, MemoryReader, MemorySink, MemorySource, go_on
from headrace.pacing import rules_of
from headrace.parts import Limits, Parts, Watch
from headrace.paths import Paths, Topics, decoder_of
from headrace.pipeline import SourcePath
from headrace.predict.artifacts import ArtifactStore, MemoryArtifacts
from headrace.predict.casting import Casting
from headrace.predict.explain import load_explained
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.scores import Model
from headrace.predict.signature import check
from headrace.publish.correction_encoder import CorrectionEncoder
from headrace.publish.dead_letter import DeadLetters, RefusedShare
from headrace.publish.encoder import Encoder, HeaderPolicy
from headrace.publish.fresh_sink import FreshSink
from headrace.publish.hop_writer import HopWriter
from headrace.publish.record_sink import RecordSink
from headrace.scorer import Scorer
from headrace.source import Hop, Source
from headrace.takeover import identity_of, is_newer
from headrace.timeline import Timeline
from headrace.types import Delivery, Position, Role, StatesPage, TopicPartition

ENCODERS = 32
"""How many versions of a pipeline, each in a role, have an encoder that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executors:
    """Where what waits for the outside runs: commits, store calls, claims, and what is new of models, each in an order of its own."""

    commits: Executor
    store: Executor
    claims: Executor
    models: Executor

    def close(self) -> None:
        """Wait for what is queued."""
        for executor in (self.models, self.claims, self.commits, self.store):
            executor.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """A worker's ways to the outside world."""

    source: RecordSource
    sink: RecordSink
    store: StateStore
    facts: Facts
    control: Facts
    artifacts: ArtifactStore
    reader: Callable[[], RecordReader]
    """A new reader of any topic."""


def inline_executors() -> Executors:
    """Everything in the calling thread."""
    return Executors(commits=InlineExecutor(), store=InlineExecutor(), claims=InlineExecutor(), models=InlineExecutor())


def thread_executors() -> Executors:
    """A thread for each: the hot thread never waits for the outside but where the protocol says so."""
    return Executors(**{name: ThreadExecutor(name) for name in ("commits", "store", "claims", "models")})


def load_models(app: App) -> dict[str, OnnxModel]:
    """The models of the pipelines that name one, loaded and checked. Raises `DefinitionError` or `SignatureMismatch`."""
    return {pipeline.name: _checked(pipeline.model, pipeline) for pipeline in app.pipelines if pipeline.model is not None}


def load_version(artifacts: ArtifactStore, pipeline: Pipeline, sha256: str) -> OnnxModel:
    """A version of a pipeline's model, loaded and checked. Raises `HeadraceError`: its bytes are away, or not what they were."""
    return _checked(artifacts.get(sha256), pipeline)


def explained_model(model: str | bytes, pipeline: Pipeline) -> OnnxModel:
    """A model of a pipeline with what explains its scores, loaded and checked. Raises `DefinitionError`, also where there is no such."""
    loaded = load_explained(model, pipeline.feature_names)
    check(loaded.signature, pipeline)
    return loaded


def _checked(model: str | bytes, pipeline: Pipeline) -> OnnxModel:
    if pipeline.contributions:
        return explained_model(model, pipeline)
    loaded = OnnxModel.load(model, pipeline.feature_names)
    check(loaded.signature, pipeline)
    return loaded


def silent_watch(clock: Clock, **told: Callable[..., None]) -> Watch:
    """A watch that tells nobody but those given by name."""
    nobody: dict[str, Callable[..., None]] = dict.fromkeys(("tick", "committed", "transaction", "rebalanced", "roles", "say"), _nothing)
    return Watch(**{**nobody, **told}, timeline=lambda: Timeline(clock.monotonic_ns))


def _nothing(*_: object, **__: object) -> None:
    """Nobody listens."""


def embedded(
    app: App,
    *,
    log: MemoryLog,
    store: MemoryStore,
    clock: Clock,
    models: Mapping[str, Model] | None = None,
    artifacts: ArtifactStore | None = None,
    slot: str = "0",
    limits: Limits | None = None,
    watch: Watch | None = None,
    pause: Hook = go_on,
) -> Loop:
    """The same loop on a log and a store in memory, in the calling thread; `prepare_embedded` makes the topics first."""
    source = MemorySource(log, group=app.name, member=None, pause=pause)
    return assemble(
        app,
        ports=Ports(
            source=source,
            sink=MemorySink(log, transactional_id=f"{app.name}.{slot}", pause=pause),
            store=store,
            facts=Facts(app.facts, lambda: MemoryReader(log), source.written_end),
            control=Facts(app.control, lambda: MemoryReader(log), source.written_end),
            artifacts=artifacts or MemoryArtifacts(),
            reader=lambda: MemoryReader(log),
        ),
        models=load_models(app) if models is None else models,
        clock=clock,
        executors=inline_executors(),
        watch=watch or silent_watch(clock),
        applied=_nothing,
        limits=replace(limits or Limits(), registry_every_ms=0),  # looking costs nothing here, and nobody has to wait
        slot=slot,
        process=identity_of(secrets.token_hex(8), clock.now_ms()),
    )


def prepare_embedded(app: App, log: MemoryLog, partitions: int) -> None:
    """What `headrace apply` does on Kafka: the topics of an app, and the starting offsets of its group."""
    for reads in app.inputs:
        log.create_topic(reads.topic, partitions)
        for number in range(partitions):
            partition = TopicPartition(reads.topic, number)
            log.group(app.name).offsets.setdefault(partition, Position(offset=0, watermark_ms=None))
    for topic in (app.dead_letters, *app.result_topics):
        log.create_topic(topic, partitions)
    for topic in (app.facts, app.control):
        log.create_topic(topic, 1)


def assemble(
    app: App,
    *,
    ports: Ports,
    models: Mapping[str, Model],
    clock: Clock,
    executors: Executors,
    watch: Watch,
    applied: Callable[[str], None],
    limits: Limits,
    slot: str,
    process: str,
    delivery: Delivery = Delivery.EXACTLY_ONCE,
    headers: HeaderPolicy = HeaderPolicy.CLOUDEVENTS,
    taken_by: Callable[[], str | None] = lambda: None,
) -> Loop:
    """A loop from its parts. `models`: those that never change, by pipeline name; `applied` is told each store apply's result; `process` is
    the name under which the slot was announced, or any that no other process has.
    """

    def monotonic_ms() -> int:
        """For pauses and delays: a machine whose clock is set must not notice."""
        return clock.monotonic_ns() // 1_000_000

    applier = Applier(
        store=ports.store,
        executor=executors.store,
        now_ms=monotonic_ms,
        max_delay_ms=limits.max_store_delay_ms,
        every_ms=limits.store_every_ms,
        enough=limits.store_at_once,
        count=applied,
    )
    crashes = CrashWatch(
        store=ports.store,
        views={reads.topic: [view.fp for view in app.kept_of(reads)] for reads in app.inputs},
        facts=ports.facts,
        room=2 * limits.max_batch,
        say=watch.say,
        slot=slot,
        process=process,
        is_newer=is_newer,
    )
    line_up = LineUp(
        app,
        pinned=models,
        read=ControlLog(app.control, ports.control).read,
        load=partial(load_version, ports.artifacts),
        executor=executors.models,
        now_ms=monotonic_ms,
        say=watch.say,
        changed=watch.roles,
        patience=Patience(share=limits.refused_share, window=limits.refused_window),
        by=f"worker {app.name}.{slot}",
        wall_ms=clock.now_ms,
        every_ms=limits.registry_every_ms,
    )
    paths = Paths(
        {
            reads.topic: source_path(
                app,
                reads,
                applier,
                look_ups=partial(view_look_ups, app, ports.store),
                casting=line_up,
                clock=clock,
                limits=limits,
                headers=headers,
            )
            for reads in app.inputs
        },
        crashes=crashes,
        line_up=line_up,
        topics=Topics(facts=app.facts, control=app.control),
    )
    source = ports.source
    if rules := rules_of(app, ports.store, monotonic_ms, still_ms=2 * limits.store_every_ms):
        source = AlignedSource(
            source,
            rules=rules,
            reader=ports.reader,
            executor=executors.claims,
            now_ms=monotonic_ms,
            live_from=paths.live_from,
            most_held=2 * limits.max_batch,
        )
    assignment = Assignment(
        source=source,
        store=ports.store,
        applier=applier,
        path=paths,
        crashes=crashes,
        executor=executors.claims,
        now_ms=monotonic_ms,
        delivery=delivery,
        say=watch.say,
    )
    return Loop(
        Parts(
            source=source,
            sink=FreshSink(ports.sink, monotonic_ms, watch.say),
            applier=applier,
            assignment=assignment,
            path=paths,
            commits=executors.commits,
            limits=limits,
            batches=BatchSize(limits.max_batch, monotonic_ms),
            taken_by=taken_by,
            watch=watch,
        )
    )


class States(Protocol):
    """Where states that are not in memory come from: `Applier`, for a worker."""

    def read(self, partition: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        """The stored states of entities per view."""

    def scan(self, partition: TopicPartition, view: str, cursor: int) -> StatesPage:
        """A page of them."""


def source_path(
    app: App,
    reads: Source,
    stored: States,
    *,
    look_ups: Callable[[Pipeline], LooksUp | None],
    casting: Casting,
    clock: Clock,
    limits: Limits,
    headers: HeaderPolicy,
) -> SourcePath:
    """The path of one source or hop: its views, every pipeline that scores there, and every hop it feeds.

    `look_ups` gives what a pipeline looks up, None where it looks up nothing; `casting` says who scores.
    """
    views = app.views_of(reads)
    carried = reads.carried if isinstance(reads, Hop) else ()
    names = [*carried, *(f"{view.name}.{feature}" for view in views for feature in view.feature_names)]
    return SourcePath(
        source=reads,
        decoder=decoder_of(app, reads, max_value_bytes=limits.max_value_bytes, fields=_fields(app, reads)),
        states=ResidentStates(
            views=views,
            retained=app.retained_of(reads),
            read=stored.read,
            scan=stored.scan,
            capacity=limits.resident_entities,
            lateness_ms=reads.lateness_ms,
        ),
        scorers=[_scorer(app, pipeline, casting, names, headers, look_ups(pipeline)) for pipeline in app.pipelines_of(reads)],
        hops=[HopWriter(hop, [names.index(name) for name in hop.carried]) for hop in _fed_by(app, reads)],
        model=casting.model_name(app.stages_at(reads)[0].pipeline.name) if isinstance(reads, Hop) else None,
        dead_letters=DeadLetters(app.name, app.dead_letters, max_record_bytes=limits.max_record_bytes),
        share=RefusedShare(limits.refused_share, limits.refused_window, app=app.name),
        now_ms=clock.now_ms,
    )


def _fed_by(app: App, reads: Source) -> list[Hop]:
    """The hops that a source or hop feeds."""
    return [stage.passes_on for stage in app.stages_at(reads) if stage.passes_on is not None]


def _fields(app: App, reads: Source) -> frozenset[str]:
    """The event fields that something reads as a column."""
    fields = frozenset().union(*(view.fields for view in app.views_of(reads)), {hop.key for hop in _fed_by(app, reads)})
    for pipeline in app.pipelines_of(reads):
        fields |= frozenset().union(*(expression.fields() for _, expression in pipeline.event_features))
        if pipeline.outcomes is not None:
            fields |= {pipeline.outcomes.join}
        if pipeline.look_up is not None:
            fields |= {view.entity for view in pipeline.look_up.views}
    return fields


def view_look_ups(app: App, store: LookupStore, pipeline: Pipeline) -> ViewLookUps | None:
    """What looks up in a store what a pipeline wants."""
    wanted = pipeline.look_up
    if wanted is None:
        return None
    topics = [app.kept_at(view.name).topic for view in wanted.views]
    return ViewLookUps(wanted.views, topics, stale_after_ms=wanted.stale_after_ms, store=store)


def _scorer(
    app: App, pipeline: Pipeline, casting: Casting, names: Sequence[str], headers: HeaderPolicy, look_ups: LooksUp | None
) -> Scorer:
    own = [f"{view.name}.{feature}" for view in pipeline.own_views for feature in view.feature_names]
    of_pipeline: dict[str, Any] = {
        "app": app.name,
        "source_topic": pipeline.source.topic,
        "pipeline": pipeline.name,
        "feature_names": pipeline.feature_names,
        "publish_features": pipeline.publish_features,
        "fingerprint": pipeline.fingerprint,
        "headers": headers,
    }

    @lru_cache(maxsize=ENCODERS)
    def predictions(name: str, version: str, role: Role) -> Encoder:
        topic = pipeline.shadow if role == "shadow" and pipeline.shadow is not None else pipeline.predictions
        contributions = 0 if role == "shadow" else pipeline.contributions
        return Encoder(predictions=topic, model_name=name, model_version=version, role=role, contributions=contributions, **of_pipeline)

    @lru_cache(maxsize=ENCODERS)
    def corrections(name: str, version: str, role: Role) -> CorrectionEncoder:
        return CorrectionEncoder(corrections=pipeline.corrections or "", model_name=name, model_version=version, role=role, **of_pipeline)

    return Scorer(
        pipeline=pipeline,
        casting=casting,
        encoder=lambda model, role: predictions(model.name, model.version, role),
        columns=None if own == list(names) else [names.index(name) for name in own],
        look_ups=look_ups,
        corrections=None if pipeline.corrections is None else lambda model, role: corrections(model.name, model.version, role),
    )
