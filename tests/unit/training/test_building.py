from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.testing import Driver
from headrace.types import TopicPartition
from tests.unit.training import shop

NAMES = shop.fraud.feature_names


def served(driver: Driver) -> dict[tuple[int, int], tuple[bool, list[float]]]:
    """By partition and offset of the source record: whether it was late, and the features in its prediction."""
    found = {}
    for one in driver.results("fraud"):
        _, partition, offset, _ = one["id"].rsplit("-", 3)
        values = [math.nan if one["features"][name] is None else one["features"][name] for name in NAMES]
        found[int(partition), int(offset)] = (one["late"], values)
    return found


def test_rows_from_topics_are_what_was_served() -> None:
    """Every prediction has its row, bit for bit, and every row its prediction; dead letters have none and are counted by reason."""
    driver = shop.driven()
    frame = hr.training_frame(shop.app, events=hr.Topics.of(driver.log))
    predicted = served(driver)
    places = list(zip(frame.table["_partition"].to_pylist(), frame.table["_offset"].to_pylist(), strict=True))
    assert sorted(places) == sorted(predicted)
    assert shop.bits(frame.values) == shop.bits(np.array([predicted[place][1] for place in places]))
    assert frame.table["_late"].to_pylist() == [predicted[place][0] for place in places]
    assert any(late for late, _ in predicted.values())
    assert frame.names == NAMES
    assert frame.lineage["refused"] == {"CONTRACT": 6, "MALFORMED": 6}
    assert frame.lineage["records"] == len(frame) + len(driver.dead_letters())


def test_crashes_leave_no_trace_in_a_frame() -> None:
    """What was served before and after a crash, a rebalance and a store that forgot is, bit for bit, in one frame."""
    driver = Driver(shop.app, models={"fraud": shop.Counting()}, partitions=2, now_ms=shop.START_MS)
    rows = shop.rows(200, disorder=True)
    faults: list[Callable[[], None]] = [driver.crash, driver.rebalance, driver.roll_back_state, partial(driver.crash, before="apply")]
    for number, row in enumerate(rows):
        driver.send("payments.v1", **row)
        if number % 50 == 25:
            driver.run()
            faults[number // 50]()
    predicted = served(driver)
    frame = hr.training_frame(shop.app, events=hr.Topics.of(driver.log))
    places = list(zip(frame.table["_partition"].to_pylist(), frame.table["_offset"].to_pylist(), strict=True))
    assert places == sorted(predicted)
    assert shop.bits(frame.values) == shop.bits(np.array([predicted[place][1] for place in places]))


def test_condemned_records_are_left_out() -> None:
    """A record that the facts condemn has no row and is in no feature, as if it had never been."""
    driver = shop.driven(60, disorder=False)
    before = hr.training_frame(shop.app, events=hr.Topics.of(driver.log))
    entity = before.table["_entity"].to_pylist()[5]
    place = (before.table["_partition"].to_pylist()[5], before.table["_offset"].to_pylist()[5])
    shop.condemn(driver, *place)
    after = hr.training_frame(shop.app, events=hr.Topics.of(driver.log))
    assert len(after) == len(before) - 1
    assert after.lineage["refused"]["CRASH_LOOP"] == 1
    others = [row for row, name in enumerate(before.table["_entity"].to_pylist()) if name != entity]
    kept = [row for row, name in enumerate(after.table["_entity"].to_pylist()) if name != entity]
    assert shop.bits(before.values[others]) == shop.bits(after.values[kept])
    assert before.values[:, 0].sum() > after.values[:, 0].sum()


def test_rows_whose_windows_reach_behind_the_log_are_left_out() -> None:
    """Where retention has taken the beginning, the first rows are left out and counted; all that are left are as served."""
    driver = shop.driven(600)
    predicted = served(driver)
    for number in (0, 1):
        driver.log.delete_before(TopicPartition("payments.v1", number), 20)
    frame = hr.training_frame(shop.app, events=hr.Topics.of(driver.log))
    places = list(zip(frame.table["_partition"].to_pylist(), frame.table["_offset"].to_pylist(), strict=True))
    assert frame.lineage["incomplete"] > 0
    assert len(frame) > 100
    assert shop.bits(frame.values) == shop.bits(np.array([predicted[place][1] for place in places]))
    assert frame.lineage["offsets"]["payments.v1"]["0"][0] == 20
    whole = int(frame.table["_event_time"].cast("int64").to_numpy().max())
    at = pa.table({"card": ["card-1", "card-1"], "as_of": [shop.START_MS, whole]})
    answers = hr.training_frame(shop.app, events=hr.Topics.of(driver.log), at=at)
    assert (answers.table["_whole"].to_pylist(), answers.lineage["incomplete"]) == ([False, True], 1)


def csv(table: pa.Table, folder: Path) -> Path:
    """As one CSV file."""
    pyarrow.csv.write_csv(table, folder / "payments.csv")
    return folder / "payments.csv"


def parquet(table: pa.Table, folder: Path) -> Path:
    """As a folder of two Parquet files."""
    (folder / "parts").mkdir()
    pq.write_table(table.slice(0, 100), folder / "parts" / "a.parquet")
    pq.write_table(table.slice(100), folder / "parts" / "b.parquet")
    return folder / "parts"


def pattern(table: pa.Table, folder: Path) -> str:
    """As a glob over the same."""
    return str(parquet(table, folder) / "*.parquet")


GIVEN: dict[str, Callable[[pa.Table, Path], object]] = {
    "table": lambda table, _: table,
    "pandas": lambda table, _: table.to_pandas(),
    "polars": lambda table, _: pl.from_arrow(table),
    "categories": lambda table, _: table.to_pandas().astype({"shop": "category"}),
    "timestamps": lambda table, _: table.to_pandas().assign(at=lambda frame: pd.to_datetime(frame["at"], unit="ms", utc=True)),
    "csv": csv,
    "parquet": parquet,
    "glob": pattern,
}


@pytest.mark.parametrize("kind", GIVEN)
def test_every_kind_of_table_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    """Files, folders, globs and frames of any library give one frame, which is what the engine serves for the same events in order."""
    table = shop.table(shop.rows())
    driver = Driver(shop.app, models={"fraud": shop.Counting()}, partitions=1, now_ms=shop.START_MS)
    for row in table.to_pylist():
        driver.send("payments.v1", **row)
    predicted = served(driver)
    frame = hr.training_frame(shop.app, events=GIVEN[kind](table, tmp_path))
    places = list(zip(frame.table["_partition"].to_pylist(), frame.table["_offset"].to_pylist(), strict=True))
    assert shop.bits(frame.values) == shop.bits(np.array([predicted[place][1] for place in places]))
    assert frame.hash == hr.training_frame(shop.app, events=table).hash


def test_the_order_of_a_table_does_not_matter() -> None:
    """Rows of a table are taken in the order of event time: shuffled, they give the same vectors."""
    rows = [row for row in shop.rows() if row["at"]]
    shuffled = np.random.default_rng(5).permutation(len(rows))
    one = hr.training_frame(shop.app, events=shop.table(rows))
    other = hr.training_frame(shop.app, events=shop.table([rows[place] for place in shuffled]))
    back = np.argsort(shuffled)
    assert other.table["_offset"].to_pylist() == list(range(len(rows)))
    assert np.array_equal(other.table["_event_time"].to_numpy()[back], one.table["_event_time"].to_numpy())
    np.testing.assert_allclose(other.values[back], one.values, rtol=1e-9)


def test_rows_that_are_no_events_are_counted() -> None:
    """What the decoder refuses on a topic it refuses in a table, by the same reasons."""
    rows = shop.rows(20)
    rows[3]["amount"] = None
    rows[4]["at"] = 5
    rows[5]["card"] = ""
    rows[6]["online"] = None
    frame = hr.training_frame(shop.app, events=shop.table(rows))
    assert len(frame) == 16
    assert frame.lineage["refused"] == {"BAD_KEY": 1, "CONTRACT": 2, "EVENT_TIME_INVALID": 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.drop_columns(["amount"]), "no column 'amount'"),
        (lambda table: table.rename_columns(["id", "cards", *table.column_names[2:]]), "is it 'cards'"),
        (lambda table: table.set_column(3, "amount", pa.array(["much"] * len(table))), "is string, the contract says number"),
        (lambda table: table.set_column(2, "at", pa.array([True] * len(table))), "give whole milliseconds UTC"),
        (lambda table: table.set_column(2, "at", pa.array(["yesterday"] * len(table))), "no time in ISO 8601"),
        (lambda _: 7, "int is no table"),
        (lambda _: "nowhere/*.parquet", "names no Parquet or CSV file"),
    ],
)
def test_a_table_of_another_shape_is_refused(change: Callable[[pa.Table], object], says: str) -> None:
    """A column that is missing or of another kind is named, with the fix."""
    with pytest.raises(DefinitionError, match=says):
        hr.training_frame(shop.app, events=change(shop.table(shop.rows(5))))


def test_an_empty_text_is_absent_in_a_csv_alone(tmp_path: Path) -> None:
    """A CSV file cannot tell an empty text from none, so it is none; elsewhere it is the text it is. NA and 007 stay texts."""
    rows = shop.rows(30)
    for place, row in enumerate(rows):
        row |= {"card": "007" if place % 2 else "NA", "shop": ""}
    empty = hr.col("shop") == ""
    pipeline = hr.Pipeline("p", views=[shop.spending], event_features=[empty.alias("empty")], predictions="p.v1")
    typed = hr.training_frame(pipeline, events=shop.table(rows))
    written = hr.training_frame(pipeline, events=csv(shop.table(rows), tmp_path))
    assert np.nansum(typed.values[:, -1]) == 30.0
    assert np.isnan(written.values[:, -1]).all()
    assert shop.bits(typed.values[:, :-1]) == shop.bits(written.values[:, :-1])
    assert set(written.table["_entity"].to_pylist()) == {"NA", "007"}


def test_a_column_of_several_kinds_is_refused() -> None:
    """A pandas column of numbers and texts is no column; the error names it."""
    frame = pd.DataFrame(shop.rows(3)).astype({"amount": object})
    frame.loc[1, "amount"] = "much"
    with pytest.raises(DefinitionError, match=r"not of one kind: .*amount"):
        hr.training_frame(shop.app, events=frame)


def test_instants_may_be_written_in_any_way(tmp_path: Path) -> None:
    """ISO 8601 with and without a zone (then UTC), timestamps and milliseconds mean the same instants."""
    table = shop.table(shop.rows(30))
    plain = hr.training_frame(shop.app, events=table)
    stamps = table["at"].cast(pa.timestamp("ms"))
    texts = pa.array([one.isoformat() for one in stamps.to_pylist()])
    zoned = pa.array([f"{one.isoformat()}+00:00" for one in stamps.to_pylist()])
    for column in (stamps, texts, zoned, stamps.cast(pa.timestamp("us")), table["at"].cast(pa.float64())):
        assert hr.training_frame(shop.app, events=table.set_column(2, "at", column)).hash == plain.hash
    pyarrow.csv.write_csv(table.set_column(2, "at", stamps), tmp_path / "iso.csv")
    assert hr.training_frame(shop.app, events=tmp_path / "iso.csv").hash == plain.hash


def test_answers_are_those_of_look_ups() -> None:
    """Asked as of an instant, a row is what a look-up gives then; unknown entities are marked; the order is that of the table that asks."""
    table = shop.table(shop.rows())
    driver = Driver(shop.app, models={"fraud": shop.Counting()}, partitions=2, now_ms=shop.START_MS)
    asked, expected = [], []
    for number, row in enumerate(shop.rows()):
        driver.send("payments.v1", **row)
        if number % 40 == 11:
            as_of_ms = int(str(row["at"]))
            for card in ("card-1", "card-4", "nobody"):
                asked.append({"card": card, "as_of": as_of_ms})
                expected.append(list(driver.features(shop.spending, card, as_of_ms=as_of_ms).values()))
    asked, expected = asked[::-1], expected[::-1]
    for events in (table, hr.Topics.of(driver.log)):
        frame = hr.training_frame(shop.app, events=events, at=pa.Table.from_pylist(asked))
        assert frame.names == NAMES[: len(shop.spending.features)]
        assert shop.bits(frame.values) == shop.bits(np.array(expected))
        assert frame.table["_known"].to_pylist() == [row["card"] != "nobody" for row in asked]
        assert frame.table["_entity"].to_pylist() == [row["card"] for row in asked]


def test_questions_may_bring_the_fields_of_event_features() -> None:
    """An event feature is there when the table that asks has its fields; a pipeline and `entity` will do."""
    at = pd.DataFrame({"entity": ["card-1"], "as_of": [pd.Timestamp("2024-01-01", tz="UTC")], "amount": [12.5], "shop": ["books"]})
    frame = hr.training_frame(shop.fraud, events=shop.table(shop.rows()), at=at)
    assert frame.names[-2:] == ("amount", "books")
    assert frame.values[0, -2:].tolist() == [12.5, 1.0]
    with pytest.raises(DefinitionError, match="no column 'as_of'"):
        hr.training_frame(shop.fraud, events=shop.table(shop.rows()), at=at.drop(columns="as_of"))


def test_the_pipeline_must_be_clear() -> None:
    """Of several pipelines one is named; topics want the app, as its facts are needed."""
    other = hr.Pipeline("other", views=[shop.spending], predictions="other.v1")
    both = hr.App("both", pipelines=[shop.fraud, other])
    events = shop.table(shop.rows(5))
    with pytest.raises(DefinitionError, match="say which: fraud, other"):
        hr.training_frame(both, events=events)
    with pytest.raises(DefinitionError, match="no pipeline 'third'"):
        hr.training_frame(both, events=events, pipeline="third")
    assert hr.training_frame(both, events=events, pipeline="other").names == other.feature_names
    with pytest.raises(DefinitionError, match="give the app"):
        hr.training_frame(shop.fraud, events=hr.Topics.of(shop.driven(5).log))
