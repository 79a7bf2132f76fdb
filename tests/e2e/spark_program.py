"""Run by the Python of `.venv-spark`: makes training sets out of what lies in a folder, in one session, and prints what came of each.

The definitions can be imported here and not where tasks run, as on a cluster: the tests' folder is on the path of this process alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import headrace as hr
from headrace.training.spark_session import start
from tests.unit import flying
from tests.unit.training import shop


def main() -> None:
    """Arguments: the folder, then settings of Spark."""
    folder = Path(sys.argv[1])
    settings = dict(one.partition("=")[::2] for one in sys.argv[2:])
    session = start("local[2]", settings, progress=False)
    session.conf.set("spark.sql.session.timeZone", "Asia/Kathmandu")
    found = {name: made(case, session, folder / "made" / name) for name, case in cases(folder).items()}
    found["settings"] = {name: session.conf.get(name) for name in ("spark.sql.session.timeZone", "spark.sql.caseSensitive")}
    session.stop()
    sys.stdout.write(json.dumps(found))


def cases(folder: Path) -> dict[str, dict[str, Any]]:
    """What is asked for."""
    everything = hr.Topics.archived(folder / "archive")
    places = hr.Topics.archived({topic.name: topic for topic in (folder / "topics").iterdir()})
    return {
        "archive": {"events": everything, "labels": everything, "rows_a_file": 100},
        "places": {"events": places},
        "gaps": {"events": hr.Topics.archived(folder / "gaps"), "rows_a_file": 50},
        "cut": {"events": hr.Topics.archived(folder / "cut")},
        "table": {"events": folder / "events", "labels": str(folder / "outcomes" / "*.parquet"), "label_time": "heard"},
        "column": {"events": f"file://{folder}/one.parquet", "labels": hr.col("disputed") > 1},
        "entities": {"app": flying.app, "events": folder / "flights.parquet"},
        "pipeline": {"app": shop.fraud, "events": folder / "one.parquet"},
        "there already": {"events": folder / "one.parquet", "to": folder / "events"},
        "text times": {"events": folder / "mixed.parquet"},
        "fractions": {"events": folder / "fractions.parquet"},
        "another kind": {"events": folder / "kind.parquet"},
        "no such column": {"events": folder / "one.parquet", "labels": hr.col("answer") > 1},
        "comma": {"events": folder / "events.csv"},
        "nowhere": {"events": f"file://{folder}/nowhere.parquet"},
        "no archive": {"events": hr.Topics.archived({"payments.v1": folder / "one.parquet"})},
        "no topic": {"events": hr.Topics.archived({"payments.v2": folder / "one.parquet"})},
        "hops": {"app": flying.app, "events": hr.Topics.archived({flying.TOPIC: folder / "flights.parquet"})},
        "no app": {"app": shop.fraud, "events": everything},
    }


def made(case: dict[str, Any], session: Any, to: Path) -> dict[str, Any]:
    """The lineage, or why there is none."""
    told: list[str] = []
    write: Callable[..., Any] = hr.write_training_set
    try:
        files = write(case.pop("app", shop.app), session=session, to=case.pop("to", to), told=told.append, **case)
    except hr.DefinitionError as refused:
        return {"refused": str(refused)}
    return {"lineage": files.lineage, "told": told, "hash": files.read().hash}


if __name__ == "__main__":
    main()
