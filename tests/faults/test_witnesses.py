"""`headrace verify --seen --journal`, as a user calls it: a reader's file and the journal of a run, whole and damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import Make, Moment, Trial
from tests.faults.processes import KEPT, ROOT

pytestmark = pytest.mark.stack

CANARY = "canary-7f3a"


def environment(run: Trial) -> dict[str, str]:
    """What the command line is to know."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "services", ROOT)))} | run.settings


@pytest.fixture
def readers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ended whatever happens."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for one in started:
        one.kill()
        one.wait(timeout=20)


def follow(run: Trial, topic: str, path: Path) -> subprocess.Popen[bytes]:
    """Write down what a reader is given."""
    with path.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "headrace", "tail", topic, "--follow", "--from-beginning", "--output", "json"],
            cwd=run.folder,
            env=environment(run),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def verify(run: Trial, seen: Sequence[Path]) -> tuple[int, dict[str, Any]]:
    """Exit code and findings."""
    files = [argument for path in seen for argument in ("--seen", str(path))]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "headrace",
            "verify",
            "--app",
            "started:app",
            "--output",
            "json",
            "--journal",
            str(run.journal.path),
            *files,
        ],
        cwd=run.folder,
        env=environment(run),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def lines_of(paths: Sequence[Path]) -> int:
    """How many records the readers were given so far."""
    return sum(path.read_bytes().count(b"\n") for path in paths)


def test_a_reader_and_a_journal_are_heard(trial: Make, readers: list[subprocess.Popen[bytes]]) -> None:
    """Two kills under the eyes of `headrace tail`: all ten invariants pass; a line less and a secret in a log are named."""
    run = trial()
    run.prepare()
    run.journal.note("canary", secret=CANARY)
    topics = [run.app.dead_letters, *(pipeline.predictions for pipeline in run.app.pipelines)]
    seen = [run.folder / f"{topic}.jsonl" for topic in topics]
    readers += [follow(run, topic, path) for topic, path in zip(topics, seen, strict=True)]
    loader = run.load(run.records(3_000), pace=lambda sent: 0 if sent < 2_000 else 150)
    run.start(0)
    for progress, moment in ((300, Moment.IN_TRANSACTION), (900, Moment.BEFORE_STORE)):
        run.wait_passed(progress)
        run.kill(run.wait_victim(), moment)
        run.start(0)
    loader.hurry()
    run.wait_drained()
    run.verdict()
    run.wait(lambda: lines_of(seen) >= run.seen.count, "the readers have seen all results")
    for reader in readers:
        reader.send_signal(signal.SIGINT)
        assert reader.wait(timeout=20) == 0

    code, told = verify(run, seen)
    assert told["not_checked"] == {}
    assert set(told["invariants"].values()) == {"passed"}, told
    assert (code, len(told["invariants"])) == (0, 10)

    lines = seen[1].read_text(encoding="utf-8").splitlines(keepends=True)
    gone = json.loads(lines.pop(1_000))
    seen[1].write_text("".join(lines), encoding="utf-8")
    with run.workers[0].log.open("a", encoding="utf-8") as log:
        log.write(f"password {CANARY}\n")
    code, told = verify(run, seen)
    assert (code, told["counts"]) == (1, {"unseen": 1, "secret": 1})
    assert [(one["topic"], one["partition"], one["offset"]) for one in told["violations"]] == [
        (gone["topic"], gone["partition"], gone["offset"])
    ]
    assert [one["who"] for one in told["incidents"]] == ["worker 0"]
    assert CANARY not in json.dumps(told)
