"""`headrace audit` on a real Kafka: a clean half of a log passes, and what is served wrongly later is flagged while it goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from confluent_kafka import Producer

from headrace.local_process import wait_until
from headrace.local_stack import Stack, free_port
from headrace.publish.kafka_topics import KafkaTopics, TopicWish
from headrace.testing import Driver
from headrace.types import Position, Record, TopicPartition
from tests.e2e.secured import ROOT, Command
from tests.unit.audit.sales import PARTITIONS, PREDICTIONS, SOURCE, Sold, app, folded, run, sold

pytestmark = pytest.mark.stack

APP = ("--app", "tests.unit.audit.sales:app")
WRONG = 'headrace_audit_mismatch_ratio{feature="recent.mean_weight_60m",pipeline="demand"}'


class Deployment:
    """A run in memory, copied to Kafka as far as is wanted."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._bootstrap, self._folder = stack.bootstrap, folder
        self._driver: Driver = run()
        self.events: list[Sold] = sold(self._driver)
        self._topics = KafkaTopics({"bootstrap.servers": self._bootstrap})
        settings = {"retention.ms": "-1"}
        wishes = [TopicWish(name=name, partitions=PARTITIONS, replication=-1, settings=settings) for name in (SOURCE, *app.result_topics)]
        wishes += [TopicWish(name=name, partitions=1, replication=-1, settings=settings) for name in (app.dead_letters, app.facts)]
        self._topics.create(wishes)

    def copy(self, place_from: float, place_to: float, change: Callable[[tuple[int, int], dict[str, Any]], dict[str, Any]]) -> None:
        """A share of every partition with its predictions, and the offsets behind it; `change`: what becomes of served features."""
        ends = {}
        for number in range(PARTITIONS):
            name = TopicPartition(SOURCE, number)
            end = self._driver.log.end_offset(name)
            first, last = int(place_from * end), int(place_to * end)
            self._produce(record for record in self._driver.log.read(name) if first <= record.offset < last)
            ends[name] = Position(offset=last, watermark_ms=None)
            served = []
            for record in self._driver.log.read(TopicPartition(PREDICTIONS, number)):
                value = json.loads(record.value or b"")
                offset = int(value["id"].split("-")[-2])
                if first <= offset < last:
                    value["features"] = change((number, offset), value["features"])
                    served.append(Record(**{**_fields(record), "value": json.dumps(value).encode()}))
            self._produce(served)
        self._topics.start_group(app.name, ends)

    def _produce(self, records: Iterable[Record]) -> None:
        producer = Producer({"bootstrap.servers": self._bootstrap, "enable.idempotence": True})
        for record in records:
            producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=[*record.headers],
                timestamp=record.timestamp_ms,
            )
        assert producer.flush(30) == 0

    def audit(self, *arguments: str) -> Command:
        """Start `headrace audit` on it."""
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "TZ") if name in os.environ} | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "services", ROOT))),
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": self._bootstrap,
        }
        number = len(list(self._folder.glob("*.out")))
        every = ("audit", *APP, "--share", "1", *arguments)
        return Command(self._folder / f"{number}.out", self._folder / f"{number}.err", every, environment)


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__slots__}


def scraped(port: int) -> dict[str, float]:
    """The figures on /metrics; none while nobody answers."""
    try:
        text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except URLError:
        return {}
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines()) if not name.startswith("#")}


@pytest.fixture
def deployment(own_stack: Callable[..., Stack], run_folder: Path, unique_name: str) -> Deployment:
    """A broker of the test's own, with empty topics."""
    folder = run_folder / f"audit-{unique_name}"
    folder.mkdir()
    return Deployment(own_stack(brokers=1, redis=False), folder)


def test_an_audit_on_kafka(deployment: Deployment) -> None:
    """T61: clean is exit code 0; an audit that goes on tells a mistake by its metrics within a round, and names it as a one-shot does."""
    deployment.copy(0.0, 0.6, lambda _, features: features)
    once = deployment.audit()
    assert once.wait() == 0, once.errors
    assert " wrong" in once.output
    assert ", 0 wrong" in once.output

    port = free_port()
    going_on = deployment.audit("--continuous", "--every", "0.2", "--http-port", str(port))
    wait_until(lambda: scraped(port).get('headrace_audit_vectors_total{pipeline="demand"}', 0) > 300, what="first round", deadline_s=60)
    assert scraped(port)[WRONG] == 0

    grams = folded([one.with_fields(weight=float(str(one.event["weight"])) * 1_000) for one in deployment.events])
    deployment.copy(0.6, 1.0, lambda place, _: grams[place])
    wait_until(lambda: scraped(port).get(WRONG, 0) > 0, what="the mistake is told", deadline_s=60)
    going_on.process.send_signal(signal.SIGTERM)
    assert going_on.wait() == 1, going_on.errors

    again = deployment.audit("--output", "json")
    assert again.wait() == 1
    told = json.loads(again.output)
    (named,) = told["pipelines"]["demand"]["explanations"]
    assert (named["kind"], named["says"]) == ("unit", "field weight is multiplied by 1000")
    assert 0 < told["pipelines"]["demand"]["wrong"] < told["compared"]
