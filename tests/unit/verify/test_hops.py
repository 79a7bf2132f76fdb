"""T03 for chained stages: each hop is verified by itself, and what is wrong with it is named by its coordinates, with nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from headrace import hop_record
from headrace.apps.forgetting import Forgetting
from headrace.features.state_store import ApplyResult
from headrace.memory_log import MemoryReader
from headrace.memory_log.reader import MemoryFeed
from headrace.parts import Limits
from headrace.predict.casting import Pinned
from headrace.publish.encoder import HeaderPolicy
from headrace.source import Source
from headrace.testing import Driver
from headrace.types import PartitionWrite, Record, RecordBatch, StateChunk, TopicPartition, ViewWrite
from headrace.verify.findings import INVARIANTS, Findings, Kind
from headrace.verify.subject import Subject
from headrace.verify.verification import Verification, Wishes
from tests.audit import batch_of
from tests.unit.flying import BY_CARRIER, BY_ORIGIN, MODELS, PARTITIONS, PREDICTIONS, TOPIC, app, fly, started

Damage = Callable[[list[Record]], list[Record]]


class DamagedReader(MemoryReader):
    """A reader to whom results look as if somebody had had his hands in them, while the log that is folded is as it was."""

    def __init__(self, driver: Driver, damage: Mapping[str, Damage]) -> None:
        super().__init__(driver.log)
        self._damage = damage

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> MemoryFeed:
        feed = super().feed(starts, ends)
        take = feed.take

        def damaged() -> list[RecordBatch]:
            found = [self._damage.get(batch.topic, list)(list(batch.records())) for batch in take()]
            return [batch_of(records) for records in found if records]

        if any(name.topic == PREDICTIONS for name in starts):
            feed.take = damaged  # type: ignore[method-assign]
        return feed


def verified(driver: Driver, damage: Mapping[str, Damage] | None = None, wishes: Wishes | None = None) -> Findings:
    """The findings about a driver's log and store."""
    subject = Subject(
        reader=lambda: DamagedReader(driver, damage or {}),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(app.name, name),
        topic_id=driver.log.topic_id,
        store=driver.store,
        now_ms=lambda: driver.clock.monotonic_ns() // 1_000_000,
        pause=driver.clock.advance,
    )
    return Verification(app, subject, casting_of=lambda _: Pinned(MODELS), headers=HeaderPolicy.CLOUDEVENTS, limits=Limits()).run(
        wishes or Wishes()
    )


@pytest.fixture(scope="module")
def run() -> Driver:
    """A run of 400 flights that was killed and rolled back on the way."""
    draw = random.Random(11)
    driver = started(draw)
    for step in ("apply", "end", "send", "offsets", "fetch"):
        fly(driver, draw, 80)
        driver.crash(before=step)
        driver.run()
    driver.roll_back_state()
    driver.run()
    return driver


def feeder(record: Record) -> tuple[int, int]:
    """Where the record stands that a record of a hop was made of."""
    found = hop_record.opened([record.value])
    return int(found.heads["feeder"][0]), int(found.heads["feeder_offset"][0])


def only(findings: Findings, kind: Kind) -> list[tuple[str, int, int | None, str | None]]:
    """The coordinates of the violations, which are all of one kind."""
    assert set(findings.counts) == {kind}, [violation.text() for violation in findings.violations]
    return [(one.topic, one.partition, one.offset, one.entity) for one in findings.violations]


def with_feature(record: Record) -> Record:
    """The same record with its first feature one floating-point number further on."""
    value = bytearray(record.value or b"")
    at = slice(hop_record.HEAD.itemsize, hop_record.HEAD.itemsize + 8)
    value[at] = np.nextafter(np.frombuffer(bytes(value[at]), dtype="<f8"), np.inf).tobytes()
    return replace(record, value=bytes(value))


def test_chained_stages_are_sound(run: Driver) -> None:
    """Everything is checked at each stage, and everything passes."""
    findings = verified(run)
    assert [violation.text() for violation in findings.violations] == []
    assert [findings.verdict(name) for name in INVARIANTS] == ["passed"] * 6
    assert findings.checked["events"] == 400 + findings.checked["records of hops"]
    assert findings.checked["records of hops"] > 2 * 350
    assert findings.checked["partitions"] == 3 * PARTITIONS


@pytest.mark.parametrize(("hop", "feeds"), [(BY_ORIGIN, TOPIC), (BY_CARRIER, BY_ORIGIN)])
def test_damage_on_a_hop_is_named_by_what_it_was_made_of(run: Driver, hop: str, feeds: str) -> None:
    """A record twice, a missing one, a feature off by one ulp, an event that is another, one in the wrong partition."""
    records = [record for number in range(PARTITIONS) for record in run.log.read(TopicPartition(hop, number))]
    one = records[len(records) // 2]
    site = [(feeds, *feeder(one), None)]
    changes: list[tuple[Kind, Callable[[Record], list[Record]]]] = [
        (Kind.DUPLICATE, lambda found: [found, found]),
        (Kind.LOST, lambda _: []),
        (Kind.FEATURES, lambda found: [with_feature(found)]),
        (Kind.RECORD, lambda found: [replace(found, value=(found.value or b"") + b" ")]),
        (Kind.RECORD, lambda found: [replace(found, timestamp_ms=found.timestamp_ms + 1)]),
    ]
    for kind, change in changes:
        damage = {hop: lambda some, change=change: [new for record in some for new in (change(record) if record == one else [record])]}
        assert only(verified(run, damage), kind) == site


def test_a_prediction_that_is_lost_twice_or_another_behind_hops(run: Driver) -> None:
    """Predictions are named by the record of the source, however many hops lie between."""
    records = [record for number in range(PARTITIONS) for record in run.log.read(TopicPartition(PREDICTIONS, number))]
    one = records[len(records) // 2]
    for kind, copies in ((Kind.DUPLICATE, 2), (Kind.LOST, 0)):
        damage = {PREDICTIONS: lambda some, copies=copies: [new for one_ in some for new in [one_] * (copies if one_ == one else 1)]}
        ((topic, _, _, _),) = only(verified(run, damage), kind)
        assert topic == TOPIC


def test_a_swapped_pair_behind_hops(run: Driver) -> None:
    """Two predictions in another order than their records have on the last hop."""
    records = max((run.log.read(TopicPartition(PREDICTIONS, number)) for number in range(PARTITIONS)), key=len)
    first, second = records[len(records) // 2 :][:2]
    order = {first.offset: replace(second, offset=first.offset), second.offset: replace(first, offset=second.offset)}

    def swap(some: list[Record]) -> list[Record]:
        return [order.get(record.offset, record) if record.partition == first.partition else record for record in some]

    assert len(only(verified(run, {PREDICTIONS: swap}), Kind.ORDER)) == 1


def test_a_stale_entity_at_a_hop(run: Driver) -> None:
    """The state of an airport that is not the fold's is named by the hop's partition and the entity."""
    view = app.views_of(app.hops[0])[0]
    name = next(
        TopicPartition(BY_ORIGIN, number) for number in range(PARTITIONS) if run.store.states(TopicPartition(BY_ORIGIN, number), view.fp)
    )
    states = run.store.states(name, view.fp)
    key = min(states)
    owner, head = b"o" * 16, run.store.head(name, view.fp)
    snapshot = run.store.snapshot()
    run.store.claim(name, [view.fp], owner)
    other = (
        np.frombuffer(next(state for found, state in states.items() if found != key), dtype=np.uint8)
        if len(states) > 1
        else np.zeros(0, np.uint8)
    )
    chunk = StateChunk(keys=[key], buffer=other, bounds=np.array([0, len(other)]))
    assert head.offset is not None
    write = ViewWrite(
        view=view.fp, start=head.offset, end=head.offset, chunks=[chunk] if len(other) else [], deletions=[] if len(other) else [key]
    )
    assert head.watermark_ms is not None
    assert run.store.apply(owner, PartitionWrite(partition=name, watermark_ms=head.watermark_ms, views=[write])) is ApplyResult.OK
    try:
        assert only(verified(run), Kind.STATE) == [(BY_ORIGIN, name.partition, None, key.decode())]
    finally:
        run.store.restore(snapshot)


def test_a_part_of_the_log_is_verified_by_itself(run: Driver) -> None:
    """From some instant on, of all stages; what came before is not taken for results too many."""
    records = [record for number in range(PARTITIONS) for record in run.log.read(TopicPartition(TOPIC, number))]
    middle_ms = sorted(record.timestamp_ms for record in records)[200]
    findings = verified(run, wishes=Wishes(from_ms=middle_ms))
    assert [violation.text() for violation in findings.violations] == []


@pytest.mark.parametrize("reads", app.inputs)
def test_who_is_forgotten_at_a_hop(reads: Source) -> None:
    """An airport, airline or aircraft is forgotten where it is kept; what was served before and what is served after it is right, also
    after everything was folded again.
    """
    draw = random.Random(23)
    driver = started(draw)
    fly(driver, draw, 150)
    driver.run()
    view = app.views_of(reads)[0]
    name = next(one for one in (TopicPartition(reads.topic, number) for number in range(PARTITIONS)) if driver.store.states(one, view.fp))
    entity = min(driver.store.states(name, view.fp)).decode()
    subject = Subject(
        reader=lambda: MemoryReader(driver.log),
        written_end=driver.log.end_offset,
        committed=lambda partition: driver.log.committed(app.name, partition),
        topic_id=driver.log.topic_id,
        store=driver.store,
        now_ms=lambda: driver.clock.monotonic_ns() // 1_000_000,
        pause=driver.clock.advance,
    )

    def remember(fact: bytes) -> None:
        driver.log.append(app.facts, 0, None, fact)

    done = Forgetting(app, subject, driver.store, members=list, remember=remember).forget(reads, name, entity)
    assert view.name in done.states
    driver.crash()
    fly(driver, draw, 100)
    driver.run()
    assert verified(driver).sound()
    driver.store.flush()
    driver.crash()
    driver.run()
    assert verified(driver).sound()
