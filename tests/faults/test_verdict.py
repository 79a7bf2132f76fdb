"""The verdict on a run sees every kind of damage: it is given a good run, without servers, and what was found there is damaged by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from math import inf, nextafter

import pytest

from headrace.definition import App
from headrace.partitioner import partition_of
from headrace.predict.onnx_model import OnnxModel
from headrace.testing import Driver
from headrace.types import Position, Record, TopicPartition
from tests.audit import Audit
from tests.faults.app import records, write_app
from tests.faults.verdict import Found, judge

PARTITIONS = 2
EVENTS = 600


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[App, Found]:
    """An app and what a good run of it leaves behind."""
    app = write_app(tmp_path_factory.mktemp("verdict"), "judged")
    source = app.sources[0].topic
    with Driver(app, partitions=PARTITIONS) as driver:
        for sent in records(random.Random(7), EVENTS):
            driver.send_bytes(source, key=sent.key, value=sent.value, timestamp_ms=sent.timestamp_ms)
        driver.run()
        partitions = [TopicPartition(source, number) for number in range(PARTITIONS)]
        results = {
            topic: [record for number in range(PARTITIONS) for record in driver.log.read(TopicPartition(topic, number))]
            for topic in (app.dead_letters, app.pipelines[0].predictions)
        }
        owned = [(partition, view.fp) for partition in partitions for view in app.views_of(app.sources[0])]
        found = Found(
            source={partition: list(driver.log.read(partition)) for partition in partitions},
            predictions={"fraud": results[app.pipelines[0].predictions]},
            dead_letters=results[app.dead_letters],
            states={(partition, view): dict(driver.store.states(partition, view)) for partition, view in owned},
            heads={(partition, view): driver.store.head(partition, view) for partition, view in owned},
            committed=dict(driver.log.group(app.name).offsets),
            stable_ends=dict.fromkeys(partitions, EVENTS),
            ends=dict.fromkeys(partitions, EVENTS),
            aborted=0,
            left_out={},
        )
    found.see([(one.topic, one.partition, one.offset, one.key, one.value) for records_ in results.values() for one in records_])
    return app, found


def problems(run: tuple[App, Found], found: Found) -> list[str]:
    """What the verdict says."""
    app, _ = run
    pipeline = app.pipelines[0]
    return judge(app, found, {"fraud": OnnxModel.load(pipeline.model or "", pipeline.feature_names)}, partitions=PARTITIONS)


def seen_again(found: Found) -> None:
    """The reader during the faults saw the same damage."""
    everything = (*found.predictions["fraud"], *found.dead_letters)
    found.see([(one.topic, one.partition, one.offset, one.key, one.value) for one in everything])


def changed(record: Record, change: Callable[[dict[str, object]], None]) -> Record:
    """A prediction whose value was changed."""
    value = json.loads(record.value or b"")
    change(value)
    return replace(record, value=json.dumps(value).encode())


def one_ulp(value: dict[str, object]) -> None:
    """The amount is off by the least there is."""
    features = value["features"]
    assert isinstance(features, dict)
    features["amount"] = nextafter(features["amount"], inf)


def other_score(value: dict[str, object]) -> None:
    """The score is off by a thousandth."""
    value["score"] = float(str(value["score"])) + 0.001


def doubled(found: Found) -> None:
    """A prediction comes twice."""
    found.predictions["fraud"].append(replace(found.predictions["fraud"][-1], offset=EVENTS))
    seen_again(found)


def missing(found: Found) -> None:
    """A prediction is not there."""
    found.predictions["fraud"].pop(100)
    seen_again(found)


def swapped(found: Found) -> None:
    """Two predictions of one card have changed places."""
    predictions = found.predictions["fraud"]
    card = predictions[0].key
    first, second = [row for row, one in enumerate(predictions) if one.key == card][:2]
    predictions[first], predictions[second] = predictions[second], predictions[first]
    seen_again(found)


def feature_off(found: Found) -> None:
    """One feature is off by one ulp."""
    found.predictions["fraud"][50] = changed(found.predictions["fraud"][50], one_ulp)
    seen_again(found)


def score_off(found: Found) -> None:
    """One score is not the model's."""
    found.predictions["fraud"][50] = changed(found.predictions["fraud"][50], other_score)
    seen_again(found)


def elsewhere(found: Found) -> None:
    """A prediction, the only one of its card, lies in the partition of other keys."""
    predictions = found.predictions["fraud"]
    keys = [one.key for one in predictions]
    row = next(row for row, key in enumerate(keys) if keys.count(key) == 1)
    predictions[row] = replace(predictions[row], partition=1 - partition_of(keys[row] or b"", PARTITIONS))
    seen_again(found)


def other_reason(found: Found) -> None:
    """A dead letter has another reason."""
    letter = found.dead_letters[0]
    headers = [(name, b"TOO_LARGE" if name == "headrace-reason" else value) for name, value in letter.headers]
    found.dead_letters[0] = replace(letter, headers=headers)


def other_value(found: Found) -> None:
    """A dead letter is not the record that was refused."""
    found.dead_letters[0] = replace(found.dead_letters[0], value=b"something else")
    seen_again(found)


def stale(found: Found) -> None:
    """The store holds the state of another card under a card's name."""
    states = max(found.states.values(), key=len)
    one, other = list(states)[-2:]
    states[one] = states[other]


def head_off(found: Found) -> None:
    """The store stands one offset behind."""
    place, head = next(iter(found.heads.items()))
    assert head.offset is not None
    found.heads[place] = replace(head, offset=head.offset - 1)


def lagging(found: Found) -> None:
    """The group stands one offset behind."""
    partition, position = next(iter(found.committed.items()))
    assert position is not None
    found.committed[partition] = Position(offset=position.offset - 1, watermark_ms=position.watermark_ms)


def watermark_off(found: Found) -> None:
    """Another watermark was committed."""
    partition, position = next(iter(found.committed.items()))
    assert position is not None
    found.committed[partition] = Position(offset=position.offset, watermark_ms=(position.watermark_ms or 0) + 1)


def left_open(found: Found) -> None:
    """A transaction was never ended."""
    found.stable_ends[next(iter(found.ends))] -= 1


def gone(found: Found) -> None:
    """The reader saw something that is not there now."""
    found.seen.add(("judged.fraud.predictions.v1", 0, 10_000, b"card-1", b"{}"))


def unseen(found: Found) -> None:
    """The reader did not see something that is there."""
    found.seen.pop()


def read_twice(found: Found) -> None:
    """The reader was given a record twice."""
    found.repeated_reads = 1


def test_a_good_run_passes(run: tuple[App, Found]) -> None:
    """Nothing is wrong with a run that nobody has damaged, which has predictions and dead letters."""
    assert problems(run, run[1]) == []
    assert len(run[1].predictions["fraud"]) + len(run[1].dead_letters) == EVENTS
    assert run[1].dead_letters


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (doubled, "duplicate: "),
        (missing, "lost: "),
        (swapped, "order: "),
        (feature_off, "features: "),
        (score_off, "score: "),
        (elsewhere, "misplaced: "),
        (other_reason, "dead letter: "),
        (other_value, "dead letter: "),
        (stale, "diverged: "),
        (head_off, "diverged: "),
        (lagging, "lag: "),
        (watermark_off, "watermark: "),
        (left_open, "open: "),
        (gone, "seen, and gone: "),
        (unseen, "not seen: "),
        (read_twice, "seen twice: "),
    ],
)
def test_damage_is_named(run: tuple[App, Found], damage: Callable[[Found], None], named: str) -> None:
    """Each kind of damage is found, and called what it is, and nothing else is complained of."""
    found = deepcopy(run[1])
    damage(found)
    said = problems(run, found)
    assert said
    assert {problem.partition(": ")[0] for problem in said} == {named.removesuffix(": ")}


def test_folding_in_portions_changes_no_bit(run: tuple[App, Found]) -> None:
    """What is expected, features, refusals, states and watermarks, is the same folded one record at a time and in portions."""
    app, found = run
    one_by_one = Audit(app)
    for partition, log in found.source.items():
        one_by_one.fold(partition, log)
    for portion in (7, 100, 10_000):
        audit = Audit(app)
        for partition, log in found.source.items():
            audit.fold(partition, log, portion=portion)
        assert audit.expected == one_by_one.expected
