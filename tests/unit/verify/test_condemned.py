"""Records that end the process: what becomes of them, and what a verification makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest

import headrace as hr
from headrace.crashes import DEATHS, crash_fact
from headrace.decode.decoder import Decoded, Decoder
from headrace.memory_log import MemoryReader
from headrace.parts import Limits
from headrace.predict.casting import Pinned
from headrace.predict.scores import Scores
from headrace.publish.encoder import HeaderPolicy
from headrace.testing import Crash, Driver, reason
from headrace.types import Float64s, RecordBatch, TopicPartition
from headrace.verify.findings import Findings, Kind
from headrace.verify.subject import Subject
from headrace.verify.verification import Verification, Wishes

START_MS = 1_700_000_000_000
POISON = b'"poison"'
AT = 17


class Visit(hr.Event):
    """The contract of the source."""

    who: str
    at: hr.EventTime
    note: str


visits = hr.Source("visits.v1", Visit, key="who", time="at", lateness="1m")
recent = hr.FeatureView("recent", entity="who", source=visits, features=[hr.count(over="1h"), hr.seconds_since_last()])
app = hr.App("shop", pipelines=[hr.Pipeline("visit", views=[recent], predictions="visit.v1", publish_features=True)])


class Model:
    """Counts."""

    name, version = "visit", "1"

    def score(self, values: Float64s) -> Scores:
        return Scores(scores=np.nansum(values, axis=1), refused=[])


MODELS = {"visit": Model()}


@pytest.fixture
def harmless() -> list[bool]:
    """Whether the record has lost its sting."""
    return []


@pytest.fixture
def driver(harmless: list[bool]) -> Iterator[Driver]:
    """40 visits of one entity, one of which ends whatever process decodes it."""
    decode = Decoder.decode

    def decoded(self: Decoder, records: RecordBatch) -> Decoded:
        if not harmless and any(value is not None and POISON in value for value in records.values):
            raise Crash
        return decode(self, records)

    with patch.object(Decoder, "decode", decoded):
        driver = Driver(app, models=MODELS, partitions=1, now_ms=START_MS, limits=Limits(max_batch=16))
        for number in range(40):
            driver.advance(1_000)
            driver.send("visits.v1", who="one", at=driver.clock.now_ms(), note="poison" if number == AT else "fine")
        yield driver


def verified(driver: Driver) -> Findings:
    """The findings about a driver's log and store."""
    subject = Subject(
        reader=lambda: MemoryReader(driver.log),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(app.name, name),
        store=driver.store,
        topic_id=driver.log.topic_id,
        now_ms=lambda: driver.clock.monotonic_ns() // 1_000_000,
        pause=driver.clock.advance,
    )
    return Verification(app, subject, casting_of=lambda _: Pinned(MODELS), headers=HeaderPolicy.CLOUDEVENTS, limits=Limits()).run(Wishes())


def test_a_record_that_ends_the_process_becomes_a_dead_letter(driver: Driver) -> None:
    """After its deaths it is a dead letter, all others have their prediction as if it were not there, and the verification is content."""
    results = driver.results("visit")
    (letter,) = driver.dead_letters()
    assert reason(letter) == "CRASH_LOOP"
    assert [result["features"]["recent.count_1h"] for result in results] == list(range(1, 40))
    assert driver.events().count("records ended the process") == DEATHS
    assert verified(driver).sound()


def test_a_rebuild_leaves_it_out(driver: Driver) -> None:
    """With an empty store the state is folded again, from the facts and without the record; nothing dies."""
    driver.run()
    driver.store.flush()
    driver.crash()
    driver.run()
    assert driver.events().count("records ended the process") == DEATHS
    assert driver.features(recent, "one")["count_1h"] == 39
    assert verified(driver).sound()


def test_a_condemned_record_without_a_fact_is_named(driver: Driver, harmless: list[bool]) -> None:
    """A dead letter for CRASH_LOOP that no fact explains is one too many, its record has no prediction, and all behind it differ."""
    driver.run()
    facts = TopicPartition(app.facts, 0)
    driver.log.delete_before(facts, driver.log.end_offset(facts))
    harmless.append(True)
    findings = verified(driver)
    assert findings.counts.keys() == {Kind.UNEXPECTED, Kind.LOST, Kind.FEATURES, Kind.SCORE, Kind.STATE}
    assert {one.offset for one in findings.violations if one.kind in {Kind.UNEXPECTED, Kind.LOST}} == {AT}
    assert {one.offset for one in findings.violations if one.kind is Kind.FEATURES} == set(range(AT + 1, 40))


def test_a_fact_about_a_record_that_was_scored_is_named(driver: Driver) -> None:
    """Where a fact condemns a record that has a prediction, that one is unexpected and a dead letter is missing."""
    driver.run()
    driver.log.append(app.facts, 0, None, crash_fact(TopicPartition("visits.v1", 0), 39))
    findings = verified(driver)
    assert findings.counts.keys() == {Kind.UNEXPECTED, Kind.LOST, Kind.STATE, Kind.HEAD}
    assert {one.offset for one in findings.violations if one.kind in {Kind.UNEXPECTED, Kind.LOST}} == {39}
