"""The committed model of the demo comes from the committed script."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import headrace as hr
from headrace.cli.demo import app as demo
from headrace.clock import SystemClock
from headrace.demo.boarding import app as boarding_app
from headrace.demo.boarding import before_departure, by_timetable
from headrace.demo.boarding_replay import BoardingReplay, some_of
from headrace.demo.events import Departures, read_departures
from headrace.demo.flights import ALONE_MODEL, MODEL, aircraft_alone, app, late_arrival
from headrace.demo.report import ALONE, DELAY, judge
from headrace.demo.report import MODEL as MODEL_ROW
from headrace.demo.train import alone, frame_of
from headrace.features.training import EventVectors
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.signature import check

pytestmark = pytest.mark.stack

MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def departures() -> Departures:
    """The whole year."""
    return read_departures()


@pytest.fixture(scope="module")
def frame(departures: Departures) -> EventVectors:
    """Its features, folded once."""
    return frame_of(departures)


def test_committed_model_fits_its_pipeline_and_is_small() -> None:
    """The file loads, carries the signature of the pipeline as it is defined now, and weighs less than 150 kB."""
    model = OnnxModel.load(MODEL, late_arrival.feature_names)
    check(model.signature, late_arrival)
    assert (model.name, app.pipelines) == ("late_arrival", (late_arrival,))
    assert MODEL.stat().st_size < MOST_BYTES


def test_training_again_gives_the_scores_of_the_committed_model(tmp_path: Path, frame: EventVectors) -> None:
    """`headrace demo train` makes a model that scores every departure of the year as the committed one does."""
    path = tmp_path / MODEL.name
    done = CliRunner().invoke(demo, ["train", "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    again, committed = OnnxModel.load(path, frame.names), OnnxModel.load(MODEL, frame.names)
    assert again.signature == committed.signature
    trained, expected = again.score(frame.values), committed.score(frame.values)
    assert (trained.refused, expected.refused) == ([], [])
    assert np.abs(trained.scores - expected.scores).max() < 1e-6
    assert "departure delay alone" in done.output
    for pipeline in (before_departure, by_timetable):
        path = Path(pipeline.model or "")
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_training_frame_of_files_is_what_the_model_was_trained_on(departures: Departures, frame: EventVectors, tmp_path: Path) -> None:
    """From a Parquet file of all 328,521 flights come the same bits as from the log, and every known outcome as a label."""
    flights = pa.Table.from_pylist([json.loads(value) for value in departures.values])
    pq.write_table(flights, tmp_path / "departures.parquet")
    arrived = departures.departed_ms + 60_000 * np.where(np.isnan(departures.arr_delay), 0, 120).astype(np.int64)
    known = ~np.isnan(departures.arr_delay)
    columns = {"flight_id": departures.flight_ids, "arrived_at": arrived, "arr_delay": departures.arr_delay}
    arrivals = pa.table(columns).filter(pa.array(known))
    found = hr.training_frame(app, events=tmp_path / "departures.parquet", labels=arrivals)
    assert found.table["_offset"].to_pylist() == list(range(len(departures)))
    assert np.array_equal(found.values.view(np.int64)[~np.isnan(frame.values)], frame.values.view(np.int64)[~np.isnan(frame.values)])
    assert np.array_equal(np.isnan(found.values), np.isnan(frame.values))
    np.testing.assert_array_equal(found.labels, departures.late)
    assert (len(found), found.lineage["labels"]["labelled"], found.lineage["labels"]["none"]) == (328_521, 327_346, 1_175)


def test_committed_model_beats_departure_delay_alone(departures: Departures, frame: EventVectors) -> None:
    """On July to December, which it was not trained on, it ranks better than departure delay, and is calibrated within a point."""
    without = OnnxModel.load(ALONE_MODEL, aircraft_alone.feature_names).score(alone(frame.values, frame.names)).scores
    judged = judge(departures, OnnxModel.load(MODEL, frame.names).score(frame.values).scores, without)
    assert judged is not None
    assert judged.by_predictor[DELAY].auc == pytest.approx(0.8956, abs=0.0005)
    assert judged.by_predictor[MODEL_ROW].auc > 0.907
    assert judged.by_predictor[ALONE].auc == pytest.approx(0.9025, abs=0.0005)
    assert judged.calibration_error < 0.01


def test_what_is_looked_up_tells_before_departure_who_will_be_late(departures: Departures) -> None:
    """Two weeks of December through the engine: each boarding has one prediction, hardly one is stale, none knows the future, and rolling
    features of another source are worth a tenth of AUC.
    """
    for pipeline in (before_departure, by_timetable):
        check(OnnxModel.load(pipeline.model or "", pipeline.feature_names).signature, pipeline)
    boardings = some_of(departures)
    found = BoardingReplay(boarding_app, departures, boardings, clock=SystemClock(), bare=by_timetable).run(lambda _, __: None)
    assert (found.boardings, found.predictions, found.ahead) == (12_192, 12_192, 0)
    assert found.stale < 1_500
    assert found.auc == pytest.approx(0.717, abs=0.01)
    assert found.auc_without == pytest.approx(0.609, abs=0.001)
    assert found.failures() == []
