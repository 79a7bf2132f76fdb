"""The flights into a broker: what is sent, when, and what is said when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from headrace.clock import ManualClock
from headrace.demo.feed import Feed
from headrace.demo.load import PORTION, Broker, due_by_rate, due_by_speed, from_record, load, records_of_boardings, records_of_departures
from headrace.demo.planted import TAKEN_BY_A_BROKER, plant
from headrace.errors import TransientError
from headrace.memory_log import MemoryLog
from headrace.types import OutRecords, TopicPartition
from tests.unit.demo.small_year import small_year

DEPARTURES = small_year()
RECORDS = records_of_departures(DEPARTURES, plant(DEPARTURES, 13, TAKEN_BY_A_BROKER))


class Arrived:
    """A broker that keeps what it is sent, with the clock's time in seconds."""

    def __init__(self, clock: ManualClock) -> None:
        self.values: list[bytes | None] = []
        self.at_s: list[float] = []
        self.asked = 0
        self._clock = clock

    def broker(self, *, delivered: Callable[[], bool] | None = None) -> Broker:
        """The two calls a load makes."""
        return Broker(send=self._send, delivered=delivered or self._delivered)

    def _send(self, records: OutRecords) -> None:
        self.values += records.values
        self.at_s += [self._clock.monotonic_ns() / 1e9] * len(records)

    def _delivered(self) -> bool:
        self.asked += 1
        return True


def sleeping(clock: ManualClock) -> Callable[[float], None]:
    """A sleep that moves the clock."""
    return lambda seconds: clock.advance(round(seconds * 1_000))


def test_records_are_those_of_the_replay_in_its_order() -> None:
    """What goes to a broker is what the replay writes to a topic of one partition."""
    log = MemoryLog(ManualClock())
    log.create_topic(RECORDS.topic)
    Feed(log, RECORDS.topic, DEPARTURES, plant(DEPARTURES, 13, TAKEN_BY_A_BROKER), partitions=1)
    written = log.read(TopicPartition(RECORDS.topic, 0))
    assert len(RECORDS) == len(written) == 413
    for row, record in enumerate(written):
        assert (RECORDS.keys[row], RECORDS.values[row], RECORDS.timestamps_ms[row]) == (record.key, record.value, record.timestamp_ms)
        assert RECORDS.headers[row] == record.headers


def test_all_at_once_sends_everything_and_waits_for_delivery() -> None:
    """Without a pace nothing is waited for but the delivery at the end."""
    clock = ManualClock()
    arrived = Arrived(clock)
    (last,) = load(RECORDS, due_by_rate(RECORDS, 0), arrived.broker(), clock=clock, sleep=sleeping(clock))
    assert arrived.values == RECORDS.values
    assert (last.sent, last.delivered, arrived.asked, last.seconds) == (413, 413, 1, 0.0)


def test_rate_spaces_records_evenly() -> None:
    """At 100 a second the last of 413 leaves after 4.12 seconds, each at most one nap late, delivery asked for about once a second."""
    clock = ManualClock()
    arrived = Arrived(clock)
    list(load(RECORDS, due_by_rate(RECORDS, 100), arrived.broker(), clock=clock, sleep=sleeping(clock)))
    late_s = np.array(arrived.at_s) - np.arange(413) / 100
    assert 0 <= late_s.min() <= late_s.max() <= 0.02 + 1e-9
    assert 4 <= arrived.asked <= 6


def test_speed_follows_the_year() -> None:
    """At a million times real time the whole year takes as long as it should, and no record leaves before its time."""
    clock = ManualClock()
    arrived = Arrived(clock)
    list(load(RECORDS, due_by_speed(RECORDS, 1_000_000), arrived.broker(), clock=clock, sleep=sleeping(clock)))
    year_s = (RECORDS.timestamps_ms[-1] - RECORDS.timestamps_ms[0]) / 1_000
    assert arrived.at_s[-1] == pytest.approx(year_s / 1_000_000, abs=0.03)
    due_s = (np.array(RECORDS.timestamps_ms) - RECORDS.timestamps_ms[0]) / 1e9
    assert (np.array(arrived.at_s) >= due_s - 1e-9).all()


def test_a_load_that_fell_behind_catches_up_in_portions() -> None:
    """What became due meanwhile is sent without waiting, no more than a portion at a time."""
    count = 2 * PORTION + 10
    records = OutRecords(
        topic=RECORDS.topic, keys=[b"k"] * count, values=[b"v"] * count, headers=[[]] * count, timestamps_ms=list(range(count))
    )
    clock = ManualClock()
    arrived = Arrived(clock)
    steps = [step.sent for step in load(records, due_by_rate(records, 0), arrived.broker(), clock=clock, sleep=sleeping(clock))]
    assert steps == [PORTION, 2 * PORTION, count]


def test_undelivered_records_stop_the_load_and_name_where_to_go_on() -> None:
    """Nothing is known to be there before delivery was confirmed, whatever was skipped counts."""
    clock = ManualClock()
    arrived = Arrived(clock)
    with pytest.raises(TransientError, match=r"not delivered; the first 1,000 records are there: go on with --skip 1000"):
        list(
            load(
                RECORDS,
                due_by_rate(RECORDS, 0),
                arrived.broker(delivered=lambda: False),
                clock=clock,
                sleep=sleeping(clock),
                skipped=1_000,
            )
        )


def test_broker_away_while_sending_names_where_to_go_on() -> None:
    """The broker's own words come first, then how to go on."""
    clock = ManualClock()

    def away(_: OutRecords) -> None:
        raise TransientError("no broker answers")

    with pytest.raises(TransientError, match=r"no broker answers; the first 0 records are there: go on with --skip 0"):
        list(load(RECORDS, due_by_rate(RECORDS, 0), Broker(send=away, delivered=lambda: True), clock=clock, sleep=sleeping(clock)))


def test_skipping_leaves_out_the_beginning() -> None:
    """The load goes on with exactly the record it is told to."""
    assert from_record(RECORDS, 410).values == RECORDS.values[410:]
    clock = ManualClock()
    assert list(load(from_record(RECORDS, 413), np.zeros(0), Arrived(clock).broker(), clock=clock, sleep=sleeping(clock))) == []


def test_boardings_are_those_of_the_departures() -> None:
    """One of each flight, keyed by its aircraft, in the order of its own time, and without what is known later."""
    found = records_of_boardings(DEPARTURES)
    events = [json.loads(value or b"") for value in found.values]
    assert sorted(event["flight_id"] for event in events) == sorted(json.loads(value)["flight_id"] for value in DEPARTURES.values)
    assert found.timestamps_ms == sorted(found.timestamps_ms) == [event["boards_at"] for event in events]
    assert found.keys == [event["tail"].encode() for event in events]
    assert not any("dep_delay" in event for event in events)
