"""What Spark's tasks do, without Spark."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import headrace as hr
from headrace.crashes import condemned_offsets
from headrace.errors import FatalError
from headrace.training import spark_tasks
from headrace.training.spark_tasks import Task, shipped
from headrace.types import NO_WATERMARK_MS
from headrace.verify.scope import facts_of
from tests.unit.training import archived, shop
from tests.unit.training.test_archive import with_outcomes

SERVICES = Path(__file__).resolve().parents[3] / "services"


def batches(table: pa.Table, length: int = 41) -> Iterator[pa.RecordBatch]:
    """As Spark hands them over."""
    return iter(table.combine_chunks().to_batches(max_chunksize=length))


def events_of(task: Task, records: pa.Table) -> pa.Table:
    """Accepted events, each with the watermark that it found, in the order in which a group gets them."""
    decoded = pa.Table.from_batches(spark_tasks.read_archive(shipped(task), "archive", batches(records)))
    events = decoded.filter(pc.is_null(decoded["reason"])).sort_by([("partition", "ascending"), ("offset", "ascending")])
    newest: dict[int, int] = {}
    found_ms = []
    for partition, time_ms in zip(events["partition"].to_pylist(), events["time_ms"].to_pylist(), strict=True):
        found_ms.append(newest.get(partition, NO_WATERMARK_MS))
        newest[partition] = max(found_ms[-1], time_ms)
    return events.append_column("found_ms", pa.array(found_ms)).append_column("part", pa.array(np.zeros(len(events), dtype=np.int32)))


def test_tasks_together_give_the_frame() -> None:
    """Records decoded by the batch, labels joined by id, groups of entities folded apart: the rows are those of the topics, bit for bit."""
    driver = with_outcomes(shop.driven())
    topics = hr.Topics.of(driver.log)
    left_out = condemned_offsets(facts_of(shop.app, topics.subject))
    task = Task(pipeline=shop.fraud, joined="id", left_out=left_out)
    events = events_of(task, archived.records(driver.log, ["payments.v1"]))
    outcomes = pa.Table.from_batches(
        spark_tasks.archive_outcomes(shipped(task), "archive", batches(archived.records(driver.log, ["chargebacks.v1"])))
    )
    asking = events.select(["partition", "offset", "time_ms"]).append_column("id", events[task.column("id")])
    first = pc.match_substring_regex(asking["id"], "[02468]$")
    labels = [spark_tasks.label(shipped(task), asking.filter(mine), outcomes) for mine in (first, pc.invert(first))]
    events = events.join(pa.concat_tables(labels), ["partition", "offset"]).sort_by([("partition", "ascending"), ("offset", "ascending")])
    rows = pa.concat_tables(
        pa.Table.from_batches(spark_tasks.fold(shipped(task), 0, batches(events.filter(mine))), spark_tasks.row_schema(task, 0))
        for mine in (pc.equal(events[task.column("card")], "card-1"), pc.not_equal(events[task.column("card")], "card-1"))
    ).sort_by([("partition", "ascending"), ("offset", "ascending")])
    frame = hr.training_frame(shop.app, events=topics, labels=topics)
    assert rows["offset"].to_pylist() == frame.table["_offset"].to_pylist()
    assert rows["late"].to_pylist() == frame.table["_late"].to_pylist()
    assert rows["entity"].to_pylist() == frame.table["_entity"].to_pylist()
    values = np.column_stack([rows[f"v{place}"].to_numpy() for place in range(len(frame.names))])
    assert shop.bits(values) == shop.bits(frame.values)
    np.testing.assert_array_equal(rows["label"].to_numpy(), frame.labels)


@pytest.mark.parametrize("damage", ["swapped", "repeated", "across batches"])
def test_events_out_of_order_are_noticed(damage: str) -> None:
    """A group that comes in any other order than that of offsets, or twice, is no frame but an error."""
    task = Task(pipeline=shop.fraud)
    events = events_of(task, archived.records(shop.driven(60).log, ["payments.v1"]))
    order = list(range(len(events)))
    if damage == "swapped":
        order[10], order[11] = order[11], order[10]
    elif damage == "repeated":
        order.insert(10, 10)
    else:
        order = order[20:] + order[:20]
    assert len(list(spark_tasks.fold(shipped(task), 0, batches(events)))) == 2
    with pytest.raises(FatalError, match="out of order"):
        list(spark_tasks.fold(shipped(task), 0, batches(events.take(order), length=20)))


def test_definitions_travel_without_the_modules_they_are_written_in() -> None:
    """What is shipped is read where neither the app nor its contracts can be imported, and makes the same feature vectors."""
    hours = hr.FeatureView("hours", entity="card", source=shop.payments, features=[hr.mean(hr.hour("at", tz="Europe/Berlin"), over="1h")])
    pipeline = hr.Pipeline("p", views=[shop.spending, hours], event_features=["amount"], predictions="p.v1", outcomes=shop.chargebacks)
    pickled = shipped(Task(pipeline=pipeline, joined="id"))
    assert b"tests" not in pickled
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).pipeline.fingerprint)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickled, capture_output=True, check=True, env={"PYTHONPATH": str(SERVICES)}, cwd=SERVICES
    )
    assert done.stdout.decode().strip() == pipeline.fingerprint
    assert pickle.loads(pickled).pipeline.source.event.__name__ == "Payment"  # noqa: S301 - made above
