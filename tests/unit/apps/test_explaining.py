"""Predictions told again from the log: the vector bit for bit, the score, and what each feature contributed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.apps.explaining import ExplainedCasting, Explaining, Explanation
from headrace.errors import LookupRefused
from headrace.line_up import Fallback
from headrace.parts import Limits
from headrace.predict.artifacts import MemoryArtifacts
from headrace.predict.casting import Cast, Pinned
from headrace.predict.onnx_model import OnnxModel
from headrace.predict.roles import Roster
from headrace.predict.scores import Model
from headrace.switches import Switch, switch_fact
from headrace.testing import Driver
from headrace.types import Int32s, Int64s, TopicPartition
from tests.unit import boarding, flying
from tests.unit.apps import operated
from tests.unit.explained import model_for, subject_of, trees_for

(FLIGHTS,) = flying.app.pipelines
(BOARDINGS,) = boarding.app.pipelines
CARDS = operated.app_of(operated.spending, operated.habits)
(PAYMENTS,) = CARDS.pipelines


@pytest.fixture(scope="module")
def flights() -> Driver:
    """Two hops: some flights late, some refused, workers killed on the way."""
    draw = random.Random(3)
    driver = Driver(flying.app, models={"late": model_for(FLIGHTS)}, partitions=3, now_ms=flying.START_MS, limits=_limits())
    for _ in range(4):
        flying.fly(driver, draw, 60)
        driver.crash(before=draw.choice(["apply", "end"]))
        driver.run()
    return driver


@pytest.fixture(scope="module")
def boardings() -> Driver:
    """Look-ups in views of another source."""
    driver = boarding.started(models={"late": model_for(BOARDINGS)})
    boarding.traffic(driver, random.Random(5), 250)
    driver.run()
    return driver


def payments(models: dict[str, Model] | None = None, count: int = 60) -> Driver:
    """One stage, and one record that is no event."""
    driver = Driver(CARDS, models=models or {"fraud": model_for(PAYMENTS)}, partitions=2, now_ms=operated.START_MS, limits=_limits())
    draw = random.Random(9)
    for _ in range(count):
        driver.advance(60_000)
        driver.send(operated.SOURCE, card=f"card-{draw.randrange(4)}", at=driver.clock.now_ms(), amount=draw.uniform(0, 90))
    driver.send_bytes(operated.SOURCE, key=b"card-1", value=b"{", timestamp_ms=driver.clock.now_ms())
    driver.run()
    return driver


def _limits() -> Limits:
    return Limits(max_batch=16, refused_share=1.0)


def explain(driver: Driver, prediction: str, models: dict[str, Model] | None = None) -> Explanation:
    """The explanation of a prediction, by the models of the driver unless others are given."""
    given = models if models is not None else driver._models
    assert given is not None
    return Explaining(driver.app, subject_of(driver), casting_of=lambda _: Pinned(given)).explain(prediction)


def same_bits(found: Explanation, prediction: dict[str, Any]) -> bool:
    """Whether a vector is that of a prediction; null stands for NaN."""
    published = [np.nan if value is None else value for value in prediction["features"].values()]
    ours = np.array(list(found.features.values()))
    return list(found.features) == list(prediction["features"]) and bool(
        ((ours.view(np.int64) == np.array(published).view(np.int64)) | (np.isnan(ours) & np.isnan(published))).all()
    )


def insist_on_all(driver: Driver, predictions: Sequence[dict[str, Any]]) -> None:
    """Each is told again as it was published, and its contributions add up to its score."""
    for prediction in predictions:
        found = explain(driver, prediction["id"])
        assert same_bits(found, prediction), prediction["id"]
        assert (found.id, found.entity, found.notes, found.same) == (prediction["id"], prediction["entity"], [], True)
        assert found.score == pytest.approx(prediction["score"], abs=1e-6)
        assert found.margin == pytest.approx(prediction["score"], abs=1e-5)
        assert found.published is not None
        assert (found.published.version, found.published.role) == ("1", "champion")


def test_predictions_of_one_stage(tmp_path: object) -> None:
    """Every prediction of a pipeline without hops is told again bit for bit, from a log that goes on behind it."""
    del tmp_path
    driver = payments()
    predictions = driver.results("fraud")
    assert len(predictions) == 60
    insist_on_all(driver, predictions[::4])


def test_predictions_that_came_by_hops(flights: Driver) -> None:
    """Of a pipeline of three entities the last stage's record is found on its hop, and told from there."""
    predictions = flights.results("late")
    assert len(predictions) > 150
    insist_on_all(flights, random.Random(1).sample(predictions, 25))


def test_predictions_with_look_ups(boardings: Driver) -> None:
    """What was looked up is told by where the prediction says it has read, stale and absent entities included."""
    predictions = boardings.results("late")
    assert {"stale"} & {name for one in predictions for name in one}
    insist_on_all(boardings, random.Random(2).sample(predictions, 25))


def test_another_version_is_said() -> None:
    """Where the model at hand is another one than that which published, the texts say so and the scores are not the same."""
    driver = payments()
    (prediction, *_) = driver.results("fraud")
    found = explain(driver, prediction["id"], {"fraud": model_for(PAYMENTS, seed=4, version="2")})
    assert found.same is False
    assert found.notes[0] == "version 1 published it, and what is explained is version 2, the one at hand"
    assert found.notes[1].startswith(f"it was published with {prediction['score']!r} and scores")
    assert same_bits(found, prediction)


def test_a_changed_feature_is_named() -> None:
    """A prediction whose published vector is not the one of the log is told with the features that differ."""
    driver = payments(count=5)
    (name,) = [partition for partition in _partitions(driver, "fraud.v1") if driver.log.end_offset(partition)][:1]
    record = driver.log.read(name)[0]
    damaged = (record.value or b"").replace(b'"amount":', b'"amount":1')
    assert damaged != record.value
    driver.log.recreate_topic("fraud.v1")
    driver.log.append("fraud.v1", None, record.key, damaged, record.headers, record.timestamp_ms)
    found = explain(driver, damaged.split(b'"')[3].decode())
    (note,) = found.notes
    assert note.startswith("feature amount was published as 1")


def test_a_prediction_that_is_gone_is_still_told() -> None:
    """Where Kafka has removed the prediction, the log of the source still tells it; that nothing was compared is said."""
    driver = payments(count=5)
    prediction = driver.results("fraud")[0]
    driver.log.recreate_topic("fraud.v1")
    found = explain(driver, prediction["id"])
    assert same_bits(found, prediction)
    assert (found.published, found.same, found.notes) == (None, None, ["it is not on fraud.v1 (any more), so nothing is compared"])


def _partitions(driver: Driver, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(driver.log.topics()[topic])]


def test_what_cannot_be_told_is_refused() -> None:
    """An id of nothing, an offset that is not there, and a record that is no event are refused, each with why."""
    driver = payments(count=8)
    (letter,) = driver.dead_letters()
    told = dict(letter.headers)
    offset = (told["__streams.errors.offset"] or b"").decode()
    number = (told["__streams.errors.partition"] or b"").decode()
    for prediction, why in (
        ("payments.v1-0-late", "ids are payments.v1-<partition>-<offset>-fraud"),
        ("payments.v1-0-1-another", "is no prediction of app cards"),
        ("payments.v1-7-1-fraud", "payments.v1 has no partition 7"),
        ("payments.v1-0-999-fraud", "holds no record at offset 999"),
        (f"payments.v1-{number}-{offset}-fraud", "was not scored by these definitions: it is no event of theirs"),
    ):
        with pytest.raises(LookupRefused, match=why):
            explain(driver, prediction)


def test_windows_that_the_log_does_not_hold_any_more_are_refused() -> None:
    """A vector whose windows reach back to before the log's beginning is not told half; one behind those is told."""
    driver = payments(count=400)
    for name in _partitions(driver, operated.SOURCE):
        driver.log.delete_before(name, 20)
    predictions = [one for one in driver.results("fraud") if int(one["id"].split("-")[2]) >= 20]
    with pytest.raises(LookupRefused, match="does not hold any more all that the windows of offset 21 reach back to"):
        explain(driver, next(one["id"] for one in predictions if one["id"].split("-")[2] == "21"))
    insist_on_all(driver, predictions[-3:])


def test_a_fallback_score_has_nothing_to_explain() -> None:
    """A score that no model gave is refused."""
    driver = payments({"fraud": Fallback("fraud", 0.5)}, count=3)
    with pytest.raises(LookupRefused, match="scored by 'fallback', which is no model"):
        explain(driver, driver.results("fraud")[0]["id"])


class OneCast:
    """A champion, and a shadow."""

    def __init__(self, champion: OnnxModel, shadow: OnnxModel) -> None:
        self._cast = Cast(champion=champion, shadows=(shadow,))

    def casts(self, pipeline: str, partitions: Int32s, offsets: Int64s) -> Sequence[tuple[Cast, Int64s | None]]:
        """The same for all."""
        del pipeline, partitions, offsets
        return [(self._cast, None)]

    def model_name(self, pipeline: str) -> str:
        """That of its pipeline."""
        return pipeline


def test_a_shadow_is_explained_by_its_own_version() -> None:
    """An id with a version behind it is that shadow's score; a version that was no shadow is refused."""
    driver = payments(count=3)
    prediction = driver.results("fraud")[0]["id"]
    casting = OneCast(model_for(PAYMENTS), model_for(PAYMENTS, seed=6, version="7"))
    driver.log.create_topic(PAYMENTS.shadow or "", 1)
    explaining = Explaining(CARDS, subject_of(driver), casting_of=lambda _: casting)
    found = explaining.explain(f"{prediction}@7")
    assert (found.version, found.role) == ("7", "shadow")
    assert (explaining.explain(prediction).version, explaining.explain(prediction).role) == ("1", "champion")
    with pytest.raises(LookupRefused, match="version 8 was no shadow"):
        explaining.explain(f"{prediction}@8")


def test_the_version_is_the_one_of_the_facts() -> None:
    """Of a pipeline of the registry, the version that scored is found by the switches, and loaded with what explains it by its hash."""
    artifacts, name = MemoryArtifacts(), TopicPartition(operated.SOURCE, 0)
    facts = []
    for version, offset in (("1", 0), ("2", 5)):
        sha256 = artifacts.put(trees_for(PAYMENTS, version=version))
        roster = Roster(champion=version)
        switch = Switch(pipeline="fraud", partition=name, offset=offset, epoch=offset, roster=roster, artifacts={version: sha256})
        facts.append(switch_fact(switch))
    casting = ExplainedCasting(CARDS, artifacts, facts)
    assert casting.model_name("fraud") == "fraud"
    for offset, version in ((4, "1"), (5, "2")):
        ((cast, _),) = casting.casts("fraud", np.array([0], dtype=np.int32), np.array([offset]))
        assert (cast.champion.version, isinstance(cast.champion, OnnxModel)) == (version, True)
        assert isinstance(cast.champion, OnnxModel)
        assert cast.champion.explainer is not None


def test_a_pinned_model_is_loaded_with_what_explains_it(tmp_path: Any) -> None:
    """The pipeline need not ask for contributions: its model is explained where somebody asks."""
    path = tmp_path / "fraud.onnx"
    path.write_bytes(trees_for(PAYMENTS))
    views = [operated.spending, operated.habits]
    app = hr.App("cards", pipelines=[hr.Pipeline("fraud", views=views, event_features=["amount"], predictions="p.v1", model=str(path))])
    casting = ExplainedCasting(app, MemoryArtifacts(), [])
    ((cast, _),) = casting.casts("fraud", np.array([0], dtype=np.int32), np.array([3]))
    assert isinstance(cast.champion, OnnxModel)
    assert cast.champion.explainer is not None


def test_margin_and_sameness_follow_from_the_rest() -> None:
    """The margin is mean and contributions; whether a score is the same is not known where nothing was published."""
    found = explain(driver := payments(count=3), driver.results("fraud")[0]["id"])
    assert found.margin == found.mean + sum(found.contributions.values())
    assert dataclasses.replace(found, published=None).same is None
    assert dataclasses.replace(found, score=found.score + 1e-5).same is False
