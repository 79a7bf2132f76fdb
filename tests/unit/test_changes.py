"""What `headrace plan` finds."""

from __future__ import annotations

import headrace as hr
from headrace.changes import changes, definitions_fact, last_applied, topic_names
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
EVERYTHING = {"visits.v1": 3, "buyers.v1": 3, "shop.dead-letters.v1": 3, "shop.facts.v1": 1}
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
        ("shop.dead-letters.v1", 4),
        ("shop.facts.v1", 1),
    ]
    assert {topic.settings["retention.ms"] for topic in found.topics} == {"-1"}
    assert [view.what for view in found.views] == ["new"]
    assert len(found.offsets) == 4


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
