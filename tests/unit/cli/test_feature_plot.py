"""What `headrace features plot` writes and prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import headrace.training
from headrace.cli import app as command_line
from headrace.cli.features import app as features
from tests.unit.training import shop


@pytest.fixture
def payments(tmp_path: Path) -> Path:
    """A file of payments."""
    pq.write_table(shop.table(shop.rows(120)), tmp_path / "payments.parquet")
    return tmp_path / "payments.parquet"


def plotted(*arguments: str | Path) -> Result:
    """Run the command on the shop."""
    words = ["plot", "spending", "card-3", "--app", "tests.unit.training.shop:app", *map(str, arguments)]
    return CliRunner().invoke(features, words)


def test_a_chart_of_events_in_files(payments: Path, tmp_path: Path) -> None:
    """The file is there, and the text says of whom, from when to when and how many events."""
    done = plotted("--events", payments, "--to", tmp_path / "card.svg")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "card.svg").read_text(encoding="utf-8").startswith("<?xml")
    count = sum(row["card"] == "card-3" for row in shop.rows(120))
    assert done.stdout.startswith(f"{tmp_path / 'card.svg'}: 8 features of card-3 from 2023-11-1")
    assert done.stdout.rstrip().endswith(f"{count} events")


def test_a_chart_of_topics_between_two_instants(tmp_path: Path) -> None:
    """Without --events the log is the app's topics; instants are ISO 8601 or milliseconds; programs get JSON."""
    arguments = ["--from", "2023-11-14T23:00", "--until", str(shop.START_MS + 7_200_000), "--grid", "1m", "--output", "json"]
    with patch("headrace.cli.training_set.topics_of", lambda _: headrace.Topics.of(shop.driven(120).log)):
        done = plotted("--to", tmp_path / "card.png", *arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["from_ms"], told["until_ms"]) == (1_700_002_800_000, shop.START_MS + 7_200_000)
    assert told["instants"] > 60
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_no_instant_and_no_picture_is_refused(payments: Path, tmp_path: Path) -> None:
    """Each option is named with what it takes."""
    wrong = plotted("--events", payments, "--to", tmp_path / "card.svg", "--from", "yesterday")
    assert (wrong.exit_code, "--from" in wrong.output, "2026-01-31T12:00" in wrong.output) == (2, True, True)
    other = plotted("--events", payments, "--to", tmp_path / "card.pdf")
    assert (other.exit_code, "--to" in other.output, "is neither .svg nor .png" in other.output) == (2, True, True)


def test_without_matplotlib_the_next_command_is_named(payments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no matplotlib is told which extra brings it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "headrace.training.chart", raising=False)
    monkeypatch.delattr(headrace.training, "chart", raising=False)
    words = ["features", "plot", "spending", "card-3", "--app", "tests.unit.training.shop:app", "--events", str(payments)]
    done = CliRunner().invoke(command_line, [*words, "--to", str(tmp_path / "card.svg")])
    assert done.exit_code == 1
    assert done.stderr == "headrace: this command needs matplotlib, which is not installed: pip install 'headrace[plot]'\n"
