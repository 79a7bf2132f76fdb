"""Corrections are published once, with the event that caused them, whoever dies."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from headrace.consume.kafka_reader import KafkaReader
from headrace.verify.findings import Kind
from tests.faults.harness import Make, Moment
from tests.faults.test_chained import killed


@pytest.mark.stack
def test_workers_that_correct_are_killed(trial: Make) -> None:
    """A stream of events, 2 workers, killed twice: each correction is there once, and what was retained in Redis is that of the log."""
    figures = killed(trial(corrections=True), 2_500, {Moment.IN_TRANSACTION: 1, Moment.BEFORE_STORE: 1}, slots=2)
    assert figures["corrections"] > 50


@pytest.mark.stack
def test_at_least_once_a_correction_may_be_repeated(trial: Make) -> None:
    """A worker dies between its results and their offsets: no correction is lost, and each that is repeated has the id, the cause and the
    features of its first.
    """
    run = trial(corrections=True, max_batch=500)  # so that some event in the batch it dies with is out of order
    run.settings["HEADRACE_KAFKA__DELIVERY"] = "at_least_once"
    run.prepare()
    loader = run.load(run.records(3_000), wait=True)
    dying = run.start(0, command=("-m", "tests.faults.killing_worker", f"before offsets {run.rng.randrange(2, 5)}"))
    run.wait_death(dying, "a worker dies between its results and their offsets")
    run.start(0)
    loader.finish()
    run.wait_drained()
    run.stop_workers()
    reader = KafkaReader(run.properties)
    try:
        records = reader.records(run.app.pipelines[0].corrections or "")
    finally:
        reader.close()
    found: dict[str, list[dict[str, object]]] = {}
    for record in records:
        value = json.loads(record.value or b"")
        found.setdefault(value["id"], []).append({name: value[name] for name in ("source", "caused_by", "revision", "features")})
    assert all(one == several[0] for several in found.values() for one in several)
    repeats = sum(len(several) - 1 for several in found.values())
    assert repeats > 0
    findings = run.verified()
    assert set(findings.counts) == {Kind.DUPLICATE}
    assert Counter(one.of for one in findings.violations)["corrections of fraud"] == repeats
    run._record({"seed": run.seed, "kills": run.kills(), "corrections": len(found), "repeats": repeats})


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_workers_that_correct_are_killed_again_and_again(trial: Make) -> None:
    """The same with 6,000 events and then a stream, 10 times kill -9 at a drawn progress."""
    figures = killed(trial(corrections=True), 6_000, {Moment.IN_TRANSACTION: 4, Moment.BEFORE_STORE: 3, Moment.ANY: 3}, slots=2)
    assert figures["corrections"] > 50
