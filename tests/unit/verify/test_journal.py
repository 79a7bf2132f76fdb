"""I7 to I9: each thing that is wrong in a journal is named, with nothing else, and what it does not tell is not checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import FatalError
from headrace.verify.findings import WITNESSED, Findings, Kind
from headrace.verify.journal import CATCH_UP, MID_BATCH, check_journal

Lines = list[dict[str, Any]]


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """A sound run: a worker killed in mid-batch, its successor stopped, a third that ended because its slot was taken."""
    for number in range(3):
        said = {"event": CATCH_UP if number == 1 else "worker starts"}
        (tmp_path / f"worker-{number}.log").write_text(json.dumps(said) + "\n", encoding="utf-8")
    logs = [str(tmp_path / f"worker-{number}.log") for number in range(3)]
    return [
        {"what": "canary", "secret": "hush-1234"},
        *({"what": "start", "worker": number, "pid": 100 + number, "log": log} for number, log in enumerate(logs)),
        {"what": "moment", "worker": 0, "moment": MID_BATCH},
        {"what": "fault", "worker": 0, "signal": "SIGKILL"},
        {"what": "exit", "worker": 0, "code": -9, "peak_mb": 210.5},
        {"what": "memory", "worker": 1, "peak_mb": 320},
        {"what": "something else", "worker": 1},
        {"what": "ending", "worker": 2},
        {"what": "exit", "worker": 2, "code": 1, "peak_mb": 180},
        {"what": "fault", "worker": 1, "signal": "SIGTERM"},
        {"what": "exit", "worker": 1, "code": 0, "peak_mb": 250},
    ]


def judged(lines: Sequence[dict[str, Any]], aborted: int = 3) -> Findings:
    """The findings about a journal."""
    findings = Findings()
    check_journal([json.dumps(line) + "\n" for line in lines], findings, lambda: aborted)
    return findings


def only(findings: Findings) -> tuple[Kind, str, str]:
    """The only incident."""
    (one,) = findings.incidents
    assert findings.counts.total() == 1
    assert not findings.sound()
    (broken,) = [name for name in WITNESSED if findings.verdict(name) == "violated"]
    assert one.kind in WITNESSED[broken][1]
    return one.kind, one.who, one.found


def test_a_sound_run_passes(lines: Lines) -> None:
    """All three are checked; what a reader saw is not, as there is none."""
    findings = judged(lines)
    assert [one.text() for one in findings.incidents] == []
    assert {name: findings.verdict(name) for name in WITNESSED} == {"I1+": "not checked", "I7": "passed", "I8": "passed", "I9": "passed"}
    assert findings.checked["workers"] == 3


def test_a_worker_that_takes_too_much(lines: Lines) -> None:
    """The largest figure of a worker counts, wherever it stands, and is named once."""
    lines[7]["peak_mb"] = 512
    assert only(judged(lines)) == (Kind.MEMORY, "worker 1", "512 MB")


def test_an_exit_that_nobody_caused(lines: Lines) -> None:
    """An end without a fault before it, or with one that ends nothing, or with one for somebody else."""
    without = [line for line in lines if line["what"] != "ending"]
    assert only(judged(without)) == (Kind.EXIT, "worker 2", "exit code 1 (line 10)")
    frozen = [{**line, "signal": "SIGSTOP"} if line.get("signal") == "SIGTERM" else line for line in lines]
    assert only(judged(frozen))[:2] == (Kind.EXIT, "worker 1")
    late = [*lines[:-2], lines[-1], lines[-2]]
    assert only(judged(late))[:2] == (Kind.EXIT, "worker 1")


def test_a_secret_in_a_log(lines: Lines) -> None:
    """File and line are named, the secret is not."""
    name = lines[2]["log"]
    Path(name).write_text(f'{{"event": "{CATCH_UP}"}}\n{{"event": "password hush-1234 refused"}}\n', encoding="utf-8")
    kind, who, found = only(judged(lines))
    assert (kind, who, found) == (Kind.SECRET, "worker 1", f"one in {name}, line 2")


def test_faults_that_did_nothing(lines: Lines) -> None:
    """Too few aborted results for the kills in mid-batch, or nobody who caught up."""
    assert only(judged(lines, aborted=0))[:2] == (Kind.HARMLESS, "the faults")
    Path(lines[2]["log"]).write_text('{"event": "worker starts"}\n', encoding="utf-8")
    assert only(judged(lines)) == (Kind.HARMLESS, "the faults", "none")


def test_what_the_journal_does_not_tell_is_not_checked(lines: Lines) -> None:
    """Without memory, exits, canaries, logs or kills nothing is passed."""
    assert judged([]).verdict("I7") == judged([]).verdict("I8") == judged([]).verdict("I9") == "not checked"
    no_memory = [{name: value for name, value in line.items() if name != "peak_mb"} for line in lines]
    assert judged(no_memory).verdict("I7") == "not checked"
    assert judged(lines[1:]).verdict("I8") == "not checked"
    Path(lines[1]["log"]).unlink()
    gone = judged(lines)
    assert gone.verdict("I8") == gone.verdict("I9") == "not checked"
    assert gone.verdict("I7") == "passed"


def test_a_line_that_is_no_json_is_named(lines: Lines) -> None:
    """The line's number is said."""
    with pytest.raises(FatalError, match="line 2 "):
        check_journal([json.dumps(lines[0]), "[]"], Findings(), lambda: 0)
