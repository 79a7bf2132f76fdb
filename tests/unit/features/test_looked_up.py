"""What a batch looks up: told once a place, whatever the number of events, and right for each of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from headrace.features import looked_up
from headrace.features.finder import AT_ONCE, Finder, Sought
from headrace.features.looked_up import ViewLookUps
from headrace.features.memory_store import MemoryStore
from headrace.features.state_store import Ask, Looked
from headrace.partitioner import partition_of
from headrace.paths import decoder_of
from headrace.testing import Driver
from headrace.types import EventBatch, TopicPartition
from tests.audit import batch_of
from tests.unit.boarding import (
    BOARDINGS,
    DEPARTURES,
    MINUTE_MS,
    NOON_MS,
    PARTITIONS,
    aircraft,
    airport,
    app,
    boardings,
    leave,
    started,
    traffic,
)

KEPT = [app.kept_at(view.name).topic for view in (airport, aircraft)]


@pytest.fixture
def run(seed: int) -> Driver:
    """Some hours of traffic."""
    driver = started()
    traffic(driver, random.Random(seed), 200)
    driver.run()
    return driver


def boarded(driver: Driver) -> EventBatch:
    """All events that ask, some of them about nobody."""
    records = [record for number in range(PARTITIONS) for record in driver.log.read(TopicPartition(BOARDINGS, number))]
    return decoder_of(app, boardings, fields={"origin", "tail"}).decode(batch_of(records)).events


def only(events: EventBatch, row: int) -> EventBatch:
    """One of them."""
    return replace(
        events,
        rows=events.rows[[row]],
        entities=[events.entities[row]],
        event_times_ms=events.event_times_ms[[row]],
        columns={name: column[[row]] for name, column in events.columns.items()},
    )


def look_ups(driver: Driver) -> ViewLookUps:
    """Of both views."""
    return ViewLookUps([airport, aircraft], KEPT, stale_after_ms=20 * MINUTE_MS, store=driver.store)


def test_a_place_is_told_once(run: Driver) -> None:
    """There are as many texts, and horizons, as partitions of each view and one for what is nowhere, not one an event."""
    events = boarded(run)
    assert len(events) > 50
    with (
        patch.object(looked_up, "place_text", wraps=looked_up.place_text) as texts,
        patch.object(looked_up, "horizon_ms", wraps=looked_up.horizon_ms) as horizons,
    ):
        found = look_ups(run).look(events)
    assert texts.call_count <= 2 * (PARTITIONS + 1)
    assert horizons.call_count <= 2 * (PARTITIONS + 1)
    assert len(set(found.places)) > PARTITIONS


def test_each_event_finds_what_it_finds_alone(run: Driver) -> None:
    """Values, marks and places of a batch are those of its events one by one; nobody, and an entity that was never seen, among them."""
    events = boarded(run)
    looks = look_ups(run)
    found = looks.look(events)
    assert None in events.columns["origin"].tolist()
    for row in range(len(events)):
        alone = looks.look(only(events, row))
        assert alone.places == [found.places[row]]
        for one, other in ((alone.values, found.values), (alone.stale, found.stale), (alone.ahead, found.ahead)):
            np.testing.assert_array_equal(one[0], other[row])


def test_heads_follow_the_number_of_partitions() -> None:
    """A topic nobody has served has none; whoever asked before partitions were added, or all was forgotten, hears of it."""
    driver = started()
    finder, views = Finder(driver.store), [(DEPARTURES, aircraft.fp), (DEPARTURES, aircraft.fp), ("other.v1", airport.fp)]
    assert finder.heads(views) == [{}, {}, {}]
    driver.run()
    for count in (PARTITIONS, 2 * PARTITIONS, 1):
        driver.store.set_partitions(DEPARTURES, count)
        assert [sorted(heads) for heads in finder.heads(views)] == [list(range(count)), list(range(count)), []]
    driver.store.flush()
    assert finder.heads(views) == [{}, {}, {}]
    assert finder.heads([]) == []


class GrowingStore(MemoryStore):
    """A store to which, while it is asked for the first time, partitions are added, and another thread hears of them before the answer."""

    hears: Finder
    grows = False

    def look(self, asked: Sequence[Ask]) -> list[Looked]:
        if self.grows:
            self.grows = False
            self.set_partitions(DEPARTURES, 2 * PARTITIONS)
            self.hears.find([Sought(DEPARTURES, aircraft.fp, [])])
        return super().look(asked)


def test_what_another_thread_learned_does_not_make_an_old_question_right() -> None:
    """Keys that were looked for by the old number of partitions are looked for again, though the new one is known when the answer comes."""
    store = GrowingStore()
    store.set_partitions(DEPARTURES, PARTITIONS)
    store.hears = Finder(store)
    keys = [f"N{number}".encode() for number in range(50)]
    store.hears.find([Sought(DEPARTURES, aircraft.fp, keys)])
    store.grows = True
    (found,) = store.hears.find([Sought(DEPARTURES, aircraft.fp, keys)])
    assert found is not None
    assert [found.places[one].partition for one in found.at.tolist()] == [partition_of(key, 2 * PARTITIONS) for key in keys]


def test_many_keys_of_a_partition_keep_their_order() -> None:
    """More keys than one question takes are asked for in several, and each gets its own state and its own place."""
    driver = started()
    names = [f"N{number}" for number in range(3 * AT_ONCE + 7)]
    for name in names[::2]:
        leave(driver, "JFK", NOON_MS, 10.0, name)
    driver.run()
    (found,) = Finder(driver.store).find([Sought(DEPARTURES, aircraft.fp, [name.encode() for name in names])])
    assert found is not None
    assert len(found.places) < 3 * PARTITIONS
    numbers = [partition_of(name.encode(), PARTITIONS) for name in names]
    assert [found.places[one].partition for one in found.at.tolist()] == numbers
    stored: dict[bytes, bytes] = {}
    for number in range(PARTITIONS):
        stored |= driver.store.states(TopicPartition(DEPARTURES, number), aircraft.fp)
    assert found.packed == [stored.get(name.encode()) for name in names]
