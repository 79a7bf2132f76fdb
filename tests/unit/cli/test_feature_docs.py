from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.feature_docs import add_to
from headrace.errors import DefinitionError
from headrace.expression import OPERATORS
from headrace.features.aggregation import CATALOGUE

DEFINITION = """
import headrace as hr

class Departure(hr.Event):
    tail: str
    departed_at: hr.EventTime
    delay: float | None = None
    carrier: str
    gate: str | None = None

class Arrival(hr.Event):
    tail: str
    delay: float

departures = hr.Source("departures.v1", Departure, key="tail", time="departed_at", lateness="2h")
aircraft = hr.FeatureView("aircraft", entity="tail", source=departures, features=[
    hr.count(over="1h"),
    hr.mean("delay", over="3h", where=(hr.col("carrier") == "AA") | (hr.col("carrier") == "UA"), empty=-1),
    hr.last("delay"),
])
busy = hr.FeatureView("busy", version=3, entity="tail", source=departures, features=[hr.count(over="24h")])
late = hr.Pipeline("late", views=[aircraft, busy], event_features=["delay", hr.hour("departed_at", tz="UTC")], predictions="late.v1",
                   model="late.onnx", outcomes=hr.Outcomes("arrivals.v1", Arrival, join="tail", value=hr.col("delay") > 15, within="1d"))
lost = hr.Pipeline("lost", views=[aircraft], event_features=["delay"], predictions="lost.v1")
app = hr.App("flights", pipelines=[late, lost])
"""


@pytest.fixture(autouse=True)
def definition(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An app of two pipelines, in a module of its own."""
    (tmp_path / "described_flights.py").write_text(DEFINITION, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def said(*arguments: str) -> str:
    """What a command prints about that app."""
    commands = typer.Typer()
    add_to(commands)
    found = CliRunner().invoke(commands, [*arguments, "--app", "described_flights:app"])
    if found.exception is not None:
        raise found.exception
    return found.stdout


def told(*arguments: str) -> Any:
    """The same as JSON."""
    return json.loads(said(*arguments, "--output", "json"))


def test_list() -> None:
    """`list` has a line for every view, feature and event feature, with window, pane, value when empty, bytes and meaning."""
    lines = said("list").splitlines()
    cells = [line.split() for line in lines]
    assert cells[0] == ["NAME", "WINDOW", "PANE", "EMPTY", "BYTES", "MEANING"]
    assert [line[0] for line in cells[1:-1]] == [
        *("aircraft", "count_1h", "mean_delay_where_carrier_eq_AA_or_carrier_eq_UA_3h", "last_delay"),
        *("busy", "count_24h", "late", "delay", "hour_departed_at", "lost", "delay"),
    ]
    assert cells[1][1:3] == [f"{told('list')['views'][0]['bytes_per_entity']:,}", "version"]
    assert cells[3][1:4] == ["3h", "3m", "-1"]
    assert cells[4][1:4] == ["3h", "-", "absent"]
    assert lines[9].endswith("hour(departed_at, tz='UTC')")


def test_list_as_json() -> None:
    """The same for programs: nothing rounded, absent as null."""
    found = told("list")
    assert [view["view"] for view in found["views"]] == ["aircraft", "busy"]
    assert (found["views"][1]["version"], len(found["views"][1]["fingerprint"])) == (3, 64)
    assert found["views"][0]["features"][2] == {
        "name": "last_delay",
        "description": "delay of the newest event before this one, absent if not in the last 3h; absent when empty",
        "window": "3h",
        "pane": None,
        "empty": None,
    }
    assert found["event_features"][1] == {"pipeline": "late", "name": "hour_departed_at", "description": "hour(departed_at, tz='UTC')"}


def test_show_a_view() -> None:
    """A view in full: fingerprint, fields read, lineage, bytes by what takes them, features, pipelines."""
    found = told("show", "aircraft")
    assert [(one["name"], one["kind"], one["optional"]) for one in found["fields"]] == [
        ("delay", "number", True),
        ("carrier", "text", False),
    ]
    assert found["lineage"]["topic"] == "departures.v1"
    assert found["bytes_per_entity"]["total"] == sum(bytes_ for part, bytes_ in found["bytes_per_entity"].items() if part != "total")
    assert [(one["pipeline"], one["model"], one["predictions"]) for one in found["used_by"]] == [
        ("late", "late.onnx", "late.v1"),
        ("lost", None, "lost.v1"),
    ]
    text = said("show", "aircraft")
    assert f"fingerprint  {found['fingerprint']}" in text
    assert "from         departures.v1 (Departure), by tail and departed_at, lateness 2h" in text
    assert "reads        delay (number, may be absent), carrier (text)" in text
    assert "used by      pipeline lost, no model, to lost.v1" in text


def test_show_a_feature() -> None:
    """A feature by its whole name, or by its own where that is clear."""
    found = told("show", "aircraft.last_delay")
    assert told("show", "last_delay") == found
    assert (found["feature"], found["window"], found["definition"]["value"]) == ("aircraft.last_delay", "3h", {"field": "delay"})
    assert found["view"]["fingerprint"] == told("show", "aircraft")["fingerprint"]
    text = said("show", "last_delay")
    assert "window       3h, pane -, when empty absent" in text
    assert f"view         aircraft version 1, of each tail, fingerprint {found['view']['fingerprint']}" in text


def test_show_an_event_feature() -> None:
    """An event feature says what it computes, time zone rules included, and from which fields."""
    found = told("show", "hour_departed_at")
    assert (found["event_feature"], found["fields"][0]["kind"]) == ("late.hour_departed_at", "time")
    assert found["definition"]["with"]["zone"] == "UTC"
    assert [one["pipeline"] for one in found["used_by"]] == ["late"]
    assert "event feature late.hour_departed_at" in said("show", "hour_departed_at")


def test_names_of_nothing_and_of_several() -> None:
    """A wrong name is refused with those that are near, an unclear one with those it could be."""
    with pytest.raises(DefinitionError, match=r"nothing named 'last_delays'; did you mean aircraft\.last_delay"):
        said("show", "last_delays")
    with pytest.raises(DefinitionError, match=r"'delay' is the name of late\.delay and lost\.delay; write one of these"):
        said("show", "delay")
    with pytest.raises(DefinitionError, match="`headrace features list` shows all"):
        said("who-uses", "zzz")


@pytest.mark.parametrize(
    ("name", "what", "features", "pipelines"),
    [
        ("busy", ["view"], ["busy.count_24h"], ["late"]),
        ("aircraft.count_1h", ["feature"], [], ["late", "lost"]),
        (
            "carrier",
            ["field of Departure on departures.v1"],
            ["aircraft.mean_delay_where_carrier_eq_AA_or_carrier_eq_UA_3h"],
            ["late", "lost"],
        ),
        ("gate", ["field of Departure on departures.v1"], [], []),
        (
            "tail",
            ["field of Departure on departures.v1, the entity key"],
            [
                *("aircraft.count_1h", "aircraft.mean_delay_where_carrier_eq_AA_or_carrier_eq_UA_3h", "aircraft.last_delay"),
                "busy.count_24h",
            ],
            ["late", "lost"],
        ),
        ("departures.v1", ["topic of Departure"], ["aircraft", "busy"], ["late", "lost"]),
        ("arrivals.v1", ["topic of outcomes"], [], ["late"]),
        ("lost.v1", ["topic of predictions"], [], ["lost"]),
    ],
)
def test_who_uses(name: str, what: list[str], features: list[str], pipelines: list[str]) -> None:
    """For any name: the features that depend on it and the pipelines that do."""
    found = told("who-uses", name)
    assert [one["is"] for one in found] == what
    assert [one["features"] for one in found] == [features]
    assert [[pipeline["pipeline"] for pipeline in one["pipelines"]] for one in found] == [pipelines]
    text = said("who-uses", name)
    assert all(part in text for part in [*what, *features, *(f"pipeline {one}" for one in pipelines)])
    assert ("nothing uses it" in text) == (not features and not pipelines)


def test_a_name_may_be_several_things() -> None:
    """An event field that is also an event feature of two pipelines is all three."""
    assert [one["is"] for one in told("who-uses", "delay")] == ["event feature", "event feature", "field of Departure on departures.v1"]


def test_docs_of_an_app() -> None:
    """The Markdown of an app has a section for each view and pipeline and a row for each feature."""
    text = said("docs")
    assert "## busy, version 3" in text
    assert f"Fingerprint `{told('docs')['views'][0]['fingerprint']}`.\nUsed by `late`, `lost`." in text
    assert r"events with ((carrier == 'AA') \| (carrier == 'UA'))" in text
    assert "## Event features of lost\n\n| feature | meaning |\n| --- | --- |\n| `delay` | `delay` |" in text


def test_the_catalogue() -> None:
    """Without an app `docs` has a line for every aggregation and every operator, and names no placeholder."""
    commands = typer.Typer()
    add_to(commands)
    text = CliRunner().invoke(commands, ["docs"]).stdout
    found = json.loads(CliRunner().invoke(commands, ["docs", "--output", "json"]).stdout)
    assert [one["name"] for one in found["aggregations"]] == [entry.name for entry in CATALOGUE]
    assert [one["written"] for one in found["operators"]] == [operator.written for operator in OPERATORS.values()]
    assert all(one["says"] for one in found["aggregations"] + found["operators"])
    assert len({one["written"] for one in found["operators"]}) == len(OPERATORS)
    assert "{" not in "".join(one["says"] for one in found["aggregations"])
    assert "| `hr.max` | number | largest `value` in the window |  |" in text
    assert r"| `a \| b` | boolean | boolean | whether one of the two holds" in text
