"""What `headrace plan` prints."""

from __future__ import annotations

import json

import pytest

import headrace as hr
from headrace.changes import Changes, changes, topic_names
from headrace.cli.output import Output
from headrace.cli.plan import show


class Visit(hr.Event):
    """A contract."""

    who: str
    at: hr.EventTime
    spent: float


visits = hr.Source("visits.v1", Visit, key="who", time="at")
recent = hr.FeatureView("recent", entity="who", source=visits, features=[hr.count(over="1h"), hr.sum("spent", over="1h")])
app = hr.App("shop", pipelines=[hr.Pipeline("buyer", views=[recent], predictions="buyers.v1", corrections=True)])


def wanted() -> Changes:
    """What an empty cluster needs."""
    return changes(app, found=dict.fromkeys(topic_names(app)), committed={}, applied={}, partitions=4, largest_record_bytes=2_000_000)


def test_corrections_are_shown_with_what_they_cost(capsys: pytest.CaptureFixture[str]) -> None:
    """The topic, and the bytes that are retained of an entity beside its state, for people and as JSON."""
    (pipeline,) = app.pipelines
    assert pipeline.retained is not None
    show(app, wanted(), "for ever", Output.TEXT)
    printed = capsys.readouterr().out
    assert "+ topic buyers.v1.corrections: 4 partitions, kept for ever (corrections of buyer)" in printed
    assert f"up to 128 events of an entity are retained, at most {pipeline.retained.bytes_per_entity():,} bytes more" in printed
    show(app, wanted(), "for ever", Output.JSON)
    costs = json.loads(capsys.readouterr().out)["bytes_per_entity"]
    assert costs == {"recent": recent.bytes_per_entity()["total"], "buyer.retained": pipeline.retained.bytes_per_entity()}
