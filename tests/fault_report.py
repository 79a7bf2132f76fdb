"""What a campaign of faults amounted to: one JSON object and one page of Markdown, from the figures its tests recorded.

A test records figures with the property `figures`; what is counted is added up over all of them, but for the violations of a *control*: a
run without some guard, which must break something. A run without damage proves nothing, so
the report shows how real the faults were beside what they broke.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SUMS = {
    "violations": "violations",
    "schedules": "schedules",
    "kills": "kills",
    "cuts": "cuts",
    "aborted": "aborted_records",
    "catch_ups": "catch_ups",
}
"""What the report adds up, and under which name the tests record it."""

Figures = Mapping[str, Any]


def summary(found: Iterable[tuple[str, str, Figures]]) -> dict[str, Any]:
    """The whole campaign. `found`: test, how it ended, its figures."""
    tests = list(found)
    sums = {name: sum(int(figures.get(recorded, 0)) for _, _, figures in tests) for name, recorded in SUMS.items()}
    sums["violations"] -= sum(int(figures.get("violations", 0)) for _, _, figures in tests if figures.get("control"))
    takeovers = [float(figures["slowest_takeover_s"]) for _, _, figures in tests if "slowest_takeover_s" in figures]
    mutants = {str(figures["mutant"]): int(figures["caught_by"]) for _, _, figures in tests if "caught_by" in figures}
    return {
        **sums,
        "slowest_recovery_s": max(takeovers, default=None),
        "mutants_caught": len(mutants),
        "mutants": mutants,
        "failed": sorted(test for test, ended, _ in tests if ended != "passed"),
        "tests": {test: {"ended": ended, **figures} for test, ended, figures in tests},
    }


def page(told: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = ["# The fault campaign", "", "| figure | value |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {told[name]} |" for name in (*SUMS, "slowest_recovery_s", "mutants_caught")]
    lines += ["", "| weaker protocol | caught by schedule |", "| --- | --- |"]
    lines += [f"| {name} | {schedule} |" for name, schedule in told["mutants"].items()]
    lines += ["", "| test | ended | figures |", "| --- | --- | --- |"]
    for test, figures in told["tests"].items():
        shown = ", ".join(f"{name} {value}" for name, value in figures.items() if name != "ended")
        lines.append(f"| {test} | {figures['ended']} | {shown} |")
    return "\n".join(lines) + "\n"


def caught(found: Iterable[tuple[str, str, Figures]]) -> list[str]:
    """Who was caught, by which schedule and for what, a line each; nothing when no weaker protocol was tried."""
    tried = [figures for _, _, figures in found if "mutant" in figures]
    lines = [
        f"  {figures['mutant']:4} by schedule {figures['caught_by']:3}: {figures['damage']}"
        if "caught_by" in figures
        else f"  {figures['mutant']:4} NOT CAUGHT"
        for figures in tried
    ]
    return ["weaker protocols caught by the simulation:", *lines] if lines else []


def write(folder: Path, found: Iterable[tuple[str, str, Figures]]) -> None:
    """Write `faults.json` and `faults.md` into a folder."""
    told = summary(found)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faults.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (folder / "faults.md").write_text(page(told), encoding="utf-8")
