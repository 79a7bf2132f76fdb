"""A producer that keeps a pace: events whose time is the moment they are sent. Run with a `Pace` as JSON for its argument."""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass

from confluent_kafka import Producer

from tests.bench.events import ENTITIES, SEED, card, event

TICK_S = 0.001
AT_ONCE = 5_000
"""From this rate on the producer waits a millisecond for company."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast, and for how long."""

    bootstrap: str
    topic: str
    rate: float
    seconds: float


def run(pace: Pace) -> int:
    """Send; half of the events belong to few cards. Returns how many there were."""
    draw = random.Random(SEED)
    skewed = [min(ENTITIES - 1, int(draw.paretovariate(0.8) * 10)) for _ in range(25_000)]
    names = [card(number) for number in (*skewed, *(draw.randrange(ENTITIES) for _ in skewed))]
    draw.shuffle(names)
    amounts = [draw.expovariate(1 / 50) for _ in names]
    settings = {"linger.ms": 0 if pace.rate < AT_ONCE else 1, "queue.buffering.max.messages": 1_000_000, "partitioner": "murmur2_random"}
    sink = Producer({"bootstrap.servers": pace.bootstrap, **settings})
    begun = tick = time.perf_counter()
    sent = 0
    while tick < begun + pace.seconds:
        due = int((tick - begun) * pace.rate)
        while sent < due:
            name, amount = names[sent % len(names)], amounts[sent % len(names)]
            now_ms = time.time_ns() // 1_000_000
            sink.produce(pace.topic, event(sent, name, now_ms, amount, 42), name, timestamp=now_ms)
            sent += 1
        sink.poll(0)
        tick += TICK_S
        time.sleep(max(0.0, tick - time.perf_counter()))
    sink.flush(10)
    return sent


if __name__ == "__main__":
    print(json.dumps({"sent": run(Pace(**json.loads(sys.argv[1])))}), flush=True)
