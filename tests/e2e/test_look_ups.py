"""The demo's second application on a real Kafka and a real Redis: flights scored when they board, by what departures did up to then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.consume.kafka_reader import KafkaReader
from headrace.demo.boarding import app
from headrace.errors import FatalError
from headrace.local_process import wait_until
from headrace.local_stack import Stack
from headrace.publish.kafka_topics import KafkaTopics
from headrace.publish.records import decode_prediction
from headrace.types import TopicPartition
from tests.faults.processes import Journal, WorkerProcess

pytestmark = pytest.mark.stack
APP = ("--app", "headrace.demo.boarding:app")
PARTITIONS = 4
FLIGHTS = 2_000
"""Two days of January and a half."""
RUN_WORKER = ("-m", "headrace", "run", "worker", *APP, "--slot")
SERVICES = Path(__file__).parents[2] / "services"


class Airport:
    """The application on servers of its own."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder, self.journal = folder, Journal(folder / "journal.jsonl")
        self.properties = {"bootstrap.servers": stack.bootstrap}
        self.topics = KafkaTopics(self.properties)
        self.settings = {
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap,
            "HEADRACE_REDIS__URL": stack.redis.url,
            "HEADRACE_WORKER__MAX_BATCH": "200",
            "HEADRACE_WORKER__HTTP_PORT": "0",
        }
        self.workers: list[WorkerProcess] = []

    def headrace(self, *arguments: str) -> str:
        """What a command says that ends well."""
        environment = os.environ | {"PYTHONPATH": str(SERVICES)} | self.settings
        command = [sys.executable, "-m", "headrace", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder, env=environment, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fill(self) -> None:
        """Both sources."""
        for which in ([], ["--boardings"]):
            self.headrace("demo", "load", *which, "--limit", str(FLIGHTS))

    def start(self, slot: int) -> WorkerProcess:
        """Start a worker."""
        worker = WorkerProcess(
            number=len(self.workers), slot=str(slot), folder=self.folder, journal=self.journal, command=RUN_WORKER, settings=self.settings
        )
        self.workers.append(worker)
        return worker

    def wait_scored(self, most: int, *, deadline_s: float) -> None:
        """Wait until so many boardings are done with; the deadline is an error that shows how far things are."""
        try:
            wait_until(lambda: self.committed() >= most, what=f"{most} boardings are scored", deadline_s=deadline_s)
        except FatalError as late:
            words = "\n".join(f"worker {one.number}:\n{one.last_words()}" for one in self.workers)
            raise AssertionError(f"{late}; {self.committed()} are\n{words}") from late

    def committed(self) -> int:
        """How many boardings are done with."""
        topic = app.pipelines[0].source.topic
        names = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        return sum(position.offset for position in self.topics.group_offsets(app.name, names).values() if position)


@pytest.fixture
def airport(own_stack: Callable[..., Stack], run_folder: Path, unique_name: str) -> Iterator[Airport]:
    """The application; its workers end with the test."""
    folder = run_folder / f"airport-{unique_name}"
    folder.mkdir()
    found = Airport(own_stack(brokers=1), folder)
    yield found
    for worker in found.workers:
        worker.kill()


@pytest.mark.timeout(450)
def test_boardings_are_scored_by_what_departures_did(airport: Airport) -> None:
    """2,000 boardings and departures, 2 workers of which one is killed: one prediction each, made of what it says it looked up."""
    airport.headrace("apply", *APP, "--partitions", str(PARTITIONS))
    airport.fill()
    victim, _ = airport.start(0), airport.start(1)
    airport.wait_scored(FLIGHTS // 4, deadline_s=150)
    victim.kill()
    airport.start(0)
    airport.wait_scored(FLIGHTS, deadline_s=200)
    reader = KafkaReader(airport.properties)
    predictions = [decode_prediction(record.value or b"") for record in reader.records(app.pipelines[0].predictions)]
    reader.close()
    assert len({one.id for one in predictions}) == len(predictions) == FLIGHTS
    # The first hours have seen no departure yet; after that the store keeps up with a backlog.
    assert sum(bool(one.ahead) for one in predictions) < FLIGHTS // 20
    assert sum(bool(one.stale) for one in predictions) < FLIGHTS // 4
    assert json.loads(airport.headrace("verify", *APP, "--output", "json"))["violations"] == []
