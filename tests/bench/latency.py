"""From the moment an event is sent to the moment a `read_committed` reader holds its prediction."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from tests.bench.cards import PARTITIONS
from tests.bench.pace import Pace
from tests.bench.worker import ROOT, BenchError, WorkerProcess, python_path

WARM_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds, from the millisecond an event was sent in."""

    rate: float
    predictions: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    largest_ms: float


def measure(worker: WorkerProcess, bootstrap: str, *, rate: float, seconds: float) -> Latency:
    """Send events at a pace and read their predictions; the first `WARM_S` seconds do not count."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "latency",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 5,
        }
    )
    parts = [TopicPartition(worker.job.predictions, number) for number in range(PARTITIONS)]
    reader.assign([TopicPartition(part.topic, part.partition, reader.get_watermark_offsets(part, timeout=10)[1]) for part in parts])
    pace = Pace(bootstrap=bootstrap, topic=worker.job.source, rate=rate, seconds=WARM_S + seconds)
    pacer = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.pace", json.dumps(asdict(pace))], cwd=ROOT, stdout=subprocess.PIPE, env=python_path()
    )
    delays: list[float] = []
    counted_from_ms = 0.0
    seen = 0
    idle_since = time.monotonic()
    while True:
        first = reader.poll(0.05)
        if first is None:
            if pacer.poll() is not None and time.monotonic() - idle_since > 1.0:
                break
            continue
        messages = [first, *reader.consume(20_000, 0)]
        now_ms = time.time_ns() / 1e6
        idle_since = time.monotonic()
        counted_from_ms = counted_from_ms or now_ms + 1_000 * WARM_S
        seen += len(messages)
        if now_ms >= counted_from_ms:
            delays.extend(now_ms - message.timestamp()[1] for message in messages)
    sent = json.loads(pacer.communicate()[0])["sent"]
    reader.close()
    if seen != sent:
        raise BenchError(f"{sent} events were sent at {rate:,.0f}/s, {seen} predictions came")
    p50, p90, p99, largest = np.percentile(delays, [50, 90, 99, 100]).tolist()
    return Latency(rate=rate, predictions=len(delays), p50_ms=p50, p90_ms=p90, p99_ms=p99, largest_ms=largest)
