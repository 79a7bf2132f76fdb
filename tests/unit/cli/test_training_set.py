"""What `headrace training-set` and `headrace features export` write and print."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

import headrace as hr
from headrace.cli import app as headrace
from headrace.cli.feature_export import add_to
from headrace.cli.training_set import app as training_set
from tests.unit.training import archived, shop
from tests.unit.training.test_archive import ALL, with_outcomes

SHOP = ["--app", "tests.unit.training.shop:app"]


@pytest.fixture
def payments(tmp_path: Path) -> Path:
    """A file of payments, one of which is no event."""
    rows = shop.rows(80)
    rows[5]["amount"] = None
    pq.write_table(shop.table(rows), tmp_path / "payments.parquet")
    return tmp_path / "payments.parquet"


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    """Outcomes of most of them, as CSV."""
    lines = [f"p{number},{row['at'] + 1_000},{number % 2}" for number, row in enumerate(shop.rows(80)) if number % 10]
    (tmp_path / "outcomes.csv").write_text("\n".join(["id,known_at,disputed", *lines]) + "\n", encoding="utf-8")
    return tmp_path / "outcomes.csv"


def test_a_file_of_events_becomes_a_training_set(payments: Path, outcomes: Path, tmp_path: Path) -> None:
    """The Parquet file is the frame; the text says how many rows, what was left out and why, and what lacks a label."""
    to = tmp_path / "rows.parquet"
    done = CliRunner().invoke(training_set, [*SHOP, "--events", str(payments), "--labels", str(outcomes), "--to", str(to)])
    assert done.exit_code == 0, done.output
    frame = hr.TrainingFrame.read(to)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("79 rows of 11 features in ")
    assert [line.strip() for line in lines[1:]] == [
        f"hash         {frame.hash}",
        "late         0 rows, marked",
        "left out     1 records: CONTRACT",
        "labels       71 rows have one; not: 8 no outcome known",
    ]


def test_programs_get_the_lineage_as_json(payments: Path, tmp_path: Path) -> None:
    """With `--output json` standard output is one JSON object: lineage, counts and hash."""
    to = tmp_path / "rows.parquet"
    done = CliRunner().invoke(training_set, [*SHOP, "--events", str(payments), "--to", str(to), "--output", "json"])
    told = json.loads(done.stdout)
    assert told["hash"] == hr.TrainingFrame.read(to).hash
    assert (told["rows"], told["refused"], told["labels"], told["files"]) == (79, {"CONTRACT": 1}, None, None)


def test_topics_are_compared_with_files(tmp_path: Path) -> None:
    """With both, rows come from the topics and what differs in the files is counted; outcomes come from their topic if it is there."""
    driver = shop.driven()
    pq.write_table(shop.table(shop.rows(disorder=True)), tmp_path / "payments.parquet")
    to = tmp_path / "rows.parquet"
    arguments = [*SHOP, "--from-topics", "--events", str(tmp_path / "payments.parquet"), "--to", str(to)]
    with patch("headrace.cli.training_set.topics_of", lambda _: hr.Topics.of(driver.log)):
        text = CliRunner().invoke(training_set, arguments).stdout
        driver.log.create_topic("chargebacks.v1", 1)
        told = json.loads(CliRunner().invoke(training_set, [*arguments, "--output", "json"]).stdout)
    assert "left out     6 records: MALFORMED" in text
    assert "labels       none were given" in text
    assert f"{told['files']['differing']:,} of 300 rows differ from those of the topics by more than 1e-9; 0 are missing" in text
    assert told["files"]["differing"] > 0
    assert told["labels"]["none"] == 300


def test_answers_to_a_table_of_instants(payments: Path, tmp_path: Path) -> None:
    """With `--at` there is a row for each entity and instant asked for."""
    pq.write_table(pa.table({"card": ["card-1", "nobody"], "as_of": [shop.START_MS + 60_000] * 2}), tmp_path / "at.parquet")
    to = tmp_path / "rows.parquet"
    arguments = ["--events", str(payments), "--at", str(tmp_path / "at.parquet"), "--to", str(to)]
    done = CliRunner().invoke(training_set, [*SHOP, *arguments])
    assert done.exit_code == 0, done.output
    assert hr.TrainingFrame.read(to).table["_known"].to_pylist()[1] is False


def test_without_events_it_says_what_to_write(tmp_path: Path) -> None:
    """Neither files nor topics is a usage error that names both options."""
    done = CliRunner().invoke(training_set, [*SHOP, "--to", str(tmp_path / "rows.parquet")])
    assert done.exit_code == 2
    assert "--events PATH, --from-topics, or --log PATH" in done.output


def test_topics_may_lie_in_files(tmp_path: Path) -> None:
    """`--log` takes an archive of all topics, outcomes among them, or a place for each; the frame is that of the topics."""
    driver = with_outcomes(shop.driven())
    table = archived.records(driver.log, ALL)
    archived.write(table, tmp_path / "all")
    archived.write(table.filter(pc.field("topic") == "payments.v1"), tmp_path / "payments")
    for number, log in enumerate(([str(tmp_path / "all")], [f"payments.v1={tmp_path / 'payments'}"])):
        arguments = [word for one in log for word in ("--log", one)]
        to = tmp_path / f"{number}.parquet"
        done = CliRunner().invoke(training_set, [*SHOP, *arguments, "--to", str(to)])
        assert done.exit_code == 0, done.output
        frame, topics = hr.TrainingFrame.read(to), hr.Topics.of(driver.log)
        if number:
            assert (frame.lineage["labels"], "CRASH_LOOP" in frame.lineage["refused"]) == (None, False)
        else:
            assert frame.lineage == hr.training_frame(shop.app, events=topics, labels=topics).lineage


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine", "spark", "--from-topics"], "archive them in Parquet and give --log"),
        (["--engine", "spark", "--events", "x", "--at", "y"], "leave out --engine"),
        (["--engine", "spark", "--events", "x", "--spark-conf", "spark.log.level"], "write NAME=VALUE"),
        (["--events", "x", "--spark-master", "local[2]"], "this is for --engine spark"),
        (["--log", "x", "--log", "y"], "TOPIC=PATH for each topic"),
        (["--log", "x", "--events", "y"], "--events PATH, --from-topics, or --log PATH"),
    ],
)
def test_what_does_not_go_together_is_said(arguments: list[str], says: str, tmp_path: Path) -> None:
    """Options that one engine does not have, or that contradict each other, are a usage error with the way out."""
    done = CliRunner().invoke(training_set, [*SHOP, *arguments, "--to", str(tmp_path / "rows")])
    assert done.exit_code == 2
    assert says in " ".join(done.output.replace("│", " ").split())


def test_without_pyspark_it_is_said_what_to_install(payments: Path, tmp_path: Path) -> None:
    """Here PySpark is not installed, so `--engine spark` ends with the package to install; nothing is written."""
    arguments = ["training-set", *SHOP, "--engine", "spark", "--events", str(payments), "--to", str(tmp_path / "rows")]
    done = CliRunner().invoke(headrace, arguments)
    assert done.exit_code == 1
    assert done.stderr == "headrace: this command needs pyspark, which is not installed: pip install 'headrace[spark]'\n"
    assert not (tmp_path / "rows").exists()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'headrace\[spark\]', in an environment of its own"):
        hr.write_training_set(shop.app, session=None, events=payments, to=tmp_path / "rows")


def test_features_are_exported_on_a_grid(payments: Path, tmp_path: Path) -> None:
    """`features export` writes a file a view and says how many rows, for people and for programs."""
    noun = typer.Typer()
    add_to(noun)

    @noun.command()
    def other() -> None:
        """A noun has several commands."""

    arguments = ["export", *SHOP, "--events", str(payments), "--grid", "2h", "--to", str(tmp_path / "grid")]
    done = CliRunner().invoke(noun, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(CliRunner().invoke(noun, [*arguments, "--output", "json"]).stdout)
    (file,) = told["files"]
    assert pq.read_table(file["path"]).num_rows == file["rows"] > 0
    assert done.stdout == f"spending: {file['rows']:,} rows in {tmp_path / 'grid' / 'spending.parquet'}; left out: 1 CONTRACT\n"
