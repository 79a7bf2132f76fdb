"""`headrace.scenario` from end to end, in memory: what is compared with what, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.scores import Scores
from headrace.testing import Driver
from headrace.types import Float64s, TopicPartition
from tests.unit import boarding, flying
from tests.unit.training import shop
from tests.unit.training.shop_models import looking_at
from tests.unit.training.test_archive import with_outcomes

FIRST = looking_at("amount", times=0.1, plus=-1.0)
SECOND = looking_at("spending.mean_amount_6h", times=0.1, plus=-1.0, version="2")


def logistic(values: Float64s) -> Float64s:
    """Of the margin 0.1 * value - 1."""
    found: Float64s = 1 / (1 + np.exp(1 - 0.1 * values))
    return found


def amounts() -> Float64s:
    """Of all payments of the shop."""
    return np.array([row["amount"] for row in shop.rows()])


def asked(**options: Any) -> hr.Scenario:
    """Of a table of payments, from the first model."""
    return hr.scenario(shop.app, events=shop.table(shop.rows()), baseline=FIRST, **options)


def served(model: bytes = FIRST) -> Driver:
    """An engine that has scored payments with a model."""
    loaded = OnnxModel.load(model, shop.fraud.feature_names)
    driver = Driver(shop.app, models={"fraud": loaded}, partitions=2, now_ms=shop.START_MS)
    for row in shop.rows(disorder=True):
        driver.send("payments.v1", **row)
    driver.run()
    return driver


def test_what_changes_nothing_changes_nothing() -> None:
    """Without a model, a threshold or a change no score differs, from files and from topics; what was served is what the model gives."""
    for found in (asked(), hr.scenario(shop.app, events=hr.Topics.of(served().log), baseline=FIRST)):
        shift, decisions = found.comparison.shift, found.comparison.decisions
        assert (shift.rows, shift.unchanged) == (300, 300)
        assert (shift.change.mean, shift.change.least, shift.change.most) == (0.0, 0.0, 0.0)
        assert decisions is not None
        assert (decisions.to_yes, decisions.to_no, found.comparison.most_changed, found.changed) == (0, 0, (), ())
    assert found.served is not None
    assert (found.served.rows, found.served.events, found.served.differing, found.served.foreign) == (300, 300, 0, 0)
    assert [(one.version, one.role, one.rows) for one in found.served.by] == [("1", "champion", 300)]


def test_the_same_model_and_changes_that_change_nothing() -> None:
    """A second copy of the model, and fields set to themselves, are computed and give the same bits."""
    found = hr.scenario(
        shop.app, events=hr.Topics.of(served().log), baseline=FIRST, model=bytes(FIRST), inputs={"amount": "amount", "shop": "shop"}
    )
    assert found.comparison.shift.unchanged == 300
    np.testing.assert_array_equal(found.rows.before, found.rows.after)


def test_a_changed_input_moves_scores_as_told_by_hand() -> None:
    """Ten more in every payment is a margin of one more; events that pass a half flip, and no other."""
    found = asked(inputs={"amount": "amount + 10"})
    np.testing.assert_allclose(found.rows.before, logistic(amounts()), atol=1e-6)
    np.testing.assert_allclose(found.rows.after, logistic(amounts() + 10), atol=1e-6)
    decisions = found.comparison.decisions
    assert decisions is not None
    assert (decisions.threshold_before, decisions.threshold_after) == (0.5, 0.5)
    assert decisions.to_yes == int(((amounts() < 10) & (amounts() + 10 >= 10)).sum()) > 0
    assert decisions.to_no == 0
    assert found.changed == ("amount = (amount + 10)",)
    assert found.kind == "probability"


def test_another_model() -> None:
    """Scores after are the other's, over the same vectors; both are named with version and hash."""
    found = asked(model=SECOND)
    frame = hr.training_frame(shop.fraud, events=shop.table(shop.rows()))
    np.testing.assert_allclose(found.rows.after, logistic(frame.values[:, frame.names.index("spending.mean_amount_6h")]), atol=1e-6)
    assert (found.before.version, found.after.version) == ("1", "2")
    assert str(found.after).startswith("fraud version 2 (")


def test_a_model_with_changed_inputs_sees_them_in_its_windows() -> None:
    """The mean over six hours is ten more as well, up to the last bits."""
    once = asked(model=SECOND)
    found = asked(model=SECOND, inputs={"amount": hr.col("amount") + 10})
    margins = [np.log(one.rows.after / (1 - one.rows.after)) for one in (once, found)]
    usable = once.rows.after < 0.99
    np.testing.assert_allclose(margins[1][usable], margins[0][usable] + 1, atol=1e-4)


def test_thresholds_before_and_after() -> None:
    """What flips between two thresholds are the scores between them; one that is not said is as the other was."""
    scores = logistic(amounts())
    between = int(((scores >= 0.4) & (scores < 0.5)).sum())
    found = asked(threshold=0.4).comparison
    assert found.decisions is not None
    assert (found.decisions.to_yes, found.decisions.to_no, found.shift.unchanged) == (between, 0, 300)
    other = asked(baseline_threshold=0.4).comparison
    assert other.decisions is not None
    assert (other.decisions.to_yes, other.decisions.threshold_after) == (0, 0.4)
    assert all(0.4 <= one.before < 0.5 for one in found.to_yes)


def test_rows_that_a_model_refuses_are_counted() -> None:
    """A model that gives NaN for what is emptied has no score there: all rows are in no figure, and said so."""
    found = asked(empty_features=["amount"])
    assert (found.comparison.shift.rows, found.comparison.shift.refused_before, found.comparison.shift.refused_after) == (0, 0, 300)
    assert "the model gave none for 0 before, 300 after" in str(found)
    assert json.loads(json.dumps(found.to_json()))["shift"]["change"]["mean"] is None


def test_a_dropped_input_breaks_the_contract_and_is_said() -> None:
    """Such events would be dead letters; how many there are is counted, by field."""
    found = asked(model=SECOND, drop_inputs=["amount"])
    assert found.outside_contract == {"amount": 300}
    assert "in 300 events 'amount' is now what the contract forbids: those would be dead letters" in str(found)


def test_outcomes_from_topics_and_from_a_column() -> None:
    """Outcomes are joined as for a training frame, and the same rows have them; grades are those of both scores over them."""
    driver = with_outcomes(shop.driven())
    topics = hr.Topics.of(driver.log)
    found = hr.scenario(shop.app, events=topics, labels=topics, baseline=FIRST, model=SECOND)
    frame = hr.training_frame(shop.app, events=topics, labels=topics)
    assert found.rows.outcome is not None
    np.testing.assert_array_equal(found.rows.outcome, frame.labels)
    assert found.labels == frame.lineage["labels"]
    grading = found.comparison.grading
    assert grading is not None
    assert grading.rows == frame.lineage["labels"]["labelled"] > 0
    assert list(grading.before) == ["auc", "log_loss", "brier", "precision", "recall"]
    table = shop.table([row | {"bad": float(row["amount"] > 20)} for row in shop.rows()])
    beside = hr.scenario(shop.app, events=table, labels=hr.col("bad") == 1, baseline=FIRST)
    assert beside.comparison.grading is not None
    assert (beside.comparison.grading.rows, beside.comparison.grading.before["auc"]) == (300, 1.0)


def test_a_model_of_values() -> None:
    """It has no threshold unless one is said, and is graded by its distance; the columns of a table may be what it should have been."""
    double = looking_at("amount", times=2.0, kind="value")
    table = shop.table([row | {"truth": row["amount"]} for row in shop.rows()])
    found = hr.scenario(shop.app, events=table, labels=hr.col("truth"), baseline=double, inputs={"amount": "amount + 1"})
    assert (found.kind, found.comparison.decisions) == ("value", None)
    assert found.comparison.shift.change.mean == pytest.approx(2.0, abs=1e-4)
    grading = found.comparison.grading
    assert grading is not None
    assert grading.before["mae"] == pytest.approx(float(amounts().mean()), rel=1e-5)
    flipped = hr.scenario(shop.app, events=table, baseline=double, baseline_threshold=20, inputs={"amount": "amount + 1"})
    assert flipped.comparison.decisions is not None
    assert flipped.comparison.decisions.to_yes == int(((amounts() >= 9) & (amounts() < 10)).sum())


def test_a_span_by_time_and_by_offsets() -> None:
    """Only events inside have rows; of offsets, those of the partitions named."""
    driver = served()
    topics = hr.Topics.of(driver.log)
    whole = hr.scenario(shop.app, events=topics, baseline=FIRST)
    middle = int(np.median(whole.rows.times_ms))
    found = hr.scenario(shop.app, events=topics, baseline=FIRST, begin=middle)
    assert len(found.rows) == int((whole.rows.times_ms >= middle).sum())
    assert found.first_ms >= middle
    assert found.served is not None
    assert (found.served.rows, found.served.differing) == (len(found.rows), 0)
    some = hr.scenario(shop.app, events=topics, baseline=FIRST, begin=["1:10"], end={1: 30})
    assert (set(some.rows.partitions.tolist()), some.rows.offsets.min(), some.rows.offsets.max()) == ({1}, 10, 29)
    with pytest.raises(DefinitionError, match="there is no partition 4"):
        hr.scenario(shop.app, events=topics, baseline=FIRST, begin={4: 0})
    with pytest.raises(DefinitionError, match=r"no event lies in the span: 300 records were read; choose an earlier begin"):
        hr.scenario(shop.app, events=topics, baseline=FIRST, begin="2040-01-01")


def test_what_another_version_served_is_told_apart() -> None:
    """What is called before is not what was served: each version is counted, with how far it is; foreign records are counted."""
    driver = served(SECOND)
    driver.log.append("fraud.v1", 0, None, b"{}")
    found = hr.scenario(shop.app, events=hr.Topics.of(driver.log), baseline=FIRST, model=SECOND)
    assert found.served is not None
    (one,) = found.served.by
    assert (one.version, one.rows, found.served.foreign) == ("2", 300, 1)
    assert one.differing == found.served.differing > 200
    assert one.largest == pytest.approx(float(np.abs(found.rows.after - found.rows.before).max()), abs=1e-6)
    assert f"version 2 as champion: 300, {one.differing} scores differ from before, by up to" in str(found)


def test_predictions_of_other_definitions_are_not_compared() -> None:
    """A prediction that says it was made by another definition is counted, and so is an event without a prediction."""
    driver = served()
    records = [one for number in (0, 1) for one in driver.log.read(TopicPartition("fraud.v1", number))]
    other = hr.App("cards", pipelines=[hr.Pipeline("fraud", views=[shop.spending], event_features=["amount"], predictions="fraud.v1")])
    found = hr.scenario(other, events=hr.Topics.of(driver.log), baseline=shop.Counting())
    assert found.served is not None
    assert (found.served.rows, found.served.other_definitions) == (0, len(records))
    assert "300 predictions are of other definitions" in str(found)


def test_nothing_was_published() -> None:
    """Without a topic of predictions there is nothing served to compare with."""
    driver = served()
    other = hr.App("cards", pipelines=[hr.Pipeline("fraud", views=[shop.spending], event_features=["amount"], predictions="nowhere.v1")])
    assert hr.scenario(other, events=hr.Topics.of(driver.log), baseline=shop.Counting()).served is None


def test_segments_by_a_field_and_by_an_expression() -> None:
    """Rows are told apart by what the event was, not by what it is changed to."""
    found = asked(by="shop", inputs={"amount": "amount + 10", "shop": "'books'"})
    assert {one.name for one in found.comparison.segments} == {"books", "food", "(absent)"}
    assert sum(one.rows for one in found.comparison.segments) == 300
    large = asked(by=hr.col("amount") > 20, inputs={"amount": "amount + 10"})
    counts = {one.name: one.rows for one in large.comparison.segments}
    assert counts == {"true": int((amounts() > 20).sum()), "false": int((amounts() <= 20).sum())}
    assert large.by == "(amount > 20)"


def test_events_through_hops_and_look_ups() -> None:
    """Pipelines of several entities, and such that look others up, are replayed as well: without changes as they were served."""
    driver = flying.started(random.Random(1))
    flying.fly(driver, random.Random(1), 120)
    driver.run()
    hopped = hr.scenario(flying.app, events=hr.Topics.of(driver.log), baseline=flying.Model(), inputs={"delay": "delay + 1"})
    assert hopped.served is not None
    assert hopped.served.rows > 80
    assert hopped.served.differing == 0
    assert hopped.comparison.shift.change.least > 0
    boarded = boarding.started()
    boarding.traffic(boarded, random.Random(2), 40)
    boarded.run()
    looked_up = hr.scenario(boarding.app, events=hr.Topics.of(boarded.log), baseline=boarding.Sum(), inputs={"miles": "miles + 1"})
    assert looked_up.comparison.shift.change.mean == pytest.approx(looked_up.comparison.shift.change.least)


def test_versions_come_from_whoever_is_asked() -> None:
    """`fetch` is asked for the champion and for what was named, so that versions need not be files."""
    names: list[str | None] = []

    def fetch(pipeline: hr.Pipeline, named: str | None) -> bytes:
        assert pipeline is shop.fraud
        names.append(named)
        return FIRST if named is None else SECOND

    found = hr.scenario(shop.app, events=shop.table(shop.rows()), model="2", fetch=fetch)
    assert (names, found.before.version, found.after.version) == ([None, "2"], "1", "2")


def test_the_declared_model_is_the_baseline(tmp_path: Path) -> None:
    """The file that the pipeline names; without one it is said what to write, and so for a file that is not there."""
    (tmp_path / "first.onnx").write_bytes(FIRST)
    declared = hr.Pipeline(
        "fraud",
        views=[shop.spending],
        event_features=["amount", "pieces", (hr.col("shop") == "books").alias("books")],
        predictions="fraud.v1",
        model=str(tmp_path / "first.onnx"),
    )
    assert hr.scenario(declared, events=shop.table(shop.rows())).before.version == "1"
    with pytest.raises(DefinitionError, match=r"declares no model to compare with; name its file with baseline= \(--baseline-model\)"):
        hr.scenario(shop.app, events=shop.table(shop.rows()))
    with pytest.raises(DefinitionError, match=r"nowhere.onnx' of Pipeline\('fraud'\) cannot be read .*check the path"):
        asked(model="nowhere.onnx")


class Value:
    """A model that says nothing of what its scores mean."""

    name, version = "value", "1"

    def score(self, values: Float64s) -> Scores:
        """Twice the amount."""
        return Scores(scores=2 * values[:, -3], refused=[])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"by": "colour"}, "by: the event has no field 'colour'; it has"),
        ({"by": "1 + 1"}, r"by: \(1 \+ 1\) is the same of every event; name a field, one of id, card"),
        ({"examples": -1}, "examples=-1 are fewer than none"),
        ({"inputs": {"at": "at + 1"}}, "'at' is the event time"),
        ({"model": looking_at("amount", times=1.0, kind="value")}, "gives a probability, .* a value: such scores cannot be compared"),
    ],
)
def test_what_is_refused(options: dict[str, Any], says: str) -> None:
    """Before anything is read: what is wrong, and what to write."""
    with pytest.raises(DefinitionError, match=says):
        asked(**options)


def test_a_model_of_another_pipeline_is_refused() -> None:
    """The first difference of its signature is named."""
    other = hr.Pipeline("fraud", views=[shop.spending], event_features=["amount", "pieces"], predictions="fraud.v1")
    with pytest.raises(SignatureMismatch, match="11 features in the model, 10 there; the first extra one is feature 10, 'books'"):
        hr.scenario(other, events=shop.table(shop.rows()), baseline=FIRST)


def test_a_model_of_values_needs_its_threshold_said() -> None:
    """A new threshold alone says not what it is compared with."""
    with pytest.raises(DefinitionError, match="say with baseline_threshold= which one holds now"):
        hr.scenario(shop.app, events=shop.table(shop.rows()), baseline=Value(), threshold=3)


def test_outcomes_that_nobody_declares_are_refused() -> None:
    """As for a training frame, before the log is read."""
    with pytest.raises(DefinitionError, match="declares no outcomes, so labels cannot be joined"):
        hr.scenario(flying.app, events=shop.table(shop.rows()), labels=shop.table(shop.rows()), baseline=flying.Model())


def test_rows_and_report_can_be_taken_away(tmp_path: Path) -> None:
    """The table has a row an event, and Parquet keeps it; the report is plain JSON."""
    found = asked(inputs={"amount": "amount + 10"}, by="shop")
    found.to_parquet(tmp_path / "rows.parquet")
    kept = pq.read_table(tmp_path / "rows.parquet")
    assert kept.column_names == ["_entity", "_event_time", "_partition", "_offset", "before", "after", "segment"]
    np.testing.assert_array_equal(kept["after"].to_numpy(), found.rows.after)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (told["events"], told["shift"]["rows"], told["changed"]) == (300, 300, ["amount = (amount + 10)"])
    assert sum(told["shift"]["change"]["counts"]) == 300
    assert told["log"]["offsets"] == {"rows": {"0": [0, 300]}}
    with pytest.raises(DefinitionError, match="cannot be written"):
        found.to_parquet(tmp_path / "nowhere" / "rows.parquet")


def test_how_far_it_is_is_told() -> None:
    """Of the log, then of the predictions that were served."""
    heard: list[tuple[int, int]] = []
    hr.scenario(shop.app, events=hr.Topics.of(served().log), baseline=FIRST, told=lambda records, of: heard.append((records, of)))
    assert (300, 300) in heard
    assert heard[-1][0] == 300  # predictions; the end of their topic counts markers of transactions, too
    assert all(records <= of for records, of in heard)
