"""What every test may rely on: a scrubbed environment, seeds that are printed, no sockets but this machine's, and real servers.

Servers are started on first use, once a run (also under xdist), on free ports of 127.0.0.1, with their state in the folder of the run,
and ended by pid when the run ends, whatever its outcome. With `CI=true` a server that cannot be had is a failure, elsewhere a visible skip.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from headrace.local_process import LocalProcess
from headrace.local_programs import MissingProgram, jars_folder, java, redis_server
from headrace.local_stack import KafkaServer, RedisServer, Stack
from tests import fault_report

KEPT = {"CI", "HOME", "JAVA_HOME", "LANG", "NUMBA_CACHE_DIR", "PATH", "TMPDIR", "USER", "VIRTUAL_ENV", "XDG_CACHE_HOME"}
KEPT_PREFIXES = ("HYPOTHESIS_", "LC_", "PYTEST_", "PYTHON")
WITHOUT_SOCKETS = ("unit", "laws", "simulation", "fuzz")
RUN_FOLDER = "headrace-tests-"

ON_CI = os.environ.get("CI") == "true"

hypothesis.settings.register_profile("headrace", deadline=None, print_blob=True, database=None)
hypothesis.settings.load_profile("headrace")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --seed, --fault-report and --fuzz-seconds."""
    parser.addoption("--fuzz-seconds", type=int, default=120, help="how long T52 fuzzes (before a release: 600)")
    parser.addoption("--fault-report", type=Path, default=None, help="write faults.json and faults.md into this folder")
    parser.addoption("--seed", type=int, default=None, help="the seed of every random test, as printed by the run to be repeated")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed, make the run's folder and scrub the environment, before any test module is imported."""
    given = getattr(config, "workerinput", None)  # in a process that xdist started
    if given is not None:
        config.option.seed, config.option.run_folder = given["seed"], given["run_folder"]
    else:
        _end_what_is_left_of_dead_runs()
        config.option.run_folder = tempfile.mkdtemp(prefix=f"{RUN_FOLDER}{os.getpid()}-")
        if config.option.seed is None:
            config.option.seed = random.SystemRandom().randrange(1 << 31)
    config.option.hypothesis_seed = str(config.option.seed)
    for name in set(os.environ) - KEPT:
        if not name.startswith(KEPT_PREFIXES):
            del os.environ[name]
    # Nothing of the user's is read or touched, and a zone of +05:45 shows where local time slipped in.
    os.environ["XDG_STATE_HOME"] = os.environ["XDG_CONFIG_HOME"] = config.option.run_folder
    os.environ["TZ"] = "Asia/Kathmandu"
    time.tzset()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of xdist the seed and the folder of the run."""
    node.workerinput.update(seed=node.config.option.seed, run_folder=node.config.option.run_folder)


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to run the same again."""
    return f"seed: {config.option.seed} (the same again: --seed {config.option.seed})"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show what tests of faults have measured: how real the faults were."""
    reports = [(report, ended) for ended in ("passed", "failed") for report in terminalreporter.getreports(ended) if report.when == "call"]
    found = [
        (report.nodeid.rpartition("/")[2], ended, figures)
        for report, ended in reports
        for name, figures in report.user_properties
        if name == "figures"
    ]
    for test, _, figures in found:
        if "mutant" not in figures:
            terminalreporter.write_line(f"{test}: {'  '.join(f'{figure} {value}' for figure, value in figures.items())}")
    for line in fault_report.caught(found):
        terminalreporter.write_line(line)
    if config.option.fault_report is not None:
        fault_report.write(config.option.fault_report, found)
        terminalreporter.write_line(f"written to {config.option.fault_report}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End every server of the run."""
    if not hasattr(config, "workerinput"):
        _end_run(Path(config.option.run_folder))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the inner layers open no socket at all."""
    for test in items:
        if test.path.relative_to(config.rootpath / "tests").parts[0] in WITHOUT_SOCKETS:
            test.add_marker(pytest.mark.usefixtures("socket_disabled"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """This test's own seed: another one in each run, the same again with --seed."""
    return zlib.crc32(f"{request.config.option.seed} {request.node.nodeid}".encode())


@pytest.fixture
def unique_name() -> str:
    """A name nothing else on a shared server has."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def run_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of the run, shared by all its processes; what stands in it as a stack is ended when the run ends."""
    return Path(request.config.option.run_folder)


@pytest.fixture(scope="session")
def kafka(run_folder: Path) -> KafkaServer:
    """A real Apache Kafka, one broker, shared by the run: use random topics and groups, and never hurt it."""
    return _up(run_folder / "kafka", brokers=1, redis=False).kafka[0]


@pytest.fixture(scope="session")
def redis(run_folder: Path) -> RedisServer:
    """A real Redis-protocol server, shared by the run: use random names, never flush it and never hurt it."""
    return _up(run_folder / "redis", brokers=0).redis


@pytest.fixture
def own_stack(run_folder: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks of the test's own, to be hurt; takes the arguments of `Stack.up` after the folder."""
    stacks: list[Stack] = []

    def make(**wishes: Any) -> Stack:
        stack = _up(run_folder / f"own-{uuid.uuid4().hex[:8]}", **wishes)
        stacks.append(stack)
        return stack

    yield make
    for stack in stacks:
        stack.down()


def missing(what: str) -> None:
    """Give up a test for want of a server or tool: a failure with CI=true, elsewhere a skip that says what to install."""
    if ON_CI:
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def _up(folder: Path, **wishes: Any) -> Stack:
    try:
        if wishes.get("brokers", 1):
            java()
            if not jars_folder().is_dir():
                missing("Apache Kafka's jars are not here; fetch them with: headrace stack fetch")
        if wishes.get("redis", True) and not wishes.get("redis_program"):
            redis_server()
    except MissingProgram as error:
        missing(str(error))
    stack = Stack.up(folder, **wishes)
    for server in stack.servers:
        assert server.ready(), f"who listens on {server.address} is not the server this run started"
    return stack


def _end_run(folder: Path) -> None:
    for worker in folder.glob("*/worker-*.json"):
        LocalProcess(worker).kill()
    for stack in list(folder.glob("**/stack.json")):
        Stack(stack.parent).down()
    shutil.rmtree(folder, ignore_errors=True)


def _end_what_is_left_of_dead_runs() -> None:
    """A run that was killed could not clean up; the next one does, by the pids that its servers wrote down."""
    for folder in Path(tempfile.gettempdir()).glob(f"{RUN_FOLDER}*"):
        pid = folder.name.removeprefix(RUN_FOLDER).partition("-")[0]
        if folder.stat().st_uid == os.getuid() and not _alive(int(pid)):
            _end_run(folder)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
