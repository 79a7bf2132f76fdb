"""Feast's Python look-up beside ours: runs in an environment of its own (`tests/bench/lookup.py` makes it), as a process that is told what
to look up, a JSON line at a time, and answers with how long each took.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

ENTITY, VIEW = "entity_id", "card"


def main() -> None:
    """Register the view, write every entity's values into the online store, then answer."""
    wanted = json.loads(sys.argv[1])
    store = filled(Path(wanted["folder"]), wanted["redis"], json.loads(Path(wanted["values"]).read_text(encoding="utf-8")))
    features = [f"{VIEW}:{name}" for name in wanted["names"]]

    def look(entities: list[str]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = store.get_online_features(
            features=features, entity_rows=[{ENTITY: one} for one in entities]
        ).to_dict()
        return found

    print(json.dumps({"version": import_module("feast").__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        took_us = []
        found: dict[str, list[Any]] = {}
        for entities in asked["entities"]:
            began = time.perf_counter_ns()
            found = look(entities)
            took_us.append((time.perf_counter_ns() - began) / 1_000)
        print(json.dumps({"took_us": took_us, "last": {name: found[name][-1] for name in wanted["names"]}}), flush=True)


def filled(folder: Path, redis: str, values: dict[str, dict[str, float | None]]) -> Any:
    """A feature store whose online store holds these values."""
    feast, types, pandas = import_module("feast"), import_module("feast.types"), import_module("pandas")
    (folder / "feature_store.yaml").write_text(
        f"project: bench\nregistry: registry.db\nprovider: local\nonline_store:\n  type: redis\n  connection_string: {redis}\n"
        "offline_store:\n  type: file\nentity_key_serialization_version: 3\n",
        encoding="utf-8",
    )
    table = pandas.DataFrame.from_dict(values, orient="index").rename_axis(ENTITY).reset_index()
    table["event_timestamp"] = pandas.Timestamp.now(tz="UTC")
    names = [name for name in table.columns if name not in {ENTITY, "event_timestamp"}]
    table[names] = table[names].astype("float64")
    table.to_parquet(folder / "values.parquet")
    store = feast.FeatureStore(repo_path=str(folder))
    card = feast.Entity(name="card_key", join_keys=[ENTITY], value_type=feast.ValueType.STRING)
    view = feast.FeatureView(
        name=VIEW,
        entities=[card],
        ttl=timedelta(days=3_650),
        schema=[feast.Field(name=name, dtype=types.Float64) for name in names],
        source=feast.FileSource(path=str(folder / "values.parquet"), timestamp_field="event_timestamp"),
        online=True,
    )
    store.apply([card, view])
    store.write_to_online_store(VIEW, table)
    return store


if __name__ == "__main__":
    main()
