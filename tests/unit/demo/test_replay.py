"""A small year through the real loop, the report on it, and what is shown of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from headrace.clock import SystemClock
from headrace.demo import closing
from headrace.demo.boarding_replay import Boarded
from headrace.demo.events import Departures
from headrace.demo.flights import MODEL as FIRST
from headrace.demo.flights import SECOND_MODEL, aircraft_alone, app_with_registry
from headrace.demo.planted import KINDS, BadRecord, plant
from headrace.demo.progress import Progress
from headrace.demo.replay import Replay, Replayed
from headrace.demo.report import ALONE, CONSTANT, DELAY, MODEL, PlantedKind, Report, judge, report, weighted_quantile
from headrace.demo.screen import Meter, Stage
from headrace.demo.train import frame_of
from headrace.predict.onnx_model import OnnxModel
from headrace.publish.records import Prediction
from tests.unit.apps.engineered import passes
from tests.unit.demo.small_year import small_year

DEPARTURES = small_year()


def replay(departures: Departures, planted: Mapping[int, BadRecord]) -> Replay:
    """A replay of the demo's two versions, in batches of a few records."""
    files = (FIRST, SECOND_MODEL)
    return Replay(app_with_registry, departures, planted, clock=SystemClock(), alone=aircraft_alone, files=files, batch=64, gate=passes)


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, Prediction, bytes]] = []
        self.told: list[tuple[int, int, int]] = []

    def first(self, row: int, prediction: Prediction, value: bytes) -> None:
        """The first prediction."""
        self.begun.append((row, prediction, value))

    def due(self) -> bool:
        """Always."""
        return True

    def moved(self, progress: Progress) -> None:
        """Some more."""
        self.told.append((progress.records, progress.predictions, progress.refused))


@pytest.fixture(scope="module")
def listener() -> Listener:
    """Who was told of the one replay of this file."""
    return Listener()


@pytest.fixture(scope="module")
def replayed(listener: Listener) -> Replayed:
    """The small year with two bad records of every kind."""
    return replay(DEPARTURES, plant(DEPARTURES, 2 * len(KINDS))).run(listener)


@pytest.fixture
def found(replayed: Replayed) -> Report:
    """The report on it."""
    boarded = Boarded(boardings=9, predictions=9, stale=2, ahead=1, seconds=0.5, events=8, auc=0.7, auc_without=0.6)
    return report(DEPARTURES, replayed, boarded, model={"name": "late_arrival", "version": "1"}, seconds={"reading": 0.5})


def test_every_record_has_one_answer(replayed: Replayed) -> None:
    """Each departure has a score, each planted record the dead letter of its kind, nothing has two."""
    answers = replayed.answers
    assert (replayed.records, answers.predictions, answers.late) == (428, 400, 0)
    assert (answers.unanswered, answers.answered_twice) == (0, 0)
    assert np.isfinite(answers.scores).all()
    assert answers.planted == {kind.name: Counter({kind.expected.value: 2}) for kind in KINDS}
    assert answers.dead_letters.total() == 28


def test_scores_are_those_of_the_training_frame(replayed: Replayed) -> None:
    """What the loop served is, bit for bit, what the version that answered gives for the training frame of the same departures."""
    frame = frame_of(DEPARTURES)
    offline = {
        str(version): OnnxModel.load(path, frame.names).score(frame.values).scores for version, path in ((1, FIRST), (2, SECOND_MODEL))
    }
    versions = replayed.answers.versions
    assert set(versions) == {"1", "2"}
    assert np.where(versions == "1", offline["1"], offline["2"]).tobytes() == replayed.answers.scores.tobytes()
    assert offline["1"].tobytes() == replayed.first.tobytes()


def test_the_first_prediction_is_told_first_and_then_the_progress(replayed: Replayed, listener: Listener) -> None:
    """The first departure of the year is shown with its record, and the last progress counts everything."""
    ((row, prediction, value),) = listener.begun
    assert (row, prediction.entity, json.loads(value)["id"]) == (0, "UA", prediction.id)
    assert listener.told == sorted(listener.told)
    assert listener.told[-1] == (428, 400, 28)
    assert replayed.replay_records < 428


def test_times_are_those_of_the_batches(replayed: Replayed) -> None:
    """Every record after the first batch is in a batch that was timed, and every stage has its share."""
    assert int(replayed.batch_records.sum()) == replayed.replay_records
    assert (replayed.batch_ms > 0).all()
    assert {"consume", "decode", "features", "predict", "commit"} <= set(replayed.stage_us)


def test_good_replay_has_nothing_to_complain_of(found: Report) -> None:
    """All is well, save that no model is good on made-up flights."""
    assert [failure for failure in found.failures() if "ranks" not in failure] == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"predictions": 399}, "428 records became 399 predictions and 28 dead letters"),
        ({"unanswered": 1}, "1 records have no answer, 0 have more than one"),
        ({"answered_twice": 2}, "0 records have no answer, 2 have more than one"),
        ({"dead_letters": {"CONTRACT": 29}}, "428 records became 400 predictions and 29 dead letters"),
        (
            {"planted": [PlantedKind(kind="NaN", expected="MALFORMED", planted=2, became={"MALFORMED": 1, "CONTRACT": 1})]},
            "NaN: {'MALFORMED': 1, 'CONTRACT': 1}, not 2 MALFORMED",
        ),
    ],
)
def test_damage_is_named(found: Report, damage: dict[str, object], said: str) -> None:
    """A missing, doubled or wrong answer is a failure that says what is wrong."""
    assert said in replace(found, **damage).failures()  # type: ignore[arg-type]


def test_model_no_better_than_delay_is_a_failure(found: Report) -> None:
    """A model that ranks like departure delay alone is not worth its place."""
    judged = found.judged
    assert judged is not None
    even = replace(judged, by_predictor={**judged.by_predictor, MODEL: judged.by_predictor[DELAY]})
    assert "the model ranks no better than departure delay alone" in replace(found, judged=even).failures()


def test_only_july_to_december_is_judged_and_only_what_is_known() -> None:
    """Flights without arrival and those the model was trained on do not count; a perfect predictor reaches AUC 1."""
    judged = judge(DEPARTURES, np.where(np.isnan(DEPARTURES.arr_delay), 0.5, DEPARTURES.late), np.full(len(DEPARTURES), 0.5))
    assert judged is not None
    late_half = DEPARTURES.months > 6
    assert judged.events == int((late_half & ~np.isnan(DEPARTURES.arr_delay)).sum())
    assert judged.by_predictor[MODEL].auc == 1.0
    assert judged.by_predictor[CONSTANT].auc == 0.5
    assert 0.5 < judged.by_predictor[DELAY].auc < 1.0


def test_nothing_is_judged_before_july() -> None:
    """A replay that ends in spring has no figures instead of wrong ones."""
    nothing = np.full(len(DEPARTURES), np.nan)
    assert judge(DEPARTURES, nothing, nothing) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1.0), (0.9, 2.0), (0.91, 9.0), (1.0, 9.0)])
def test_quantile_is_weighted_by_records(share: float, expected: float) -> None:
    """A batch of eight records counts eight times."""
    assert weighted_quantile(np.array([9.0, 1.0, 2.0]), np.array([1, 8, 1]), share) == expected


def test_report_is_plain_json(found: Report) -> None:
    """The JSON form holds what the text says and survives a round trip without NaN."""
    text = json.dumps(found.as_json(), allow_nan=False)
    read = json.loads(text)
    assert (read["records"], read["predictions"], sum(read["dead_letters"].values())) == (428, 400, 28)
    assert set(read["judged"]["by_predictor"]) == {MODEL, ALONE, DELAY, CONSTANT}
    assert next(switched["did"] for switched in read["versions"]["switches"]) == "promoted version 1"
    assert (read["boarded"]["auc"], read["boarded"]["stale"]) == (0.7, 2)
    assert {"loop_p50_ms", "loop_p99_ms", "events_per_second", "stage_us", "ok", "failures"} <= set(read)


@pytest.mark.parametrize("width", [80, 120])
def test_elsewhere_than_on_a_terminal_there_are_no_control_characters(found: Report, replayed: Replayed, width: int) -> None:
    """Everything shown in a pipe is text and line feeds, no line longer than the width."""
    assert replayed.records
    text = StringIO()
    console = Console(file=text, width=width)
    stage = Stage(console, SystemClock())
    with stage.phase("reading", "reading") as say:
        say("read")
    with stage.replaying(DEPARTURES, 428):
        replay(DEPARTURES, {}).run(stage)
    closing.show(replace(found, unanswered=1), console)
    shown = text.getvalue()
    assert not [letter for letter in shown if ord(letter) < 32 and letter != "\n"]
    assert max(map(len, shown.splitlines())) <= width
    assert "First prediction: flight 2013-00000, aircraft N0" in shown
    assert "NOT RIGHT  1 records have no answer" in shown
    assert "timetable alone" in shown
    assert "rolled back from version 2 to version 1" in " ".join(shown.split())
    assert stage.seconds.keys() == {"reading"}


def test_on_a_terminal_a_bar_and_the_newest_predictions_are_drawn(replayed: Replayed) -> None:
    """The bar moves, the table names flights, and what stays at the end is the full bar alone."""
    assert replayed.records
    text = StringIO()
    console = Console(file=text, width=80, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"})
    stage = Stage(console, SystemClock())
    with stage.replaying(DEPARTURES, 400):
        replay(DEPARTURES, {}).run(stage)
    shown = text.getvalue()
    assert "400/400" in shown
    assert "chance" in shown
    assert "400/400" in shown[shown.rindex("━") :]


def test_meter_writes_a_line_now_and_then_where_nothing_can_be_drawn() -> None:
    """In a pipe a meter writes how far it is."""
    text = StringIO()
    meter = Meter(Console(file=text, width=80), SystemClock(), 10)
    assert meter.due()
    assert not meter.due()
    meter.show(5, int(DEPARTURES.departed_ms[0]), 2.5)
    meter.stop()
    assert text.getvalue() == "01 Jan 2013: 5 of 10 records, 2/s\n"
