"""T03: a sound deployment passes, and each kind of damage is named by its coordinates, with nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import headrace as hr
from headrace.features.state_store import ApplyResult
from headrace.memory_log import MemoryReader
from headrace.memory_log.reader import MemoryFeed
from headrace.parts import Limits
from headrace.predict.casting import Pinned
from headrace.predict.scores import Scores
from headrace.publish.encoder import HeaderPolicy
from headrace.testing import Driver
from headrace.types import Float64s, PartitionWrite, Record, RecordBatch, StateChunk, TopicPartition, ViewWrite
from headrace.verify.findings import INVARIANTS, Findings, Kind
from headrace.verify.subject import Subject
from headrace.verify.verification import Progress, Verification, Wishes
from tests.audit import batch_of

START_MS = 1_700_000_000_000
PARTITIONS = 3
SOURCE, PREDICTIONS = "payments.v1", "fraud.v1"


class Payment(hr.Event):
    """The contract of the source."""

    card: str
    at: hr.EventTime
    amount: float


payments = hr.Source(SOURCE, Payment, key="card", time="at", lateness="1m", max_ahead="5m")
spending = hr.FeatureView("spending", entity="card", source=payments, features=[hr.count(over=["10m", "1h"]), hr.mean("amount", over="1h")])
habits = hr.FeatureView("habits", entity="card", source=payments, features=[hr.last("amount", over="2h"), hr.seconds_since_last(over="2h")])
app = hr.App(
    "cards",
    pipelines=[hr.Pipeline("fraud", views=[spending, habits], event_features=["amount"], predictions=PREDICTIONS, publish_features=True)],
)


class Model:
    """A model that answers a mix of its features, and nothing for more than 990."""

    name, version = "fraud", "1"

    def score(self, values: Float64s) -> Scores:
        refused = [(row, "too much") for row in np.flatnonzero(values[:, -1] > 990).tolist()]
        return Scores(scores=np.nansum(values, axis=1) / 7, refused=refused)


MODELS = {"fraud": Model()}


@pytest.fixture(scope="module")
def run() -> Driver:
    """A run of 400 payments, some of them bad, refused or late, that was killed and rolled back on the way."""
    draw = random.Random(7)
    driver = Driver(app, models=MODELS, partitions=PARTITIONS, now_ms=START_MS, limits=Limits(max_batch=16, refused_share=1.0))
    for number in range(400):
        driver.advance(draw.choice([0, 500, 60_000, 240_000]))
        card, at_ms = f"card-{draw.randrange(20)}", driver.clock.now_ms() - draw.choice([0, 0, 0, 20_000, 400_000])
        value = json.dumps({"card": card, "at": at_ms, "amount": draw.uniform(1, 1_000)}).encode()
        driver.send_bytes(SOURCE, key=card.encode(), value=b"{" if number % 29 == 0 else value, timestamp_ms=driver.clock.now_ms())
        if number in {90, 200}:
            driver.crash(before="apply")
        if number % 60 == 59:
            driver.run()
    driver.roll_back_state()
    driver.run()
    return driver


Damage = Callable[[list[Record]], list[Record]]


class DamagedReader(MemoryReader):
    """A reader of a log in which somebody had his hands; `damage`: what became of the records of a topic."""

    def __init__(self, driver: Driver, damage: Mapping[str, Damage]) -> None:
        super().__init__(driver.log)
        self._damage = damage

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> MemoryFeed:
        feed = super().feed(starts, ends)
        take = feed.take

        def damaged() -> list[RecordBatch]:
            found = [self._damage.get(batch.topic, list)(list(batch.records())) for batch in take()]
            return [batch_of(records) for records in found if records]

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
    told: list[Progress] = []
    verification = Verification(
        app, subject, casting_of=lambda _: Pinned(MODELS), headers=HeaderPolicy.CLOUDEVENTS, limits=Limits(), told=told.append
    )
    findings = verification.run(wishes or Wishes())
    assert told
    return findings


def only(findings: Findings, kind: Kind) -> list[tuple[str, int, int | None, str | None]]:
    """The coordinates of the violations, which are all of one kind."""
    assert set(findings.counts) == {kind}, [violation.text() for violation in findings.violations]
    (broken,) = [name for name in INVARIANTS if findings.verdict(name) == "violated"]
    assert kind in INVARIANTS[broken][1]
    assert not findings.sound()
    return [(one.topic, one.partition, one.offset, one.entity) for one in findings.violations]


def picked(driver: Driver, topic: str, count: int = 1) -> list[Record]:
    """Records of a topic, spread over it, with at least two of the same key following one another in partition 1."""
    records = driver.log.read(TopicPartition(topic, 1))
    return records[len(records) // 2 :][:count]


def source_of(record: Record) -> tuple[str, int, int, None]:
    """The coordinates of the event a prediction is about."""
    _, partition, offset, _ = json.loads(record.value or b"")["id"].rsplit("-", 3)
    return SOURCE, int(partition), int(offset), None


def changed(wanted: Record, change: Callable[[Record], list[Record]]) -> Damage:
    """Put other records in the place of one."""
    return lambda records: [new for record in records for new in (change(record) if record == wanted else [record])]


def one_for_one(change: Callable[[Record], Record], found: Record) -> list[Record]:
    """A change that puts one record in the place of one."""
    return [change(found)]


def with_member(record: Record, name: str, change: Callable[[float], float]) -> Record:
    """The same prediction with another value of a feature, or of its score."""
    value = json.loads(record.value or b"")
    holder = value["features"] if name in value["features"] else value
    holder[name] = change(holder[name])
    return replace(record, value=json.dumps(value, separators=(",", ":")).encode())


def with_header(record: Record, name: str, value: bytes) -> Record:
    """The same record with another value of a header."""
    return replace(record, headers=[(found, value if found == name else text) for found, text in record.headers])


def test_a_run_with_kills_and_a_roll_back_is_sound(run: Driver) -> None:
    """Everything is checked, everything passes, and everything is counted."""
    findings = verified(run)
    assert [violation.text() for violation in findings.violations] == []
    assert [findings.verdict(name) for name in INVARIANTS] == ["passed"] * 6
    assert findings.not_checked == {}
    letters = findings.checked["dead letters"]
    assert letters > 14
    assert findings.checked["events"] == 400 == findings.checked["predictions"] + letters
    assert findings.checked["partitions"] == 2 * PARTITIONS
    assert findings.checked["entities"] >= 30


def test_a_duplicate(run: Driver) -> None:
    """A prediction that is there twice."""
    (one,) = picked(run, PREDICTIONS)
    assert only(verified(run, {PREDICTIONS: changed(one, lambda found: [found, found])}), Kind.DUPLICATE) == [source_of(one)]


def test_a_missing_prediction(run: Driver) -> None:
    """A prediction that is not there."""
    (one,) = picked(run, PREDICTIONS)
    assert only(verified(run, {PREDICTIONS: changed(one, lambda _: [])}), Kind.LOST) == [source_of(one)]


def test_a_swapped_pair(run: Driver) -> None:
    """Two predictions in the wrong order: the earlier one stands behind the later one."""
    first, second = picked(run, PREDICTIONS, 2)

    def swap(records: list[Record]) -> list[Record]:
        found = []
        for record in records:
            if record == first:
                found.append(replace(second, offset=first.offset))
            elif record == second:
                found.append(replace(first, offset=second.offset))
            else:
                found.append(record)
        return found

    assert only(verified(run, {PREDICTIONS: swap}), Kind.ORDER) == [source_of(first)]


@pytest.mark.parametrize("name", ["spending.mean_amount_1h", "habits.last_amount_2h", "amount"])
def test_a_feature_off_by_one_ulp(run: Driver, name: str) -> None:
    """The next floating-point number, and nothing else."""
    one = next(record for record in picked(run, PREDICTIONS, 20) if json.loads(record.value or b"")["features"][name] is not None)
    off = changed(one, lambda found: [with_member(found, name, lambda value: float(np.nextafter(value, np.inf)))])
    findings = verified(run, {PREDICTIONS: off})
    assert only(findings, Kind.FEATURES) == [source_of(one)]
    assert name in findings.violations[0].expected


def test_a_score_that_is_not_the_models(run: Driver) -> None:
    """Off by more than a millionth."""
    (one,) = picked(run, PREDICTIONS)
    damage = {PREDICTIONS: changed(one, lambda found: [with_member(found, "score", lambda value: value + 2e-6)])}
    assert only(verified(run, damage), Kind.SCORE) == [source_of(one)]
    near = {PREDICTIONS: changed(one, lambda found: [with_member(found, "score", lambda value: value + 1e-9)])}
    assert verified(run, near).sound()


def test_another_entity_key_timestamp_or_header(run: Driver) -> None:
    """What stands around features and score is compared too, member by member."""
    (one,) = picked(run, PREDICTIONS)
    for change in (
        lambda found: replace(found, value=(found.value or b"").replace(b'"late":false', b'"late":true')),
        lambda found: replace(found, timestamp_ms=found.timestamp_ms + 1),
        lambda found: with_header(found, "ce_time", b"2013-01-01T00:00:00.000Z"),
    ):
        assert only(verified(run, {PREDICTIONS: changed(one, partial(one_for_one, change))}), Kind.RECORD) == [source_of(one)]


def test_a_result_in_anothers_partition(run: Driver) -> None:
    """A prediction that does not stand where its key belongs."""
    last = run.log.read(TopicPartition(PREDICTIONS, 1))[-1]
    moved: dict[str, Damage] = {
        PREDICTIONS: lambda records: (
            [record for record in records if record != last]
            + ([replace(last, partition=0, offset=100_000)] if records[0].partition == 0 else [])
        )
    }
    assert only(verified(run, moved), Kind.MISPLACED) == [source_of(last)]


def test_a_prediction_nobody_asked_for(run: Driver) -> None:
    """One for an offset that was never committed, and one that is no prediction at all."""
    (one,) = picked(run, PREDICTIONS)
    _, partition, offset, _ = source_of(one)
    beyond = replace(
        one, value=(one.value or b"").replace(f'"{SOURCE}-{partition}-{offset}-'.encode(), f'"{SOURCE}-{partition}-9999-'.encode())
    )
    findings = verified(run, {PREDICTIONS: changed(one, lambda found: [found, beyond])})
    assert only(findings, Kind.UNEXPECTED) == [(SOURCE, partition, 9999, None)]
    foreign = replace(one, value=b'{"hello":1}')
    findings = verified(run, {PREDICTIONS: changed(one, lambda found: [found, foreign])})
    assert only(findings, Kind.UNEXPECTED) == [(PREDICTIONS, one.partition, one.offset, None)]


def test_a_wrong_reason(run: Driver) -> None:
    """A dead letter that gives another reason."""
    (letter,) = picked(run, app.dead_letters)
    wrong = changed(letter, lambda found: [with_header(found, "headrace-reason", b"CONTRACT")])
    ((topic, partition, offset, _),) = only(verified(run, {app.dead_letters: wrong}), Kind.REASON)
    assert (topic, f"{partition}/{offset}") == (SOURCE, coordinates(letter))


def test_a_dead_letter_that_is_not_the_record(run: Driver) -> None:
    """A dead letter with another value, and one with a header less."""
    (letter,) = picked(run, app.dead_letters)
    for change in (
        lambda found: replace(found, value=(found.value or b"") + b" "),
        lambda found: replace(found, headers=[header for header in found.headers if header[0] != "headrace-app"]),
    ):
        findings = verified(run, {app.dead_letters: changed(letter, partial(one_for_one, change))})
        ((_, partition, offset, _),) = only(findings, Kind.LETTER)
        assert f"{partition}/{offset}" == coordinates(letter)


@pytest.mark.parametrize(("change", "kind"), [(lambda _: [], Kind.LOST), (lambda found: [found, found], Kind.DUPLICATE)])
def test_a_dead_letter_lost_or_doubled(run: Driver, change: Callable[[Record], list[Record]], kind: Kind) -> None:
    """One outcome a record, dead letters too."""
    (letter,) = picked(run, app.dead_letters)
    ((_, partition, offset, _),) = only(verified(run, {app.dead_letters: changed(letter, change)}), kind)
    assert f"{partition}/{offset}" == coordinates(letter)


def coordinates(letter: Record) -> str:
    """Partition and offset of the refused record."""
    told = dict(letter.headers)
    return f"{(told['__streams.errors.partition'] or b'').decode()}/{(told['__streams.errors.offset'] or b'').decode()}"


def test_a_stale_entity(run: Driver) -> None:
    """One entity's state from before, one that was deleted, and one that never was, in the store."""
    whole = run.store.snapshot()
    name = TopicPartition(SOURCE, 2)
    states = run.store.states(name, spending.fp)
    (key, state), (other, _), *_ = sorted(states.items())
    try:
        put(run, name, {key: states[other]})
        assert only(verified(run), Kind.STATE) == [(SOURCE, 2, None, key.decode())]
        put(run, name, {key: state, b"nobody": state})
        assert only(verified(run), Kind.STATE) == [(SOURCE, 2, None, "nobody")]
        run.store.restore(whole)
        run.store.forget(name, spending.fp, [key])
        assert only(verified(run), Kind.STATE) == [(SOURCE, 2, None, key.decode())]
    finally:
        run.store.restore(whole)
    assert verified(run).sound()


def put(driver: Driver, name: TopicPartition, states: Mapping[bytes, bytes]) -> None:
    """Write states behind everybody's back; the store stands where it stood."""
    head = driver.store.head(name, spending.fp)
    assert head.offset is not None
    driver.store.claim(name, [spending.fp], b"hand")
    content, bounds = b"".join(states.values()), np.cumsum([0, *map(len, states.values())])
    chunk = StateChunk(keys=list(states), buffer=np.frombuffer(content, np.uint8), bounds=bounds)
    view = ViewWrite(view=spending.fp, start=head.offset, end=head.offset, chunks=[chunk], deletions=[])
    write = PartitionWrite(partition=name, watermark_ms=head.watermark_ms or 0, views=[view])
    assert driver.store.apply(b"hand", write) is ApplyResult.OK


def test_a_store_that_stands_elsewhere(run: Driver) -> None:
    """A store that lost its last writes while nobody worked: one line a view and partition, not one an entity."""
    whole = run.store.snapshot()
    try:
        run.store.flush()
        findings = verified(run)
        assert set(findings.counts) == {Kind.HEAD}
        assert findings.counts[Kind.HEAD] == 2 * PARTITIONS
    finally:
        run.store.restore(whole)


def test_lag_is_a_violation_unless_workers_are_at_work() -> None:
    """Records above the committed offset: not at rest. With --live that is not checked, and everything below is."""
    driver = Driver(app, models=MODELS, partitions=1, now_ms=START_MS)
    driver.send(SOURCE, card="a", at=START_MS, amount=1.0)
    driver.run()
    driver.send(SOURCE, card="a", at=START_MS + 1, amount=1.0)
    assert only(verified(driver), Kind.LAG) == [(SOURCE, 0, 1, None)]
    findings = verified(driver, wishes=Wishes(live=True))
    assert findings.sound()
    assert (findings.verdict("I5"), findings.verdict("I4"), findings.verdict("I1")) == ("not checked", "passed", "passed")


def test_a_stretch_of_time(run: Driver) -> None:
    """From a time on and up to one: the fold begins early enough for every feature to be the same, and less is read."""
    records = [record for number in range(PARTITIONS) for record in run.log.read(TopicPartition(SOURCE, number))]
    times_ms = sorted(record.timestamp_ms for record in records)
    from_ms, to_ms = times_ms[300], times_ms[350]
    findings = verified(run, wishes=Wishes(from_ms=from_ms, to_ms=to_ms))
    assert [violation.text() for violation in findings.violations] == []
    assert findings.verdict("I4") == "not checked"
    assert findings.verdict("I1") == "passed"
    assert 50 <= findings.checked["events"] < 350
    predictions = run.log.read(TopicPartition(PREDICTIONS, 1))
    inside = next(record for record in predictions if from_ms < record.timestamp_ms < to_ms)
    gone = verified(run, {PREDICTIONS: changed(inside, lambda _: [])}, Wishes(from_ms=from_ms, to_ms=to_ms))
    assert only(gone, Kind.LOST) == [source_of(inside)]
    assert verified(run, {PREDICTIONS: changed(predictions[0], lambda _: [])}, Wishes(from_ms=from_ms, to_ms=to_ms)).sound()
