"""`Pipeline(contributions=N)`: what is published, that `verify` demands it, and that nothing changes where it is off."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.assembly import load_models
from headrace.definition import Pipeline
from headrace.errors import DefinitionError
from headrace.line_up import Fallback
from headrace.parts import Limits
from headrace.predict import leaf_sets
from headrace.predict.casting import Pinned
from headrace.predict.explain import Explainer
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.scores import Model, explainer_of
from headrace.publish.encoder import HeaderPolicy
from headrace.testing import Driver
from headrace.types import TopicPartition
from headrace.verify.findings import Findings, Kind
from headrace.verify.verification import Verification, Wishes
from tests.unit.apps.operated import START_MS, habits, payments, spending
from tests.unit.explained import model_for, subject_of, trees_for

SOURCE, PREDICTIONS = payments.topic, "fraud.v1"


def pipeline(contributions: int = 0, **more: Any) -> Pipeline:
    """A pipeline of four features."""
    return hr.Pipeline(
        "fraud", views=[spending, habits], event_features=["amount"], predictions=PREDICTIONS, contributions=contributions, **more
    )


def ran(of: Pipeline, model: Model) -> Driver:
    """Forty payments."""
    driver = Driver(hr.App("cards", pipelines=[of]), models={"fraud": model}, now_ms=START_MS, limits=Limits(max_batch=16))
    draw = random.Random(4)
    for _ in range(40):
        driver.advance(60_000)
        driver.send(SOURCE, card=f"card-{draw.randrange(4)}", at=driver.clock.now_ms(), amount=draw.uniform(0, 90))
    driver.run()
    return driver


def verified(driver: Driver, model: Model) -> Findings:
    """What `verify` finds."""
    verification = Verification(
        driver.app,
        subject_of(driver),
        casting_of=lambda _: Pinned({"fraud": model}),
        headers=HeaderPolicy.CLOUDEVENTS,
        limits=Limits(),
    )
    return verification.run(Wishes())


def test_each_prediction_has_its_largest_contributions() -> None:
    """They are those of the explainer for the published vector, the largest first, as many as were asked for, without zeros."""
    of = pipeline(2)
    model = model_for(of)
    explainer = model.explainer
    assert isinstance(explainer, Explainer)
    predictions = ran(of, model).results("fraud")
    assert len(predictions) == 40
    for prediction in predictions:
        values = np.array([[np.nan if value is None else value for value in prediction["features"].values()]])
        expected = dict(zip(of.feature_names, explainer.contributions(values)[0].tolist(), strict=True))
        largest = sorted((name for name in expected if expected[name]), key=lambda name: -abs(expected[name]))[:2]
        assert list(prediction["contributions"].items()) == [(name, expected[name]) for name in largest]


def test_all_contributions_lead_from_the_mean_to_the_score() -> None:
    """With as many as there are features they and the mean are the margin, within 1e-5."""
    of = pipeline(4)
    model = model_for(of)
    assert model.explainer is not None
    for prediction in ran(of, model).results("fraud"):
        assert model.explainer.mean + sum(prediction["contributions"].values()) == pytest.approx(prediction["score"], abs=1e-5)


def test_off_means_the_same_bytes_as_ever() -> None:
    """Without the option nobody asks an explainer, and the records are those of a model that has none."""
    of = pipeline()
    plain, explained = OnnxModel.load(trees_for(of), of.feature_names), model_for(of)
    values = [[_unclocked(record) for record in _records(ran(of, model))] for model in (plain, explained)]
    assert values[0] == values[1]
    assert b"contributions" not in b"".join(values[0])


def test_a_score_of_no_model_has_no_contributions() -> None:
    """A fallback score, or a model that was loaded without, goes out without the member."""
    for model in (Fallback("fraud", 0.5), OnnxModel.load(trees_for(pipeline()), pipeline().feature_names)):
        assert explainer_of(model) is None
        assert all("contributions" not in prediction for prediction in ran(pipeline(3), model).results("fraud"))


def test_models_of_a_pipeline_that_asks_are_loaded_with_what_explains_them(tmp_path: Any) -> None:
    """The model that a pipeline pins is refused without a background if it asks for contributions, else not."""
    path = tmp_path / "fraud.onnx"
    path.write_bytes(trees_for(pipeline()))
    models = load_models(hr.App("cards", pipelines=[pipeline(1, model=str(path))]))
    assert models["fraud"].explainer is not None
    assert load_models(hr.App("cards", pipelines=[pipeline(model=str(path))]))["fraud"].explainer is None


def test_verify_demands_them() -> None:
    """Contributions are computed again, byte for byte; one that somebody changed, or took away, is named."""
    of = pipeline(2)
    model = model_for(of)
    driver = ran(of, model)
    findings = verified(driver, model)
    assert findings.sound()
    assert findings.checked["predictions"] == 40
    record = _records(driver)[7]
    told = json.loads(record.value or b"")
    name, value = next(iter(told["contributions"].items()))
    for change in ({**told["contributions"], name: value + 1e-9}, None):
        damaged = ran(of, model)
        value_of = {**told, "contributions": change} if change else {key: one for key, one in told.items() if key != "contributions"}
        _put(damaged, record.partition, record.offset, json.dumps(value_of, separators=(",", ":")).encode())
        findings = verified(damaged, model)
        assert set(findings.counts) == {Kind.RECORD}
        assert findings.counts.total() == 1
        (violation,) = findings.violations
        assert violation.expected.startswith(f"contribution of {name} = " if change else "contributions = ")


def test_a_warm_worker_compiles_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the warm-up no model and no layout of its rows makes anything be compiled: scoring would stand still for seconds."""
    leaf_sets.warm_up()
    kernels: list[Any] = [leaf_sets._turned_away, leaf_sets._fill_tables, leaf_sets._contribute]
    before = [len(kernel.signatures) for kernel in kernels]
    for seed, table_bytes in ((1, 1 << 20), (2, 0)):
        monkeypatch.setattr(leaf_sets, "MOST_TABLE_BYTES", table_bytes)
        explainer = model_for(pipeline(), seed=seed).explainer
        assert explainer is not None
        for values in (np.zeros((1, 4)), np.asfortranarray(np.zeros((5, 4))), np.zeros((9, 8))[:, ::2]):
            explainer.contributions(values)
    assert [len(kernel.signatures) for kernel in kernels] == before == [1, 1, 1]
    stamp = hashlib.sha256(Path(leaf_sets.__file__).read_bytes()).hexdigest()
    assert {kernel._cache._cache_file._source_stamp for kernel in kernels} == {stamp}, "the cache holds for other bytes of the file"


@pytest.mark.parametrize("contributions", [-1, 5, True])
def test_a_number_of_features_that_there_is(contributions: int) -> None:
    """The option is a number of features up to all of them."""
    with pytest.raises(DefinitionError, match=r"contributions=.*up to the 4 there are"):
        pipeline(contributions)


def test_the_definition_of_the_features_stays_the_same() -> None:
    """Contributions change no vector, so no fingerprint either."""
    assert pipeline(3).fingerprint == pipeline().fingerprint


def _records(driver: Driver) -> list[Any]:
    return [record for number in range(2) for record in driver.log.read(TopicPartition(PREDICTIONS, number))]


def _unclocked(record: Any) -> bytes:
    return bytes(record.value).partition(b',"scored_at":')[0]


def _put(driver: Driver, partition: int, offset: int, value: bytes) -> None:
    """Put another value in the place of a prediction."""
    stored = driver.log.partition(TopicPartition(PREDICTIONS, partition))
    stored.values[offset] = value
