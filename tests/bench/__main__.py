"""`make bench`: a worker beside the raw loops of its client library, on a real Kafka and a real Redis, in one run.

Absolute times on a shared machine drift by half within minutes, so only ratios inside one run mean anything. The measurements take turns:
each worker runs between two raw copies of its kind, and is compared with what they did on average. Nothing is asserted. Prints tables,
writes build/bench.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from headrace.local_stack import Stack
from headrace.types import Delivery
from tests.bench.cards import Job
from tests.bench.events import ENTITIES, events
from tests.bench.latency import Latency, measure
from tests.bench.raw_copy import Copy
from tests.bench.worker import ROOT, Throughput, WorkerProcess, create_topics, python_path

SOURCE, COPIES = "bench.payments.v1", "bench.copies.v1"
BUILD = ROOT / "build"
BESIDE = ("commit",)
"""Stages that run beside the hot thread: under a backlog a commit is in flight while the next batch is folded."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What all turns measured."""

    raw: list[float] = field(default_factory=list)
    transactional: list[float] = field(default_factory=list)
    exactly_once: list[Throughput] = field(default_factory=list)
    at_least_once: list[Throughput] = field(default_factory=list)
    latencies: dict[str, Latency] = field(default_factory=dict)


def main() -> None:
    """Measure, print, write."""
    options = parsed()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    began = time.monotonic()
    stack: Stack | None = None
    try:
        stack = Stack.up(folder / "stack", say=say)
        found = run(stack, options)
        written = summary(found, options, seconds=time.monotonic() - began)
        BUILD.mkdir(exist_ok=True)
        options.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        print_tables(found, written)
        print(f"\nwritten to {options.output}")
    finally:
        if stack is not None and not options.keep:
            stack.down()
            shutil.rmtree(folder, ignore_errors=True)


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000, help="events each throughput measurement works through (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is measured (%(default)s)")
    parser.add_argument("--batch", type=int, default=16_384, help="records a transaction of the raw copies (%(default)s)")
    parser.add_argument("--rate", type=int, action="append", help="events a second of a latency measurement; may be repeated (1000)")
    parser.add_argument("--seconds", type=float, default=15, help="how long each latency is measured (%(default)s)")
    parser.add_argument("--features", action="store_true", help="publish the feature vector in each prediction")
    parser.add_argument("--set", action="append", default=[], metavar="HEADRACE_...=...", help="a setting of the worker; may be repeated")
    parser.add_argument("--no-latency", action="store_true", help="throughput only")
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    parser.add_argument("--output", type=Path, default=BUILD / "bench.json", help="where the figures go (%(default)s)")
    options = parser.parse_args()
    options.settings = dict(one.split("=", 1) for one in options.set)
    return options


def run(stack: Stack, options: argparse.Namespace) -> Found:
    """All measurements, taking turns."""
    found = Found()
    create_topics(stack, SOURCE, COPIES)
    say(f"writing {options.events:,} events of {ENTITIES:,} cards")
    fill(stack, options.events)
    for turn in range(1, options.turns + 1):
        for delivery, workers, copies in (
            (Delivery.EXACTLY_ONCE, found.exactly_once, found.transactional),
            (Delivery.AT_LEAST_ONCE, found.at_least_once, found.raw),
        ):
            transactions = delivery is Delivery.EXACTLY_ONCE
            before = raw_copy(stack, options, transactions=transactions)
            workers.append(throughput(stack, options, delivery, turn))
            copies.append((before + raw_copy(stack, options, transactions=transactions)) / 2)
            say(f"turn {turn}: {delivery.value} {workers[-1].eps:,.0f}/s, its raw copy {copies[-1]:,.0f}/s")
    for rate in () if options.no_latency else options.rate or (1_000,):
        for delivery in Delivery:
            found.latencies[f"{delivery.value} {rate}"] = latency(stack, options, delivery, rate)
            say(f"{delivery.value} at {rate:,}/s: p50 {found.latencies[f'{delivery.value} {rate}'].p50_ms:.1f} ms")
    return found


def fill(stack: Stack, count: int, topic: str = SOURCE, **drawn: Any) -> None:
    """The events into the source topic, their event time as timestamp; `drawn`: how, as `events` takes it."""
    sink = Producer(
        {
            "bootstrap.servers": stack.bootstrap,
            "linger.ms": 100,
            "batch.num.messages": 4_000,
            "queue.buffering.max.messages": 1_000_000,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,  # without it a retry may put events of hours ago behind newer ones: they would be late
        }
    )
    for number, (key, value, time_ms) in enumerate(events(count, **drawn)):
        sink.produce(topic, value, key, timestamp=time_ms)
        if number % 10_000 == 0:
            sink.poll(0)
    if sink.flush(60):
        raise SystemExit("the broker does not take the events")


def raw_copy(stack: Stack, options: argparse.Namespace, *, transactions: bool) -> float:
    """Records a second of the raw copy, in a process of its own."""
    wanted = Copy(
        bootstrap=stack.bootstrap,
        source=SOURCE,
        target=COPIES,
        records=options.events,
        batch=options.batch,
        transactions=transactions,
    )
    command = [sys.executable, "-m", "tests.bench.raw_copy", json.dumps(asdict(wanted))]
    done = subprocess.run(command, cwd=ROOT, env=python_path(), stdout=subprocess.PIPE, check=True, timeout=120)
    return float(json.loads(done.stdout)["eps"])


def throughput(stack: Stack, options: argparse.Namespace, delivery: Delivery, turn: int) -> Throughput:
    """A worker through the whole source topic, from nothing."""
    job = Job(name=f"{delivery.value}-{turn}", source=SOURCE, publish_features=options.features)
    with WorkerProcess(stack, job, delivery, models=BUILD / "bench", settings=options.settings) as worker:
        return worker.throughput(options.events)


def latency(stack: Stack, options: argparse.Namespace, delivery: Delivery, rate: int) -> Latency:
    """A worker beside a producer that keeps a pace."""
    name = f"{delivery.value}-at-{rate}"
    job = Job(name=name, source=f"bench.{name}.v1", publish_features=options.features)
    create_topics(stack, job.source)
    with WorkerProcess(stack, job, delivery, models=BUILD / "bench", settings=options.settings) as worker:
        worker.wait_live()
        return measure(worker, stack.bootstrap, rate=rate, seconds=options.seconds)


def summary(found: Found, options: argparse.Namespace, *, seconds: float) -> dict[str, object]:
    """What goes into the file."""
    once, least = [one.eps for one in found.exactly_once], [one.eps for one in found.at_least_once]
    written: dict[str, object] = {
        "raw_copy_eps": middle(found.raw),
        "raw_transactional_eps": middle(found.transactional),
        "exactly_once_eps": middle(once),
        "at_least_once_eps": middle(least),
        "ratio_exactly_once": middle(ratios(once, found.transactional)),
        "ratio_at_least_once": middle(ratios(least, found.raw)),
        "cost_of_exactly_once": middle(ratios(least, once)),
        "stage_us": stages(found.exactly_once),
        "stage_us_at_least_once": stages(found.at_least_once),
        "events_a_transaction": middle([one.batch for one in found.exactly_once]),
    }
    for name, one in found.latencies.items():
        delivery, rate = name.split()
        prefix = "e2e" if delivery == Delivery.EXACTLY_ONCE.value else f"e2e_{delivery}"
        written |= {f"{prefix}_{rate}_p50_ms": one.p50_ms, f"{prefix}_{rate}_p99_ms": one.p99_ms}
    turns = {"raw_copy_eps": found.raw, "raw_transactional_eps": found.transactional, "exactly_once_eps": once, "at_least_once_eps": least}
    return written | {
        "turns": turns,
        "latencies": {name: asdict(one) for name, one in found.latencies.items()},
        "options": {name: value for name, value in vars(options).items() if isinstance(value, (int, float, str, bool, dict))},
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version(), "seconds": seconds},
    }


def middle(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def ratios(ours: Iterable[float], limit: Iterable[float]) -> list[float]:
    """Turn by turn."""
    return [one / other for one, other in zip(ours, limit, strict=True)]


def stages(runs: Iterable[Throughput]) -> dict[str, float]:
    """The median of each stage, in the order of the path."""
    runs = list(runs)
    return {stage: middle([one.stage_us.get(stage, 0.0) for one in runs]) for stage in runs[0].stage_us}


def print_tables(found: Found, written: Mapping[str, object]) -> None:
    """The figures for people."""
    print(f"\n{'events/s':<28}{'median':>10}   each turn")
    rows = {
        "raw copy": found.raw,
        "raw transactional copy": found.transactional,
        "exactly once": [one.eps for one in found.exactly_once],
        "at least once": [one.eps for one in found.at_least_once],
    }
    for name, values in rows.items():
        print(f"{name:<28}{middle(values):>10,.0f}   {'  '.join(f'{value:,.0f}' for value in values)}")
    print("\nratio, turn by turn")
    print(f"{'exactly once / raw transactional copy':<40}{written['ratio_exactly_once']:>6.2f}")
    print(f"{'at least once / raw copy':<40}{written['ratio_at_least_once']:>6.2f}")
    print(f"{'at least once / exactly once':<40}{written['cost_of_exactly_once']:>6.2f}")
    once, least = stages(found.exactly_once), stages(found.at_least_once)
    print(f"\n{'microseconds an event':<28}{'exactly once':>14}{'at least once':>15}")
    for stage in once:
        print(f"{stage + (' (beside the others)' if stage in BESIDE else ''):<28}{once[stage]:>14.2f}{least.get(stage, 0.0):>15.2f}")
    hot = [sum(value for stage, value in one.items() if stage not in BESIDE) for one in (once, least)]
    print(f"{'the hot thread':<28}{hot[0]:>14.2f}{hot[1]:>15.2f}")
    print(f"{'events a transaction':<28}{written['events_a_transaction']:>14,.0f}")
    for name, one in found.latencies.items():
        delivery, rate = name.split()
        print(
            f"\nend to end, {delivery.replace('_', ' ')}, {int(rate):,} events/s: p50 {one.p50_ms:.1f}, p90 {one.p90_ms:.1f}, "
            f"p99 {one.p99_ms:.1f}, largest {one.largest_ms:.1f} ms"
        )


def say(line: str) -> None:
    """How far it is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
