"""What `stamp()` writes beside the signature: golden rows, background, card and lineage; and what it refuses to write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from onnx import helper
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

import headrace as hr
from headrace import models
from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from headrace.predict.attached_rows import background_in, golden_entries, golden_in
from headrace.predict.gate import examine
from headrace.predict.gate_codes import Code
from headrace.predict.onnx_model import OnnxModel
from headrace.types import Float64s
from tests.unit.predict import small_models
from tests.unit.predict.zoo import ROOMY
from tests.unit.training import shop

FEATURES = shop.fraud.feature_names
CARD = models.ModelCard(owner="payments team", contact="payments@shop.example", metrics={"AUC": 0.9}, limits="cards younger than a day")


@pytest.fixture(scope="module")
def frame() -> hr.TrainingFrame:
    """A training frame of the shop, with absent values."""
    return hr.training_frame(shop.app, events=shop.table(shop.rows(400)))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small fits on one thread."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def fitted(frame: hr.TrainingFrame) -> Any:
    """Trees of scikit-learn, fitted to the frame."""
    amounts = np.nan_to_num(frame.values).sum(axis=1)
    return HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(frame.values, amounts > np.median(amounts))


@pytest.fixture(scope="module")
def exported(fitted: Any) -> bytes:
    """The same as ONNX."""
    return models.export_sklearn(fitted, FEATURES)


def golden(stamped: bytes) -> tuple[Float64s, Float64s]:
    """The golden rows and scores that a file carries."""
    found = golden_in(onnx_file.metadata(stamped))
    assert found is not None
    return found[0].astype(np.float64), found[1]


def constant(outputs: Sequence[float], name: str = "score") -> bytes:
    """A model that gives the same for every row, one column for each of `outputs`."""
    nodes = [
        helper.make_node("Gather", ["X", "zero"], ["first"], axis=1),
        helper.make_node("Sub", ["first", "first"], ["nothing"]),
        helper.make_node("Add", ["nothing", "given"], [name]),
    ]
    zero = helper.make_tensor("zero", 7, [1], [0])
    shape = [small_models.output(name, [None, len(outputs)])]
    entry = [helper.make_tensor_value_info("X", 1, [None, len(FEATURES)])]
    return small_models.graph_bytes(nodes, shape, inputs=entry, tensors=[zero, small_models.weights("given", [outputs])])


def test_a_stamped_model_carries_what_it_was_given_and_loads(frame: hr.TrainingFrame, fitted: Any, exported: bytes) -> None:
    """Rows, scores, background, card and lineage go in, the path loads the file as it is, and it scores golden rows as it must."""
    trained = fitted.predict_proba(frame.values.astype(np.float32))
    stamped = models.stamp(
        exported, shop.fraud, version="3", golden_rows=frame, golden_scores=trained, background=frame, card=CARD, recipe="shop.train:fraud"
    )
    model = OnnxModel.load(stamped, FEATURES)
    rows, scores = golden(stamped)
    assert np.array_equal(rows, frame.values.astype(np.float32), equal_nan=True)
    assert np.array_equal(scores, trained[:, 1])
    assert np.abs(model.score(rows).scores - scores).max() < 1e-6
    background = background_in(onnx_file.metadata(stamped))
    assert background is not None
    assert background.shape == (100, len(FEATURES))
    assert models.card_of(stamped) == CARD
    assert models.lineage_of(stamped) == {**frame.lineage, "recipe": "shop.train:fraud"}
    agreement = models.agreement_of(stamped)
    assert agreement is not None
    assert (agreement.rows, agreement.worst < 1e-6) == (400, True)


def test_stamping_twice_gives_the_same_bytes(frame: hr.TrainingFrame, exported: bytes, tmp_path: Path) -> None:
    """The same stamp over the model, or over what was stamped before, gives the same file."""

    def once(model: bytes | Path) -> bytes:
        return models.stamp(model, shop.fraud, version="3", golden_rows=frame, background=frame, card=CARD)

    path = tmp_path / "stamped.onnx"
    path.write_bytes(once(exported))
    assert once(exported) == once(path) == path.read_bytes()
    assert models.describe(path) == models.describe(path.read_bytes())


def test_a_stamp_leaves_nothing_of_the_one_before(frame: hr.TrainingFrame, exported: bytes) -> None:
    """What an earlier stamp said of rows, card and lineage is not said of the next version."""
    before = models.stamp(exported, shop.fraud, version="1", golden_rows=frame, background=frame, card=CARD)
    again = models.stamp(before, shop.fraud, version="2")
    assert again == models.stamp(exported, shop.fraud, version="2")
    assert (models.card_of(again), models.lineage_of(again), models.agreement_of(again)) == (None, None, None)
    assert golden_in(onnx_file.metadata(again)) is None


def test_without_scores_the_files_own_are_kept(frame: hr.TrainingFrame, exported: bytes) -> None:
    """Golden rows alone are scored by onnxruntime when the model is stamped, up to 1,000 of them."""
    many = np.tile(frame.values, (4, 1))
    stamped = models.stamp(exported, shop.fraud, version="1", golden_rows=many)
    rows, scores = golden(stamped)
    assert rows.shape == (1_000, len(FEATURES))
    assert np.abs(OnnxModel.load(stamped, FEATURES).score(rows).scores - scores).max() < 1e-9
    assert models.agreement_of(stamped) is None


@pytest.mark.parametrize("form", ["array", "arrow", "pandas", "polars", "features"])
def test_rows_of_any_kind_are_the_same_rows(frame: hr.TrainingFrame, exported: bytes, form: str) -> None:
    """An array, a table, a DataFrame of pandas or polars and the frame itself give one file but for the lineage that it tells."""
    given = {
        "array": frame.values,
        "arrow": frame.table,
        "pandas": frame.to_pandas(),
        "polars": frame.to_polars(),
        "features": frame.features.to_pandas(),
    }[form]
    stamped = models.stamp(exported, shop.fraud, version="1", golden_rows=given, background=given, lineage=frame.lineage)
    assert stamped == models.stamp(exported, shop.fraud, version="1", golden_rows=frame, background=frame)


def test_columns_in_another_order_are_refused(frame: hr.TrainingFrame, exported: bytes) -> None:
    """A table whose columns are not the features in order is refused by the first that differs; in the right order it is taken."""
    table = frame.features.to_pandas()
    turned = table[[FEATURES[1], FEATURES[0], *FEATURES[2:]]]
    with pytest.raises(DefinitionError, match=rf"golden_rows: column 0 is '{FEATURES[1]}', the pipeline feeds '{FEATURES[0]}' there"):
        models.stamp(exported, shop.fraud, version="1", golden_rows=turned)
    with pytest.raises(DefinitionError, match=r"background: there is no column 'books'; give all"):
        models.stamp(exported, shop.fraud, version="1", background=table.drop(columns="books"))
    with pytest.raises(DefinitionError, match=r"golden_rows: column 'late' is no feature of the pipeline; leave it out"):
        models.stamp(exported, shop.fraud, version="1", golden_rows=table.assign(late=1.0))
    assert models.stamp(exported, shop.fraud, version="1", golden_rows=turned[[*FEATURES]])


def test_a_conversion_that_scores_otherwise_is_refused(frame: hr.TrainingFrame, fitted: Any) -> None:
    """The wrong class, a margin in place of a probability, one row that differs: refused with the row and both numbers."""
    trained = fitted.predict_proba(frame.values)
    exported = models.export_sklearn(fitted, FEATURES)
    with pytest.raises(
        DefinitionError, match=r"for golden row \d+, the trained model gave 0\.\d+: they differ by 0\.\d+, and \d+ of 400 rows"
    ):
        models.stamp(exported, shop.fraud, version="1", golden_rows=frame, golden_scores=trained[:, 1], class_index=0)
    with pytest.raises(DefinitionError, match=r"the trained model gave -?\d\.\d+: they differ"):
        models.stamp(exported, shop.fraud, version="1", golden_rows=frame, golden_scores=fitted.decision_function(frame.values))
    one = fitted.predict_proba(frame.values.astype(np.float32))[:, 1]
    one[17] += 0.1
    with pytest.raises(DefinitionError, match=r"for golden row 17, .* they differ by 0\.1, and 1 of 400 rows by more than 0\.0001"):
        models.stamp(exported, shop.fraud, version="1", golden_rows=frame, golden_scores=one)
    stamped = models.stamp(exported, shop.fraud, version="1", golden_rows=frame, golden_scores=one, tolerance=0.2)
    agreement = models.agreement_of(stamped)
    assert agreement is not None
    assert (agreement.row, round(agreement.worst, 4), agreement.tolerance, agreement.beyond) == (17, 0.1, 0.2, 0)


def test_rows_that_cross_a_threshold_as_float32_are_counted(frame: hr.TrainingFrame, fitted: Any, exported: bytes) -> None:
    """Trees trained on float64 decide a few rows otherwise once served as float32: stamped, with their number and the worst of them."""
    trained = fitted.predict_proba(frame.values)[:, 1]
    agreement = models.agreement_of(models.stamp(exported, shop.fraud, version="1", golden_rows=frame, golden_scores=trained))
    assert agreement is not None
    assert (agreement.worst > 1e-3, 0 < agreement.beyond <= 4) == (True, True)
    assert str(agreement).startswith(f"at most {agreement.worst:.3g} over 400 rows, by more than 0.0001 in {agreement.beyond} (row ")
    for row in np.flatnonzero(np.abs(fitted.predict_proba(frame.values.astype(np.float32))[:, 1] - trained) <= 0.01)[:2]:
        trained[row] += 0.01
    with pytest.raises(DefinitionError, match=r"and 5 of 400 rows by more than 0\.0001"):
        models.stamp(exported, shop.fraud, version="1", golden_rows=frame, golden_scores=trained)


def test_what_is_stamped_passes_the_gate(frame: hr.TrainingFrame, fitted: Any, exported: bytes) -> None:
    """Exported and stamped, with the few rows that float32 takes elsewhere, a model is accepted; with scores of other rows it is not."""
    stamped = models.stamp(
        exported, shop.fraud, version="1", golden_rows=frame, golden_scores=fitted.predict_proba(frame.values), background=frame, card=CARD
    )
    verdict = examine(stamped, shop.fraud, limits=ROOMY)
    assert verdict.refusals == ()
    assert verdict.report["golden"]["beyond"] > 0
    rows, scores = golden(stamped)
    mixed = onnx_file.with_metadata(stamped, golden_entries(rows.astype(np.float32), scores[::-1].copy()))
    assert [refused.code for refused in examine(mixed, shop.fraud, limits=ROOMY).refusals] == [Code.GOLDEN_DIFFERENCE]


def test_the_row_that_differs_most_is_kept(frame: hr.TrainingFrame, fitted: Any, exported: bytes) -> None:
    """Of more than 1,000 golden rows the worst is among those that travel, with the trained model's score."""
    many = np.tile(frame.values, (5, 1))
    trained = fitted.predict_proba(many.astype(np.float32))[:, 1]
    trained[1_234] += 0.03
    _, scores = golden(models.stamp(exported, shop.fraud, version="1", golden_rows=many, golden_scores=trained))
    assert 999 <= len(scores) <= 1_000
    assert trained[1_234] in scores


def test_quantities_are_compared_by_their_size() -> None:
    """What a value may be off is a share of the largest; a probability's is as it stands."""
    rows = np.zeros((3, len(FEATURES)))
    given: dict[str, Any] = {"version": "1", "golden_rows": rows, "kind": "value"}
    assert models.stamp(constant([50_000.0]), shop.fraud, **given, golden_scores=[50_001.0] * 3)
    with pytest.raises(DefinitionError, match="gives 50000 for golden row 0, the trained model gave 50010"):
        models.stamp(constant([50_000.0]), shop.fraud, **given, golden_scores=[50_010.0] * 3)
    with pytest.raises(DefinitionError, match=r"gives 0\.5 for golden row 0, the trained model gave 0\.501"):
        models.stamp(constant([0.5]), shop.fraud, version="1", golden_rows=rows, golden_scores=[0.501] * 3)


def test_what_is_no_probability_is_refused() -> None:
    """A file stamped as one of probabilities that gives anything else shows it on its golden rows."""
    rows = np.zeros((3, len(FEATURES)))
    with pytest.raises(DefinitionError, match=r"output 'score' gives 1\.5 for row 0, which is no probability; stamp it with kind='value'"):
        models.stamp(constant([1.5]), shop.fraud, version="1", golden_rows=rows)
    with pytest.raises(DefinitionError, match=r"gives -2 for row 0"):
        models.stamp(constant([3.0, -2.0]), shop.fraud, version="1", golden_rows=rows)
    assert models.stamp(constant([3.0, -2.0]), shop.fraud, version="1", golden_rows=rows, kind="value")


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.5, 0.5], r"golden_scores has shape \[2\] for 3 golden rows"),
        (np.full((3, 2, 2), 0.5), r"golden_scores has shape \[3, 2, 2\]"),
        (["a", "b", "c"], "golden_scores are no numbers"),
        ([0.5, np.nan, 0.5], "golden_scores: that of row 1 is nan"),
    ],
)
def test_golden_scores_must_be_one_a_row(scores: object, said: str) -> None:
    """Scores that are too few, of too many axes, no numbers, or not there, are refused."""
    rows = np.zeros((3, len(FEATURES)))
    with pytest.raises(DefinitionError, match=said):
        models.stamp(constant([0.5]), shop.fraud, version="1", golden_rows=rows, golden_scores=scores)
    with pytest.raises(DefinitionError, match=r"golden_scores= are given without golden_rows="):
        models.stamp(constant([0.5]), shop.fraud, version="1", golden_scores=scores)


def test_rows_without_a_score_are_refused() -> None:
    """A linear model has no answer for absent values: it cannot be golden there, and it is said which row."""
    rows = np.zeros((3, len(FEATURES)))
    rows[2, 0] = np.nan
    with pytest.raises(DefinitionError, match=r"golden_rows: the model gave NaN for row 2; leave the row out"):
        models.stamp(constant([0.5]), shop.fraud, version="1", golden_rows=rows)
    rows[2, 0] = 1e39
    with pytest.raises(DefinitionError, match=rf"golden_rows: '{FEATURES[0]}' of row 2 is infinite as float32"):
        models.stamp(constant([0.5]), shop.fraud, version="1", golden_rows=rows)


def test_a_model_exported_with_other_features_is_refused(frame: hr.TrainingFrame, fitted: Any) -> None:
    """What the exporter was told must be what the pipeline feeds; a file of another exporter says nothing."""
    turned = (FEATURES[1], FEATURES[0], *FEATURES[2:])
    with pytest.raises(DefinitionError, match=rf"exported with feature 0 as '{FEATURES[1]}', the pipeline has '{FEATURES[0]}' there"):
        models.stamp(models.export_sklearn(fitted, turned), shop.fraud, version="1")
    few = HistGradientBoostingClassifier(max_iter=2).fit(frame.values[:, :3], frame.values[:, 0] > 2)
    with pytest.raises(DefinitionError, match=rf"exported with 3 features, the pipeline has {len(FEATURES)}"):
        models.stamp(models.export_sklearn(few, FEATURES[:3]), shop.fraud, version="1")


def test_a_background_is_the_same_hundred_rows(frame: hr.TrainingFrame, exported: bytes) -> None:
    """Up to 100 background rows, one from each stretch of what is given, the same each time; fewer are all kept."""
    stamped = models.stamp(exported, shop.fraud, version="1", background=frame)
    found = background_in(onnx_file.metadata(stamped))
    assert found is not None
    places = [np.flatnonzero((frame.values.astype(np.float32) == row).sum(axis=1) >= 8)[0] // 4 for row in found]
    assert places == sorted(places)
    assert len(set(places)) > 90
    few = background_in(onnx_file.metadata(models.stamp(exported, shop.fraud, version="1", background=frame.values[:7])))
    assert few is not None
    assert np.array_equal(few, frame.values[:7].astype(np.float32), equal_nan=True)


def test_whose_frame_it_was_trained_on_is_recorded(frame: hr.TrainingFrame, exported: bytes) -> None:
    """The frame itself, its table and its features tell hash, fingerprints and offsets; `lineage` says what no frame tells."""
    for given in ({"golden_rows": frame}, {"background": frame.table}, {"golden_rows": frame.values, "trained_on": frame}):
        told = models.lineage_of(models.stamp(exported, shop.fraud, version="1", **given))
        assert told is not None
        assert told["hash"] == frame.hash
        assert told["views"]["spending"]["fingerprint"] == shop.spending.fingerprint
        assert told["offsets"] == {"rows": {"0": [0, 400]}}
    by_hand = models.stamp(exported, shop.fraud, version="1", golden_rows=frame, lineage={"from": "an archive"})
    assert models.lineage_of(by_hand) == {"from": "an archive"}
    recipe = models.stamp(exported, shop.fraud, version="1", recipe="shop.train:fraud")
    assert models.lineage_of(recipe) == {"recipe": "shop.train:fraud"}


def test_two_frames_need_a_word(frame: hr.TrainingFrame, exported: bytes) -> None:
    """Golden rows and background of two frames leave open which the model is of; `trained_on` says it."""
    other = hr.training_frame(shop.app, events=shop.table(shop.rows(50)))
    with pytest.raises(DefinitionError, match=r"come from two training frames; say with trained_on="):
        models.stamp(exported, shop.fraud, version="1", golden_rows=other, background=frame)
    stamped = models.stamp(exported, shop.fraud, version="1", golden_rows=other, background=frame, trained_on=frame)
    told = models.lineage_of(stamped)
    assert told is not None
    assert told["hash"] == frame.hash
    with pytest.raises(DefinitionError, match=r"trained_on= is a DataFrame that does not say where it comes from"):
        models.stamp(exported, shop.fraud, version="1", trained_on=frame.to_pandas())


def test_a_frame_of_another_definition_is_refused(frame: hr.TrainingFrame, exported: bytes) -> None:
    """The definition has changed since the frame was made, or the view of another pipeline has: refused before anything is stamped."""
    features: list[str | hr.Expression] = ["amount", "pieces", (hr.col("shop") == "toys").alias("books")]
    changed = hr.Pipeline("fraud", views=[shop.spending], event_features=features, predictions="fraud.v1", outcomes=shop.chargebacks)
    with pytest.raises(DefinitionError, match=r"training frame of pipeline 'fraud' was made with another definition \(fingerprint"):
        models.stamp(exported, changed, version="1", golden_rows=frame)
    view = hr.FeatureView("spending", entity="card", source=shop.payments, features=[hr.count(over=["1h", "6h"], where=hr.col("online"))])
    renamed = hr.Pipeline("other", views=[view], predictions="other.v1")
    with pytest.raises(DefinitionError, match=r"frame of pipeline 'fraud' has no view 'spending' as pipeline 'other' defines it now"):
        models.stamp(constant([0.5]), renamed, version="1", trained_on=frame)
    new = hr.Pipeline("other", views=[shop.spending], event_features=[hr.col("pieces").alias("lots")], predictions="other.v1")
    with pytest.raises(DefinitionError, match=r"has no feature 'lots' of pipeline 'other'"):
        models.stamp(constant([0.5]), new, version="1", trained_on=frame)
    alike = hr.Pipeline("other", views=[shop.spending], event_features=["amount"], predictions="other.v1")
    assert models.stamp(constant([0.5]), alike, version="1", trained_on=frame)


def test_what_cannot_be_kept_is_refused(exported: bytes) -> None:
    """A lineage that is no JSON and a recipe that names no function are refused."""
    with pytest.raises(DefinitionError, match="lineage= cannot be kept as JSON"):
        models.stamp(exported, shop.fraud, version="1", lineage={"at": object()})
    for recipe in ("train", "shop.train:", "shop/train.py:fraud"):
        with pytest.raises(DefinitionError, match="names no function; write 'module:function'"):
            models.stamp(exported, shop.fraud, version="1", recipe=recipe)


def test_what_the_file_says_is_read_as_one_text(frame: hr.TrainingFrame, fitted: Any, exported: bytes) -> None:
    """`describe` gives card, signature, agreement and lineage as Markdown, and names what is missing."""
    scores = fitted.predict_proba(frame.values)
    told = models.describe(models.stamp(exported, shop.fraud, version="3", golden_rows=frame, golden_scores=scores, card=CARD))
    for line in (
        "# fraud, version 3",
        "Owner: payments team (payments@shop.example)",
        "| AUC | 0.9 |",
        f"- {len(FEATURES)} features from spending v1 ({shop.spending.fingerprint[:16]})",
        "- output `probabilities`, a probability of class 1",
        f"- content `{frame.hash}`",
        f"- definition `{shop.fraud.fingerprint}`",
        "- rows, offsets by partition: 0: 0 to 400",
    ):
        assert line in told.splitlines()
    assert "- against the trained model it is off by at most " in told
    assert "Nobody wrote a card for it" in models.describe(models.stamp(exported, shop.fraud, version="3"))


def test_frames_without_types_are_rows_too(exported: bytes) -> None:
    """Columns of whole numbers, truth values and absent values of any library become float32 with NaN."""
    columns: dict[str, list[Any]] = {name: [1, 2, 3] for name in FEATURES}
    columns[FEATURES[1]], columns[FEATURES[2]] = [True, False, True], [1, None, 3]
    for given in (pd.DataFrame(columns), pl.DataFrame(columns), pl.DataFrame(columns).to_arrow(), pd.DataFrame(columns).convert_dtypes()):
        found = background_in(onnx_file.metadata(models.stamp(exported, shop.fraud, version="1", background=given)))
        assert found is not None
        assert found[:, 0].tolist() == [1, 2, 3]
        assert found[:, 1].tolist() == [1, 0, 1]
        assert np.array_equal(found[:, 2], [1, np.nan, 3], equal_nan=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((3, 2)), r"background has shape \[3, 2\]; the pipeline has \d+ features"),
        (np.zeros(len(FEATURES)), r"background has shape \[\d+\]"),
        (np.zeros((0, len(FEATURES))), "background has no rows"),
        (np.full((2, len(FEATURES)), "5"), "background holds str, no numbers"),
        ([[1.0], [1.0, 2.0]], "background is no table of rows"),
        (pd.DataFrame({name: ["5"] for name in FEATURES}), "column 'spending.count_1h' holds str, no numbers"),
        (pd.DataFrame({name: pd.to_datetime(["2024-01-01"]) for name in FEATURES}), "column 'spending.count_1h' holds .*no numbers"),
    ],
    ids=["width", "one row", "no rows", "texts", "ragged", "text columns", "instants"],
)
def test_what_are_no_rows_is_refused(given: object, said: str, exported: bytes) -> None:
    """Another width, one axis, no row, texts that look like numbers, instants: refused, saying what was given."""
    with pytest.raises(DefinitionError, match=said):
        models.stamp(exported, shop.fraud, version="1", background=given)
