"""`make bench-hops`: what a hop costs, in throughput and in delay. Asserts nothing.

One worker on a real Kafka and a real Redis, exactly once, serves 1, 2 and 3 stages: the 24 features of a card, then one feature of the
merchant, then one of the device, and 100 trees behind the last. The measurements take turns. Microseconds an event are those of the whole
path, from a backlog; delays are those of predictions at a steady rate. Writes build/hops.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path

from headrace.local_stack import Stack
from headrace.types import Delivery
from tests.bench.__main__ import BUILD, SOURCE, fill, say
from tests.bench.cards import FURTHER, Job
from tests.bench.latency import Latency, measure
from tests.bench.worker import Throughput, WorkerProcess, create_topics


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench-hops ARGS=...", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000, help="in each measurement (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of each (%(default)s)")
    parser.add_argument("--rate", type=int, default=1_000, help="events a second while delays are measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="how long each delay is measured (%(default)s)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    found: dict[int, list[Throughput]] = {hops: [] for hops in range(len(FURTHER) + 1)}
    delays: dict[int, Latency] = {}
    stack: Stack | None = None
    try:
        stack = Stack.up(folder / "stack", say=say)
        create_topics(stack, SOURCE)
        fill(stack, options.events)
        for turn in range(options.turns):
            for hops, runs in found.items():
                job = Job(name=f"hops-{hops}-{turn}", source=SOURCE, hops=hops)
                with WorkerProcess(stack, job, Delivery.EXACTLY_ONCE, models=BUILD / "bench", settings={}) as worker:
                    runs.append(worker.through_all_stages(options.events))
                say(
                    f"turn {turn + 1}: {hops + 1} stages, {1e6 / runs[-1].eps:.1f} us an event, {runs[-1].batch:,.0f} records a transaction"
                )
        for hops in found:
            job = Job(name=f"hops-{hops}-paced", source=f"bench.hops-{hops}.v1", hops=hops)
            create_topics(stack, job.source)
            with WorkerProcess(stack, job, Delivery.EXACTLY_ONCE, models=BUILD / "bench", settings={}) as worker:
                worker.wait_live()
                delays[hops] = measure(worker, stack.bootstrap, rate=options.rate, seconds=options.seconds)
    finally:
        if stack is not None:
            stack.down()
        shutil.rmtree(folder, ignore_errors=True)
    show(found, delays)


def show(found: dict[int, list[Throughput]], delays: dict[int, Latency]) -> None:
    """A table for people, and the file."""
    written = {}
    alone_us = statistics.median(1e6 / run.eps for run in found[0])
    for hops, runs in found.items():
        each_us, delay = statistics.median(1e6 / run.eps for run in runs), delays[hops]
        written[hops + 1] = {"us": round(each_us, 1), "ratio": round(each_us / alone_us, 2), "p50_ms": delay.p50_ms, "p99_ms": delay.p99_ms}
        print(
            f"  {hops + 1} stages   {each_us:6.1f} us an event   {each_us / alone_us:5.2f} x   {1e6 / each_us:9,.0f} events/s   "
            f"at {delay.rate:,.0f}/s: p50 {delay.p50_ms:.1f}, p99 {delay.p99_ms:.1f} ms"
        )
    BUILD.mkdir(exist_ok=True)
    (BUILD / "hops.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
