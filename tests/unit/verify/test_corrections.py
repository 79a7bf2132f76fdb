"""T03 for corrections: those of a run with kills are sound, and what is wrong with one is named, with nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

import headrace as hr
from headrace.memory_log import MemoryReader
from headrace.memory_log.reader import MemoryFeed
from headrace.parts import Limits
from headrace.predict.casting import Pinned
from headrace.predict.scores import Scores
from headrace.publish.encoder import HeaderPolicy
from headrace.testing import Driver
from headrace.types import Float64s, Record, RecordBatch, TopicPartition
from headrace.verify.findings import INVARIANTS, Findings, Kind
from headrace.verify.subject import Subject
from headrace.verify.verification import Verification, Wishes
from tests.audit import batch_of
from tests.corrections import compare_corrections

START_MS = 1_700_000_000_000
PARTITIONS = 2
SOURCE, PREDICTIONS = "payments.v1", "fraud.v1"
CORRECTIONS = f"{PREDICTIONS}.corrections"


class Payment(hr.Event):
    """The contract of the source."""

    card: str
    at: hr.EventTime
    amount: float
    order: int


class Paid(hr.Event):
    """The contract of the outcomes."""

    order: int
    paid: bool


payments = hr.Source(SOURCE, Payment, key="card", time="at", lateness="1m", max_ahead="5m")
spending = hr.FeatureView(
    "spending", entity="card", source=payments, features=[hr.count(over=["1m", "10m"]), hr.mean("amount", over="10m")]
)
habits = hr.FeatureView("habits", entity="card", source=payments, features=[hr.last("amount", over="1h"), hr.seconds_since_last(over="1h")])
app = hr.App(
    "cards",
    pipelines=[
        hr.Pipeline(
            "fraud",
            views=[spending, habits],
            event_features=["amount"],
            predictions=PREDICTIONS,
            outcomes=hr.Outcomes("paid.v1", Paid, join="order", value=hr.col("paid"), within="1d"),
            corrections=True,
        )
    ],
)
(pipeline,) = app.pipelines


class Model:
    """A model that has no answer for a mean of more than 600."""

    name, version = "fraud", "1"

    def score(self, values: Float64s) -> Scores:
        refused = [(row, "too much") for row in np.flatnonzero(values[:, 2] > 600).tolist()]
        return Scores(scores=np.nansum(values, axis=1) / 7, refused=refused)


MODELS = {"fraud": Model()}
Damage = Callable[[list[Record]], list[Record]]


@pytest.fixture(scope="module")
def run() -> Driver:
    """A run of 300 payments, every third out of order, that was killed and rolled back on the way."""
    draw = random.Random(5)
    limits = Limits(max_batch=16, refused_share=1.0, resident_entities=3)
    driver = Driver(app, models=MODELS, partitions=PARTITIONS, now_ms=START_MS, limits=limits)
    for number in range(300):
        driver.advance(draw.choice([0, 500, 5_000, 10_000]))
        card, at_ms = f"card-{draw.randrange(5)}", driver.clock.now_ms() - draw.choice([0, 0, 20_000, 40_000, 400_000])
        value = json.dumps({"card": card, "at": at_ms, "amount": draw.uniform(1, 1_000), "order": number}).encode()
        driver.send_bytes(SOURCE, key=card.encode(), value=b"{" if number % 29 == 0 else value, timestamp_ms=driver.clock.now_ms())
        if number in {90, 200}:
            driver.crash(before="apply" if number == 90 else "end")
        if number % 40 == 39:
            driver.run()
    driver.roll_back_state()
    driver.run()
    return driver


class DamagedReader(MemoryReader):
    """A reader of a log in which somebody had his hands on the corrections."""

    def __init__(self, driver: Driver, damage: Damage) -> None:
        super().__init__(driver.log)
        self._damage = damage

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> MemoryFeed:
        feed = super().feed(starts, ends)
        take = feed.take

        def damaged() -> list[RecordBatch]:
            found = [self._damage(list(batch.records())) if batch.topic == CORRECTIONS else list(batch.records()) for batch in take()]
            return [batch_of(records) for records in found if records]

        feed.take = damaged  # type: ignore[method-assign]
        return feed


def verified(driver: Driver, damage: Damage = list) -> Findings:
    """The findings about a driver's log and store."""
    subject = Subject(
        reader=lambda: DamagedReader(driver, damage),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(app.name, name),
        topic_id=driver.log.topic_id,
        store=driver.store,
        now_ms=lambda: driver.clock.monotonic_ns() // 1_000_000,
        pause=driver.clock.advance,
    )
    return Verification(app, subject, casting_of=lambda _: Pinned(MODELS), headers=HeaderPolicy.CLOUDEVENTS, limits=Limits()).run(Wishes())


def picked(driver: Driver) -> tuple[Record, tuple[str, int, int]]:
    """A correction, the second at least of its event, and where the record stands that caused it."""
    records = driver.log.read(TopicPartition(CORRECTIONS, 1))
    one = next(record for record in records if json.loads(record.value or b"")["revision"] > 1)
    cause = json.loads(one.value or b"")["caused_by"]
    return one, (cause["topic"], cause["partition"], cause["offset"])


def only(findings: Findings, kind: Kind) -> list[tuple[str, int, int | None]]:
    """The coordinates of the violations, which are all of one kind."""
    assert set(findings.counts) == {kind}, [violation.text() for violation in findings.violations]
    return [(one.topic, one.partition, one.offset) for one in findings.violations]


def changed(wanted: Record, *instead: Record) -> Damage:
    """Put other records in the place of one."""
    return lambda records: [new for record in records for new in (instead if record == wanted else (record,))]


def test_a_run_with_kills_and_a_roll_back_is_sound(run: Driver) -> None:
    """Every correction is there once and as the definitions give it, and so is what was retained in the store."""
    findings = verified(run)
    assert [violation.text() for violation in findings.violations] == []
    assert [findings.verdict(name) for name in INVARIANTS] == ["passed"] * 6
    assert findings.checked["corrections"] == len(run.corrections("fraud")) > 100
    assert findings.checked["partitions"] == 3 * PARTITIONS


def test_naive_means_say_the_same(run: Driver) -> None:
    """Sorting and folding everything again gives the same corrections, but for those the model had no answer for."""
    logs = {TopicPartition(SOURCE, number): run.log.read(TopicPartition(SOURCE, number)) for number in range(PARTITIONS)}
    found = [record for number in range(PARTITIONS) for record in run.log.read(TopicPartition(CORRECTIONS, number))]
    problems = compare_corrections(app, pipeline, logs, found, {})
    assert problems
    assert all(problem.startswith("lost") for problem in problems)
    unscored = [one for one in run.corrections("fraud") if one["features"]["spending.mean_amount_10m"] > 600]
    assert not unscored


def test_a_correction_says_what_it_is_about(run: Driver) -> None:
    """The prediction it corrects is there and has its entity, time and join; the n-th of an event is number n of it or more."""
    predictions = {one["id"]: one for one in run.results("fraud")}
    compared = 0
    for one in run.corrections("fraud"):
        source = one["source"]
        assert one["corrects"] == f"{SOURCE}-{source['partition']}-{source['offset']}-fraud"
        assert one["id"] == f"{one['corrects']}-r{one['revision']}"
        if one["corrects"] in predictions:  # the model had an answer then, too
            about = predictions[one["corrects"]]
            assert [about[name] for name in ("entity", "event_time", "join")] == [one[name] for name in ("entity", "event_time", "join")]
            assert one["features"]["amount"] == about["features"]["amount"]
            compared += 1
    assert compared > 60


def test_a_lost_correction(run: Driver) -> None:
    """One that is not there."""
    one, cause = picked(run)
    findings = verified(run, changed(one))
    assert only(findings, Kind.LOST) == [cause]
    assert json.loads(one.value or b"")["id"] in findings.violations[0].expected


def test_a_doubled_correction(run: Driver) -> None:
    """One that is there twice."""
    one, cause = picked(run)
    assert only(verified(run, changed(one, one, one)), Kind.DUPLICATE) == [cause]


@pytest.mark.parametrize("name", ["spending.mean_amount_10m", "habits.seconds_since_last_1h", "amount"])
def test_a_feature_off_by_one_ulp(run: Driver, name: str) -> None:
    """The next floating-point number, and nothing else."""
    one, cause = picked(run)
    value = json.loads(one.value or b"")
    value["features"][name] = float(np.nextafter(value["features"][name], np.inf))
    other = replace(one, value=json.dumps(value, separators=(",", ":")).encode())
    findings = verified(run, changed(one, other))
    assert only(findings, Kind.FEATURES) == [cause]
    assert name in findings.violations[0].expected


def test_another_cause_header_or_score(run: Driver) -> None:
    """What stands around the features is compared too."""
    one, cause = picked(run)
    value = json.loads(one.value or b"")
    scored = {**value, "score": value["score"] + 1e-5}
    damage = changed(one, replace(one, value=json.dumps(scored, separators=(",", ":")).encode()))
    assert only(verified(run, damage), Kind.SCORE) == [cause]
    blamed = {**value, "caused_by": {**value["caused_by"], "offset": cause[2] + 1}}
    damage = changed(one, replace(one, value=json.dumps(blamed, separators=(",", ":")).encode()))
    assert only(verified(run, damage), Kind.RECORD) == [cause]
    assert only(verified(run, changed(one, replace(one, timestamp_ms=one.timestamp_ms + 1))), Kind.RECORD) == [cause]


def test_a_correction_nobody_caused(run: Driver) -> None:
    """One of an event that came in order, and one that is none at all."""
    one, cause = picked(run)
    made_up = (one.value or b"").replace(f'"offset":{cause[2]}}},"entity"'.encode(), b'"offset":9999},"entity"').replace(b"-r", b"-r9", 1)
    findings = verified(run, changed(one, one, replace(one, value=made_up)))
    assert only(findings, Kind.UNEXPECTED) == [(SOURCE, cause[1], 9999)]
    findings = verified(run, changed(one, one, replace(one, value=b"{}")))
    assert only(findings, Kind.UNEXPECTED) == [(CORRECTIONS, one.partition, one.offset)]


def test_corrections_in_the_wrong_order(run: Driver) -> None:
    """One that stands behind those of a later event."""
    records = run.log.read(TopicPartition(CORRECTIONS, 1))
    causes = [json.loads(record.value or b"")["caused_by"]["offset"] for record in records]
    place = next(number for number in range(len(records) - 1) if causes[number] != causes[number + 1])
    first, second = records[place : place + 2]

    def swapped(found: list[Record]) -> list[Record]:
        other = {first.offset: replace(second, offset=first.offset), second.offset: replace(first, offset=second.offset)}
        return [other.get(record.offset, record) if record.partition == 1 else record for record in found]

    assert only(verified(run, swapped), Kind.ORDER) == [(SOURCE, 1, causes[place])]


def test_corrections_of_other_definitions(run: Driver) -> None:
    """They are counted: neither are they compared, nor are any missed up to their last cause."""
    one, cause = picked(run)
    records = run.log.read(TopicPartition(CORRECTIONS, 1))
    since = records.index(one)

    def before(found: list[Record]) -> list[Record]:
        there = [record for record in found if record not in records[:since]]
        old = [(name, b"another" if name == "headrace-fingerprint" else text) for name, text in one.headers]
        return [replace(record, headers=old) if record == one else record for record in there]

    findings = verified(run, before)
    assert [violation.text() for violation in findings.violations] == []
    assert findings.checked["corrections of other definitions"] == 1
    gone = json.loads(records[-1].value or b"")["caused_by"]
    assert gone["offset"] > cause[2]
    assert only(verified(run, lambda found: before([record for record in found if record != records[-1]])), Kind.LOST) == [
        (SOURCE, 1, gone["offset"])
    ]


def test_what_is_retained_is_compared(run: Driver) -> None:
    """An entity whose retained events are gone from the store is named."""
    assert pipeline.retained is not None
    whole, name = run.store.snapshot(), TopicPartition(SOURCE, 1)
    key = next(iter(sorted(run.store.states(name, pipeline.retained.fp))))
    run.store.forget(name, pipeline.retained.fp, [key])
    try:
        findings = verified(run)
        assert only(findings, Kind.STATE) == [(SOURCE, 1, None)]
        assert findings.violations[0].of == "fraud.retained"
    finally:
        run.store.restore(whole)
