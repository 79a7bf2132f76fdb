"""T58: a day of event time at full speed through the streaming path, beside the twin, the offline fold and `verify`."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace.features.view import FeatureView
from headrace.memory_log import MemoryReader
from headrace.parts import Limits
from headrace.predict.casting import Pinned
from headrace.predict.scores import Scores
from headrace.publish.encoder import HeaderPolicy
from headrace.testing import Driver
from headrace.types import Float64s, TopicPartition
from headrace.verify.subject import Subject
from headrace.verify.verification import Verification, Wishes
from tests.audit import Audit
from tests.laws.long_days import BERLIN, DAY_MS, DAYS, PARTITIONS, happening, write_day
from tests.laws.readings import ALONE, LATENESS_MS, SOURCE, declared
from tests.unit.features.folding import offsets_of
from tests.unit.features.naive import Happening, Twin

PREDICTIONS = "readings.scores"
PORTION = 150
STRIDE = 5
"""The twin is asked about every fifth event: it looks at all events again for each."""

VIEW = FeatureView("day", entity="sensor", source=SOURCE, features=[declared(entry, over=["10m", "24h"], number="y") for entry in ALONE])
SPARSE = FeatureView("sparse", entity="sensor", source=SOURCE, features=[declared(entry, over="1h") for entry in ALONE])
APP = hr.App("days", pipelines=[hr.Pipeline("readings", views=[VIEW, SPARSE], predictions=PREDICTIONS)])


class SumModel:
    """A model that is nothing but arithmetic."""

    name, version = "sum", "1"

    def score(self, values: Float64s) -> Scores:
        """The sum of what is there."""
        return Scores(scores=np.nansum(values, axis=1), refused=[])


MODELS = {"readings": SumModel()}


@pytest.fixture
def _berlin() -> Iterator[None]:
    """The process lives where the clocks are changed."""
    before = os.environ["TZ"]
    os.environ["TZ"] = BERLIN
    time.tzset()
    yield
    os.environ["TZ"] = before
    time.tzset()


def replay(path: Path, draw: random.Random) -> Driver:
    """Send a file as fast as it goes, with two kills and a roll-back of the store on the way."""
    lines = path.read_text(encoding="utf-8").splitlines()
    driver = Driver(APP, models=MODELS, partitions=PARTITIONS, now_ms=json.loads(lines[0])["at_ms"], limits=Limits(max_batch=64))
    hurt = draw.sample(range(1, len(lines) // PORTION), 3)
    for number, begin in enumerate(range(0, len(lines), PORTION)):
        for line in lines[begin : begin + PORTION]:
            driver.send(SOURCE.topic, **json.loads(line))
        if number in hurt[:2]:
            driver.crash(before="apply")
        if number == hurt[2]:
            driver.roll_back_state()
            driver.crash()
        driver.run()
    return driver


def unlike_the_twin(driver: Driver, happenings: list[Happening]) -> list[str]:
    """Every event, of those looked at, whose prediction has other features than the twin gives, in any bit, or another mark."""
    published = {}
    for number in range(PARTITIONS):
        for record in driver.log.read(TopicPartition(PREDICTIONS, number)):
            value = json.loads(record.value or b"")
            _, partition, offset, _ = value["id"].rsplit("-", 3)
            published[int(partition), int(offset)] = value
    assert len(published) == len(happenings)
    twin = Twin(happenings, LATENESS_MS)
    named = [(f"{view.name}.{feature.name}", feature) for view in (VIEW, SPARSE) for feature in view.features]
    found = []
    for event, (one, offset) in enumerate(zip(happenings, offsets_of(happenings), strict=True)):
        value = published[one.partition, offset]
        if value["late"] != twin.seen[event].late:
            found.append(f"{one}: late {value['late']}")
        for name, feature in named if event % STRIDE == 0 else ():
            expected, given = twin.exactly(feature, event), value["features"][name]
            if given != (None if math.isnan(expected) else expected):
                found.append(f"{one}: {name} is {given}, expected {expected}")
    return found


def verified(driver: Driver) -> list[str]:
    """What `headrace verify` and the judge of the suite find."""
    subject = Subject(
        reader=lambda: MemoryReader(driver.log),
        written_end=driver.log.end_offset,
        committed=lambda name: driver.log.committed(APP.name, name),
        store=driver.store,
        topic_id=driver.log.topic_id,
        now_ms=lambda: driver.clock.monotonic_ns() // 1_000_000,
        pause=driver.clock.advance,
    )
    findings = Verification(APP, subject, casting_of=lambda _: Pinned(MODELS), headers=HeaderPolicy.CLOUDEVENTS, limits=Limits()).run(
        Wishes()
    )
    assert findings.not_checked == {}
    audit = Audit(APP, MODELS)
    places = [TopicPartition(SOURCE.topic, number) for number in range(PARTITIONS)]
    for place in places:
        audit.fold(place, driver.log.read(place))
    predictions = [record for number in range(PARTITIONS) for record in driver.log.read(TopicPartition(PREDICTIONS, number))]
    problems = audit.compare_results({"readings": predictions}, driver.dead_letters())
    for view in (VIEW, SPARSE):
        for place in places:
            problems += audit.compare_states(place, view.fp, driver.store.states(place, view.fp), driver.store.head(place, view.fp))
    return problems + [violation.text() for violation in findings.violations]


@pytest.mark.faults
@pytest.mark.usefixtures("_berlin")
@pytest.mark.parametrize("name", DAYS)
def test_a_day_of_event_time(request: pytest.FixtureRequest, tmp_path: Path, seed: int, name: str) -> None:
    """T58: on each of five days every feature is the twin's and the offline fold's, to the bit, although workers die on the way."""
    draw = random.Random(seed)
    path = tmp_path / f"{name}.jsonl"
    write_day(path, DAYS[name], draw)
    happenings = [happening(line) for line in path.read_text(encoding="utf-8").splitlines()]
    times_ms = [one.time_ms for one in happenings]
    assert max(times_ms) - min(times_ms) > 0.95 * DAY_MS
    begun_s = time.monotonic()
    driver = replay(path, draw)
    seconds = time.monotonic() - begun_s
    problems = unlike_the_twin(driver, happenings) + verified(driver)
    figures = {"events": len(happenings), "replay_s": round(seconds, 1), "violations": len(problems)}
    request.node.user_properties.append(("figures", figures))
    assert not problems, f"{len(problems)} problems\n" + "\n".join(problems[:20])
    late = sum(one.late for one in Twin(happenings, LATENESS_MS).seen)
    backwards = sum(after < before for before, after in pairwise(times_ms))
    assert (late > 0) == (name == "out_of_order")
    assert (backwards > 0) == (name in {"out_of_order", "leap_second"})


def test_one_wrong_number_is_seen(tmp_path: Path, seed: int) -> None:
    """The comparison with the twin sees an event whose number is off by a millionth, and an event that is a day too old."""
    draw = random.Random(seed)
    path = tmp_path / "short.jsonl"
    write_day(path, DAYS["year_change"], draw)
    lines = path.read_text(encoding="utf-8").splitlines()[: 4 * PORTION]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    driver = replay(path, draw)
    happenings = [happening(line) for line in lines]
    assert unlike_the_twin(driver, happenings) == []
    wrong = 100 * STRIDE
    y = happenings[wrong].columns["y"]
    assert isinstance(y, float)
    other = replace(happenings[wrong], columns={**happenings[wrong].columns, "y": y + 1e-6})
    assert unlike_the_twin(driver, [*happenings[:wrong], other, *happenings[wrong + 1 :]])
    older = replace(happenings[wrong], time_ms=happenings[wrong].time_ms - DAY_MS)
    assert unlike_the_twin(driver, [*happenings[:wrong], older, *happenings[wrong + 1 :]])
