"""Workers are killed with -9 while they work: nothing is lost, nothing doubled, nothing wrong."""

from __future__ import annotations

import pytest

from tests.faults.app import records
from tests.faults.harness import Make, Moment, Trial


def drawn_moments(trial: Trial, wanted: dict[Moment, int]) -> list[Moment]:
    """So many of each, in a drawn order."""
    moments = [moment for moment, count in wanted.items() for _ in range(count)]
    trial.rng.shuffle(moments)
    return moments


def test_killed_at_any_progress(trial: Make) -> None:
    """T10: 10,000 events, 4 partitions, 2 workers, batches of 50, 5 times kill -9 at a drawn progress."""
    run = trial()
    run.takeovers = True
    run.prepare()
    # Most at once, the rest little by little: whoever is to be caught in the middle of something has something to do.
    loader = run.load(run.records(10_000), pace=lambda sent: 0 if sent < 7_000 else 150)
    for slot in range(2):
        run.start(slot)
    moments = drawn_moments(run, {Moment.IN_TRANSACTION: 2, Moment.BEFORE_STORE: 2, Moment.ANY: 1})
    for progress, moment in zip(sorted(run.rng.sample(range(200, 5_000), 5)), moments, strict=True):
        run.wait_passed(progress)
        victim = run.wait_victim()
        run.kill(victim, moment)
        run.start(victim.slot)
    loader.hurry()
    run.wait_drained()
    figures = run.verdict()
    assert figures["kills"] == 5
    assert figures["aborted_records"] >= 3
    assert figures["catch_ups"] > 0


@pytest.mark.faults
@pytest.mark.parametrize("slots", [2, 1])
def test_killed_at_random_moments_under_flow(trial: Make, slots: int) -> None:
    """100,000 events flow, a worker is killed at ten random moments: one result for every offset, all features and states are right."""
    run = trial(max_batch=500)
    run.takeovers = True
    run.prepare()
    # A tenth for each kill, and then little by little until it has happened: the flow does not end before the kills do.
    loader = run.load(run.records(100_000), pace=lambda sent: 2_500 if sent < 10_000 * (1 + run.kills()) else 250)
    for slot in range(slots):
        run.start(slot)
    for moment in drawn_moments(run, {Moment.IN_TRANSACTION: 3, Moment.BEFORE_STORE: 3, Moment.ANY: 4}):
        victim = run.wait_victim()
        run.pass_time(run.rng.uniform(0.2, 1.0))
        run.kill(victim, moment)
        run.start(victim.slot)
    loader.hurry()
    run.wait_drained()
    figures = run.verdict()
    assert figures["kills"] == 10
    assert figures["aborted_records"] > 0
    assert figures["catch_ups"] > 0


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("protocol", "restarts", "losses"),
    [("classic", 14, 6), pytest.param("consumer", 4, 2, marks=pytest.mark.release)],
    ids=["default", "KIP-848"],
)
def test_killed_under_large_load(trial: Make, protocol: str, restarts: int, losses: int) -> None:
    """T11: 12 partitions, 3 workers, 2,000 events a second; 14 kills and restarts, then 6 slots left empty until others serve them (4 and
    2 under KIP-848). A restarted slot commits for all its partitions again within 5 s, a lost one is replaced within 13.
    """
    run = trial(partitions=12, max_batch=200)
    run.takeovers = True
    run.settings["HEADRACE_KAFKA__CONSUMER_PROPERTIES"] = f'{{"group.protocol": "{protocol}"}}'
    run.prepare()
    loader = run.load(list(records(run.rng, 600_000, cards=20_000)), pace=lambda _: 2_000)
    for slot in range(3):
        run.start(slot)
    for _ in range(restarts):
        run.wait_settled()
        victim = run.wait_victim()
        run.pass_time(run.rng.uniform(1, 4))
        run.kill(victim, run.rng.choice(list(Moment)))
        run.start(victim.slot)
    for _ in range(losses):
        run.wait_settled()
        victim = run.wait_victim()
        run.kill(victim, Moment.ANY)
        run.wait_taken_over(victim)
        run.start(victim.slot)
    run.wait_settled()
    loader.finish()
    run.wait_drained(120)
    slowest_s = [after[-1] for after in run.felt_s()]
    restarted_s, lost_s = max(slowest_s[:restarts]), max(slowest_s[restarts:])
    figures = run.verdict(restarted_slot_s=round(restarted_s, 2), lost_slot_s=round(lost_s, 2))
    assert restarted_s <= (5 if protocol == "classic" else 13)  # a KIP-848 member is not static: it is missed for its session
    assert lost_s <= 13
    assert figures["kills"] == restarts + losses
    assert figures["events"] >= (100_000 if protocol == "classic" else 30_000)
    assert figures["aborted_records"] >= restarts // 2
    assert figures["catch_ups"] > 0
    assert figures["peak_mb"] < 500
