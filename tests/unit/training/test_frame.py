from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.training import files
from headrace.training.frame import content_hash, hash_of
from tests.unit.training import shop


@pytest.fixture(scope="module")
def frame() -> hr.TrainingFrame:
    """A frame with absent values."""
    return hr.training_frame(shop.app, events=shop.table(shop.rows(60)))


def test_the_schema_says_what_features_mean(frame: hr.TrainingFrame) -> None:
    """Each feature carries its description, and its unit where that is known or the contract says it."""
    said = {name: frame.table.schema.field(name).metadata for name in frame.names}
    assert said["spending.count_1h"] == {
        b"description": b"number of events in the last 1h; the far end is rounded back by less than 1m; 0 when empty",
        b"unit": b"events",
    }
    assert said["spending.seconds_since_last"][b"unit"] == b"s"
    assert {name for name in frame.names if said[name].get(b"unit") == b"EUR"} == {
        *("amount", "spending.mean_amount_1h", "spending.mean_amount_6h", "spending.std_amount_6h", "spending.last_amount"),
        next(name for name in frame.names if "max_amount" in name),
    }
    assert said["books"] == {b"description": b"(shop == 'books') of the event itself"}


def test_lineage_names_definitions_and_offsets(frame: hr.TrainingFrame) -> None:
    """A frame knows its app, its pipeline, the fingerprints of its views and where its events were read."""
    lineage = frame.lineage
    assert (lineage["app"], lineage["pipeline"], lineage["fingerprint"]) == ("cards", "fraud", shop.fraud.fingerprint)
    assert lineage["views"] == {"spending": {"version": 1, "fingerprint": shop.spending.fingerprint}}
    assert lineage["offsets"] == {"rows": {"0": [0, 60]}}
    assert (lineage["rows"], lineage["late"], lineage["labels"]) == (60, 0, None)


def test_a_frame_survives_parquet_and_notices_damage(frame: hr.TrainingFrame, tmp_path: Path) -> None:
    """Written and read again it is the same, hash and all; rows that were changed on the way are noticed."""
    frame.to_parquet(tmp_path / "frame.parquet")
    again = hr.TrainingFrame.read(tmp_path / "frame.parquet")
    assert again.table.schema.equals(frame.table.schema, check_metadata=True)
    assert (content_hash(again.table), again.lineage) == (frame.hash, frame.lineage)
    table = frame.table.set_column(5, frame.table.schema.field(5), pa.array(np.arange(60.0)))
    pq.write_table(table, tmp_path / "damaged.parquet")
    with pytest.raises(DefinitionError, match="its rows are not those"):
        hr.TrainingFrame.read(tmp_path / "damaged.parquet")
    with pytest.raises(DefinitionError, match="no training frame"):
        hr.TrainingFrame(shop.table(shop.rows(3)))


def test_a_frame_may_lie_in_many_files(frame: hr.TrainingFrame, tmp_path: Path) -> None:
    """A folder of files with the schema beside them is the frame; files that are missing, changed or not finished are noticed."""
    for place, begin in enumerate(range(0, 60, 17)):
        plain = frame.table.slice(begin, 17).replace_schema_metadata(None)
        pq.write_table(plain, tmp_path / f"part-{place:05}-x.parquet", row_group_size=5)
    with pytest.raises(DefinitionError, match="is no training set: it has no _common_metadata"):
        hr.TrainingFrame.read(tmp_path)
    files.write_schema(tmp_path, frame.table.schema)
    again = hr.TrainingFrame.read(tmp_path)
    assert again.table.schema.equals(frame.table.schema, check_metadata=True)
    assert (content_hash(again.table), again.lineage) == (frame.hash, frame.lineage)
    assert files.rows_in(tmp_path) == 60
    assert hash_of(frame.table.schema, 60, lambda name: files.pieces(tmp_path, name)) == frame.hash
    (tmp_path / "part-00002-x.parquet").unlink()
    with pytest.raises(DefinitionError, match="its rows are not those"):
        hr.TrainingFrame.read(tmp_path)


def test_the_hash_is_of_the_content(frame: hr.TrainingFrame) -> None:
    """Equal rows have equal hashes, however they are cut into chunks; one more or another bit is another hash."""
    again = hr.training_frame(shop.fraud, events=shop.table(shop.rows(60)))
    assert again.hash == frame.hash
    assert hr.training_frame(shop.app, events=shop.table(shop.rows(59))).hash != frame.hash
    rows = shop.rows(60)
    rows[0]["amount"] = float(np.nextafter(rows[0]["amount"], 1e9))
    assert hr.training_frame(shop.app, events=shop.table(rows)).hash != frame.hash


def test_pandas_and_polars_have_the_same_rows(frame: hr.TrainingFrame) -> None:
    """Both libraries get every column with its values; absent is NaN."""
    for columns in (frame.to_pandas(), frame.to_polars()):
        assert list(columns.columns) == frame.table.column_names
        for name in frame.names:
            np.testing.assert_array_equal(np.asarray(columns[name]), frame.table[name].to_numpy())
    assert np.isnan(frame.values).any()


def test_a_notebook_shows_it(frame: hr.TrainingFrame) -> None:
    """The HTML has name, counts, a few rows, and what each feature means when one points at it; nothing of the events is markup."""
    shown = frame._repr_html_()
    assert "fraud: 60 rows, 11 features" in shown
    assert shown.count("<tr>") == 9
    assert 'title="seconds since the newest event before this one' in shown
    rows = [{**row, "card": "<b>"} for row in shop.rows(3)]
    assert "<td>&lt;b&gt;</td>" in hr.training_frame(shop.app, events=shop.table(rows))._repr_html_()
    assert repr(frame) == f"<TrainingFrame 60 rows, 11 features, {frame.hash[:16]}>"


def test_no_events_give_no_rows() -> None:
    """Of an empty table comes an empty frame, with all columns."""
    frame = hr.training_frame(shop.app, events=shop.table(shop.rows(3)).slice(0, 0))
    assert (len(frame), frame.values.shape) == (0, (0, 11))
    with pytest.raises(DefinitionError, match="no labels"):
        _ = frame.labels


def test_a_name_about_the_row_cannot_be_a_feature() -> None:
    """An event feature that is called like a column about the row is refused."""
    pipeline = hr.Pipeline("p", views=[shop.spending], event_features=[hr.col("amount").alias("_late")], predictions="p.v1")
    with pytest.raises(DefinitionError, match=r"'_late' has the name of a column about the row; give it another \.alias"):
        hr.training_frame(pipeline, events=shop.table(shop.rows(3)))
