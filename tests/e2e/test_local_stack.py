from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.errors import FatalError
from headrace.local_process import LocalProcess, wait_until
from headrace.local_stack import KafkaServer, RedisServer, Stack, free_port

Make = Callable[..., Stack]


def test_kafka_and_redis_answer_as_the_servers_that_were_started(kafka: KafkaServer, redis: RedisServer) -> None:
    """Both shared servers run, answer, and prove by cluster id and pid that they are the run's own."""
    assert kafka.ready()
    assert redis.ready()


def test_up_is_idempotent_and_down_removes_the_folder(own_stack: Make, run_folder: Path) -> None:
    """A second up starts nothing, another view finds the same servers, and down leaves neither process nor folder."""
    stack = own_stack(brokers=0)
    pid = stack.redis.pid
    assert Stack.up(stack.folder, brokers=0).redis.pid == pid
    again = Stack(stack.folder)
    assert again.redis.url == stack.redis.url
    other = Stack.up(run_folder / "short-lived", brokers=0)
    assert [server.name for server in other.down()] == ["redis"]
    assert not other.folder.exists()
    assert stack.redis.pid == pid


def test_up_refuses_another_number_of_brokers(own_stack: Make) -> None:
    """A stack keeps its size; asking for another one names the command that helps."""
    stack = own_stack(brokers=0)
    with pytest.raises(FatalError, match="headrace stack down"):
        Stack.up(stack.folder, brokers=1)


def test_a_taken_port_is_named_and_nothing_stays_behind(run_folder: Path) -> None:
    """When somebody else listens on the port, up says which one and leaves no process."""
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        folder = run_folder / "taken"
        with pytest.raises(FatalError, match=f"port {port} for redis is taken"):
            Stack.up(folder, brokers=0, redis_port=port)
        assert Stack(folder).redis.pid is None


def test_a_server_that_ends_while_starting_shows_its_log(run_folder: Path) -> None:
    """A setting the server refuses appears in the error, from the server's own log."""
    with pytest.raises(FatalError, match="no-such-setting"):
        Stack.up(run_folder / "refused", brokers=0, redis_settings={"no-such-setting": "1"})


def test_servers_can_be_killed_frozen_and_started_again(own_stack: Make) -> None:
    """Redis keeps its port and its data through kill -9 and a clean stop; frozen it answers nothing until it goes on."""
    redis = own_stack(brokers=0).redis
    port = redis.port
    assert ask(port, "SET k v") == "+OK"
    assert redis.stop()
    assert not redis.stop()
    redis.start()
    redis.wait_ready()
    assert (redis.port, ask(port, "GET k")) == (port, "$1")
    assert redis.kill()
    redis.start()
    redis.wait_ready()
    redis.pause()
    assert redis.pid is not None
    assert not redis.ready()
    redis.resume()
    redis.wait_ready()


@pytest.mark.stack
def test_kafka_comes_back_after_kill_with_the_same_cluster(own_stack: Make) -> None:
    """A broker that is killed and started again has its port, log and cluster id."""
    broker = own_stack(redis=False).kafka[0]
    before = broker.pid
    assert broker.kill()
    assert broker.pid is None
    broker.start()
    broker.wait_ready()
    assert broker.pid != before


def test_a_program_that_ends_at_once_does_not_count_as_running(tmp_path: Path) -> None:
    """A program may be over before its start time is read; it was never a running one then."""
    true = shutil.which("true")
    assert true is not None
    for attempt in range(20):
        process = LocalProcess(tmp_path / f"{attempt}.json")
        process.start([true], environment={}, output=tmp_path / "out")
        wait_until(lambda: process.pid is None, what="the program is over", deadline_s=10)  # noqa: B023 - it ends before the next turn


def test_a_pid_that_now_belongs_to_another_program_is_never_signalled(tmp_path: Path) -> None:
    """A process counts as ours only while its start time agrees with what was written down."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    record = tmp_path / "process.json"
    process = LocalProcess(record)
    pid = process.start([sleep, "300"], environment={}, output=tmp_path / "out")
    try:
        assert process.pid == pid
        known = json.loads(record.read_text())
        record.write_text(json.dumps(known | {"started": "another time"}))
        assert not process.kill()
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGKILL)


def ask(port: int, command: str) -> str:
    """The first line of the answer to an inline command."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, connection.makefile("rb") as answer:
        connection.sendall(f"{command}\r\n".encode())
        return str(answer.readline().decode().strip())
