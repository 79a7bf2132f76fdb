"""`headrace model` as engineers meet it: processes, a real Kafka, a real Redis."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace import control_log
from headrace.apps.model_desk import Desk, opened
from headrace.consume.kafka_reader import KafkaReader
from headrace.errors import RegistryRefused
from headrace.features.redis_connection import Conversation, packed
from headrace.features.redis_connection import RedisServer as Wire
from headrace.local_stack import KafkaServer, RedisServer
from headrace.predict.registry import Role
from headrace.publish.kafka_topics import KafkaTopics
from headrace.settings import KafkaSettings, RedisSettings, Settings
from headrace.types import TopicPartition
from tests.unit.apps.engineered import file_of

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]

DEFINITION = """
import headrace as hr


class Payment(hr.Event):
    card: str
    at: hr.EventTime
    amount: float


payments = hr.Source("NAME.payments.v1", Payment, key="card", time="at")
spending = hr.FeatureView("spending", entity="card", source=payments, features=[hr.count(over="1h")])
fraud = hr.Pipeline("fraud", views=[spending], event_features=["amount"], predictions="NAME.fraud.v1")
app = hr.App("NAME", pipelines=[fraud])
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An app of its own on shared servers, and a folder in which its engineers type commands."""

    name: str
    folder: Path
    kafka: KafkaServer
    redis: RedisServer

    @property
    def app(self) -> hr.App:
        """The app as this process sees it."""
        specification = importlib.util.spec_from_file_location(f"defined_{self.name}", self.folder / "defined.py")
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[module.__name__] = module  # where pydantic looks for the types that an event names
        specification.loader.exec_module(module)
        found = module.app
        assert isinstance(found, hr.App)
        return found

    @property
    def settings(self) -> Settings:
        """Where its servers are."""
        return Settings(kafka=KafkaSettings(bootstrap_servers=self.kafka.address), redis=RedisSettings(url=self.redis.url))

    @property
    def control(self) -> TopicPartition:
        """Its control topic."""
        return TopicPartition(f"{self.name}.control.v1", 0)

    def headrace(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command and wait for it."""
        places = {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": self.kafka.address, "HEADRACE_REDIS__URL": self.redis.url}
        return subprocess.run(
            [sys.executable, "-m", "headrace", *arguments, "--app", "defined:app"],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT / "services")} | places | environment,
            cwd=self.folder,
        )

    def told(self, *arguments: str, **environment: str) -> Any:
        """What a command tells programs."""
        done = self.headrace("model", *arguments, "--output", "json", **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *arguments: str, **environment: str) -> str:
        """The one line with which a command gives up."""
        done = self.headrace("model", *arguments, **environment)
        assert done.returncode == 1, done.stdout
        (line,) = done.stderr.splitlines()
        return line

    def file(self, version: str, **wishes: Any) -> str:
        """A stamped model of the pipeline."""
        path = self.folder / f"model-{version}.onnx"
        path.write_bytes(file_of(version, pipeline=self.app.pipelines[0], **wishes))
        return str(path)

    def log_start(self) -> int:
        """Where the control topic begins."""
        reader = KafkaReader({"bootstrap.servers": self.kafka.address})
        try:
            return reader.log_range(self.control).start
        finally:
            reader.close()


@pytest.fixture
def place(tmp_path: Path, unique_name: str, kafka: KafkaServer, redis: RedisServer) -> Place:
    """An app of its own."""
    (tmp_path / "defined.py").write_text(DEFINITION.replace("NAME", unique_name), encoding="utf-8")
    return Place(name=unique_name, folder=tmp_path, kafka=kafka, redis=redis)


@pytest.fixture
def applied(place: Place) -> Place:
    """The same with its topics, which `headrace apply` has made."""
    done = place.headrace("apply", "--partitions", "1")
    assert done.returncode == 0, done.stderr
    return place


def shadowed(desk: Desk, place: Place, *versions: str) -> None:
    """Register versions, and let them run as shadows."""
    for version in versions:
        content = Path(place.file(version)).read_bytes()
        desk.commands.carry_out(desk.registration(desk.examine(content)))
        desk.commands.carry_out(desk.commands.move("fraud", version, Role.SHADOW))


def test_a_model_from_file_to_champion_and_back(applied: Place) -> None:
    """Register, promote, register the next, shadow, challenge, promote, roll back: each by a process of its own, all told afterwards."""
    topics = KafkaTopics({"bootstrap.servers": applied.kafka.address})
    control = topics.describe([applied.control.topic])[applied.control.topic]
    assert control is not None
    assert (control.partitions, control.settings["retention.ms"], control.settings["max.message.bytes"]) == (1, "-1", "16777216")
    assert applied.told("register", applied.file("1"), "--by", "ann@desk")["said"] == "ann@desk registered version 1 of fraud"
    assert applied.told("promote", "fraud", "1")["after"]["champion"] == "1"
    registered = applied.headrace("model", "register", applied.file("2", factor=1.1))
    assert registered.returncode == 0, registered.stderr
    assert "there was nothing to rehearse on" in registered.stdout
    assert applied.told("shadow", "fraud", "2")["after"]["shadows"] == ["2"]
    assert applied.told("challenge", "fraud", "2", "--share", "5%", "--dry-run")["after"]["share"] == 0.05
    assert applied.told("challenge", "fraud", "2", "--share", "5%")["after"]["challenger"] == "2"
    assert applied.told("promote", "fraud", "2", "--reason", "better")["after"] == {
        "champion": "2",
        "challenger": None,
        "share": 0.0,
        "shadows": [],
    }
    assert applied.told("rollback", "fraud")["after"]["champion"] == "1"
    assert [(one["version"], one["role"]) for one in applied.told("list")] == [("1", "champion"), ("2", "retired")]
    roles = [(one["version"], one["role"]) for one in applied.told("history", "fraud")]
    assert roles[-4:] == [("1", "retired"), ("2", "champion"), ("2", "retired"), ("1", "champion")]
    assert len(applied.told("diff", "fraud", "1", "2")["golden"]) == 2
    assert applied.told("show", "fraud", "2")["artifact"] == "in its place, undamaged"
    assert "fraud has no version 3" in applied.refused("promote", "fraud", "3")


def test_without_its_topic_there_is_no_registry(place: Place) -> None:
    """Nobody has applied: the next command is named."""
    assert f"there is no topic {place.control.topic}: `headrace apply --app ...`" in place.refused("list")


def test_of_two_operators_one_wins_on_a_real_log(applied: Place) -> None:
    """Both have read the same, both write: the log decides, and the second is told by whom he was overtaken."""
    app = applied.app
    with opened(app, applied.settings, by="ann@desk") as ann, opened(app, applied.settings, by="bob@desk") as bob:
        shadowed(ann, applied, "1", "2")
        hers, his = ann.commands.move("fraud", "1", Role.CHAMPION), bob.commands.move("fraud", "2", Role.CHAMPION)
        assert ann.commands.carry_out(hers).after.champion == "1"
        with pytest.raises(RegistryRefused, match="ann@desk was first: promoted version 1 of fraud"):
            bob.commands.carry_out(his)
        assert bob.commands.carry_out(bob.commands.move("fraud", "2", Role.CHAMPION)).after.champion == "2"


def test_the_real_log_is_cut_at_a_snapshot(applied: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many commands: what stands before the snapshot is deleted, who was behind comes up, and a new process knows everything."""
    monkeypatch.setattr(control_log, "MOST_RECORDS", 10)
    app = applied.app
    with opened(app, applied.settings, by="ann@desk") as ann, opened(app, applied.settings, by="bob@desk") as bob:
        shadowed(ann, applied, "1")
        behind = bob.commands.registry().end
        for number in range(24):
            role = Role.SHADOW if number % 2 else Role.REGISTERED
            assert ann.commands.carry_out(ann.commands.move("fraud", "1", role)).warnings == ()
        assert applied.log_start() > behind
        assert bob.commands.registry().snapshot() == ann.commands.registry().snapshot()
        assert bob.commands.carry_out(bob.commands.move("fraud", "1", Role.CHAMPION)).after.champion == "1"
    (version,) = applied.told("list")
    assert (version["role"], len(version["history"])) == ("champion", 27)


def test_tampered_and_lost_artifacts_are_seen(applied: Place) -> None:
    """Bytes changed in Redis, then gone: `show` says so, and `mend` puts them back."""
    path = applied.file("1")
    applied.told("register", path)
    sha256 = applied.told("show", "fraud", "1")["sha256"]
    key = f"hr:{{{applied.name}}}:artifact:{sha256}".encode()
    wire = Wire(url=applied.redis.url)
    try:
        for damage, text in (
            (packed(b"SETRANGE", key, b"7", b"x"), "is not what was registered"),
            (packed(b"DEL", key), "holds no artifact"),
        ):
            wire.converse(applied.name.encode(), partial(Conversation.one, command=damage))
            assert text in applied.told("show", "fraud", "1")["artifact"]
            assert applied.told("mend", path)["mended"][0]["version"] == "1"
            assert applied.told("show", "fraud", "1")["artifact"] == "in its place, undamaged"
    finally:
        wire.close()


def test_artifacts_may_be_kept_in_a_folder(applied: Place) -> None:
    """A setting names the folder: the file lies there under its sha256, and nothing of it in Redis."""
    folder = applied.folder / "kept"
    where = {"HEADRACE_MODELS__ARTIFACTS": str(folder)}
    applied.told("register", applied.file("1"), **where)
    (kept,) = folder.iterdir()
    assert kept.read_bytes() == Path(applied.file("1")).read_bytes()
    assert applied.told("show", "fraud", "1", **where)["artifact"] == "in its place, undamaged"
    assert "holds no artifact" in applied.told("show", "fraud", "1")["artifact"]


def test_a_lost_beginning_is_refused(applied: Place) -> None:
    """Somebody deleted records of the control topic by hand: no command takes half a registry for the whole."""
    applied.told("register", applied.file("1"))
    applied.told("promote", "fraud", "1")
    KafkaTopics({"bootstrap.servers": applied.kafka.address}).delete_before(applied.control, 1)
    assert "begins at offset 1, and no snapshot stands there" in applied.refused("list")
