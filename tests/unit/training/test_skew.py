from __future__ import annotations

import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.training.skew import skew
from tests.unit.training import shop


def test_a_log_in_order_has_no_skew() -> None:
    """Rows from topics and from a file of the same events agree to a billionth, all of them."""
    driver = shop.driven(disorder=False)
    found = skew(hr.training_frame(shop.app, events=hr.Topics.of(driver.log)), hr.training_frame(shop.app, events=shop.table(shop.rows())))
    assert (found.rows, found.differing, found.only_one, found.only_other, found.by_feature) == (300, 0, 0, 0, {})


def test_rows_that_came_late_or_are_missing_are_counted() -> None:
    """What a file cannot know (lateness) or does not have (events) is counted, by feature."""
    driver = shop.driven()
    rows = shop.rows(disorder=True)
    served = hr.training_frame(shop.app, events=hr.Topics.of(driver.log))
    found = skew(served, hr.training_frame(shop.app, events=shop.table(rows[:-10])))
    assert found.rows == 290
    assert (found.only_one, found.only_other) == (10, 0)
    assert 0 < found.late < found.differing < found.rows
    assert found.by_feature["spending.count_1h"] > 0
    assert "amount" not in found.by_feature
    assert skew(served, served).differing == 0


def test_frames_of_other_definitions_are_not_compared() -> None:
    """Other features, or answers in place of events, are refused."""
    events = shop.table(shop.rows(5))
    one = hr.training_frame(shop.app, events=events)
    other = hr.training_frame(hr.Pipeline("p", views=[shop.spending], predictions="p.v1"), events=events)
    with pytest.raises(DefinitionError, match="other features"):
        skew(one, other)
    answers = hr.training_frame(shop.app, events=events, at=events.append_column("as_of", events["at"]))
    with pytest.raises(DefinitionError, match="no events to compare"):
        skew(answers, answers)
