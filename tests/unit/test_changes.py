"""What `headrace plan` finds."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.changes import changes, definitions_fact, last_applied, topic_names
from headrace.errors import DefinitionError
from headrace.types import TopicPartition


class Visit(hr.Event):
    """A contract."""

    who: str
    at: hr.EventTime
    spent: float


visits = hr.Source("visits.v1", Visit, key="who", time="at")


def app_with(*features: object) -> hr.App:
    """An app with one view of these features."""
    view = hr.FeatureView("recent", entity="who", source=visits, features=list(features))  # type: ignore[arg-type]
    return hr.App("shop", pipelines=[hr.Pipeline("buyer", views=[view], predictions="buyers.v1")])


BEFORE = app_with(hr.count(over="1h"), hr.sum("spent", over="1h"))
EVERYTHING = {
    **dict.fromkeys(("visits.v1", "buyers.v1", "buyers.v1.shadow", "shop.dead-letters.v1"), 3),
    **dict.fromkeys(("shop.facts.v1", "shop.control.v1"), 1),
}
COMMITTED = {TopicPartition("visits.v1", number): True for number in range(3)}
APPLIED = last_applied([definitions_fact(BEFORE)])


def test_an_empty_cluster_needs_everything() -> None:
    """Nothing there: every topic, every view, every starting offset."""
    found = changes(
        BEFORE, found=dict.fromkeys(topic_names(BEFORE)), committed={}, applied={}, partitions=4, largest_record_bytes=2_000_000
    )
    assert [(topic.name, topic.partitions) for topic in found.topics] == [
        ("visits.v1", 4),
        ("buyers.v1", 4),
        ("buyers.v1.shadow", 4),
        ("shop.dead-letters.v1", 4),
        ("shop.facts.v1", 1),
        ("shop.control.v1", 1),
    ]
    assert {topic.settings["retention.ms"] for topic in found.topics} == {"-1"}
    assert [view.what for view in found.views] == ["new"]
    assert len(found.offsets) == 4


def test_only_who_asks_the_registry_needs_its_topics() -> None:
    """A pipeline that pins its model has no shadows, and an app of such pipelines no registry; commands to it are kept for ever."""
    view = hr.FeatureView("recent", entity="who", source=visits, features=[hr.count(over="1h")])
    pinned = hr.App("shop", pipelines=[hr.Pipeline("buyer", views=[view], predictions="buyers.v1", model="buyer.onnx")])
    assert {name for name in topic_names(pinned) if name.endswith((".shadow", ".control.v1"))} == set()
    wanted = {
        app.name: changes(
            app,
            found=dict.fromkeys(topic_names(app)),
            committed={},
            applied={},
            partitions=4,
            retention_ms="604800000",
            largest_record_bytes=2,
        )
        for app in (pinned, hr.App("bazaar", pipelines=[hr.Pipeline("buyer", views=[view], predictions="buyers.v1")]))
    }
    assert [topic for topic in wanted["shop"].topics if topic.name == "shop.control.v1"] == []
    (control,) = [topic for topic in wanted["bazaar"].topics if topic.name == "bazaar.control.v1"]
    assert (control.partitions, control.settings["retention.ms"], control.role) == (1, "-1", "commands to the registry of models")


def test_corrections_need_a_topic() -> None:
    """A pipeline with corrections has one topic more, with as many partitions as its predictions."""
    view = hr.FeatureView("recent", entity="who", source=visits, features=[hr.count(over="1h"), hr.sum("spent", over="1h")])
    app = hr.App("shop", pipelines=[hr.Pipeline("buyer", views=[view], predictions="buyers.v1", corrections=True)])
    there = {name: EVERYTHING.get(name) for name in topic_names(app)}
    found = changes(app, found=there, committed=COMMITTED, applied=APPLIED, partitions=4, largest_record_bytes=2_000_000)
    assert [(topic.name, topic.partitions, topic.role) for topic in found.topics] == [("buyers.v1.corrections", 3, "corrections of buyer")]


def test_nothing_is_changed_twice() -> None:
    """What was applied needs nothing more."""
    found = changes(BEFORE, found=EVERYTHING, committed=COMMITTED, applied=APPLIED, partitions=4, largest_record_bytes=2_000_000)
    assert not found.any()
    assert found.problems == []


def test_a_changed_view_names_its_features() -> None:
    """A changed definition says what comes, what goes, and that its state is filled anew."""
    after = app_with(hr.count(over="1h"), hr.mean("spent", over="2h"))
    found = changes(after, found=EVERYTHING, committed=COMMITTED, applied=APPLIED, partitions=4, largest_record_bytes=2_000_000)
    (view,) = found.views
    assert (view.what, list(view.added), list(view.removed), view.rebuilds) == ("changed", ["mean_spent_2h"], ["sum_spent_1h"], True)
    assert found.topics == []


def test_predictions_with_other_partitions_than_their_source_are_a_problem() -> None:
    """What apply cannot mend is said."""
    other = {**EVERYTHING, "buyers.v1": 5}
    found = changes(BEFORE, found=other, committed=COMMITTED, applied=APPLIED, partitions=4, largest_record_bytes=2_000_000)
    assert "buyers.v1 has 5 partitions" in found.problems[0]


def test_the_newest_definitions_count() -> None:
    """Facts of other kinds and older definitions are passed over."""
    newer = app_with(hr.count(over="2h"))
    assert last_applied([definitions_fact(BEFORE), b'{"kind":"switch"}', definitions_fact(newer), None])["recent"]["features"] == [
        "count_2h"
    ]


def compared(app: hr.App, **settings: str) -> list[str]:
    """The problems of an app whose source topic is there with these settings."""
    return changes(
        app,
        found=EVERYTHING,
        committed=COMMITTED,
        applied=APPLIED,
        partitions=4,
        largest_record_bytes=2_000_000,
        settings={"visits.v1": {name.replace("_", "."): value for name, value in settings.items()}},
    ).problems


def test_a_topic_must_keep_the_longest_window() -> None:
    """Below the window and twice the lateness it is refused, with what would do; below twice the window there is a warning."""
    app = app_with(hr.count(over=["1h", "24h"]))
    hour_ms = 3_600_000
    with pytest.raises(DefinitionError, match=r"keeps its records for 27h .*longest window of .*'recent'.* is 1d .*at least 100800000"):
        compared(app, retention_ms=str(27 * hour_ms))
    assert "less than twice the longest window" in compared(app, retention_ms=str(28 * hour_ms))[0]
    assert compared(app, retention_ms=str(48 * hour_ms)) == []
    assert compared(app, retention_ms="-1") == []
    assert "is compacted" in compared(app, retention_ms="-1", cleanup_policy="compact,delete")[0]


def test_a_topic_that_apply_would_make_too_short_is_refused() -> None:
    """The same holds for the retention that `headrace apply --retention` asks for."""
    with pytest.raises(DefinitionError, match="keeps its records for 30m"):
        changes(
            BEFORE,
            found=dict.fromkeys(topic_names(BEFORE)),
            committed={},
            applied={},
            partitions=4,
            retention_ms="1800000",
            largest_record_bytes=2_000_000,
        )
