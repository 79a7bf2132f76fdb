from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.training.grid import export_features
from headrace.types import TopicPartition
from tests.unit.training import shop

HOUR_MS = 3_600_000
brief = hr.FeatureView("brief", entity="card", source=shop.payments, features=[hr.count(over="10m"), hr.sum("amount", over="10m")])
app = hr.App("cards", pipelines=[shop.fraud, hr.Pipeline("p", views=[brief], predictions="p.v1")])


@pytest.mark.parametrize("where", ["table", "topics"])
def test_every_row_is_what_a_look_up_would_have_answered(where: str, tmp_path: Path) -> None:
    """Each value on the grid is the answer to that question; one file a view, with only those entities of which it has something."""
    table = shop.table(shop.rows())
    topics = hr.Topics.of(shop.driven(disorder=False).log)
    files = export_features(app, events=table if where == "table" else topics, grid="1h", to=tmp_path)
    assert [one.path.name for one in files] == ["spending.parquet", "brief.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brief.parquet", "spending.parquet"]
    for view, one in zip((shop.spending, brief), files, strict=True):
        found = pq.read_table(one.path)
        assert len(found) == one.rows > 10
        at = pa.table({"card": found["_entity"], "as_of": found["_as_of"]})
        pipeline = hr.Pipeline("p", views=[view], predictions="p.v1")
        asked = hr.training_frame(pipeline, events=table, at=at)
        values = np.column_stack([found[name].to_numpy() for name in view.feature_names])
        assert set(np.unique(found["_as_of"].cast("int64").to_numpy() % HOUR_MS)) == {0}
        assert shop.bits(values) == shop.bits(asked.values)
        assert asked.table["_known"].to_pylist() == [True] * len(found)
    assert files[1].rows < files[0].rows


def test_files_say_what_they_hold(tmp_path: Path) -> None:
    """The schema has a description and a unit for each feature, and names app, view, fingerprint, grid and what was read."""
    (one,) = export_features(app, events=shop.table(shop.rows()), grid="90m", to=tmp_path / "new" / "folder", views=["spending"])
    schema = pq.read_schema(one.path)
    assert schema.field("seconds_since_last").metadata[b"unit"] == b"s"
    assert schema.field("mean_amount_1h").metadata[b"description"].startswith(b"mean of amount in the last 1h")
    assert json.loads(schema.metadata[b"headrace"]) == {
        "app": "cards",
        "entity": "card",
        "fingerprint": shop.spending.fingerprint,
        "grid": "90m",
        "offsets": {"rows": {"0": [0, 300]}},
        "version": 1,
        "view": "spending",
    }


def test_refused_rows_are_counted_and_nothing_half_done_stays(tmp_path: Path) -> None:
    """Rows that are no events are counted; an export that fails leaves no file."""
    rows = shop.rows(50)
    rows[7]["amount"] = None
    (one,) = export_features(shop.app, events=shop.table(rows), grid="1h", to=tmp_path)
    assert one.refused == {"CONTRACT": 1}
    before = one.path.read_bytes()

    def gone(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_features(shop.app, events=shop.table(shop.rows()), grid="1h", to=tmp_path, told=gone)
    assert [path.name for path in tmp_path.iterdir()] == ["spending.parquet"]
    assert one.path.read_bytes() == before


def test_a_log_without_its_beginning_has_a_grid_from_where_windows_are_whole(tmp_path: Path) -> None:
    """Where retention took records, no instant is exported whose windows reach back there; the rest is the same."""
    driver = shop.driven(600, disorder=False)
    (whole,) = export_features(shop.app, events=hr.Topics.of(driver.log), grid="1h", to=tmp_path)
    before = pq.read_table(whole.path).to_pylist()
    for number in (0, 1):
        driver.log.delete_before(TopicPartition("payments.v1", number), 20)
    (cut,) = export_features(shop.app, events=hr.Topics.of(driver.log), grid="1h", to=tmp_path)
    after = pq.read_table(cut.path).to_pylist()
    assert 0 < len(after) < len(before)
    assert {str(row) for row in after} <= {str(row) for row in before}


def test_nothing_to_export(tmp_path: Path) -> None:
    """Without events a file has no rows and all columns; an unknown view and a grid that is none are refused."""
    (one,) = export_features(shop.app, events=shop.table(shop.rows(1)).slice(0, 0), grid="1h", to=tmp_path)
    assert pq.read_table(one.path).num_rows == one.rows == 0
    with pytest.raises(DefinitionError, match="no view 'nothing'; it has brief, spending"):
        export_features(app, events=shop.table(shop.rows(1)), grid="1h", to=tmp_path, views=["nothing"])
    with pytest.raises(DefinitionError, match="grid is 'hourly'"):
        export_features(app, events=shop.table(shop.rows(1)), grid="hourly", to=tmp_path)
