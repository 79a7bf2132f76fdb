"""What `headrace model bench` measures and prints, on a registry in memory and with the gate's own process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headrace.apps.model_desk import Desk
from headrace.cli import model
from headrace.errors import DefinitionError, RegistryRefused
from headrace.predict.registry import Role
from tests.unit.apps.engineered import Office, file_of, moved, passes

SIZES = ["1", "64", "1024", "16384"]


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Office:
    """A registry with a champion, 1, and 2 beside it."""
    found = Office()

    @contextmanager
    def opened(*_: object, by: str | None = None) -> Iterator[Desk]:
        yield found.open(by or "ann@desk", gate=passes)

    monkeypatch.setattr("headrace.cli.model.opened", opened)
    desk = found.open(gate=passes)
    for version, factor in (("1", 1.0), ("2", 1.1)):
        desk.commands.carry_out(desk.registration(desk.examine(file_of(version, factor=factor))))
    moved(found.desk(), "1", Role.CHAMPION)
    return found


def bench(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(model.app, ["bench", *arguments, "--app", "anything:app"])


@pytest.mark.usefixtures("office")
def test_a_file_is_measured_beside_the_champion(tmp_path: Path) -> None:
    """Of a file that is not registered and of the champion: a time a row at four sizes, and memory, as JSON and as a table."""
    path = tmp_path / "3.onnx"
    path.write_bytes(file_of("3", factor=1.2))
    told = json.loads(bench(str(path), "--output", "json").stdout)
    assert [one["title"] for one in told] == ["this file", "champion 1"]
    for one in told:
        assert list(one["latency"]) == SIZES
        assert all(size["row_us"] > 0 for size in one["latency"].values())
        assert one["memory"]["peak_bytes"] >= one["memory"]["held_bytes"] > 0
        assert (one["refused"], one["ordinary"]) == ([], {"golden": 3})
    first, *rows = bench(str(path)).stdout.splitlines()
    assert first.split("  ")[0] == "rows in a call"
    assert [row.split()[0] for row in rows[:4]] == ["1", "64", "1,024", "16,384"]
    assert [row.partition("  ")[0] for row in rows[4:6]] == ["memory held", "at its peak"]


def test_a_version_is_measured_on_real_events(office: Office) -> None:
    """By pipeline and version, on vectors that were served; the champion itself is measured alone."""
    office.log.create_topic("fraud.v1", 1)
    for number in range(20):
        office.served({"spending.count_1h": float(number), "amount": number / 2})
    told = json.loads(bench("fraud", "2", "--output", "json").stdout)
    assert [(one["title"], one["ordinary"]["rehearsal"]) for one in told] == [("version 2", 20), ("champion 1", 20)]
    (alone,) = json.loads(bench("fraud", "1", "--output", "json").stdout)
    assert alone["title"] == "champion 1"


@pytest.mark.usefixtures("office")
def test_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    """A broken file is refused by the gate's code and exit code 1; a pipeline without version, and an unknown one, are told what to do."""
    path = tmp_path / "3.onnx"
    path.write_bytes(file_of("3")[:-40])
    done = bench(str(path))
    assert done.exit_code == 1
    assert "this file cannot be measured: the bytes cannot be parsed as an ONNX file" in done.stderr
    assert "champion 1" in done.stdout
    without = bench("fraud").exception
    assert isinstance(without, DefinitionError)
    assert "name the version too, of those that `headrace model list fraud` shows" in str(without)
    assert isinstance(bench("frauds", "1").exception, RegistryRefused)
    assert isinstance(bench("nothing.onnx").exception, DefinitionError)
