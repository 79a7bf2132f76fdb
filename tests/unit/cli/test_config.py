from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.config import app
from headrace.errors import SettingsError
from headrace.settings import declared


@pytest.fixture(autouse=True)
def empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory without a settings file."""
    monkeypatch.chdir(tmp_path)


def test_the_table_has_name_value_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """`headrace config show` prints a row per setting with where its value was found, and no secret."""
    monkeypatch.setenv("HEADRACE_REDIS__PASSWORD", "canary")
    shown = CliRunner().invoke(app, ["show"])
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[0] == ["SETTING", "VALUE", "SOURCE"]
    assert [row[0] for row in rows[1:]] == list(declared())
    assert ["redis.password", "***", "environment", "HEADRACE_REDIS__PASSWORD"] in rows
    assert "canary" not in shown.output


def test_json_holds_the_same() -> None:
    """--output json is a list of the same rows with what each setting is for."""
    Path("other.toml").write_text("[worker]\nmax_batch = 5\n", encoding="utf-8")
    shown = CliRunner().invoke(app, ["show", "--output", "json", "--config", "other.toml"])
    rows = {row["name"]: row for row in json.loads(shown.stdout)}
    assert rows["worker.max_batch"] == {
        "name": "worker.max_batch",
        "value": "5",
        "source": "file other.toml",
        "doc": declared()["worker.max_batch"],
    }


def test_a_wrong_setting_is_an_error() -> None:
    """A file that cannot be used is the front door's to print: the command raises SettingsError."""
    shown = CliRunner().invoke(app, ["show", "--config", "absent.toml"])
    assert isinstance(shown.exception, SettingsError)
