"""What training frames need of a log, on either of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

import headrace as hr
from headrace.publish.record_sink import CommitResult
from headrace.types import TopicPartition
from tests.contract.log.kits import KafkaKit, Kit, MemoryKit, out, wait_for
from tests.unit.training.shop import bits

START_MS = 1_700_000_000_000


class Reading(hr.Event):
    """All of one sensor, as the kits write one key."""

    sensor: str
    id: str
    at: hr.EventTime
    x: float


class Verdict(hr.Event):
    """Its time is that of its record."""

    id: str
    broken: bool


def app_of(source_topic: str, outcome_topic: str, name: str) -> hr.App:
    """An app on topics of the test's own."""
    source = hr.Source(source_topic, Reading, key="sensor", time="at", lateness="1m")
    view = hr.FeatureView("recent", entity="sensor", source=source, features=[hr.mean("x", over=["10s", "1m"]), hr.seconds_since_last()])
    outcomes = hr.Outcomes(outcome_topic, Verdict, join="id", value=hr.col("broken"), within="5s")
    return hr.App(name, pipelines=[hr.Pipeline("p", views=[view], event_features=["x"], predictions=f"{name}.p", outcomes=outcomes)])


def rows(first: int, count: int) -> list[dict[str, Any]]:
    """A reading each second."""
    numbers = range(first, first + count)
    return [{"sensor": "key", "id": str(number), "at": START_MS + 1_000 * number, "x": number % 7 / 10} for number in numbers]


def times_of(found: list[dict[str, Any]]) -> list[int]:
    """When they were."""
    return [row["at"] for row in found]


def test_a_frame_holds_what_was_committed(kit: Kit) -> None:
    """Records of committed transactions have rows, in offset order, with outcomes of the time of their records; others have none."""
    topic, outcomes = kit.topic(2), kit.topic(1)
    app = app_of(topic, outcomes, kit.name("app"))
    log = {0: rows(0, 300), 1: rows(1_000, 200)}
    for number, found in log.items():
        kit.append(TopicPartition(topic, number), [json.dumps(row).encode() for row in found], times_ms=times_of(found))
    told = [(row["id"], row["at"] + 1_000 * (place % 8)) for place, row in enumerate(log[0])]
    kit.append(
        TopicPartition(outcomes, 0),
        [json.dumps({"id": name, "broken": number % 2 == 0}).encode() for number, (name, _) in enumerate(told)],
        times_ms=[when for _, when in told],
    )
    sink = kit.opened()
    sink.begin()
    sink.send(out(topic, [json.dumps(row).encode() for row in rows(2_000, 5)], time_ms=START_MS + 2_000_000))
    wait_for("the records to arrive", lambda: len(kit.read_uncommitted(topic)) == 505)
    assert sink.abort() is CommitResult.ABORTED
    if isinstance(kit, MemoryKit):
        topics = hr.Topics.of(kit.log)
    else:
        assert isinstance(kit, KafkaKit)
        topics = hr.Topics.on(kit.properties)

    frame = hr.training_frame(app, events=topics, labels=topics)

    for number, found in log.items():
        mine = frame.table["_partition"].to_numpy() == number
        alone = hr.training_frame(app, events=pa.Table.from_pylist(found))
        assert bits(frame.values[mine]) == bits(alone.values)
        assert frame.table["_offset"].to_numpy()[mine].tolist() == list(range(len(found)))
    first = frame.table["_partition"].to_numpy() == 0
    expected = [float(place % 2 == 0) if place % 8 <= 5 else np.nan for place in range(300)]
    np.testing.assert_array_equal(frame.labels[first], expected)
    assert frame.lineage["labels"]["none"] == 200
    at = pa.table({"sensor": ["key"], "as_of": [START_MS + 10_500]})
    assert hr.training_frame(app, events=topics, at=at).table["_entity"].to_pylist() == ["key"]
