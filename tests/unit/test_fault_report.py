"""The report of a campaign of faults."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fault_report import Figures, caught, write

FOUND: list[tuple[str, str, Figures]] = [
    ("test_a", "passed", {"kills": 5, "aborted_records": 7, "catch_ups": 2, "slowest_takeover_s": 3.5, "violations": 0}),
    ("test_b", "failed", {"kills": 1, "cuts": 4, "slowest_takeover_s": 9.25, "violations": 3}),
    ("test_c[V5]", "passed", {"mutant": "V5", "caught_by": 17}),
    ("test_d", "passed", {"schedules": 2_000}),
    ("test_e", "passed", {"violations": 50, "control": True}),
]


def test_the_report_adds_up_what_the_tests_recorded(tmp_path: Path) -> None:
    """Sums over all tests, the slowest recovery, who caught what, and which tests failed."""
    write(tmp_path, FOUND)
    told = json.loads((tmp_path / "faults.json").read_text(encoding="utf-8"))
    assert {name: told[name] for name in ("violations", "schedules", "kills", "cuts", "aborted", "catch_ups")} == {
        "violations": 3,
        "schedules": 2_000,
        "kills": 6,
        "cuts": 4,
        "aborted": 7,
        "catch_ups": 2,
    }
    assert (told["slowest_recovery_s"], told["mutants_caught"], told["mutants"], told["failed"]) == (9.25, 1, {"V5": 17}, ["test_b"])


def test_the_page_shows_every_test(tmp_path: Path) -> None:
    """One line a test, with how it ended and its figures."""
    write(tmp_path, FOUND)
    lines = (tmp_path / "faults.md").read_text(encoding="utf-8").splitlines()
    assert "| test_b | failed | kills 1, cuts 4, slowest_takeover_s 9.25, violations 3 |" in lines
    assert "| V5 | 17 |" in lines
    assert "| violations | 3 |" in lines


def test_the_table_of_weaker_protocols_shows_who_got_away() -> None:
    """One line each, in the order in which they were tried, and none when none was."""
    tried: list[tuple[str, str, Figures]] = [
        ("test_c[V5]", "passed", {"mutant": "V5", "caught_by": 17, "damage": "lost"}),
        ("test_c[V6]", "failed", {"mutant": "V6"}),
    ]
    assert caught([*FOUND[:2], *tried])[1:] == ["  V5   by schedule  17: lost", "  V6   NOT CAUGHT"]
    assert caught(FOUND[:2]) == []


def test_a_campaign_without_kills_says_so(tmp_path: Path) -> None:
    """Nothing recorded is zero, and no recovery is none."""
    write(tmp_path, [])
    told = json.loads((tmp_path / "faults.json").read_text(encoding="utf-8"))
    assert (told["kills"], told["slowest_recovery_s"], told["mutants_caught"]) == (0, None, 0)
