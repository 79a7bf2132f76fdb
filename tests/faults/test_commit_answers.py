from __future__ import annotations

import pytest

from tests.faults.harness import Make


@pytest.mark.parametrize("count", [12, pytest.param(50, marks=pytest.mark.faults)])
def test_commits_without_an_answer(trial: Make, count: int) -> None:
    """T23: so many commits that were not carried out and so many that were, none answered: no event is lost or doubled."""
    run = trial(partitions=2)
    run.prepare()
    run.load(run.records(100 * count), wait=True)
    worker = run.start(0, command=("-m", "tests.faults.lossy_worker", f"{run.rng.randrange(1 << 31)} {count}"))
    run.wait_drained(60 + 2 * count)
    assert run.metric(worker, 'headrace_transactions_total{result="unknown"}') == 2 * count
    figures = run.verdict()
    assert figures["aborted_records"] >= count
