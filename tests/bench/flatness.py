"""`make bench-flat`: whether the whole path costs the same for few and many cards, for short and long windows. Asserts nothing.

A worker on a real Kafka and a real Redis, exactly once, 24 features and 100 trees, the same number of events each time:

    cards     1,000, 20,000 and 1,000,000 of them, drawn by Zipf's law with exponent 1.1 and evenly; 200,000 states are kept in memory
    windows   up to 1 h, 24 h and 30 d, each with its default panes; a minute of event time between two events

The measurements take turns. Microseconds of the hot thread an event, and events a second; writes build/flatness.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from headrace.local_stack import Stack
from headrace.types import Delivery
from tests.bench.__main__ import BESIDE, BUILD, fill, say
from tests.bench.cards import SPANS, Job
from tests.bench.worker import Throughput, WorkerProcess, create_topics

CARDS = (1_000, 20_000, 1_000_000)
MINUTE_MS = 60_000


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench-flat ARGS=...", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000, help="in each measurement (%(default)s)")
    parser.add_argument("--turns", type=int, default=2, help="of each (%(default)s)")
    options = parser.parse_args()
    wanted: dict[str, tuple[dict[str, Any], str | None]] = {
        f"{count:,} cards, {law}": ({"entities": count, "zipf": 1.1 if law == "zipf" else None}, None)
        for law in ("zipf", "even")
        for count in CARDS
    }
    wanted |= {f"windows up to {span}": ({"entities": 20_000, "zipf": 1.1, "step_ms": MINUTE_MS}, span) for span in SPANS}
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    found: dict[str, list[Throughput]] = {name: [] for name in wanted}
    stack: Stack | None = None
    try:
        stack = Stack.up(folder / "stack", say=say)
        topics = {json.dumps(drawn): f"bench.flat-{number}.v1" for number, (drawn, _) in enumerate(wanted.values())}
        for drawing, topic in topics.items():
            create_topics(stack, topic)
            fill(stack, options.events, topic, **json.loads(drawing))
        for turn in range(options.turns):
            for number, (name, (drawn, span)) in enumerate(wanted.items()):
                job = Job(name=f"flat-{number}-{turn}", source=topics[json.dumps(drawn)], span=span)
                with WorkerProcess(stack, job, Delivery.EXACTLY_ONCE, models=BUILD / "bench", settings={}) as worker:
                    found[name].append(worker.throughput(options.events))
                say(f"turn {turn + 1}: {name}: {found[name][-1].eps:,.0f}/s")
    finally:
        if stack is not None:
            stack.down()
        shutil.rmtree(folder, ignore_errors=True)
    show(found)


def show(found: dict[str, list[Throughput]]) -> None:
    """A table for people, and the file."""
    written = {}
    first = {"cards": 0.0, "windows": 0.0}
    for name, runs in found.items():
        kind = "windows" if name.startswith("windows") else "cards"
        hot_us = statistics.median(sum(us for stage, us in run.stage_us.items() if stage not in BESIDE) for run in runs)
        eps = statistics.median(run.eps for run in runs)
        first[kind] = first[kind] or hot_us
        written[name] = {"hot_us": round(hot_us, 2), "eps": round(eps), "ratio": round(hot_us / first[kind], 2)}
        print(f"  {name:28} {hot_us:7.2f} us an event   {hot_us / first[kind]:5.2f} x   {eps:9,.0f} events/s")
    BUILD.mkdir(exist_ok=True)
    (BUILD / "flatness.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
