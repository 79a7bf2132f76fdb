from __future__ import annotations

from headrace.apps.health import STALLED_AFTER_MS, Health, Progress
from headrace.clock import ManualClock
from headrace.types import TopicPartition


def test_a_process_lives_while_its_loop_comes_round() -> None:
    """/livez is good until 30 s have passed since the last tick, and good again after one."""
    clock = ManualClock()
    health = Health(clock.monotonic_ns)
    clock.advance(STALLED_AFTER_MS - 1)
    assert health.livez() == (True, {"alive": True, "quiet_ms": STALLED_AFTER_MS - 1})
    clock.advance(1)
    assert not health.livez()[0]
    health.tick()
    assert health.livez()[0]


def test_a_process_is_ready_when_nothing_is_in_its_way() -> None:
    """/readyz gives every reason why not, from the start on, and none once nothing is reported."""
    clock = ManualClock()
    health = Health(clock.monotonic_ns)
    assert health.readyz() == (False, {"ready": False, "reasons": ["the worker is starting"], "catching_up": []})
    health.report(waits_for=["flights-3 is catching up", "flights-4 was given up"])
    assert health.readyz()[1]["reasons"] == ["flights-3 is catching up", "flights-4 was given up"]
    health.report(waits_for=[])
    assert health.readyz() == (True, {"ready": True, "reasons": [], "catching_up": []})
    assert health.ready()


def test_a_process_that_hangs_is_not_ready() -> None:
    """A loop that stalls takes readiness with it and says since when."""
    clock = ManualClock()
    health = Health(clock.monotonic_ns)
    health.report(waits_for=[])
    clock.advance(75_000)
    assert not health.ready()
    assert health.readyz()[1]["reasons"] == ["the loop has not come round for 75 s"]


def test_progress_tells_rate_and_time_left() -> None:
    """A catch-up that did 2,000 records in 4 s has 500 a second and, with 1,000 left, 2 s to go."""
    name = TopicPartition("flights", 3)
    progress = Progress.of(name, start=1_000, position=3_000, goes_live_at=4_000, elapsed_ms=4_000)
    assert (progress.records_per_second, progress.seconds_left) == (500.0, 2.0)
    health = Health(ManualClock().monotonic_ns)
    health.report(waits_for=["flights-3 is catching up"], progress=[progress])
    assert health.readyz()[1]["catching_up"] == [
        {"topic": "flights", "partition": 3, "position": 3_000, "goes_live_at": 4_000, "records_per_second": 500.0, "seconds_left": 2.0}
    ]


def test_progress_that_cannot_be_told_is_not_guessed() -> None:
    """Before the first record the time left is unknown; behind the goal it is none."""
    name = TopicPartition("flights", 3)
    assert Progress.of(name, start=5, position=5, goes_live_at=9, elapsed_ms=0).seconds_left is None
    assert Progress.of(name, start=5, position=10, goes_live_at=9, elapsed_ms=1_000).seconds_left == 0
