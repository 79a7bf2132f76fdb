"""What a registration is decided by: the pipeline that a file is for, the events it is rehearsed on, where files are kept."""

from __future__ import annotations

import getpass
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace import models
from headrace.apps.artifacts import artifact_store
from headrace.apps.model_desk import embedded, insist_on_registry, somebody
from headrace.apps.rehearsal import last_vectors
from headrace.assembly import prepare_embedded
from headrace.clock import ManualClock
from headrace.errors import RegistryRefused, SignatureMismatch
from headrace.memory_log import MemoryLog, MemoryReader
from headrace.predict import onnx_file
from headrace.predict.artifacts import FolderArtifacts, MemoryArtifacts
from headrace.predict.gate import Code, Verdict
from headrace.predict.gate_codes import refusal
from headrace.predict.redis_artifacts import RedisArtifacts
from headrace.predict.scores import Scores
from headrace.settings import ModelsSettings, Settings
from headrace.testing import Driver
from headrace.types import Float64s
from tests.unit.apps.engineered import START_MS, Office, Payment, app, file_of, fraud, passes, pinned, spending
from tests.unit.predict import small_models


class Mean:
    """A model that gives the mean of what it is given."""

    name, version = "fraud", "1"

    def score(self, values: Float64s) -> Scores:
        return Scores(scores=np.nanmean(values, axis=1), refused=[])


class Limit(Mean):
    """The model of the other pipeline."""

    name = "limits"


def played(count: int, pipelines: tuple[hr.Pipeline, ...] = (fraud, pinned)) -> Driver:
    """An app that has scored payments of 1, 2, 3, ..."""
    driver = Driver(hr.App("cards", pipelines=pipelines), models={"fraud": Mean(), "limits": Limit()}, partitions=2, now_ms=START_MS)
    for number in range(count):
        driver.advance(1_000)
        driver.send("payments.v1", Payment(card=f"card-{number % 7}", at=driver.clock.now_ms(), amount=float(number + 1)))
    driver.run()
    return driver


# ---------------------------------------------------------------------------------------------------------------- rehearsal


def test_a_version_is_rehearsed_on_the_newest_vectors() -> None:
    """The numbers are those that were served, each partition gives its share, and the older ones are left out."""
    driver = played(200)
    found = last_vectors(MemoryReader(driver.log), fraud, 50)
    assert found is not None
    assert found.shape == (50, 2)
    served = {tuple(one["features"][name] for name in fraud.feature_names): one for one in driver.results("fraud")}
    assert {tuple(row) for row in found.tolist()} <= set(served)
    assert found[:, 1].min() > 100
    assert last_vectors(MemoryReader(driver.log), fraud, 1_000).shape == (200, 2)  # type: ignore[union-attr]


def test_there_may_be_nothing_to_rehearse_on() -> None:
    """No predictions yet, features that are not published, predictions of another definition, records of somebody else: none."""
    driver = played(0)
    reader = MemoryReader(driver.log)
    assert last_vectors(reader, fraud, 10) is None
    driver.log.append("fraud.v1", 0, None, b"somebody's junk")
    driver.log.append("fraud.v1", 0, None, None)
    assert last_vectors(reader, fraud, 10) is None
    silent = hr.Pipeline("fraud", views=[spending], predictions="fraud.v1", publish_features=False)
    assert last_vectors(reader, silent, 10) is None
    driver = played(20)
    other = hr.Pipeline("fraud", views=[spending], event_features=[hr.col("amount") * 2], predictions="fraud.v1")
    assert last_vectors(MemoryReader(driver.log), other, 10) is None
    assert last_vectors(MemoryReader(driver.log), fraud, 0) is None


# ----------------------------------------------------------------------------------------------------------- which pipeline


def test_a_file_is_for_the_pipeline_it_is_stamped_for() -> None:
    """Among several pipelines the signature decides; where there is one, that one; another one's file is refused."""
    other = hr.Pipeline("theft", views=[spending], event_features=["amount"], predictions="theft.v1")
    both = hr.App("cards", pipelines=[fraud, other])
    clock = ManualClock(START_MS)
    log = MemoryLog(clock)
    prepare_embedded(both, log, 1)
    desk = embedded(both, log, MemoryArtifacts(), clock, gate=passes)
    assert desk.examine(file_of("1"), rehearse=0).pipeline == "fraud"
    with pytest.raises(SignatureMismatch, match="carries no signature"):
        desk.examine(small_models.linear())
    examined = desk.examine(file_of("1"), pipeline="theft", rehearse=0)
    with pytest.raises(RegistryRefused, match="stamped for pipeline 'fraud', not 'theft'"):
        desk.registration(examined)
    with pytest.raises(RegistryRefused, match=r"no pipeline 'thief'.*did you mean theft"):
        desk.examine(file_of("1"), pipeline="thief")


def test_what_was_refused_cannot_be_registered() -> None:
    """A file that the gate refused is refused here too, whoever asks."""
    verdict = Verdict(refusals=(refusal(Code.TOO_LARGE, "it has 1 GB"),), report={})
    desk = Office().open(gate=lambda *_, **__: verdict)
    with pytest.raises(RegistryRefused, match=r"the gate refuses it for pipeline fraud: it has 1 GB; .* \[too_large\]"):
        desk.registration(desk.examine(file_of("1")))


def test_a_card_that_is_none_is_refused() -> None:
    """What stands in the file as a card must be one."""
    desk = Office().open(gate=passes)
    broken = onnx_file.with_metadata(file_of("1"), {"headrace.card": "[1]"})
    with pytest.raises(SignatureMismatch, match=r"'headrace.card' in the model's metadata_props cannot be read"):
        desk.registration(desk.examine(broken))


def test_lineage_travels_from_the_file_into_the_registry() -> None:
    """What a file says it was trained on stands beside the version."""
    desk = Office().open(gate=passes)
    content = onnx_file.with_metadata(file_of("1"), {"headrace.lineage": '{"hash": "abc", "rows": 7}'})
    done = desk.commands.carry_out(desk.registration(desk.examine(content)))
    assert done.version.lineage == {"hash": "abc", "rows": 7}


def test_an_app_of_pinned_models_has_no_registry() -> None:
    """Each pipeline names its file: it is said what to change."""
    with pytest.raises(RegistryRefused, match="app cards has no registry: each of its pipelines pins a model"):
        insist_on_registry(hr.App("cards", pipelines=[pinned]))
    insist_on_registry(app)


# ------------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("place", "kind"), [("redis", RedisArtifacts), ("models/kept", FolderArtifacts), ("file:///srv/kept", FolderArtifacts)]
)
def test_artifacts_are_kept_where_the_setting_says(place: str, kind: type) -> None:
    """Beside the states, in a folder by path or URL."""
    settings = Settings(models=ModelsSettings(artifacts=place))
    assert isinstance(artifact_store(app, settings), kind)


def test_a_folder_by_url_is_that_folder(tmp_path: Path) -> None:
    """Spaces and all."""
    folder = tmp_path / "the models"
    store = artifact_store(app, Settings(models=ModelsSettings(artifacts=f"file://{str(folder).replace(' ', '%20')}")))
    sha256 = store.put(b"a model")
    assert (folder / f"{sha256}.onnx").read_bytes() == b"a model"


@pytest.mark.parametrize("place", ["s3://key:secret@bucket/models", "s3://key@bucket/models", "abfs://box/models?sig=secret", "", "s3://"])
def test_places_with_credentials_and_no_places_are_refused(place: str) -> None:
    """A secret in a URL would be shown to everybody who lists the settings; what is no place is none."""
    with pytest.raises(ValueError, match=r"artifacts") as refused:
        ModelsSettings(artifacts=place)
    assert "redis, the path of a folder" in str(refused.value) or "leave credentials out" in str(refused.value) or not place


def test_somebody_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and host; where the user has no name, its number."""
    monkeypatch.setattr("socket.gethostname", lambda: "desk")
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    assert somebody() == "ann@desk"

    def nobody() -> str:
        raise KeyError("uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 10_001)
    assert somebody() == "uid-10001@desk"


# ---------------------------------------------------------------------------------------------------------------- from Python


def test_the_registry_is_reached_from_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Register from a path, shadow, promote, challenge, withdraw, retire, roll back: each tells what came of it."""
    office = Office()

    class Opened:
        """The registry in memory in place of the one on servers."""

        def __init__(self, *_: object, by: str | None = None) -> None:
            self.by = by or "ann@desk"

        def __enter__(self) -> object:
            return office.open(self.by, gate=passes)

        def __exit__(self, *_: object) -> None:
            """Nothing is open."""

    monkeypatch.setattr("headrace.apps.model_calls.opened", Opened)
    path = tmp_path / "model.onnx"
    path.write_bytes(file_of("1"))
    assert models.register(app, path, card=models.ModelCard(owner="ann")).version.card == models.ModelCard(owner="ann").as_plain()
    models.register(app, file_of("2"))
    assert models.promote(app, "fraud", "1").after.champion == "1"
    assert models.shadow(app, "fraud", "2", by="bob@desk").outcome.said == "bob@desk shadowed version 2 of fraud"
    assert models.challenge(app, "fraud", "2", share=0.2).after.share == 0.2
    assert models.promote(app, "fraud", "2", reason="better").version.history[-1].reason == "better"
    assert models.rollback(app, "fraud").after.champion == "1"
    assert models.withdraw(app, "fraud", "2").version.role == "registered"
    assert models.retire(app, "fraud", "2").version.role == "retired"
    assert [one.version for one in models.versions(app, "fraud")] == ["1", "2"]
    office.artifacts.kept.clear()
    assert [one.version for one in models.mend(app, path)] == ["1"]
    with pytest.raises(RegistryRefused, match="no pipeline 'frod'"):
        models.versions(app, "frod")
    with pytest.raises(hr.DefinitionError, match=r"nowhere\.onnx' cannot be read"):
        models.register(app, "nowhere.onnx")


def test_names_that_models_has_not_are_refused() -> None:
    """A misspelt name is answered with those there are."""
    with pytest.raises(AttributeError, match=r"headrace\.models has no name 'promot'; it has .*challenge, .*mend, promote"):
        _ = models.promot  # type: ignore[attr-defined]
