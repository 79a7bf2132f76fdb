"""The command line as a person meets it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from headrace.cli import COMMANDS, with_one_line
from headrace.errors import SettingsError
from headrace.local_stack import Stack, free_port

SERVICES = Path(__file__).resolve().parents[2] / "services"

HELP_AND_WHAT_IT_LOADED = """
import sys
from headrace.cli import app
sys.argv = ["headrace", "--help"]
try:
    app()
finally:
    print(" ".join(sys.modules))
"""


def headrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for it."""
    return run_python("-m", "headrace", *arguments)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the package on its path and wait for it."""
    environment = os.environ | {"PYTHONPATH": str(SERVICES)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment)


def test_help_names_every_command_and_loads_none_of_them() -> None:
    """`headrace --help` lists the commands without importing the engine or a client library."""
    told = run_python("-c", HELP_AND_WHAT_IT_LOADED)
    assert told.returncode == 0, told.stderr
    listing, _, modules = told.stdout.rstrip().rpartition("\n")
    assert [name for name in COMMANDS if f"\n  {name} " not in listing] == []
    heavy = {"numpy", "numba", "confluent_kafka", "redis", "onnxruntime", "prometheus_client", "headrace.cli.stack", "headrace.definition"}
    assert heavy & set(modules.split()) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str) -> None:
    """Each command has a help page of its own, under its own name."""
    told = headrace(command, "--help")
    assert told.returncode == 0, told.stderr
    assert f"Usage: headrace {command}" in told.stdout


def test_an_error_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """An error raised on purpose shows its text and the way out; the place in the code only with --debug."""
    refused = headrace("stack", "status", "--folder", str(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr == f"headrace: no stack in {tmp_path}; start one with `headrace stack up`\n"
    debugged = headrace("--debug", "stack", "status", "--folder", str(tmp_path))
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


def test_a_wrong_argument_shows_the_usage() -> None:
    """What cannot be understood ends with exit code 2 and names the argument."""
    refused = headrace("stack", "up", "--brokers", "2")
    assert refused.returncode == 2
    assert "--brokers" in refused.stderr


@pytest.mark.parametrize(
    ("library", "package"),
    [("fastapi", "headrace[http]"), ("faust", "headrace[control]"), ("pyarrow", "headrace[training]"), ("rich", "rich")],
)
def test_a_library_that_is_not_installed_is_named_with_its_package(library: str, package: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing library becomes a line that says what to install."""

    def call() -> None:
        raise ModuleNotFoundError(f"No module named {library!r}", name=f"{library}.part")

    with pytest.raises(typer.Exit) as ended:
        with_one_line(call, debug=False)
    assert ended.value.exit_code == 1
    assert f"pip install '{package}'" in capsys.readouterr().err


def test_a_defect_of_ours_is_not_hidden() -> None:
    """A module of headrace that is missing, or any error nobody raised on purpose, shows itself whole."""

    def call() -> None:
        raise ModuleNotFoundError("No module named 'headrace.nowhere'", name="headrace.nowhere")

    with pytest.raises(ModuleNotFoundError):
        with_one_line(call, debug=False)


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    """A secret in the text of an error, or in the traceback of a defect, is cut out of what the command shows."""
    (tmp_path / "spilling.py").write_text("raise RuntimeError('canary in a defect')\n", encoding="utf-8")
    environment = {"HEADRACE_REDIS__PASSWORD": "canary", "PYTHONPATH": os.pathsep.join((str(SERVICES), str(tmp_path)))}
    command = [sys.executable, "-m", "headrace", "run", "worker", "--app", "spilling:app"]
    spilt = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert spilt.returncode == 1
    assert "RuntimeError: *** in a defect" in spilt.stderr
    assert "canary" not in spilt.stderr


def test_debug_lets_the_error_through() -> None:
    """With --debug the error itself comes out."""

    def call() -> None:
        raise SettingsError("wrong")

    with pytest.raises(SettingsError):
        with_one_line(call, debug=True)


@pytest.mark.stack
def test_a_stack_comes_up_is_found_again_and_goes_down(tmp_path: Path) -> None:
    """`stack up` twice starts once, `status` agrees, `down` leaves nothing."""
    folder, ports = tmp_path / "stack", [str(free_port()), str(free_port())]
    up = ["stack", "up", "--kafka-port", ports[0], "--redis-port", ports[1], "--folder", str(folder), "--output", "json"]
    try:
        first, second = headrace(*up), headrace(*up)
        assert first.returncode == second.returncode == 0, first.stderr + second.stderr
        assert json.loads(first.stdout) == json.loads(second.stdout)
        assert "starting" not in second.stderr
        told = json.loads(first.stdout)
        assert told["environment"] == {
            "HEADRACE_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{ports[0]}",
            "HEADRACE_REDIS__URL": f"redis://127.0.0.1:{ports[1]}/0",
        }
        status = headrace("stack", "status", "--folder", str(folder))
        assert status.returncode == 0
        assert status.stdout.count("ready") == 2
        Stack(folder).redis.kill()
        assert headrace("stack", "status", "--folder", str(folder)).returncode == 1
    finally:
        ended = headrace("stack", "down", "--folder", str(folder))
    assert ended.stdout == f"ended kafka-1; removed {folder}\n"
    assert not folder.exists()
    assert headrace("stack", "down", "--folder", str(folder)).stdout == f"no stack in {folder}\n"
