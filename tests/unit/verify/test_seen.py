"""I1, as it was seen: each way in which a reader's file and the log differ is named by its coordinates, with nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from headrace.cli.tail import line
from headrace.errors import FatalError
from headrace.memory_log import MemoryReader
from headrace.testing import Driver
from headrace.types import Record, TopicPartition
from headrace.verify import seen
from headrace.verify.findings import Findings, Kind
from headrace.verify.seen import AS_SEEN, check_seen, fingerprint
from headrace.verify.subject import Subject
from tests.unit.verify.test_verification import MODELS, PREDICTIONS, SOURCE, START_MS, app

PARTITIONS = 2
TOPICS = (PREDICTIONS, app.dead_letters)


@pytest.fixture(scope="module")
def run() -> Driver:
    """Sixty payments, every tenth of them broken."""
    driver = Driver(app, models=MODELS, partitions=PARTITIONS, now_ms=START_MS)
    for number in range(60):
        value = b"{" if number % 10 == 0 else json.dumps({"card": f"card-{number % 7}", "at": START_MS + number, "amount": 1.0}).encode()
        driver.send_bytes(SOURCE, key=f"card-{number % 7}".encode(), value=value, timestamp_ms=START_MS + number)
    driver.run()
    return driver


def given(driver: Driver) -> list[Record]:
    """What a reader that missed nothing was given, partitions mixed."""
    logs = [driver.log.read(TopicPartition(topic, number)) for topic in TOPICS for number in range(PARTITIONS)]
    return [log[place] for place in range(max(map(len, logs))) for log in logs if place < len(log)]


def compared(driver: Driver, lines: Sequence[str], *, live: bool = False, from_ms: int | None = None, to_ms: int | None = None) -> Findings:
    """The findings about a reader's file."""
    subject = Subject(
        reader=lambda: MemoryReader(driver.log),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(app.name, name),
        store=driver.store,
        topic_id=driver.log.topic_id,
        now_ms=lambda: 0,
        pause=driver.clock.advance,
    )
    findings = Findings()
    check_seen(app, subject, lines, findings, live=live, from_ms=from_ms, to_ms=to_ms)
    return findings


def written(records: Sequence[Record]) -> list[str]:
    """The lines that `headrace tail` prints."""
    return [line(record) + "\n" for record in records]


def named(findings: Findings) -> list[tuple[Kind, str, int, int | None]]:
    """What was found, and where."""
    return [(one.kind, one.topic, one.partition, one.offset) for one in findings.violations]


@pytest.mark.parametrize("queued", [1, 3, 5_000])
def test_a_reader_that_missed_nothing(run: Driver, monkeypatch: pytest.MonkeyPatch, queued: int) -> None:
    """Mixed or topic by topic, however few records may wait: nothing is wrong, and every record was compared."""
    monkeypatch.setattr(seen, "MOST_QUEUED", queued)
    records = given(run)
    for order in (records, sorted(records, key=lambda record: (record.topic, -record.partition, record.offset))):
        findings = compared(run, written(order))
        assert named(findings) == []
        assert findings.verdict(AS_SEEN) == "passed"
        assert findings.checked["seen records"] == len(records) == 60


def place_of(record: Record) -> tuple[str, int, int]:
    """Where a record stands."""
    return record.topic, record.partition, record.offset


@pytest.mark.parametrize("pick", [0, 20, -1])
def test_each_damage_is_named(run: Driver, pick: int) -> None:
    """A line that is not there, one too many, one with other bytes in any part, and one that comes again: each alone, at any place."""
    records = given(run)
    one = records[pick]
    rest = [record for record in records if record is not one]
    assert named(compared(run, written(rest))) == [(Kind.UNSEEN, *place_of(one))]
    last = max(record.offset for record in records if (record.topic, record.partition) == (one.topic, one.partition))
    beyond = replace(one, offset=last + 1)
    assert named(compared(run, written([*records, beyond]))) == [(Kind.VANISHED, *place_of(beyond))]
    changes: list[Callable[[Record], Record]] = [
        lambda record: replace(record, value=(record.value or b"") + b" "),
        lambda record: replace(record, key=b"other"),
        lambda record: replace(record, timestamp_ms=record.timestamp_ms + 1),
        lambda record: replace(record, headers=record.headers[1:]),
    ]
    for change in changes:
        other = [change(record) if record is one else record for record in records]
        assert named(compared(run, written(other))) == [(Kind.CHANGED, *place_of(one))]
    assert named(compared(run, written([*records, one]))) == [(Kind.REPEATED, *place_of(one))]


def test_a_record_that_stands_elsewhere_now(run: Driver) -> None:
    """A line between two offsets of the log is a record that vanished: the log has a hole where the reader was given something."""
    hole = Driver(app, models=MODELS, partitions=PARTITIONS, now_ms=START_MS)
    hole.send(SOURCE, card="card-1", at=START_MS, amount=1.0)
    hole.run()
    only = given(hole)
    assert len(only) == 1
    before = replace(only[0], offset=only[0].offset + 7)
    assert named(compared(hole, written([before]))) == [(Kind.UNSEEN, *place_of(only[0])), (Kind.VANISHED, *place_of(before))]
    assert compared(run, written(given(run))).sound()


def test_what_was_not_read_is_not_checked(run: Driver) -> None:
    """A topic that the file never names is not checked and not passed; a line of another topic is passed over."""
    predictions = [record for record in given(run) if record.topic == PREDICTIONS]
    foreign = replace(predictions[0], topic="other.v1")
    findings = compared(run, written([foreign, *predictions]))
    assert named(findings) == []
    assert findings.verdict(AS_SEEN) == "not checked"
    assert app.dead_letters in findings.not_checked[AS_SEEN]
    assert Findings().verdict(AS_SEEN) == "not checked"


def test_while_workers_are_at_work_the_end_is_open(run: Driver) -> None:
    """With --live what stands behind the reader's last record is not compared, what stands before it is."""
    records = given(run)
    short = records[:-10]
    assert compared(run, written(short), live=True).sound()
    gone = short[20]
    findings = compared(run, written([record for record in short if record is not gone]), live=True)
    assert named(findings) == [(Kind.UNSEEN, *place_of(gone))]


def test_a_stretch_of_time(run: Driver) -> None:
    """With --from and --to only the records between are compared."""
    records = given(run)
    from_ms, to_ms = START_MS + 20, START_MS + 40
    inside = [record for record in records if from_ms <= record.timestamp_ms < to_ms]
    findings = compared(run, written(records), from_ms=from_ms, to_ms=to_ms)
    assert named(findings) == []
    assert 0 < findings.checked["seen records"] <= len(inside)
    outside = [record for record in records if record.timestamp_ms < to_ms]
    assert compared(run, written(outside), from_ms=from_ms, to_ms=to_ms).sound()


def test_a_line_that_is_no_record_is_named(run: Driver) -> None:
    """The line's number is said; a last line that was cut off does not count."""
    lines = written(given(run))
    with pytest.raises(FatalError, match="line 3 "):
        compared(run, [*lines[:2], "{}\n", *lines[2:]])
    assert compared(run, [*lines, lines[0][:25]]).sound()


def test_the_hash_tells_parts_apart() -> None:
    """Bytes that move from one part to the next, and null instead of nothing, give another hash."""
    hashes = {
        fingerprint(b"ab", b"c", [], 1),
        fingerprint(b"a", b"bc", [], 1),
        fingerprint(None, b"c", [], 1),
        fingerprint(b"", b"c", [], 1),
        fingerprint(b"ab", b"c", [("x", None)], 1),
        fingerprint(b"ab", b"c", [("x", b"")], 1),
        fingerprint(b"ab", b"c", [], 2),
    }
    assert len(hashes) == 7
