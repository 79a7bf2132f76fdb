"""The worker as its users start it, and what can be seen of it from outside: committed offsets, its metrics, its predictions."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from confluent_kafka import Consumer, Message
from confluent_kafka import TopicPartition as KafkaPartition
from prometheus_client.parser import text_string_to_metric_families

from headrace.local_stack import Stack, free_port
from headrace.publish.kafka_topics import KafkaTopics, TopicWish
from headrace.types import Delivery, Position, TopicPartition
from tests.bench.cards import JOB, PARTITIONS, Job, app_of
from tests.bench.model import stamped_model

ROOT = Path(__file__).resolve().parents[2]
KEEP_ALL = {"retention.ms": "-1"}
WARM_SHARE = 0.3
"""The part of the events that a throughput run leaves out: compilers, caches and new cards."""
DEADLINE_S = 120.0

_SCORED_AT = re.compile(rb'"scored_at":(\d+)')


class BenchError(Exception):
    """Something did not happen in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What a worker achieved: events a second, and microseconds an event by stage."""

    eps: float
    stage_us: Mapping[str, float]
    batch: float
    """Events a transaction, on average."""


def create_topics(stack: Stack, *names: str) -> None:
    """Make topics that keep everything, whatever its timestamps say."""
    wishes = [TopicWish(name=name, partitions=1 if name.endswith(".facts.v1") else PARTITIONS, settings=KEEP_ALL) for name in names]
    KafkaTopics({"bootstrap.servers": stack.bootstrap}).create(wishes)


def python_path() -> dict[str, str]:
    """The environment of a process of ours: it finds these files and the package, and no settings of the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return kept | {"PYTHONPATH": os.pathsep.join((str(ROOT / "services"), str(ROOT)))}


class WorkerProcess:
    """One worker on an app of its own, in a process of its own, from the start of its source topic."""

    def __init__(
        self, stack: Stack, job: Job, delivery: Delivery, *, models: Path, settings: Mapping[str, str], resumed: bool = False
    ) -> None:
        """`models`: the folder in which trained trees are kept; `settings`: more HEADRACE_... variables; `resumed`: go on where the last
        worker of the job ended.
        """
        self._stack, self._topics = stack, KafkaTopics({"bootstrap.servers": stack.bootstrap})
        app = app_of(job)
        model = stack.folder / f"{job.name}.onnx"
        model.write_bytes(stamped_model(app, models))
        self.job = replace(job, model=str(model))
        create_topics(stack, job.predictions, app.dead_letters, app.facts)
        self._partitions = [TopicPartition(job.source, number) for number in range(PARTITIONS)]
        hops = [reads.topic for reads in app.inputs if reads.topic != job.source]
        create_topics(stack, *hops)
        self._of_hops = [[TopicPartition(hop, number) for number in range(PARTITIONS)] for hop in hops]
        if not resumed:
            begun = [name for stage in (self._partitions, *self._of_hops) for name in stage]
            self._topics.start_group(job.name, {name: Position(offset=0, watermark_ms=None) for name in begun})
        self._port = free_port()
        self._log = stack.folder / f"{job.name}.log"
        environment = {
            **python_path(),
            JOB: self.job.to_text(),
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap,
            "HEADRACE_KAFKA__DELIVERY": delivery.value,
            "HEADRACE_REDIS__URL": stack.redis.url,
            "HEADRACE_WORKER__HTTP_PORT": str(self._port),
            **settings,
        }
        command = [sys.executable, "-m", "headrace", "run", "worker", "--app", "tests.bench.worker_app:app", "--slot", "0"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self._stack.folder)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_live(self) -> None:
        """Wait until it serves its partitions."""
        self._wait("the worker is ready", lambda: self._get("/readyz") is not None)

    def throughput(self, events: int) -> Throughput:
        """Let it work through its source topic, which holds so many events."""
        self._wait("the worker is warm", lambda: self._committed() >= WARM_SHARE * events)
        before = self._measured()
        self._wait("the worker is through", lambda: self._committed() >= events)
        return replace(_between(before, self._measured()), eps=self._eps(events))

    def through_all_stages(self, events: int) -> Throughput:
        """Like `throughput`, for any number of stages: when the first is warm each is asked how much is left, for one may be ahead of the
        next. An event in its second stage counts a second time in `stage_us` and `batch`, not in `eps`.
        """
        self._wait("the worker is warm", lambda: self._committed() >= WARM_SHARE * events)
        warm_ms = time.time_ns() / 1e6
        before = self._measured()
        done = [self._committed(), *map(self._committed, self._of_hops)]
        left = statistics.mean(max(0, events - one) for one in done)
        for stage in (self._partitions, *self._of_hops):
            self._wait("the worker is through", lambda: self._committed(stage) >= events)  # noqa: B023 - waited for at once
        after = self._measured()
        return replace(_between(before, after), eps=1_000 * left / (max(self._scored(events)) - warm_ms))

    def _scored(self, events: int) -> Counter[int]:
        """How many events were scored at which moment, as the predictions tell them."""
        scored = Counter[int]()
        for message in committed_records(self._stack.bootstrap, self.job.predictions, events):
            found = _SCORED_AT.search(message.value() or b"")
            scored[int(found[1]) if found else 0] += 1
        if scored.total() != events:
            raise BenchError(f"{events} events became {scored.total()} predictions; see {self._log}")
        return scored

    def _eps(self, events: int) -> float:
        """From the moments its batches were scored at."""
        scored = self._scored(events)
        done = 0
        warm: list[tuple[int, int]] = []
        for moment_ms in sorted(scored):
            done += scored[moment_ms]
            if done >= WARM_SHARE * events:
                warm.append((moment_ms, done))
        if len(warm) < 2:
            raise BenchError(f"{events} events were scored in {len(scored)} batches; see {self._log}")
        return 1_000 * (warm[-1][1] - warm[0][1]) / (warm[-1][0] - warm[0][0])

    def _committed(self, partitions: Sequence[TopicPartition] | None = None) -> int:
        found = self._topics.group_offsets(self.job.name, self._partitions if partitions is None else partitions)
        return sum(position.offset for position in found.values() if position is not None)

    def _measured(self) -> dict[str, float]:
        """Its metrics by name; those of stages by name and stage, others summed over their labels."""
        text = self._get("/metrics") or ""
        found = Counter[str]()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                stage = sample.labels.get("stage")
                found[sample.name if stage is None else f"{sample.name}={stage}"] += sample.value  # type: ignore[assignment]  # a float is counted too
        return dict(found)

    def _get(self, path: str) -> str | None:
        """What it answers; None while it does not, or says no."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return None

    def _wait(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not true():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = "\n".join(self._log.read_text(encoding="utf-8").splitlines()[-15:])
                raise BenchError(f"waited in vain until {what}; the end of {self._log}:\n{log}")
            time.sleep(0.05)


def _between(before: Mapping[str, float], after: Mapping[str, float]) -> Throughput:
    """What the metrics tell; how many events a second they do not."""
    counted = after["headrace_events_total"] - before["headrace_events_total"]
    stages = {
        name.partition("=")[2]: 1e6 * (after[name] - before[name]) / counted
        for name in after
        if name.startswith("headrace_stage_seconds_sum") and after[name] > before[name]
    }
    batches = after["headrace_batch_records_count"] - before["headrace_batch_records_count"]
    return Throughput(eps=0.0, stage_us=stages, batch=counted / max(batches, 1.0))


def committed_records(bootstrap: str, topic: str, count: int) -> Iterator[Message]:
    """The first `count` records of a topic that a `read_committed` reader sees."""
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "fetch.queue.backoff.ms": 5})
    reader.assign([KafkaPartition(topic, number, 0) for number in range(PARTITIONS)])
    deadline = time.monotonic() + DEADLINE_S
    try:
        while count > 0 and time.monotonic() < deadline:
            for message in reader.consume(10_000, 0.5):
                if message.error() is None:
                    count -= 1
                    yield message
    finally:
        reader.close()
