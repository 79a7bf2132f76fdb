"""`headrace explain` on a real Kafka: a prediction that was published is told again, drawn, and told as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import util
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from confluent_kafka import Producer

from headrace.definition import App
from headrace.local_stack import Stack
from headrace.publish.kafka_topics import KafkaTopics, TopicWish
from headrace.testing import Driver
from headrace.types import TopicPartition
from tests.e2e.secured import ROOT, Command
from tests.unit.apps.operated import START_MS
from tests.unit.explained import trees_for

pytestmark = pytest.mark.stack

PARTITIONS = 2
APP = """
import headrace as hr
from tests.unit.apps.operated import habits, spending

fraud = hr.Pipeline(
    "fraud", views=[spending, habits], event_features=["amount"], predictions="fraud.v1", model={model!r}, contributions=2
)
app = hr.App("cards", pipelines=[fraud])
"""


@pytest.fixture
def folder(run_folder: Path, unique_name: str) -> Path:
    """A folder of the test's own, with an app and its model."""
    made = run_folder / f"explain-{unique_name}"
    made.mkdir()
    (made / "explained_cards.py").write_text(APP.format(model=str(made / "fraud.onnx")), encoding="utf-8")
    (made / "fraud.onnx").write_bytes(trees_for(app_in(made).pipelines[0]))
    return made


def app_in(folder: Path) -> App:
    """The app of the folder."""
    spec = util.spec_from_file_location("explained_cards", folder / "explained_cards.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.app
    assert isinstance(found, App)
    return found


def ran(app: App) -> Driver:
    """Thirty payments, in memory."""
    driver = Driver(app, partitions=PARTITIONS, now_ms=START_MS)
    for number in range(30):
        driver.advance(60_000)
        driver.send("payments.v1", card=f"card-{number % 4}", at=driver.clock.now_ms(), amount=7.5 * number)
    driver.run()
    return driver


def copied(driver: Driver, bootstrap: str) -> None:
    """All that is on its topics, to the same offsets as far as those have records."""
    app = driver.app
    topics = {"payments.v1": PARTITIONS, "fraud.v1": PARTITIONS, app.dead_letters: PARTITIONS, app.facts: 1}
    settings = {"retention.ms": "-1"}
    wishes = [TopicWish(name=name, partitions=count, replication=-1, settings=settings) for name, count in topics.items()]
    KafkaTopics({"bootstrap.servers": bootstrap}).create(wishes)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for name, count in topics.items():
        for number in range(count):
            for record in driver.log.read(TopicPartition(name, number)):
                producer.produce(
                    name,
                    value=record.value,
                    key=record.key,
                    partition=number,
                    headers=[*record.headers],
                    timestamp=record.timestamp_ms,
                )
    assert producer.flush(30) == 0


def test_a_prediction_on_kafka_is_explained(own_stack: Callable[..., Stack], folder: Path) -> None:
    """Text, picture and JSON tell the published score, its vector and its largest contributions; an unknown id is one line, exit code 1."""
    driver = ran(app_in(folder))
    stack = own_stack(brokers=1, redis=False)
    copied(driver, stack.bootstrap)
    prediction = driver.results("fraud")[-1]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "TZ") if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "services", ROOT))),
        "PYTHONIOENCODING": "utf-8",
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap,
    }

    def explain(name: str, *arguments: str) -> Command:
        every = ("explain", *arguments, "--app", "explained_cards:app")
        return Command(folder / f"{name}.out", folder / f"{name}.err", every, environment)

    shown = explain("text", prediction["id"], "--svg", str(folder / "why.svg"))
    assert shown.wait() == 0, shown.errors
    assert f"score {prediction['score']:.9g}, as published, within 1e-6" in shown.output
    assert "  margin" in shown.output
    assert ET.parse(folder / "why.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own

    told = explain("json", prediction["id"], "--output", "json")
    assert told.wait() == 0, told.errors
    found = json.loads(told.output)
    assert found["features"] == prediction["features"]
    assert found["notes"] == []
    assert {name: found["contributions"][name] for name in prediction["contributions"]} == prediction["contributions"]
    assert found["margin"] == pytest.approx(prediction["score"], abs=1e-5)

    unknown = explain("unknown", "payments.v1-0-999-fraud")
    assert unknown.wait() == 1
    assert unknown.errors.strip().splitlines()[-1].startswith("headrace: payments.v1-0 holds no record at offset 999")
