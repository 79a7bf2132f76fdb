"""What `delivery = "at_least_once"` promises, and that the verdict sees what it does not."""

from __future__ import annotations

import json
from collections import Counter

from headrace.consume.kafka_reader import KafkaReader
from headrace.verify.findings import Kind
from tests.audit import place_of
from tests.faults.harness import Make, Trial

Place = tuple[int, int]
"""Partition and offset of a source record."""


def repeats(run: Trial) -> Counter[Place]:
    """How many results too many each source record has, by the ids of its predictions and the coordinates of its dead letters."""
    reader = KafkaReader(run.properties)
    try:
        names = [json.loads(record.value or b"")["id"] for record in reader.records(run.app.pipelines[0].predictions)]
        letters = [place_of(record) for record in reader.records(run.app.dead_letters)]
    finally:
        reader.close()
    found: Counter[Place] = Counter((partition, offset) for _, partition, offset in letters)
    for name in names:
        _, partition, offset, _ = name.rsplit("-", 3)
        found[int(partition), int(offset)] += 1
    return Counter({place: count - 1 for place, count in found.items() if count > 1})


def test_at_least_once_under_kills(trial: Make) -> None:
    """T29: 10,000 events, 2 workers, 5 kills, one between produce and offsets: nothing is lost, and the verdict names each repeat."""
    run = trial()
    run.settings["HEADRACE_KAFKA__DELIVERY"] = "at_least_once"
    run.prepare()
    loader = run.load(run.records(10_000), pace=lambda sent: 0 if sent < 7_000 else 400)
    dying = run.start(0, command=("-m", "tests.faults.killing_worker", f"before offsets {run.rng.randrange(5, 15)}"))
    run.start(1)
    run.wait_death(dying, "a worker dies between its results and their offsets")
    run.start(0)
    for progress in sorted(run.rng.sample(range(1_000, 6_000), 4)):
        run.wait_passed(progress)
        victim = run.wait_victim()
        victim.kill()
        run.start(victim.slot)
    loader.hurry()
    run.wait_drained()
    run.stop_workers()
    twice = repeats(run)
    findings = run.verified()
    named = Counter((one.partition, one.offset) for one in findings.violations if one.kind is Kind.DUPLICATE)
    assert twice.total() > 0
    assert named == twice
    assert set(findings.counts) == {Kind.DUPLICATE}
    run._record({"seed": run.seed, "kills": run.kills(), "repeats": twice.total()})
    assert run.kills() == 5
