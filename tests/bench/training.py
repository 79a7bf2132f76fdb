"""`make bench-training`: how long the training set of a year of flights takes, files to file, each in a process. Asserts nothing.

`ARGS='--spark 3'` does it on Spark beside, on two cores here, each time with a new JVM (`make .venv-spark/ready` first).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.demo.events import read_departures
from tests.bench.__main__ import BUILD
from tests.bench.worker import python_path

SPARK = str(Path(__file__).resolve().parents[2] / ".venv-spark" / "bin" / "python")


def main() -> None:
    """Write the flights as files, make the training set some times, print."""
    parser = argparse.ArgumentParser(prog="make bench-training ARGS=...", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument("--spark", type=int, default=0, help="runs on Spark (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        events, labels = write_flights(Path(folder))
        asked = ("training-set", "--events", events, "--labels", labels)
        rows = [measured("training set", options.runs, sys.executable, Path(folder, "rows.parquet"), *asked)]
        if options.spark:
            there = Path(folder, "on-spark")
            rows.append(measured("on Spark", options.spark, SPARK, there, *asked, "--engine", "spark", "--spark-master", "local[2]"))
    BUILD.mkdir(exist_ok=True)
    (BUILD / "training.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def write_flights(folder: Path) -> tuple[str, str]:
    """Departures and arrivals as two Parquet files."""
    departures = read_departures()
    events, labels = folder / "departures.parquet", folder / "arrivals.parquet"
    pq.write_table(pa.Table.from_pylist([json.loads(value) for value in departures.values]), events)
    known = ~np.isnan(departures.arr_delay)
    arrived = departures.departed_ms + 7_200_000
    columns = {"flight_id": departures.flight_ids, "arrived_at": arrived, "arr_delay": departures.arr_delay}
    pq.write_table(pa.table(columns).filter(pa.array(known)), labels)
    return str(events), str(labels)


def measured(what: str, runs: int, python: str, to: Path, command: str, *arguments: str) -> dict[str, object]:
    """The seconds that a command says it took, over some runs; the first compiles what is not compiled yet and is left out."""
    seconds = []
    told = {}
    for _ in range(runs + 1):
        if to.is_dir():
            shutil.rmtree(to)
        line = [python, "-m", "headrace", command, "--app", "headrace.demo.flights:app", *arguments, "--to", str(to), "--output", "json"]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=python_path())
        told = json.loads(done.stdout)
        seconds.append(told["seconds"])
    median = statistics.median(seconds[1:])
    print(f"{what}: {told['rows']:,} rows in {median:.1f} s ({told['rows'] / median:,.0f}/s), median of {runs} runs")
    return {"what": what, "rows": told["rows"], "seconds": seconds[1:], "hash": told["hash"]}


if __name__ == "__main__":
    main()
