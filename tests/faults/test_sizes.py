"""Large events: what they cost in memory is bounded by the queue, not by their number."""

from __future__ import annotations

import dataclasses

import pytest

from tests.faults.app import Sent
from tests.faults.harness import Make, Trial

NOTE = 50_000


def noted(run: Trial, record: Sent) -> Sent:
    """The record with 50 KB more that the contract does not know; a bad one stays bad."""
    if record.value is None or not record.value.endswith(b"}"):
        return record
    note = run.rng.randbytes(NOTE // 2).hex().encode()
    return dataclasses.replace(record, value=record.value[:-1] + b', "note": "' + note + b'"}')


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_events_of_fifty_kilobytes(trial: Make) -> None:
    """T17: 10,000 events of 50 KB, all there at once, 2 workers with the default size of a batch: none of them ever has 400 MB."""
    run = trial(max_batch=16_384)
    run.prepare()
    run.load([noted(run, record) for record in run.records(10_000)], wait=True)
    for slot in range(2):
        run.start(slot)
    run.wait_drained(120)
    figures = run.verdict()
    assert figures["events"] == 10_000
    assert figures["peak_mb"] < 400
