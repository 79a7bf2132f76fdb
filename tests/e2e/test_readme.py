"""Every command of README.md, taken from its text and run in a fresh folder.

Not run are `make test`, which is what runs the others, and what needs Docker (`test_compose.py` compares it with the local stack).
The packages are those of this run, and so is what numba has compiled: nothing is fetched. Ports are free ones, told by the environment and
by `ARGS`, which the Makefile reads.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.consume.kafka_reader import KafkaReader
from headrace.definition import App
from headrace.errors import HeadraceError
from headrace.local_programs import MissingProgram, jars_folder, java, redis_server
from headrace.local_stack import Stack, free_port
from tests.conftest import missing

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL_DEMO = "--limit 3000 --bad 14"
PREDICTIONS = "flights.late_arrival.predictions.v1"

NOT_RUN = {"make test", "docker compose up"}


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def lines() -> list[tuple[str, str]]:
    """The commands of all shell blocks in order, each with its comment."""
    pairs = (line.partition("#") for block in blocks("sh") for line in block.splitlines() if line.strip())
    return [(command.strip(), comment.strip()) for command, _, comment in pairs]


def inline() -> list[str]:
    """The commands that stand in the text."""
    outside = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`((?:make|headrace|docker) [^`]+)`", outside)


@dataclass
class Desk:
    """A fresh folder with the files of the repository, and the commands that are still running there."""

    folder: Path
    environment: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command as somebody in that folder would; fails unless it exits 0."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert done.returncode == 0, f"{command} exited {done.returncode}:\n{done.stdout[-2_000:]}\n{done.stderr[-2_000:]}"
        return done

    def begin(self, command: str) -> subprocess.Popen[bytes]:
        """Run a command in another terminal."""
        with (self.folder / f"terminal-{len(self.running)}.log").open("wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def wait(self, condition: Callable[[], bool], what: str, deadline_s: float = 90) -> None:
        """Look at a condition until it holds; the deadline names it and shows the terminals."""
        until = time.monotonic() + deadline_s
        while not condition():
            terminals = "\n".join(path.read_text(errors="replace")[-1_500:] for path in sorted(self.folder.glob("terminal-*.log")))
            assert time.monotonic() < until, f"{what}: not so after {deadline_s:g} s\n{terminals}"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Press control-C in every terminal: what serves ends in order."""
        for process in self.running:
            process.send_signal(signal.SIGINT)
        self.wait(lambda: all(process.poll() is not None for process in self.running), "what runs in other terminals ends")
        assert self.running[0].returncode == 0

    def end(self) -> None:
        """End what is still running, by pid."""
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)


@pytest.fixture
def desk(run_folder: Path, unique_name: str) -> Iterator[Desk]:
    """A copy of the repository whose environments are the one of this run, and a stack of its own that is ended whatever happens."""
    folder = run_folder / f"readme-{unique_name}"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for compiled in (ROOT / "services" / "headrace").glob("**/__pycache__/*.nb?"):
        shutil.copy2(compiled, place_for(compiled, folder))
    for environment in (".venv", ".venv-demo"):
        bin_folder = folder / environment / "bin"
        bin_folder.mkdir(parents=True)
        write_program(bin_folder / "python", f'PYTHONPATH="{folder / "services"}" exec "{sys.executable}" "$@"')
        write_program(bin_folder / "headrace", f'exec "{bin_folder / "python"}" -m headrace "$@"')
        (folder / environment / "ready").touch()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    place = Desk(folder=folder, environment={**kept, "PATH": path, "XDG_STATE_HOME": str(folder / "state")})
    yield place
    place.end()
    stack = folder / "state" / "headrace" / "stack"
    if (stack / "stack.json").exists():
        Stack(stack).down()
    shutil.rmtree(folder)


def place_for(compiled: Path, folder: Path) -> Path:
    """Where a compiled file of the repository belongs in its copy."""
    place = folder / compiled.relative_to(ROOT)
    place.parent.mkdir(exist_ok=True)
    return place


def write_program(path: Path, line: str) -> None:
    """A program of one line of shell."""
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


def test_nothing_in_the_readme_goes_untried() -> None:
    """Each command of the README is one that is run here, or named as one that is not."""
    broker = {command for command, _ in lines()} - {"make demo", "make test"}
    assert {"make demo", "make test"} <= {command for command, _ in lines()}
    assert {re.match(r"(make [a-z-]+|headrace [a-z]+)", command)[0] for command in broker} == {  # type: ignore[index]
        *("make stack", "headrace apply", "headrace run", "headrace demo", "headrace tail", "headrace features", "headrace verify"),
        *("headrace training", "headrace state", "make stack-down"),
    }
    assert set(inline()) - NOT_RUN <= {"make demo", "headrace plan", "headrace config show", "headrace verify", "headrace audit"}


def test_the_definitions_are_an_app() -> None:
    """What the README says an engineer writes is an app, and its features have the names that one would expect."""
    (definitions,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(definitions, "README.md", "exec", dont_inherit=True), names)  # noqa: S102 - that is what a reader does with it
    app = names["app"]
    assert isinstance(app, App)
    assert "aircraft.mean_dep_delay_6h" in app.pipelines[0].feature_names


def test_the_demo(desk: Desk) -> None:
    """`make demo` replays flights, here 3,000 of them, and accounts for every record."""
    (command,) = (command for command, _ in lines() if command == "make demo")
    told = desk.run(command, ARGS=SMALL_DEMO).stdout
    assert re.search(r"3,014 records = 3,000 predictions \+ 14 dead letters", told), told[-2_000:]


@pytest.mark.stack
def test_on_a_real_broker(desk: Desk) -> None:
    """The block about a real broker, line by line: stack, topics, worker, load, predictions, and nothing is left running."""
    try:
        java()
        redis_server()
    except MissingProgram as error:
        missing(str(error))
    if not jars_folder().is_dir():
        missing("Apache Kafka's jars are not here; fetch them with: headrace stack fetch")
    kafka, redis = free_port(), free_port()
    desk.environment |= {
        "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{kafka}",
        "HEADRACE_REDIS__URL": f"redis://127.0.0.1:{redis}/0",
        "HEADRACE_WORKER__HTTP_PORT": "0",
    }
    block = [(command, comment) for command, comment in lines() if command not in {"make demo", "make test"}]
    for command, comment in block:
        if re.search(r"\bin (one|another)\b", comment):
            desk.begin(command)
        elif command == "make stack":
            desk.run(command, ARGS=f"--kafka-port {kafka} --redis-port {redis}")
        elif command.startswith("headrace tail"):
            desk.wait(lambda: predicted(f"127.0.0.1:{kafka}") >= 5, "five predictions are there")
            told = desk.run(command).stdout
            assert len(told.strip().splitlines()) >= 5
            desk.interrupt()
        else:
            desk.run(command)
    assert "HEADRACE_KAFKA__BOOTSTRAP_SERVERS" in desk.run("headrace config show").stdout
    assert not list(desk.folder.glob("state/**/stack.json"))


def predicted(address: str) -> int:
    """How many predictions a reader sees; none while there is no topic."""
    reader = KafkaReader({"bootstrap.servers": address})
    try:
        return sum(reader.log_range(partition).end for partition in reader.partitions(PREDICTIONS))
    except HeadraceError:
        return 0
    finally:
        reader.close()
