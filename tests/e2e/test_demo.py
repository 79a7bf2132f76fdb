"""`headrace demo` as a user runs it: in a pipe, as JSON, and into a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from headrace.demo.events import read_departures
from headrace.local_stack import KafkaServer
from headrace.partitioner import partition_of
from headrace.publish.kafka_topics import KafkaTopics, TopicWish

SERVICES = Path(__file__).parents[2] / "services"


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `headrace demo` with these arguments in an empty folder."""
    command = [sys.executable, "-m", "headrace", "demo", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SERVICES)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=120)


def test_as_json_stdout_is_the_report_and_nothing_else(tmp_path: Path) -> None:
    """The report of 1,500 departures and 200 bad records parses, balances, and names a reason for every bad kind."""
    done = demo(tmp_path, "--limit", "1500", "--output", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["records"], report["predictions"], sum(report["dead_letters"].values())) == (True, 1_700, 1_500, 200)
    assert len(report["planted"]) >= 8
    assert all(kind["became"] == {kind["expected"]: kind["planted"]} for kind in report["planted"])
    assert report["judged"] is None
    assert "First prediction" in done.stderr


def test_in_a_pipe_there_are_no_control_characters(tmp_path: Path) -> None:
    """Text for people goes to stdout as plain lines."""
    done = demo(tmp_path, "--limit", "300", "--bad", "14")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not [letter for letter in done.stdout if ord(letter) < 32 and letter != "\n"]
    assert "314 records = 300 predictions + 14 dead letters; 0 late" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["load", "--speed", "60", "--rate", "5"], "--speed or --rate, not both"), (["--bad", "-1"], "--bad")],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    """Exit code 2, the option named, no traceback."""
    done = demo(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_load_puts_every_record_on_the_broker_in_order(tmp_path: Path, kafka: KafkaServer, unique_name: str) -> None:
    """400 departures and 13 bad records arrive once each, in order of their key, with the event time as timestamp."""
    properties = {"bootstrap.servers": kafka.address}
    KafkaTopics(properties).create([TopicWish(name=unique_name, partitions=3, settings={"retention.ms": "-1"})])
    done = demo(tmp_path, "load", "--limit", "400", "--bad", "13", "--topic", unique_name, "--bootstrap", kafka.address)
    assert done.returncode == 0, done.stderr
    assert "413 of 413 records" in done.stdout
    departures = read_departures(limit=400)
    rows = {value: row for row, value in enumerate(departures.values)}
    consumer = Consumer({**properties, "group.id": unique_name, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    consumer.assign([KafkaPartition(unique_name, number, 0) for number in range(3)])
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    others = 0
    while sum(map(len, seen.values())) + others < 413:
        message = consumer.poll(20.0)
        assert message is not None, f"only {sum(map(len, seen.values())) + others} of 413 records arrived"
        row = rows.get(message.value() or b"")
        key = message.key()
        if row is None or key != departures.keys[row] or message.headers():
            others += 1
            continue
        assert message.timestamp()[1] == departures.departed_ms[row]
        assert message.partition() == partition_of(departures.keys[row], 3)
        seen[message.partition() or 0].append(row)
    consumer.close()
    assert others == 13
    assert all(order == sorted(order) for order in seen.values())
    assert sorted(row for order in seen.values() for row in order) == list(range(400))


def test_load_without_a_broker_ends_with_one_line(tmp_path: Path) -> None:
    """A broker that is not there is said in one line, not in a traceback."""
    done = demo(tmp_path, "load", "--limit", "10", "--bootstrap", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("headrace: ")
    assert len(done.stderr.strip().splitlines()) == 1
