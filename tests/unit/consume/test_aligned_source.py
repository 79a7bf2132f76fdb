"""Partitions that feed a hop keep pace in event time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from headrace.consume.pace_group import STILL_MS
from headrace.loop import Loop
from headrace.parts import Limits
from headrace.recovery import Phase
from headrace.testing import Driver
from headrace.types import Drain, Position, TopicPartition
from tests.unit.flying import BY_ORIGIN, MODELS, TOPIC, app

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000
SLACK_MS = 300_000
"""Half of the lateness of the source."""


def flight(tail: str, at_ms: int) -> bytes:
    """The value of a departure."""
    return json.dumps({"tail": tail, "origin": "A0", "carrier": "AA", "at": at_ms, "delay": 1.0}).encode()


def backlog(driver: Driver, partition: int, times_ms: Iterator[int]) -> None:
    """Put flights of one aircraft on a partition, wherever its key belongs."""
    for at_ms in times_ms:
        key = f"N{partition}"
        driver.log.append(TOPIC, partition, key.encode(), flight(key, at_ms), None, at_ms)


def arrived(driver: Driver) -> list[int]:
    """The event times on the hop, in the order in which they came to the one airport."""
    return [
        int(json.loads((record.value or b"")[-len(flight("N0", START_MS)) :])["at"])
        for number in range(3)
        for record in driver.log.read(TopicPartition(BY_ORIGIN, number))
    ]


def disorder_ms(times_ms: list[int]) -> int:
    """How much older an event is at most than one that came before it."""
    newest = times_ms[0]
    worst = 0
    for at_ms in times_ms:
        worst = max(worst, newest - at_ms)
        newest = max(newest, at_ms)
    return worst


@pytest.fixture
def driver() -> Driver:
    """The engine, with batches that hold days."""
    return Driver(app, models=MODELS, partitions=3, now_ms=START_MS + 100 * HOUR_MS, limits=Limits(max_batch=64, refused_share=1.0))


def test_a_backlog_does_not_mix_days(driver: Driver) -> None:
    """Partitions of very different density come to the hop within half the lateness of one another."""
    backlog(driver, 0, iter(range(START_MS, START_MS + 48 * HOUR_MS, 60_000)))
    backlog(driver, 1, iter(range(START_MS, START_MS + 48 * HOUR_MS, HOUR_MS)))
    backlog(driver, 2, iter(range(START_MS + 20 * HOUR_MS, START_MS + 48 * HOUR_MS, 7 * 60_000)))
    driver.run()
    times = arrived(driver)
    assert len(times) == 2_880 + 48 + 240
    assert disorder_ms(times) <= SLACK_MS


def test_an_idle_partition_holds_nobody_up(driver: Driver) -> None:
    """One that is at its end is not waited for, and one without any event neither."""
    backlog(driver, 0, iter([START_MS]))
    driver.run()
    backlog(driver, 1, iter(range(START_MS, START_MS + 48 * HOUR_MS, HOUR_MS)))
    driver.run()
    assert len(arrived(driver)) == 49


def test_records_without_a_time_pass(driver: Driver) -> None:
    """What decoding will refuse waits for nobody and becomes a dead letter."""
    driver.log.append(TOPIC, 0, b"N0", b"{", None, START_MS)
    driver.log.append(TOPIC, 0, b"N0", None, None, START_MS)
    backlog(driver, 1, iter([START_MS]))
    assert len(driver.dead_letters()) == 2
    assert len(arrived(driver)) == 1


@pytest.mark.parametrize("wrong_ms", [4_000_000 * HOUR_MS, 4_500_000_000_000 * 1_000, 4 * 60_000])
def test_an_event_ahead_of_its_time_holds_nothing_up(driver: Driver, wrong_ms: int) -> None:
    """What decoding will refuse as far ahead, and what it just accepts, lets the records behind it go on as if it were of now."""
    times = range(START_MS, START_MS + 48 * HOUR_MS, 60_000)
    backlog(driver, 0, iter(times[:100]))
    driver.log.append(TOPIC, 0, b"N0", flight("N0", times[100] + wrong_ms), None, times[100])
    backlog(driver, 0, iter(times[100:]))
    backlog(driver, 1, iter(times))
    worker = driver._workers[0]
    while (committed := driver.log.group(app.name).offsets.get(TopicPartition(TOPIC, 1))) is None or committed.offset < 1_000:
        worker.turn()
    assert driver.log.group(app.name).offsets[TopicPartition(TOPIC, 0)].offset > 900


def test_a_rebuild_holds_up_no_live_partition(driver: Driver) -> None:
    """While a partition is replayed from long ago, the others go on; what it replays waits for nobody."""
    times = range(START_MS, START_MS + 48 * HOUR_MS, 60_000)
    for number in (0, 1):
        backlog(driver, number, iter(times))
    driver.run()
    driver.store.drop(TopicPartition(TOPIC, 0), driver._workers[0]._assignment.path.views(TOPIC))
    driver.crash()
    backlog(driver, 1, iter(range(times[-1], times[-1] + HOUR_MS, 60_000)))
    worker = driver._workers[0]
    phases = []
    while driver.log.group(app.name).offsets[TopicPartition(TOPIC, 1)].offset < len(times) + 60:
        worker.turn()
        phases.append(worker._assignment.partitions[TopicPartition(TOPIC, 0)].phase)
    assert phases[-1] is Phase.CATCHING_UP


def test_a_batch_is_no_larger_than_asked_for(driver: Driver) -> None:
    """However many topics hold records, all together give at most what the loop has room for."""
    for number in range(3):
        backlog(driver, number, iter(range(START_MS, START_MS + 48 * HOUR_MS, 600_000)))
    sizes = []
    source = driver._workers[0]._source
    poll = source.poll

    def seen(max_records: int, timeout_ms: int) -> Drain:
        drain = poll(max_records, timeout_ms)
        sizes.append(len(drain) / max_records)
        return drain

    with patch.object(source, "poll", seen):
        driver.run()
    assert 0.5 < max(sizes) <= 1
    assert source.waiting() == {}


class Two:
    """Two workers of one app: the first has partition 0 of the source, the second the others, and all of the hops."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.first, self.second = driver, driver._workers[0], driver._start("1")
        for worker in (self.first, self.second):
            worker.turn()
        mine = TopicPartition(TOPIC, 0)
        first, second = driver.log.group(app.name).members
        rest = [TopicPartition(reads.topic, number) for reads in app.inputs for number in range(3)]
        driver.log.group(app.name).reassign({first: [mine], second: [name for name in rest if name != mine]})
        self.turn(times=5)

    def committed(self, partition: int) -> int:
        """How far a partition of the source is."""
        return self.driver.log.group(app.name).offsets[TopicPartition(TOPIC, partition)].offset

    def turn(self, *workers: Loop, times: int) -> None:
        """Let some of them work, while time goes by."""
        for _ in range(times):
            for worker in workers or (self.first, self.second):
                worker.turn()
            self.driver.clock.advance(60)


def test_the_partitions_of_other_workers_count(driver: Driver) -> None:
    """A worker waits for the partitions of another that are behind, goes on as they do, and days are not mixed."""
    backlog(driver, 0, iter(range(START_MS, START_MS + 48 * HOUR_MS, 600_000)))
    backlog(driver, 1, iter(range(START_MS, START_MS + 48 * HOUR_MS, 600_000)))
    two = Two(driver)
    two.turn(two.second, times=100)
    assert 1 <= two.committed(1) <= 3
    two.turn(times=6_000)
    assert (two.committed(0), two.committed(1)) == (288, 288)
    assert disorder_ms(arrived(driver)) <= SLACK_MS + 600_000


def test_a_partition_that_stands_still_is_not_waited_for_for_ever(driver: Driver) -> None:
    """Half a minute after its worker was last heard of, the others go on without it."""
    backlog(driver, 0, iter(range(START_MS, START_MS + 48 * HOUR_MS, 600_000)))
    backlog(driver, 1, iter(range(START_MS, START_MS + 48 * HOUR_MS, 600_000)))
    two = Two(driver)
    two.turn(two.second, times=STILL_MS // 60 - 100)
    assert 1 <= two.committed(1) <= 3
    two.turn(two.second, times=300)
    assert two.committed(1) == 288
    assert two.committed(0) <= 3


def test_a_partition_that_is_taken_away_takes_what_is_held_with_it(driver: Driver) -> None:
    """Records that wait are not given out for a partition that somebody else has now; nothing is lost and nothing comes twice."""
    backlog(driver, 0, iter(range(START_MS, START_MS + 4 * HOUR_MS, 600_000)))
    backlog(driver, 1, iter(range(START_MS, START_MS + 48 * HOUR_MS, 600_000)))
    two = Two(driver)
    two.turn(two.second, times=50)
    first, second = driver.log.group(app.name).members
    driver.log.group(app.name).reassign(
        {first: [TopicPartition(reads.topic, number) for reads in app.inputs for number in range(3)], second: []}
    )
    two.turn(times=600)
    times = arrived(driver)
    assert len(times) == 24 + 288
    assert driver.log.group(app.name).offsets[TopicPartition(TOPIC, 1)] == Position(offset=288, watermark_ms=max(times))
