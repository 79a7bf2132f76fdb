"""Keys that are not alike: one entity that is half of all events, or all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.app import BEGIN_MS, STEP_MS, Sent, _value
from tests.faults.harness import Make, Trial

SERIES = re.compile(r'headrace_stage_seconds_bucket\{le="([^"]+)",stage="([^"]+)"\} (\S+)')
STAGES = ("decode", "features", "predict", "encode", "pack")
"""What a batch costs inside the process; the rest is waiting for others."""

Buckets = Counter[tuple[str, float]]


def stages(run: Trial) -> Buckets:
    """How many batches took up to so many seconds in a stage so far, all workers together."""
    found: Buckets = Counter()
    for worker in run.workers:
        for border, stage, count in SERIES.findall(worker.ask("/metrics")[1]):
            found[stage, float(border)] += round(float(count))
    assert {stage for stage, _ in found} >= set(STAGES)
    return found


def slow_s(before: Buckets, after: Buckets) -> float:
    """What 99 of 100 batches do not exceed between two looks: the sum over the stages, drawn straight inside a bucket."""
    total = 0.0
    for stage in STAGES:
        counts = sorted((border, after[name, border] - before[name, border]) for name, border in after if name == stage)
        wanted = 0.99 * counts[-1][1]
        low_s, below = 0.0, 0
        for border, count in counts:
            if count >= wanted:
                total += low_s + (border - low_s) * (wanted - below) / (count - below)
                break
            low_s, below = border, count
    return total


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_hot_keys_cost_no_more_than_even_ones(trial: Make) -> None:
    """T35: 20,000 events of 20,000 entities, 20,000 half of which are one's, 20,000 of one: 99 of 100 batches take at most 3 times as long.

    Batches of 200 out of a backlog, 12 partitions, 2 workers; compared is the time inside the process, all in one run.
    """
    run = trial(partitions=12, max_batch=200)
    run.prepare()
    draws: dict[str, Callable[[], str]] = {
        "even": lambda: f"card-{run.rng.randrange(20_000)}",
        "half": lambda: "hot" if run.rng.random() < 0.5 else f"card-{run.rng.randrange(20_000)}",
        "one": lambda: "hot",
    }
    now_ms = BEGIN_MS
    found: dict[str, float] = {}
    for name, draw in {"first": draws["even"], **draws}.items():  # the first makes everybody's acquaintance and is not compared
        wanted = []
        for _ in range(20_000):
            now_ms += STEP_MS
            card = draw()
            wanted.append(Sent(key=card.encode(), value=_value(run.rng, card, now_ms), timestamp_ms=now_ms))
        if name == "first":
            run.load(wanted, wait=True)
            for slot in range(2):
                run.start(slot)
            run.wait_settled()
            run.wait_drained(120)
            continue
        before = stages(run)
        run.load(wanted, wait=True)
        run.wait_drained(120)
        found[name] = slow_s(before, stages(run))
    figures = run.verdict()
    figures["p99_ms"] = {name: round(1_000 * seconds, 2) for name, seconds in found.items()}
    assert max(found.values()) <= 3 * found["even"]
    assert figures["peak_mb"] < 500
