"""Every metric, once: its help text says what it means, its labels come from closed lists and begin at 0.

A worker counts a batch, never an event: children are kept, and a column of delays is one histogram update (`_ColumnHistogram`).
Label values are topics, partitions, models and the closed lists below; never an entity or an offset. Names end in their base unit.

Limits: histograms are classic ones with fixed borders; one process, one registry, one port.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.types import Reason, TopicPartition

MARKS = ("fresh", "stale", "ahead")
"""How a view that was looked up may be marked; one that is both is counted as both."""
STAGES = (
    "consume",
    "replay",
    "decode",
    "features",
    "look_up",
    "predict",
    "explain",
    "encode",
    "pack",
    "wait",
    "produce",
    "commit",
    "apply",
)
TRANSACTION_RESULTS = ("committed", "aborted", "fenced", "unknown")
APPLY_RESULTS = ("ok", "behind", "fenced", "unknown")
REBALANCES = ("assigned", "revoked", "lost")
PHASES = ("claiming", "catching_up", "live", "given_up")

DELAY_BORDERS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 2.5, 5.0, 10.0)
"""Around the objectives: 250 ms from record to prediction, and 1 s."""
STAGE_BORDERS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
BATCH_BORDERS = (1, 4, 16, 64, 256, 1_024, 2_048, 4_096, 8_192, 16_384)

Key = TypeVar("Key", bound=Hashable)
Child = TypeVar("Child")


class _Children(dict[Key, Child], Generic[Key, Child]):
    """Kept children of one metric by what their labels stand for; those foreseen exist from the start, so their series begin at 0."""

    def __init__(self, make: Callable[[Key], Child], foreseen: Iterable[Key] = ()) -> None:
        super().__init__()
        self._make = make
        for key in foreseen:
            self[key] = make(key)

    def __missing__(self, key: Key) -> Child:
        child = self[key] = self._make(key)
        return child


class _ColumnHistogram(Collector):
    """A histogram that takes a whole column of values at once."""

    def __init__(self, name: str, says: str, borders: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._says = name, says
        self._borders = np.array(borders)
        self._counts = np.zeros(len(borders) + 1, dtype=np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count every value of the column."""
        counts = np.bincount(np.searchsorted(self._borders, values, side="left"), minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(values.sum())

    def collect(self) -> Iterator[Metric]:
        """What a scrape sees."""
        with self._lock:
            below, total = self._counts.cumsum().tolist(), self._sum
        names = [*(str(border) for border in self._borders.tolist()), "+Inf"]
        yield HistogramMetricFamily(self._name, self._says, buckets=list(zip(names, below, strict=True)), sum_value=total)


class _WithoutCreated(Collector):
    """A registry without the `_created` twin of every series, which nobody here reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """What a scrape sees."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _PartitionGauge(_Children[TopicPartition, Gauge]):
    """A gauge of each partition, until it is somebody else's."""

    def __init__(self, gauge: Gauge) -> None:
        super().__init__(lambda name: gauge.labels(name.topic, str(name.partition)))
        self._gauge = gauge

    def forget(self, name: TopicPartition) -> None:
        """Drop the series of a partition."""
        if self.pop(name, None) is not None:
            self._gauge.remove(name.topic, str(name.partition))


class Metrics:
    """The metrics of a worker. Methods are called by one thread, once a batch or less; `exposition` by any.

    `topics`, `models`, `hops`, `looked_up`, `corrected` and `shadowed` are what the app reads, its models, the topics between its stages,
    the views it looks up, the pipelines with corrections and those with shadows: each of their series begins at 0.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        topics: Sequence[str] = (),
        models: Sequence[str] = (),
        hops: Sequence[str] = (),
        looked_up: Sequence[str] = (),
        corrected: Sequence[str] = (),
        shadowed: Sequence[str] = (),
    ) -> None:
        self.registry = registry = registry or CollectorRegistry()
        ProcessCollector(registry=registry)

        def counters(name: str, says: str, label: str, foreseen: Sequence[str]) -> _Children[str, Counter]:
            return _Children(Counter(f"headrace_{name}", says, (label,), registry=registry).labels, foreseen)

        def of_partition(name: str, says: str) -> _PartitionGauge:
            return _PartitionGauge(Gauge(f"headrace_{name}", says, ("topic", "partition"), registry=registry))

        self._events = counters("events", "Events folded into state whose batch is committed.", "topic", topics)
        self._predictions = counters("predictions", "Predictions published and committed.", "model", models)
        self._passed_on = counters("passed_on", "Events passed on to the next stage of their pipeline and committed.", "topic", hops)
        self._corrections = counters(
            "corrections", "Corrections published and committed: vectors that an event out of order changed.", "pipeline", corrected
        )
        self._shadowed = counters("shadow_scores", "Scores of shadows published and committed.", "pipeline", shadowed)
        looked = Counter(
            "headrace_look_ups", "Views looked up for a prediction, by how they were marked.", ("view", "mark"), registry=registry
        )
        self._look_ups = _Children(lambda labels: looked.labels(*labels), [(view, mark) for view in looked_up for mark in MARKS])
        refused = Counter("headrace_dead_letters", "Records refused and published as dead letters.", ("topic", "reason"), registry=registry)
        self._dead_letters = _Children(
            lambda labels: refused.labels(labels[0], labels[1].value), [(topic, reason) for topic in topics for reason in Reason]
        )
        self._late = counters(
            "late_events", "Events older than watermark - lateness: scored with the state as it was, not folded.", "topic", topics
        )
        self._unknown_fields = counters(
            "unknown_fields", "Fields the contract does not know, in the first record of each batch.", "topic", topics
        )

        self._end_to_end = _ColumnHistogram(
            "headrace_end_to_end_seconds", "From a record's timestamp to the definite commit of its batch.", DELAY_BORDERS_S, registry
        )
        stages = Histogram(
            "headrace_stage_seconds",
            "Time a batch spent in a stage, waits included.",
            ("stage",),
            buckets=STAGE_BORDERS_S,
            registry=registry,
        )
        self._stages = _Children(stages.labels, STAGES)
        self._batch = Histogram("headrace_batch_records", "Records of a committed batch.", buckets=BATCH_BORDERS, registry=registry)
        self._transactions = counters("transactions", "Kafka transactions by how they ended.", "result", TRANSACTION_RESULTS)
        self._applies = counters(
            "store_applies", "Writes to the online store; all but ok let the partition be claimed again.", "result", APPLY_RESULTS
        )

        self._rebalances = counters("rebalances", "Partitions that were assigned, revoked in order, or lost.", "kind", REBALANCES)
        self._starts_over = Counter(
            "headrace_starts_over", "Times that memory was dropped because something was not definite.", registry=registry
        )
        self._catch_ups = Counter(
            "headrace_catch_ups", "Times that a partition had to fold its log before it went live.", registry=registry
        )
        self._catch_up_events = Counter(
            "headrace_catch_up_events", "Events folded again for that, and not scored again.", registry=registry
        )
        self._catch_up_left = of_partition("catch_up_remaining_records", "Records a partition has yet to fold before it goes live.")
        self._catch_up_rate = of_partition("catch_up_records_per_second", "How fast a partition is catching up.")
        self._lag_records = of_partition("lag_records", "Records of a partition that wait to be scored.")
        self._lag_seconds = of_partition("lag_seconds", "Age of the oldest record of a partition that waits to be scored.")
        self._watermark = of_partition("watermark_timestamp_seconds", "How far event time has come in a partition: seconds since 1970.")
        partitions = Gauge("headrace_partitions", "Partitions of this worker by how far they are.", ("phase",), registry=registry)
        self._partitions = _Children(partitions.labels, PHASES)
        entities = Gauge("headrace_resident_entities", "Entities whose state is kept in memory.", ("topic",), registry=registry)
        self._resident = _Children(entities.labels, topics)

        labels = ("pipeline", "model", "version", "role")
        self._models = Gauge("headrace_model_info", "The model versions that score, and in which role: 1.", labels, registry=registry)
        self._build = Gauge("headrace_build_info", "The versions of what runs: 1.", ("version", "python"), registry=registry)
        self._ready = Gauge("headrace_ready", "1 while this worker is ready, as /readyz says, else 0.", registry=registry)

    def batch(
        self,
        topic: str,
        *,
        events: int,
        late: int,
        unknown_fields: int,
        refused: Mapping[Reason, int],
        predictions: Mapping[str, int],
        passed_on: Mapping[str, int],
        looked_up: Mapping[tuple[str, str], int],
        shadowed: Mapping[str, int],
        corrected: Mapping[str, int],
    ) -> None:
        """Count what a committed batch of one topic held: `predictions` by model name, `passed_on` by hop, `looked_up` by view and mark,
        `shadowed` and `corrected` by pipeline, `refused` by reason.
        """
        self._events[topic].inc(events)
        self._late[topic].inc(late)
        self._unknown_fields[topic].inc(unknown_fields)
        for model, count in predictions.items():
            self._predictions[model].inc(count)
        for hop, count in passed_on.items():
            self._passed_on[hop].inc(count)
        for look_up, count in looked_up.items():
            self._look_ups[look_up].inc(count)
        for pipeline, count in shadowed.items():
            self._shadowed[pipeline].inc(count)
        for pipeline, count in corrected.items():
            self._corrections[pipeline].inc(count)
        for reason, count in refused.items():
            self._dead_letters[topic, reason].inc(count)

    def committed(self, timestamps_ms: NDArray[np.int64], now_ms: int) -> None:
        """Take the delay of every record of a committed batch."""
        self._batch.observe(len(timestamps_ms))
        self._end_to_end.observe((now_ms - timestamps_ms) / 1e3)

    def stages(self, stages_ns: Mapping[str, int]) -> None:
        """Take the time a batch spent in each stage, in nanoseconds by the stage's name."""
        for stage, spent_ns in stages_ns.items():
            self._stages[stage].observe(spent_ns / 1e9)

    def transaction(self, result: str) -> None:
        """Count a transaction by how it ended (`TRANSACTION_RESULTS`)."""
        self._transactions[result].inc()

    def applied(self, result: str) -> None:
        """Count a write to the store by its result (`APPLY_RESULTS`)."""
        self._applies[result].inc()

    def rebalanced(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        """Count partitions that came or went (`REBALANCES`); what was told of those that went is forgotten."""
        self._rebalances[kind].inc(len(partitions))
        if kind != "assigned":
            for partition in partitions:
                self.forget(partition)

    def started_over(self) -> None:
        """Count that everything in memory was dropped."""
        self._starts_over.inc()

    def catch_up_began(self) -> None:
        """Count a catch-up or rebuild of a partition."""
        self._catch_ups.inc()

    def replayed(self, events: int) -> None:
        """Count events folded again, not scored."""
        self._catch_up_events.inc(events)

    def catching_up(self, partition: TopicPartition, *, remaining: int, per_second: float) -> None:
        """Tell how far a partition is from going live; `remaining` 0 once it is live."""
        self._catch_up_left[partition].set(remaining)
        self._catch_up_rate[partition].set(per_second)

    def lag(self, partition: TopicPartition, *, records: int, age_s: float) -> None:
        """Tell how far a partition is behind its log's end."""
        self._lag_records[partition].set(records)
        self._lag_seconds[partition].set(age_s)

    def watermark(self, partition: TopicPartition, watermark_ms: int) -> None:
        """Tell how far event time has come in a partition."""
        self._watermark[partition].set(watermark_ms / 1e3)

    def forget(self, partition: TopicPartition) -> None:
        """Drop the gauges of a partition that is somebody else's now."""
        for gauge in (self._lag_records, self._lag_seconds, self._watermark, self._catch_up_left, self._catch_up_rate):
            gauge.forget(partition)

    def resident(self, topic: str, entities: int) -> None:
        """Tell how many entities of a source are in memory."""
        self._resident[topic].set(entities)

    def phases(self, partitions: Mapping[str, int]) -> None:
        """Tell how many partitions there are in each phase (`PHASES`); those not named have none."""
        for phase in PHASES:
            self._partitions[phase].set(partitions.get(phase, 0))

    def models(self, live: Iterable[tuple[str, str, str, str]]) -> None:
        """Tell all model versions that score, as (pipeline, model, version, role), instead of those told before."""
        self._models.clear()
        for pipeline, model, version, role in live:
            self._models.labels(pipeline, model, version, role).set(1)

    def ready(self, *, ready: bool) -> None:
        """Tell whether this worker is ready."""
        self._ready.set(int(ready))

    def build(self, *, version: str, python: str) -> None:
        """Tell what runs."""
        self._build.labels(version, python).set(1)

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and text for a scrape, in the format that `accept` asks for."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(_WithoutCreated(self.registry))


class AuditMetrics:
    """The metrics of an audit. `features`: of each pipeline that is audited; `kinds`: the mistakes that are known."""

    def __init__(self, features: Mapping[str, Sequence[str]], kinds: Sequence[str], registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        each = [(pipeline, feature) for pipeline, names in features.items() for feature in names]
        mistakes = [(pipeline, kind) for pipeline in features for kind in kinds]

        def gauge(name: str, says: str, labels: Sequence[str], foreseen: Sequence[tuple[str, str]]) -> _Children[tuple[str, str], Gauge]:
            made = Gauge(f"headrace_audit_{name}", says, labels, registry=registry)
            return _Children(lambda key: made.labels(*key), foreseen)

        vectors = Counter(
            "headrace_audit_vectors", "Feature vectors of the sample that were compared as served.", ("pipeline",), registry=registry
        )
        self._vectors = _Children(vectors.labels, features)
        wrong = Counter(
            "headrace_audit_mismatches", "Served values that naive recomputation does not give.", ("pipeline", "feature"), registry=registry
        )
        self._mismatches = _Children(lambda key: wrong.labels(*key), each)
        self._ratio = gauge(
            "mismatch_ratio",
            "Share of the vectors compared last in which a feature is not what naive recomputation gives.",
            ("pipeline", "feature"),
            each,
        )
        self._explained = gauge(
            "explained_ratio", "Share of the wrong values looked at that a known mistake gives.", ("pipeline", "kind"), mistakes
        )
        self._last = Gauge(
            "headrace_audit_last_timestamp_seconds", "When an audit was last complete: seconds since 1970.", registry=registry
        )

    def compared(self, pipeline: str, vectors: int, mismatches: Mapping[str, int]) -> None:
        """Take what was compared since the last time, wrong values by feature; nothing compared leaves ratios as they are."""
        self._vectors[pipeline].inc(vectors)
        for (name, feature), ratio in self._ratio.items():
            if name == pipeline and vectors:
                ratio.set(mismatches.get(feature, 0) / vectors)
                self._mismatches[name, feature].inc(mismatches.get(feature, 0))

    def explained(self, pipeline: str, shares: Mapping[str, float]) -> None:
        """Tell how much of what is wrong each kind of mistake gives; those not named give nothing."""
        for (name, kind), share in self._explained.items():
            if name == pipeline:
                share.set(shares.get(kind, 0.0))

    def complete(self, now_ms: int) -> None:
        """Everything there was has been audited."""
        self._last.set(now_ms / 1e3)

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and text for a scrape, in the format that `accept` asks for."""
        encoder, content_type = choose_encoder(accept)
        return content_type, encoder(_WithoutCreated(self.registry))
