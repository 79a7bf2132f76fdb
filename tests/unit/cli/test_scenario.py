"""What `headrace scenario` prints and writes."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import headrace as hr
from headrace.cli import app as command_line
from headrace.cli.scenario import app as scenario
from tests.unit.training import archived, shop
from tests.unit.training.shop_models import looking_at
from tests.unit.training.test_archive import ALL, with_outcomes
from tests.unit.training.test_scenarios import served


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with two versions."""
    (tmp_path / "first.onnx").write_bytes(looking_at("amount", times=0.1, plus=-1.0))
    (tmp_path / "second.onnx").write_bytes(looking_at("spending.mean_amount_6h", times=0.1, plus=-1.0, version="2"))
    pq.write_table(shop.table(shop.rows()), tmp_path / "payments.parquet")
    return tmp_path


def asked(models: Path, *arguments: str | Path) -> Result:
    """Run the command on the shop, with the first version as the one that is declared."""
    words = ["--app", "tests.unit.training.shop:app", "--baseline-model", str(models / "first.onnx"), *map(str, arguments)]
    return CliRunner().invoke(scenario, words)


def test_a_file_is_replayed_and_told(models: Path) -> None:
    """Every option says what `hr.scenario` says for it."""
    events = models / "payments.parquet"
    outcomes = ["id,known_at,disputed", *(f"{row['id']},{row['at'] + 1_000},{int(row['amount'] > 15)}" for row in shop.rows()[::2])]
    (models / "outcomes.csv").write_text("\n".join(outcomes) + "\n", encoding="utf-8")
    arguments: list[str | Path] = [
        "--events",
        events,
        "--model",
        models / "second.onnx",
        "--threshold",
        "0.4",
        "--baseline-threshold",
        "0.6",
    ]
    arguments += ["--set", "amount=amount + 10", "--set", "online=amount > 5", "--drop-input", "pieces", "--empty-feature", "books"]
    arguments += ["--by", "shop", "--labels", models / "outcomes.csv", "--from", "2023-11-14T23:00", "--examples", "2"]
    done = asked(models, *arguments)
    assert done.exit_code == 0, done.output
    found = hr.scenario(
        shop.app,
        events=events,
        labels=models / "outcomes.csv",
        baseline=models / "first.onnx",
        model=models / "second.onnx",
        threshold=0.4,
        baseline_threshold=0.6,
        inputs={"amount": hr.col("amount") + 10, "online": hr.col("amount") > 5},
        drop_inputs=["pieces"],
        empty_features=["books"],
        by="shop",
        begin="2023-11-14T23:00",
        examples=2,
    )
    assert done.stdout == f"{found}\n"
    told = json.loads(asked(models, *arguments, "--output", "json").stdout)
    assert told.pop("seconds") >= 0
    assert told == json.loads(json.dumps(found.to_json()))
    assert len(told["most_changed"]) == 2


def test_topics_are_first_compared_with_what_was_served(models: Path) -> None:
    """With --from-topics, and without anything to change, it says that what was served is what the model gives."""
    driver = served()
    with patch("headrace.cli.training_set.topics_of", lambda _: hr.Topics.of(driver.log)):
        done = asked(models, "--from-topics", "--from", "0:5", "--from", "1:0", "--to", "0:50")
    assert done.exit_code == 0, done.output
    assert "events have a prediction\n             version 1 as champion: " in done.stdout
    assert "the same scores as before\n" in done.stdout
    assert "0 to yes (0.00 %), 0 to no (0.00 %)" in done.stdout


def test_topics_may_lie_in_files(models: Path) -> None:
    """With --log events, outcomes and what was served come from an archive of the topics."""
    driver = with_outcomes(shop.driven())
    driver.run()
    archived.write(archived.records(driver.log, [*ALL, "fraud.v1"]), models / "all")
    done = asked(models, "--log", models / "all", "--output", "json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["grading"]["rows"] > 0
    assert told["served"]["rows"] == told["events"] > 0


def test_pictures_and_rows_are_written(models: Path) -> None:
    """As SVG, as PNG and as Parquet, in one run."""
    files = {option: models / name for option, name in (("--svg", "a.svg"), ("--png", "a.png"), ("--rows", "a.parquet"))}
    done = asked(models, "--events", models / "payments.parquet", *(word for pair in files.items() for word in pair))
    assert done.exit_code == 0, done.output
    assert files["--svg"].read_text(encoding="utf-8").startswith("<?xml")
    assert files["--png"].read_bytes().startswith(b"\x89PNG")
    assert pq.read_table(files["--rows"]).num_rows == 300


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say where events come from"),
        (["--events", "x", "--from-topics"], "say where events come from"),
        (["--events", "x", "--svg", "x.png"], "x.png does not end with .svg"),
        (["--events", "x", "--png", "x.svg"], "x.svg does not end with .png"),
        (["--events", "x", "--examples", "-1"], "--examples"),
    ],
)
def test_what_does_not_go_together_is_said(models: Path, arguments: list[str], says: str) -> None:
    """A usage error that names the option and the way out, before anything is read."""
    done = asked(models, *arguments)
    assert done.exit_code == 2
    assert says in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "amout=1"], "has no field 'amout'; is it 'amount'?"),
        (["--set", "amount"], "--set: 'amount' names no field to set; write FIELD=EXPRESSION"),
        (["--set", "at=at + 1"], "'at' is the event time of an event, which a scenario leaves as it is"),
        (["--drop-input", "card"], "of an event, which a scenario leaves as it is"),
        (["--empty-feature", "colour"], "neither a feature nor a view 'colour'"),
        (["--model", "nowhere.onnx"], "model 'nowhere.onnx' of Pipeline('fraud') cannot be read"),
        (["--from", "noon"], "begin='noon' is neither an instant"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(models: Path, arguments: list[str], says: str) -> None:
    """An error of the definitions ends the command with its text, without a traceback."""
    words = ["scenario", "--app", "tests.unit.training.shop:app", "--baseline-model", str(models / "first.onnx")]
    done = CliRunner().invoke(command_line, [*words, "--events", str(models / "payments.parquet"), *arguments])
    assert done.exit_code == 1
    assert done.stderr.startswith("headrace: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
