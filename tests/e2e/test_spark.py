"""Training sets on Spark, in an environment of their own, beside those of this process."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.demo.flights import app as flights
from headrace.local_programs import MissingProgram, java
from headrace.training.files import parts
from headrace.training.tables import column
from headrace.types import TopicPartition
from tests.bench.training import write_flights
from tests.conftest import missing
from tests.unit import flying
from tests.unit.training import archived, shop
from tests.unit.training.test_archive import ALL, with_outcomes

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-spark" / "bin" / "python"
QUICK = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1", "spark.sql.shuffle.partitions": "4"}
"""What a short job needs: no second compiler, and fewer shuffled pieces than the 200 of a cluster."""


def on_spark(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python where PySpark is, and wait for it."""
    try:
        java()
    except MissingProgram as error:
        missing(str(error))
    if not PYTHON.exists():
        missing("PySpark has an environment of its own, which is not here; make it with: make .venv-spark/ready")
    there = os.environ | {"PYTHONPATH": str(ROOT / "services")} | environment
    return subprocess.run([str(PYTHON), *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=there)


def test_all_flights_are_those_of_one_process(tmp_path: Path) -> None:
    """Rows, labels, schema, lineage and hash that Spark makes of 328,521 flights on two cores are those of one process, bit for bit."""
    events, labels = write_flights(tmp_path)
    expected = hr.training_frame(flights, events=events, labels=labels)
    settings = [word for name, value in QUICK.items() for word in ("--spark-conf", f"{name}={value}")]
    command = ["-m", "headrace", "training-set", "--engine", "spark", "--spark-master", "local[2]", "--app", "headrace.demo.flights:app"]
    done = on_spark(*command, *settings, "--events", events, "--labels", labels, "--to", str(tmp_path / "rows"), "--output", "json")
    assert done.returncode == 0, done.stderr[-3_000:]
    told = json.loads(done.stdout)
    assert {name: told[name] for name in expected.lineage} == expected.lineage
    assert (told["hash"], told["rows"]) == (expected.hash, 328_521)
    found = hr.TrainingFrame.read(tmp_path / "rows")
    assert found.table.schema.equals(expected.table.schema, check_metadata=True)
    assert_same_bits(found, expected)


def assert_same_bits(found: hr.TrainingFrame, expected: hr.TrainingFrame) -> None:
    """Every column, whatever the hash says; of NaN there is one kind."""
    for name in expected.table.column_names:
        one, other = (column(frame.table, name) for frame in (found, expected))
        assert one.is_null().equals(other.is_null()), name
        if pa.types.is_floating(one.type):
            plain = [side.to_numpy(zero_copy_only=False) for side in (one, other)]
            bits, expected_bits = (np.where(np.isnan(side), np.nan, side).view(np.int64) for side in plain)
            assert np.array_equal(bits, expected_bits), name
        else:
            assert one.equals(other), name


GAP = 9_973
"""So many offsets lie between two records: a log of many chunks, of which the watermark of each comes from those before."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `spark_program.py` reads."""
    place = tmp_path_factory.mktemp("spark")
    driver = with_outcomes(shop.driven())
    table = archived.records(driver.log, ALL)
    archived.write(table, place / "archive")
    for topic in ALL:
        mine = table.filter(pc.field("topic") == topic).drop_columns(["topic"])
        for number in pc.unique(mine["partition"]).to_pylist():
            one = mine.filter(pc.field("partition") == number).drop_columns(["partition"])
            archived.write(one, place / "topics" / topic / f"partition={number}", files=1)
    mine = table.filter(pc.field("topic") == "payments.v1")
    archived.write(mine.set_column(2, "offset", pc.multiply(mine["offset"], GAP)), place / "gaps")
    longer = shop.driven(600)
    for number in (0, 1):
        longer.log.delete_before(TopicPartition("payments.v1", number), 20)
    archived.write(archived.records(longer.log, ALL), place / "cut")
    write_tables(place)
    return place


def write_tables(place: Path) -> None:
    """Events out of order, over two files, with instants as pandas writes them, bad ones among them; outcomes; what is to be refused."""
    rows = shop.rows(300, disorder=True)
    for number, row in enumerate(rows):
        row["disputed"] = None if number % 9 == 4 else float(number % 3)
    rows[3]["amount"], rows[4]["at"], rows[5]["card"] = None, 5, ""
    table = shop.table(rows)
    instants = table["at"].cast(pa.timestamp("ms", "UTC"))
    finer = table.set_column(2, "at", instants.cast(pa.timestamp("ns", "UTC")))
    (place / "events" / "deeper").mkdir(parents=True)
    pq.write_table(finer.slice(0, 100), place / "events" / "a.parquet")
    pq.write_table(finer.slice(100), place / "events" / "deeper" / "b.parquet", row_group_size=50)
    pq.write_table(table, place / "one.parquet")
    known = [
        {"id": row["id"], "heard": int(row["at"]) + 60_000 * (number % 90), "disputed": 1.0 - number % 2} for number, row in enumerate(rows)
    ]
    (place / "outcomes").mkdir()
    for number in range(2):
        pq.write_table(pa.Table.from_pylist(known[number::2] + known[:40]), place / "outcomes" / f"{number}.parquet")
    texts = [f"{one.isoformat()}{'Z' if number == 7 else ''}" for number, one in enumerate(instants.cast(pa.timestamp("ms")).to_pylist())]
    pq.write_table(table.set_column(2, "at", pa.array(texts)), place / "mixed.parquet")
    pq.write_table(table.set_column(4, "pieces", pa.array([0.5] * len(table))), place / "fractions.parquet")
    pq.write_table(table.set_column(3, "amount", pa.array(["much"] * len(table))), place / "kind.parquet")
    pyarrow.csv.write_csv(table, place / "events.csv")
    draw = random.Random(3)
    departed = [
        {
            "tail": f"N{draw.randrange(12)}",
            "origin": "" if number % 40 == 7 else f"A{draw.randrange(4)}",
            "carrier": draw.choice(["AA", "UA", "DL"]),
            "at": flying.START_MS + draw.randrange(86_400_000),
            "delay": draw.uniform(-20, 200),
        }
        for number in range(400)
    ]
    pq.write_table(pa.Table.from_pylist(departed), place / "flights.parquet")


@pytest.fixture(scope="module")
def made(folder: Path) -> Mapping[str, Any]:
    """What came of it."""
    done = on_spark(str(ROOT / "tests" / "e2e" / "spark_program.py"), str(folder), *(f"{name}={value}" for name, value in QUICK.items()))
    assert done.returncode == 0, done.stderr[-3_000:]
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def asked(folder: Path) -> dict[str, hr.TrainingFrame]:
    """The same, made in this process."""
    everything = hr.Topics.archived(folder / "archive")
    places = hr.Topics.archived({topic: folder / "topics" / topic for topic in ALL})
    outcomes = str(folder / "outcomes" / "*.parquet")
    return {
        "archive": hr.training_frame(shop.app, events=everything, labels=everything),
        "places": hr.training_frame(shop.app, events=places),
        "gaps": hr.training_frame(shop.app, events=hr.Topics.archived(folder / "gaps")),
        "cut": hr.training_frame(shop.app, events=hr.Topics.archived(folder / "cut")),
        "table": hr.training_frame(shop.app, events=folder / "events", labels=outcomes, label_time="heard"),
        "column": hr.training_frame(shop.app, events=folder / "one.parquet", labels=hr.col("disputed") > 1),
        "entities": hr.training_frame(flying.app, events=folder / "flights.parquet"),
        "pipeline": hr.training_frame(shop.fraud, events=folder / "one.parquet"),
    }


def test_a_log_with_everything_in_it_is_that_of_the_topics(folder: Path, made: Mapping[str, Any]) -> None:
    """Late, out of order, bad and condemned records on two partitions, shuffled and some twice: the frame is that of the topics."""
    topics = hr.Topics.of(with_outcomes(shop.driven()).log)
    expected = hr.training_frame(shop.app, events=topics, labels=topics)
    assert made["archive"]["lineage"] == expected.lineage
    assert expected.lineage["late"] > 0
    assert expected.lineage["refused"] == {"CONTRACT": 6, "CRASH_LOOP": 1, "MALFORMED": 6}
    assert_same_bits(hr.TrainingFrame.read(folder / "made" / "archive"), expected)
    assert len(parts(folder / "made" / "archive")) == 2


def test_every_input_gives_the_frame_of_one_process(folder: Path, made: Mapping[str, Any]) -> None:
    """Archives and tables of all kinds, labels from tables, topics and columns, views of several entities: frames are those made here."""
    for name, expected in asked(folder).items():
        assert made[name].get("lineage") == expected.lineage, (name, made[name])
        assert made[name]["hash"] == expected.hash, name
        assert_same_bits(hr.TrainingFrame.read(folder / "made" / name), expected)
    assert made["cut"]["lineage"]["incomplete"] > 0
    assert made["entities"]["lineage"]["refused"] == {"BAD_KEY": 10}
    assert made["gaps"]["lineage"]["late"] == made["archive"]["lineage"]["late"] > 0
    assert made["gaps"]["lineage"]["offsets"]["payments.v1"]["1"][1] > 10 * 65_536
    assert made["table"]["lineage"]["refused"] == {"BAD_KEY": 1, "CONTRACT": 1, "EVENT_TIME_INVALID": 1}
    assert all(made["table"]["lineage"]["labels"][word] > 0 for word in ("labelled", "too_late"))
    assert made["archive"]["told"][-1] == "hashing what was written"


def test_the_settings_of_the_session_stay_as_they_are(made: Mapping[str, Any]) -> None:
    """Settings that the work needs are those of a session beside the user's."""
    assert made["settings"] == {"spark.sql.session.timeZone": "Asia/Kathmandu", "spark.sql.caseSensitive": "false"}


SAYS = {
    "there already": "is there already; name another folder",
    "text times": "'at' is text, and not always with a zone",
    "fractions": "'pieces' is double, the contract says integer: Float value 0.5",
    "another kind": "'amount' is string, the contract says number",
    "no such column": "the events have no column 'answer'",
    "comma": "events.csv is no Parquet file",
    "nowhere": "nowhere.parquet",
    "no archive": "no column 'partition'; records have partition, offset, timestamp",
    "no topic": "holds no records of the topic payments.v1",
    "hops": "goes through hops",
    "no app": "give the app; its facts say which records no fold takes",
}


@pytest.mark.parametrize("case", SAYS)
def test_what_does_not_fit_is_refused_as_here(case: str, made: Mapping[str, Any]) -> None:
    """A definition, a file or a value that does not fit is one sentence, whether the driver finds it or a task."""
    assert SAYS[case] in made[case].get("refused", ""), made[case]


def test_without_java_it_is_said_what_to_install(tmp_path: Path) -> None:
    """Where there is no Java the command ends with exit code 1 and names the package."""
    for name in ("dirname", "bash", "sh", "env", "ps"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    command = [
        "-m",
        "headrace",
        "training-set",
        "--engine",
        "spark",
        "--app",
        "headrace.demo.flights:app",
        "--events",
        "x.parquet",
        "--to",
        "y",
    ]
    done = on_spark(*command, PATH=str(tmp_path), JAVA_HOME="")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("headrace: Spark did not start; it needs Java 17 or newer")
    assert "apt-get install openjdk-17-jre-headless" in done.stderr
