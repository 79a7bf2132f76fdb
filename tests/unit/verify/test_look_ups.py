"""T03 for look-ups: what predictions read of other sources is computed again, and what is wrong with it is named, with nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest

from headrace.apps.forgetting import Forgetting
from headrace.features.reader import StateReader
from headrace.memory_log import MemoryReader
from headrace.memory_log.reader import MemoryFeed
from headrace.parts import Limits
from headrace.predict.casting import Pinned
from headrace.predict.scores import Model, Scores
from headrace.publish.encoder import HeaderPolicy
from headrace.testing import Driver
from headrace.types import Bools, Float64s, Int64s, Record, RecordBatch, TopicPartition
from headrace.verify import look_ups
from headrace.verify.findings import INVARIANTS, Findings, Kind
from headrace.verify.look_ups import up_to_each
from headrace.verify.subject import Subject
from headrace.verify.verification import Verification, Wishes
from tests.audit import batch_of
from tests.unit.boarding import BOARDINGS, DEPARTURES, MODELS, PARTITIONS, PREDICTIONS, Sum, app, patient, started, traffic

LOOKED_UP = "headrace-looked-up"
Change = Callable[[Record], Record]
Place = tuple[str, int, int]
"""Topic, partition and offset."""


@dataclass(frozen=True)
class Refusing(Sum):
    """A model that refuses because of what was looked up, too: so many departures of an airport, or an aircraft."""

    column: str = "airport.count_3h"
    least: float = 4.0
    most: float = np.inf

    def score(self, values: Float64s) -> Scores:
        """The sum, but for these."""
        column = app.pipelines[0].feature_names.index(self.column)
        scores = super().score(values)
        crowded = np.flatnonzero((values[:, column] >= self.least) & (values[:, column] <= self.most)).tolist()
        refused = dict(scores.refused) | dict.fromkeys(crowded, "crowded")
        return Scores(scores=scores.scores, refused=sorted(refused.items()))


class DamagedReader(MemoryReader):
    """A reader to whom one record looks different, in whatever way it is read."""

    def __init__(self, driver: Driver, place: Place | None, change: Change) -> None:
        super().__init__(driver.log)
        self._place, self._change = place, change

    def feed(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> MemoryFeed:
        feed = super().feed(starts, ends)
        take = feed.take

        def damaged() -> list[RecordBatch]:
            found = []
            for batch in take():
                records = list(batch.records())
                records = [self._change(one) if (one.topic, one.partition, one.offset) == self._place else one for one in records]
                found.append(batch_of(records))
            return found

        feed.take = damaged  # type: ignore[method-assign]
        return feed


def verified(
    driver: Driver,
    place: Place | None = None,
    change: Change = lambda one: one,
    wishes: Wishes | None = None,
    models: Mapping[str, Model] = MODELS,
) -> Findings:
    """The findings about a driver's log and store."""
    subject = subject_of(driver, place, change)
    return Verification(driver.app, subject, casting_of=lambda _: Pinned(models), headers=HeaderPolicy.CLOUDEVENTS, limits=Limits()).run(
        wishes or Wishes()
    )


def subject_of(driver: Driver, place: Place | None = None, change: Change = lambda one: one) -> Subject:
    """A driver's log and store."""
    return Subject(
        reader=lambda: DamagedReader(driver, place, change),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(driver.app.name, name),
        topic_id=driver.log.topic_id,
        store=driver.store,
        now_ms=lambda: driver.clock.monotonic_ns() // 1_000_000,
        pause=driver.clock.advance,
    )


def busy(draw: random.Random) -> Driver:
    """A run that was killed and rolled back on the way."""
    driver = started(app)
    for step in ("apply", "end", "send", "offsets", "fetch"):
        traffic(driver, draw, 80)
        driver.crash(before=step)
        driver.run()
    driver.roll_back_state()
    traffic(driver, draw, 40)
    driver.run()
    return driver


@pytest.fixture(scope="module")
def run() -> Driver:
    """One such run for all damages."""
    return busy(random.Random(7))


def predictions(driver: Driver) -> list[Record]:
    """All predictions."""
    return [record for number in range(PARTITIONS) for record in driver.log.read(TopicPartition(PREDICTIONS, number))]


def test_what_was_looked_up_is_computed_again(seed: int) -> None:
    """Whatever was killed or rolled back, the log gives every value that was read, every mark, and where it was read."""
    driver = busy(random.Random(seed))
    findings = verified(driver)
    assert [violation.text() for violation in findings.violations] == []
    assert [findings.verdict(name) for name in INVARIANTS] == ["passed"] * 6
    assert findings.checked["predictions"] > 80
    assert findings.checked["predictions of other definitions"] == 0
    marks = [json.loads(record.value or b"") for record in predictions(driver)]
    assert any("stale" in one for one in marks)
    assert any("ahead" in one for one in marks)


def test_a_store_that_was_emptied_is_not_believed_before_it_is_whole(seed: int) -> None:
    """While what is looked up is folded again it is as if it were not there; nothing of a half state is ever read."""
    draw = random.Random(seed)
    driver = started(patient)
    traffic(driver, draw, 150)
    driver.run()
    driver.store.flush()
    traffic(driver, draw, 30)
    driver.crash()
    traffic(driver, draw, 60)
    driver.run()
    assert [violation.text() for violation in verified(driver).violations] == []


def test_who_is_forgotten_is_looked_up_as_nobody(seed: int) -> None:
    """What was looked up before an airport was forgotten and what is looked up after it is right; at that very offset nobody can tell."""
    draw = random.Random(seed)
    driver = busy(draw)
    subject = subject_of(driver)
    forgotten = 0

    def remember(fact: bytes) -> None:
        driver.log.append(driver.app.facts, 0, None, fact)

    forgetting = Forgetting(driver.app, subject, driver.store, members=list, remember=remember)
    for reads in driver.app.inputs:
        for name in (TopicPartition(reads.topic, number) for number in range(PARTITIONS)):
            for view in driver.app.views_of(reads):
                for key in sorted(driver.store.states(name, view.fp))[:2]:
                    forgotten += len(forgetting.forget(reads, name, key.decode()).states)
    assert forgotten > PARTITIONS
    driver.crash()
    driver.run()
    traffic(driver, draw, 120)
    driver.run()
    findings = verified(driver)
    assert [violation.text() for violation in findings.violations] == []
    assert findings.checked["predictions of other definitions"] < findings.checked["predictions"] // 3


def replaced(record: Record, value: bytes | None = None, places: bytes | None = None) -> Record:
    """The same record with another value or another header of what was looked up."""
    headers = [(name, places if name == LOOKED_UP and places is not None else text) for name, text in record.headers]
    return replace(record, value=record.value if value is None else value, headers=headers)


def whole(driver: Driver) -> Record:
    """A prediction that read something of both views, and has a mean."""
    return next(
        record
        for record in reversed(predictions(driver))
        if json.loads(record.value or b"")["features"]["airport.mean_delay_1h"]
        and (dict(record.headers)[LOOKED_UP] or b"").count(b"=") == 2
    )


def one_ulp_off(record: Record) -> Record:
    """Its mean of the airport is the next floating-point number."""
    value = record.value or b""
    name = b'"airport.mean_delay_1h":'
    begin = value.index(name) + len(name)
    end = value.index(b",", begin)
    return replaced(record, value[:begin] + repr(float(np.nextafter(float(value[begin:end]), np.inf))).encode() + value[end:])


def without_one(record: Record) -> Record:
    """It says that it read one offset earlier, where another state stood."""
    places = dict(record.headers)[LOOKED_UP] or b""
    first, _, rest = places.partition(b";")
    name, offset, come = first.split(b":")
    return replaced(record, places=b":".join((name, b"%d" % (int(offset) + 1_000_000), come)) + b";" + rest)


def elsewhere(record: Record) -> Record:
    """It says that it read in another partition than the one of its entity."""
    places = dict(record.headers)[LOOKED_UP] or b""
    view, _, rest = places.partition(b"=")
    number, _, rest = rest.partition(b":")
    return replaced(record, places=b"%b=%d:%b" % (view, (int(number) + 1) % PARTITIONS, rest))


def marked(record: Record, view: str) -> Record:
    """A view is said to be stale, or not to be."""
    prediction = json.loads(record.value or b"")
    before = prediction.pop("stale", [])
    stale = [one for one in ("airport", "aircraft") if (one in before) != (one == view)]
    names = list(prediction)
    at = names.index("features")
    changed = prediction | {"stale": stale}
    ordered = {name: changed[name] for name in (*names[:at], *(["stale"] if stale else []), *names[at:])}
    return replaced(record, json.dumps(ordered, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (one_ulp_off, {Kind.FEATURES}),
        (without_one, {Kind.FEATURES, Kind.RECORD}),
        (elsewhere, {Kind.RECORD}),
        (partial(marked, view="airport"), {Kind.RECORD}),
        (lambda record: replaced(record, places=b"nonsense"), {Kind.FEATURES, Kind.RECORD}),
    ],
)
def test_damage_is_named(run: Driver, change: Change, kinds: set[Kind]) -> None:
    """A value off by one ulp, an offset that no store can stand at, another partition, a wrong mark, a header that says nothing."""
    record = whole(run)
    assert change(record) != record
    findings = verified(run, (PREDICTIONS, record.partition, record.offset), change)
    assert set(findings.counts) - {Kind.SCORE} == kinds, [violation.text() for violation in findings.violations]
    said = json.loads(record.value or b"")["id"]
    assert {f"{one.topic}-{one.partition}-{one.offset}-sum" for one in findings.violations} == {said}
    assert said.startswith(BOARDINGS)


def crowded(driver: Driver) -> list[Record]:
    """What was refused because of the airport."""
    return [one for one in driver.dead_letters() if dict(one.headers)["__streams.errors.message"] == b"crowded"]


def test_a_model_may_refuse_because_of_what_was_looked_up(seed: int) -> None:
    """Its dead letter says where it has read, and so the log gives the same refusal; another place there is named, and nothing else."""
    models = {"late": Refusing()}
    driver = started(app, models=models)
    draw = random.Random(seed)
    for step in ("end", "apply"):
        traffic(driver, draw, 100)
        driver.crash(before=step)
        driver.run()
    refused = crowded(driver)
    assert len(refused) > 10
    findings = verified(driver, models=models)
    assert [violation.text() for violation in findings.violations] == []
    assert findings.checked["dead letters"] >= len(refused)
    named = next(one for one in refused if (dict(one.headers)[LOOKED_UP] or b"").count(b"=") == 2)
    findings = verified(driver, (named.topic, named.partition, named.offset), elsewhere, models=models)
    assert findings.counts == {Kind.LETTER: 1}, [violation.text() for violation in findings.violations]


def test_a_refusal_that_what_was_looked_up_does_not_give_is_found(seed: int) -> None:
    """What was refused is not judged by an empty state: of a model that refuses more than it should each wrong refusal is named."""
    driver = started(app, models={"late": Refusing(least=2.0)})
    traffic(driver, random.Random(seed), 150)
    driver.run()
    wrong = [one for one in crowded(driver) if json.loads(one.value or b"")["miles"] < 5_000]
    findings = verified(driver, models={"late": Refusing(least=0.0, most=0.0)})
    assert findings.counts[Kind.LOST] >= len(wrong) > 10
    assert findings.counts[Kind.UNEXPECTED] >= len(wrong)


class CountingReader(MemoryReader):
    """A reader that knows how many records it has given."""

    given = 0

    def batches(self, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int] | None = None) -> Iterator[RecordBatch]:
        for batch in super().batches(starts, ends):
            self.given += len(batch)
            yield batch


def test_records_are_given_as_they_are_read(seed: int) -> None:
    """All records up to the last offset, each once, each offset behind those below it; whatever lies before the first one, not more than
    a batch is ever held back.
    """
    draw = random.Random(seed)
    driver = started(app)
    name = TopicPartition(DEPARTURES, 0)
    for _ in range(5_000):
        driver.log.append(DEPARTURES, 0, b"N1", b"{}")
    offsets = sorted({*draw.sample(range(3_500, 5_000), 5), 5_000, 5_003})
    reader = CountingReader(driver.log)
    seen, reached = list[int](), list[int]()
    for come in up_to_each(reader, name, 7, offsets):
        if isinstance(come, RecordBatch):
            seen += come.offsets.tolist()
            assert reader.given - len(seen) < 1_000
        else:
            assert seen == list(range(7, min(come, 5_000)))
            reached.append(come)
    assert reached == offsets


def test_answers_are_worked_out_some_at_a_time(run: Driver) -> None:
    """However many have read where the other source stood still, they are no more at once than the limit, and all of them are answered."""
    most = 0
    vectors_at = StateReader.vectors_at

    def counted(self: StateReader, packed: Sequence[bytes | None], *times: Int64s) -> tuple[Float64s, Bools]:
        nonlocal most
        most = max(most, len(packed))
        return vectors_at(self, packed, *times)

    with patch.object(look_ups, "AT_ONCE", 2), patch.object(StateReader, "vectors_at", counted):
        findings = verified(run)
    assert [violation.text() for violation in findings.violations] == []
    assert most == 2


def shortened(driver: Driver) -> Driver:
    """The same, after the log of the other source has lost its first half."""
    for number in range(PARTITIONS):
        name = TopicPartition(DEPARTURES, number)
        driver.log.delete_before(name, driver.log.end_offset(name) // 2)
    return driver


@pytest.fixture(scope="module")
def short() -> Driver:
    """A run whose other source has lost its beginning."""
    driver = started(app)
    traffic(driver, random.Random(3), 300)
    driver.run()
    return shortened(driver)


def of_results(findings: Findings) -> dict[Kind, int]:
    """What is wrong with predictions and dead letters."""
    return {kind: count for kind, count in findings.counts.items() if kind not in {Kind.STATE, Kind.HEAD}}


def test_a_log_that_lost_its_beginning_is_compared_as_far_as_it_tells(short: Driver) -> None:
    """Where windows of the other source are not whole any more, what was looked up is counted by itself; nothing is called other
    definitions.
    """
    findings = verified(short)
    assert of_results(findings) == {}
    assert 0 < findings.checked["look-ups the log no longer tells"] < 2 * findings.checked["predictions"]
    assert findings.checked["predictions of other definitions"] == 0


def member(name: str, value: object) -> Change:
    """A prediction that says something else of one feature."""

    def changed(record: Record) -> Record:
        prediction = json.loads(record.value or b"")
        assert prediction["features"][name] != value
        prediction["features"][name] = value
        return replaced(record, json.dumps(prediction, separators=(",", ":")).encode())

    return changed


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (member("miles", 101.0), {Kind.FEATURES: 1}),
        (member("flight.count_3h", 77.0), {Kind.FEATURES: 1}),
        (lambda one: replaced(one, (one.value or b"").replace(b'"late":false', b'"late":true')), {Kind.RECORD: 1}),
        (member("airport.count_3h", 77.0), {Kind.FEATURES: 1}),
        (partial(marked, view="airport"), {Kind.RECORD: 1}),
        (member("aircraft.count_3h", 77.0), {}),
        (partial(marked, view="aircraft"), {}),
    ],
)
def test_what_was_not_looked_up_is_compared_all_the_same(short: Driver, change: Change, kinds: Mapping[Kind, int]) -> None:
    """Of a prediction by an aircraft that the log no longer tells everything else is compared, the airport, which it tells, too."""
    record = next(one for one in predictions(short) if (dict(one.headers)[LOOKED_UP] or b"").count(b"=") == 2)
    assert change(record) != record
    findings = verified(short, (PREDICTIONS, record.partition, record.offset), change)
    assert of_results(findings) == kinds, [violation.text() for violation in findings.violations]


def about(letter: Record, place: Mapping[str, bytes]) -> Record:
    """The same letter, about another source record."""
    return replace(letter, headers=[(name, place.get(name, text)) for name, text in letter.headers])


@pytest.mark.parametrize(("least", "most"), [(6.0, np.inf), (0.0, 0.0)])
def test_either_is_believed_where_the_log_no_longer_tells(least: float, most: float) -> None:
    """Whether a model refused because of an aircraft cannot be known there, so either result is taken; but not both, and not none."""
    models = {"late": Refusing(column="aircraft.count_3h", least=least, most=most)}
    driver = started(app, models=models)
    traffic(driver, random.Random(3), 300)
    driver.run()
    shortened(driver)
    findings = verified(driver, models=models)
    assert of_results(findings) == {}, [violation.text() for violation in findings.violations]
    assert findings.checked["look-ups the log no longer tells"] > 10
    first, *_, last = predictions(driver)
    lost = verified(driver, (PREDICTIONS, first.partition, first.offset), lambda one: replace(one, value=last.value), models=models)
    assert lost.counts[Kind.LOST] == 1
    letter, (_, number, offset, _) = crowded(driver)[0], json.loads(first.value or b"")["id"].rsplit("-", 3)
    place = {"__streams.errors.partition": number.encode(), "__streams.errors.offset": offset.encode()}
    both = verified(driver, (letter.topic, letter.partition, letter.offset), lambda one: about(one, place), models=models)
    assert (both.counts[Kind.LOST], both.counts[Kind.UNEXPECTED]) == (1, 1), [violation.text() for violation in both.violations]


def test_what_found_nothing_is_counted(run: Driver) -> None:
    """That nothing was kept is believed, as a store that was lost leaves no trace; but it is said, and said of those only who asked."""
    findings = verified(run)
    found = findings.checked["look-ups that found nothing"]
    record = whole(run)
    findings = verified(run, (PREDICTIONS, record.partition, record.offset), lambda one: replaced(one, places=b""))
    assert findings.checked["look-ups that found nothing"] == found + 2
    asked = [json.loads(one.value or b"")["features"] for one in predictions(run)]
    assert found < len(asked)
