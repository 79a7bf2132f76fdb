"""What `headrace verify` prints."""

from __future__ import annotations

import json

import pytest
import typer

from headrace.cli.verify import SHOWN, Meter, _ms, as_json, as_text
from headrace.verify.findings import Findings, Kind, Violation


def findings(lost: int) -> Findings:
    """So many lost results, and no store."""
    found = Findings(keep=100)
    found.checked["events"] = 1_234
    found.not_checked["I4"] = "no store was given"
    for offset in range(lost):
        found.add(
            Violation(kind=Kind.LOST, topic="payments.v1", partition=3, offset=offset, of="fraud", expected="a prediction", found="none")
        )
    return found


def test_the_text_gives_a_verdict_on_each_invariant() -> None:
    """Passed, violated with what and how often, not checked with why; then the first violations, and how many more there are."""
    lines = as_text("cards", findings(SHOWN + 5), Meter()).splitlines()
    assert lines[0].startswith("app cards: 1,234 events in ")
    assert [line.split()[0] for line in lines[1:11]] == ["I1", "I2", "I3", "I4", "I5", "I6", "I1+", "I7", "I8", "I9"]
    assert lines[1].endswith(f"violated: {SHOWN + 5} lost")
    assert lines[2].endswith("passed")
    assert lines[4].endswith("not checked: no store was given")
    assert all(line.endswith("not checked") for line in lines[7:11])
    assert lines[11] == "  lost       payments.v1-3 offset 0, fraud: expected a prediction, found none"
    assert len(lines) == 11 + SHOWN + 1
    assert "5 more" in lines[-1]


def test_the_json_says_the_same() -> None:
    """One object with everything that was kept."""
    told = json.loads(as_json(findings(2), Meter()))
    assert (told["sound"], told["counts"], told["invariants"]["I1"], told["invariants"]["I4"]) == (
        False,
        {"lost": 2},
        "violated",
        "not checked",
    )
    assert [one["offset"] for one in told["violations"]] == [0, 1]


def test_times_are_iso_8601() -> None:
    """Without a zone it is UTC; what is no time is refused with an example."""
    assert _ms("2026-01-31T12:00", "--from") == _ms("2026-01-31T13:00:00+01:00", "--from") == 1_769_860_800_000
    assert _ms(None, "--from") is None
    with pytest.raises(typer.BadParameter, match="2026-01-31T12:00"):
        _ms("yesterday", "--to")
