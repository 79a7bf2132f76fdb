from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.testing import Driver
from headrace.training.archive import AT_ONCE, Archive, ArchiveReader
from headrace.types import LogRange, TopicPartition
from tests.unit import flying
from tests.unit.training import archived, shop
from tests.unit.training.test_hops import flown

ALL = ("payments.v1", "chargebacks.v1", shop.app.facts)


def with_outcomes(driver: Driver) -> Driver:
    """Every second payment has an outcome, and one record was condemned."""
    driver.log.create_topic("chargebacks.v1", 2)
    for row in shop.rows(300, disorder=True)[::2]:
        text = f'{{"id":"{row["id"]}","known_at":{int(row["at"]) + 5_000},"disputed":{row["amount"]}}}'
        driver.log.append("chargebacks.v1", None, b"any", text.encode())
    shop.condemn(driver, 1, 20)
    return driver


def test_an_archive_gives_the_frame_of_its_topics(tmp_path: Path) -> None:
    """Whatever order, files and repeats a sink made of a log: rows, labels, lineage and hash are those of the topics themselves."""
    driver = with_outcomes(shop.driven())
    topics = hr.Topics.of(driver.log)
    expected = hr.training_frame(shop.app, events=topics, labels=topics)
    kept = hr.Topics.archived(archived.write(archived.records(driver.log, ALL), tmp_path / "all"))
    frame = hr.training_frame(shop.app, events=kept, labels=kept)
    assert (frame.hash, frame.lineage) == (expected.hash, expected.lineage)
    assert frame.table.schema.equals(expected.table.schema, check_metadata=True)
    assert frame.lineage["refused"] == {"CONTRACT": 6, "CRASH_LOOP": 1, "MALFORMED": 6}
    assert frame.lineage["late"] > 0
    assert frame.lineage["labels"]["labelled"] > 0


def test_topics_may_have_places_of_their_own(tmp_path: Path) -> None:
    """A folder for each topic, without a column that names it, and partitions in the names of folders, give the same."""
    driver = with_outcomes(shop.driven())
    topics = hr.Topics.of(driver.log)
    table = archived.records(driver.log, ALL)
    places = {}
    for topic in ALL:
        mine = table.filter(pc.field("topic") == topic).drop_columns(["topic"])
        places[topic] = tmp_path / topic
        for number in pc.unique(mine["partition"]).to_pylist():
            archived.write(
                mine.filter(pc.field("partition") == number).drop_columns(["partition"]), places[topic] / f"partition={number}", files=1
            )
    kept = hr.Topics.archived(places)
    expected = hr.training_frame(shop.app, events=topics, labels=topics)
    found = hr.training_frame(shop.app, events=kept, labels=kept)
    assert (found.hash, found.lineage) == (expected.hash, expected.lineage)
    del places[shop.app.facts]
    without = hr.training_frame(shop.app, events=hr.Topics.archived(places))
    assert "CRASH_LOOP" not in without.lineage["refused"]


def test_an_archive_that_begins_later_leaves_out_what_it_cannot_know(tmp_path: Path) -> None:
    """Rows whose windows reach behind the first record that is left are left out, as those of a topic are."""
    driver = shop.driven(600)
    for number in (0, 1):
        driver.log.delete_before(TopicPartition("payments.v1", number), 20)
    expected = hr.training_frame(shop.app, events=hr.Topics.of(driver.log))
    kept = hr.Topics.archived(archived.write(archived.records(driver.log, ALL), tmp_path / "all"))
    found = hr.training_frame(shop.app, events=kept)
    assert found.lineage == expected.lineage
    assert found.lineage["incomplete"] > 0


def test_hops_may_be_archived_too(tmp_path: Path) -> None:
    """The frame of a pipeline of several entities is that of its topics, from the files of its last hop."""
    driver = flown()
    expected = hr.training_frame(flying.app, events=hr.Topics.of(driver.log))
    kept = hr.Topics.archived(archived.write(archived.records(driver.log, list(driver.log.topics())), tmp_path / "all"))
    found = hr.training_frame(flying.app, events=kept)
    assert found.hash == expected.hash
    assert len(found) > 150
    # A topic ends behind the marker of its last transaction, an archive behind the last record.
    assert {**found.lineage, "offsets": None} == {**expected.lineage, "offsets": None}


def plain(table: pa.Table) -> pa.Table:
    """Records without headers and topic."""
    return table.drop_columns(["headers", "topic"])


WRITTEN: dict[str, Callable[[pa.Table], pa.Table]] = {
    "texts": lambda table: plain(table).set_column(4, "value", table["value"].cast(pa.string())),
    "milliseconds": lambda table: plain(table).set_column(
        2, "timestamp_ms", table["timestamp"].cast(pa.timestamp("ms", "UTC")).cast("int64")
    ),
    "nanoseconds": lambda table: plain(table).set_column(2, "timestamp", table["timestamp"].cast(pa.timestamp("ns", "UTC"))),
    "no zone": lambda table: plain(table).set_column(
        2, "timestamp", table["timestamp"].cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    ),
    "map of headers": lambda table: plain(table).append_column(
        "headers", pa.array([[("trace", b"7"), ("empty", None)]] * len(table), pa.map_(pa.string(), pa.binary()))
    ),
    "no keys": lambda table: plain(table).set_column(3, "key", pa.nulls(len(table))),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_records_may_be_written_in_several_ways(kind: str, tmp_path: Path) -> None:
    """Bytes or texts, milliseconds or timestamps, headers as a list or a map: the reader gives the same records."""
    driver = shop.driven(60)
    table = archived.records(driver.log, ("payments.v1",))
    pq.write_table(WRITTEN[kind](table), tmp_path / "payments.parquet")
    reader = ArchiveReader(Archive({"payments.v1": tmp_path / "payments.parquet"}))
    with closing(hr.Topics.of(driver.log).subject.reader()) as theirs:
        for name in reader.partitions("payments.v1"):
            span = theirs.log_range(name)
            assert reader.log_range(name) == span
            mine = [record for batch in reader.batches({name: span.start}) for record in batch.records()]
            expected = [record for batch in theirs.batches({name: span.start}) for record in batch.records()]
            assert [(one.offset, one.timestamp_ms, one.value) for one in mine] == [
                (one.offset, one.timestamp_ms, one.value) for one in expected
            ]
            if kind == "no keys":
                assert {one.key for one in mine} == {None}
            else:
                assert [one.key for one in mine] == [one.key for one in expected]
            if kind == "map of headers":
                assert mine[0].headers == [("trace", b"7"), ("empty", None)]


def test_a_reader_reads_from_anywhere_and_holds_what_it_is_told_to(tmp_path: Path) -> None:
    """A feed gives the offsets between start and end, some thousands at a time, nothing of what is held; times are looked up."""
    count = 2 * AT_ONCE + 5
    table = pa.table(
        {
            "partition": pa.array(np.repeat([0, 2], [count, 3]), pa.int32()),
            "offset": np.concatenate((np.arange(count), np.arange(7, 10))),
            "timestamp_ms": pa.array([*range(count - 1), None, 5, 6, 7], pa.int64()),
            "key": ["k"] * (count + 3),
            "value": ["v"] * (count + 3),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    reader = ArchiveReader(Archive({"t": tmp_path / "t.parquet"}))
    zero, one, two = reader.partitions("t")
    assert (reader.exists("t"), reader.exists("u")) == (True, False)
    assert [reader.log_range(name) for name in (zero, one, two)] == [
        LogRange(start=0, end=count),
        LogRange(start=0, end=0),
        LogRange(start=7, end=10),
    ]
    assert [reader.offset_at(zero, 100), reader.offset_at(two, 6), reader.offset_at(two, 8), reader.offset_at(one, 0)] == [
        100,
        8,
        None,
        None,
    ]
    feed = reader.feed({zero: 3, one: 0, two: 8}, {zero: count - 1, one: 0, two: 10})
    feed.hold({zero})
    assert [batch.offsets.tolist() for batch in feed.take()] == [[8, 9]]
    assert (feed.take(), feed.left) == ([], {zero})
    feed.hold(frozenset())
    assert [len(batch) for _ in range(3) for batch in feed.take()] == [AT_ONCE, AT_ONCE, 1]
    assert not feed.left
    (last,) = reader.batches({zero: count - 1})
    assert last.timestamps_ms.tolist() == [-1]
    feed.close()
    reader.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.drop_columns(["offset"]), "no column 'offset'.*give their path as events"),
        (lambda table: table.drop_columns(["timestamp"]), "no column 'timestamp'"),
        (lambda table: table.drop_columns(["topic"]), "no column 'topic'.*TOPIC=PATH"),
        (lambda table: table.set_column(2, "offset", pa.array([None] * len(table), pa.int64())), "'offset' is int64, or absent"),
        (lambda table: table.set_column(5, "value", pa.array([1] * len(table))), "'value' is int64; the bytes"),
        (lambda table: table.set_column(6, "headers", pa.array(["a=b"] * len(table))), "'headers' holds something else"),
        (lambda table: table.set_column(0, "topic", pa.array(["other"] * len(table))), "no records of the topic payments.v1"),
    ],
)
def test_files_that_are_no_archive_are_refused(change: Callable[[pa.Table], pa.Table], says: str, tmp_path: Path) -> None:
    """A column that is missing, or holds something else, is named, with the way out."""
    table = change(archived.records(shop.driven(10).log, ("payments.v1",)))
    pq.write_table(table, tmp_path / "payments.parquet")
    with pytest.raises(DefinitionError, match=says):
        hr.training_frame(shop.app, events=hr.Topics.archived(tmp_path / "payments.parquet"))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    """A path without files, a file of another kind and a topic nobody named are refused."""
    with pytest.raises(DefinitionError, match="names no Parquet or CSV file"):
        hr.training_frame(shop.app, events=hr.Topics.archived(tmp_path / "nowhere"))
    (tmp_path / "broken.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DefinitionError, match=r"archive .*broken.parquet"):
        hr.training_frame(shop.app, events=hr.Topics.archived(tmp_path / "broken.parquet"))
    with pytest.raises(DefinitionError, match=r"no records of the topic payments\.v1"):
        hr.training_frame(shop.app, events=hr.Topics.archived({"payments.v2": tmp_path / "broken.parquet"}))
