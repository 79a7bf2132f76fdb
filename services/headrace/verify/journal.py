"""I7 to I9, from the journal of a test run: JSON lines, each with `what` happened and to which `worker`.

| what | and | means |
| --- | --- | --- |
| start | log | a worker was started; what it says stands in that file |
| fault | signal | the test sent a signal |
| ending | | the test did something else that is bound to end it |
| moment | moment | what the worker was doing when it was killed |
| memory | peak_mb | its resident memory |
| exit | code, peak_mb | it is gone |
| canary | secret | a secret that must stand in no log |

I7: no worker takes more than 500 MB, and none ends that the test did not end. I8: no log holds a canary. I9: the faults were real: results
were aborted by at least half of the kills in mid-batch, and workers caught up. How long takeovers take, the test measures itself. Other
lines are passed over; what the journal has no lines for is *not checked*.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import FatalError
from headrace.verify.findings import Findings, Incident, Kind

MOST_MB = 500
MID_BATCH = "between its results and their commit"
"""The moment of a kill that leaves results to be aborted."""
CATCH_UP = "partition catches up"
"""What a worker says when the store was behind the committed offset."""
_ENDING_SIGNALS = frozenset({"SIGKILL", "SIGTERM", "SIGINT"})


@dataclass(slots=True, kw_only=True)
class _Told:
    """What a journal tells."""

    asked: set[str] = field(default_factory=set)
    """Workers that the test ends."""
    kills: int = 0
    mid_batch: int = 0
    moments: dict[str, str] = field(default_factory=dict)
    memory: int = 0
    exits: int = 0
    logs: dict[str, str] = field(default_factory=dict)
    canaries: list[str] = field(default_factory=list)


def check_journal(lines: Iterable[str], findings: Findings, aborted: Callable[[], int]) -> None:
    """Judge a run by its journal; `aborted` counts the results that `read_uncommitted` sees and `read_committed` does not.

    Raises `FatalError` for a line that is no JSON object.
    """
    findings.witnessed |= {"I7", "I8", "I9"}
    told, too_much = _Told(), Counter[str]()
    for number, line in enumerate(lines, 1):
        said = _parsed(line, number)
        worker = f"worker {said.get('worker')}"
        _note(told, worker, said)
        peak_mb = said.get("peak_mb")
        if peak_mb:
            told.memory += 1
            too_much[worker] = max(too_much[worker], int(peak_mb))
        if said.get("what") == "exit":
            told.exits += 1
            if worker not in told.asked:
                _add(findings, Kind.EXIT, worker, "no exit that the test did not cause", f"exit code {said.get('code')} (line {number})")
    for worker, peak_mb in too_much.items():
        if peak_mb >= MOST_MB:
            _add(findings, Kind.MEMORY, worker, f"less than {MOST_MB} MB", f"{peak_mb} MB")
    if not told.memory or not told.exits:
        findings.not_checked["I7"] = f"the journal tells of no {'exit' if told.memory else 'memory'}"
    findings.checked["workers"] += len(told.logs)
    catch_ups = _check_logs(told, findings)
    _check_faults(told, findings, aborted, catch_ups)


def _parsed(line: str, number: int) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise FatalError(f"--journal: line {number} is no JSON object")
    return said


def _note(told: _Told, worker: str, said: dict[str, Any]) -> None:
    """Take in one line."""
    match said.get("what"):
        case "start" if said.get("log"):
            told.logs[worker] = str(said["log"])
        case "ending":
            told.asked.add(worker)
        case "moment":
            told.moments[worker] = str(said.get("moment"))
        case "fault" if said.get("signal") in _ENDING_SIGNALS:
            told.asked.add(worker)
            told.kills += said["signal"] == "SIGKILL"
            told.mid_batch += said["signal"] == "SIGKILL" and told.moments.get(worker) == MID_BATCH
        case "canary":
            told.canaries.append(str(said["secret"]))
        case _:
            pass


def _check_logs(told: _Told, findings: Findings) -> int | None:
    """I8; and how often workers caught up, None where that cannot be known."""
    if not told.logs or not told.canaries:
        findings.not_checked["I8"] = f"the journal names no {'canary' if told.logs else 'log'}"
    catch_ups = 0
    gone = []
    for worker, name in told.logs.items():
        try:
            with Path(name).open(encoding="utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, 1):
                    catch_ups += f'"{CATCH_UP}"' in line
                    if any(canary in line for canary in told.canaries):
                        _add(findings, Kind.SECRET, worker, "no secret in its log", f"one in {name}, line {number}")
        except OSError:
            gone.append(name)
    if gone:
        findings.not_checked["I8"] = f"no log at {gone[0]}"
    return None if gone or not told.logs else catch_ups


def _check_faults(told: _Told, findings: Findings, aborted: Callable[[], int], catch_ups: int | None) -> None:
    """I9."""
    if not told.kills:
        findings.not_checked["I9"] = "the journal tells of no kill"
        return
    records = aborted()
    if 2 * records < told.mid_batch:
        _add(
            findings,
            Kind.HARMLESS,
            "the faults",
            f"at least half as many aborted results as the {told.mid_batch} kills in mid-batch",
            str(records),
        )
    if catch_ups is None:
        findings.not_checked["I9"] = "without all logs nobody knows how often workers caught up"
    elif not catch_ups:
        _add(findings, Kind.HARMLESS, "the faults", f"catch-ups after {told.kills} kills", "none")


def _add(findings: Findings, kind: Kind, who: str, expected: str, found: str) -> None:
    findings.add_incident(Incident(kind=kind, who=who, expected=expected, found=found))
