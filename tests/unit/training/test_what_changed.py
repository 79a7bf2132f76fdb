"""What is told of two scores a row: numbers told by hand on a few rows, and laws on many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.predict.signature import OutputKind
from headrace.training.grading import probability_grades
from headrace.training.what_changed import ABSENT, OTHERS, Comparison, Rules, ScoredRows, compare, in_order

NAN = math.nan
BEFORE = [0.1, 0.4, 0.6, 0.9, NAN, 0.5]
AFTER = [0.2, 0.7, 0.3, 0.9, 0.5, NAN]
OUTCOME = [0.0, 1.0, 0.0, NAN, 1.0, 1.0]


def rows(before: list[float] = BEFORE, after: list[float] = AFTER, **changes: Any) -> ScoredRows:
    """Rows with these scores, one an offset."""
    count = len(before)
    fields: dict[str, Any] = {
        "entities": pa.array([f"e{row}" for row in range(count)]),
        "ids": None,
        "segments": None,
        "times_ms": 1_000 * np.arange(count),
        "partitions": np.zeros(count, dtype=np.int32),
        "offsets": np.arange(count),
        "before": np.array(before),
        "after": np.array(after),
    }
    return ScoredRows(**{**fields, **changes})


def compared(found: ScoredRows, **changes: Any) -> Comparison:
    """By a threshold of a half before and after, unless told otherwise."""
    rules: dict[str, Any] = {
        "kind": OutputKind.PROBABILITY,
        "thresholds": (0.5, 0.5),
        "by": None,
        "examples": 5,
        "id_of": lambda partition, offset: f"t-{partition}-{offset}-m",
    }
    return compare(found, Rules(**{**rules, **changes}))


def test_the_shift_of_four_scores() -> None:
    """Rows with one score alone are counted and are in no figure."""
    shift = compared(rows()).shift
    assert (shift.rows, shift.refused_before, shift.refused_after, shift.unchanged) == (4, 1, 1, 1)
    assert (shift.before.mean, shift.after.mean) == pytest.approx((0.5, 0.525))
    assert (shift.change.mean, shift.change.least, shift.change.most) == pytest.approx((0.025, -0.3, 0.3))
    assert sum(shift.change.counts) == 4


def test_flips_at_one_threshold_and_at_two() -> None:
    """0.4 to 0.7 becomes yes, 0.6 to 0.3 no; from 0.2 on all but the first were yes, and a score that is the threshold is a yes."""
    one = compared(rows()).decisions
    assert one is not None
    assert (one.yes_before, one.yes_after, one.to_yes, one.to_no) == (2, 2, 1, 1)
    two = compared(rows(), thresholds=(0.5, 0.2)).decisions
    assert two is not None
    assert (two.yes_before, two.yes_after, two.to_yes, two.to_no) == (2, 4, 2, 0)
    assert compared(rows(), thresholds=None, kind=OutputKind.VALUE).decisions is None


def test_outcomes_of_the_rows_that_have_everything() -> None:
    """Three rows have both scores and an outcome: of these both are graded, each at its own threshold."""
    grading = compared(rows(outcome=np.array(OUTCOME)), thresholds=(0.5, 0.25)).grading
    assert grading is not None
    outcome = np.array([0.0, 1.0, 0.0])
    assert grading.rows == 3
    assert grading.mean == pytest.approx(1 / 3)
    assert grading.before == probability_grades(np.array([0.1, 0.4, 0.6]), outcome, 0.5)
    assert grading.after == probability_grades(np.array([0.2, 0.7, 0.3]), outcome, 0.25)
    assert (grading.before["auc"], grading.after["auc"]) == (0.5, 1.0)
    assert (grading.before["precision"], grading.after["precision"], grading.after["recall"]) == (0.0, 0.5, 1.0)
    assert sum(one.rows for one in grading.calibration_after) == 3


def test_values_are_graded_by_their_distance() -> None:
    """A model of values, and outcomes that are more than 0 and 1, have MAE and RMSE."""
    found = rows([1.0, 2.0], [3.0, 5.0], outcome=np.array([2.0, 4.0]))
    for kind, thresholds in ((OutputKind.VALUE, None), (OutputKind.PROBABILITY, (0.5, 0.5))):
        grading = compared(found, kind=kind, thresholds=thresholds).grading
        assert grading is not None
        assert (dict(grading.before), dict(grading.after)) == ({"mae": 1.5, "rmse": math.sqrt(2.5)}, {"mae": 1.0, "rmse": 1.0})
        assert grading.calibration_before == ()


def test_outcomes_of_which_none_is_known() -> None:
    """There are no figures, and no error."""
    grading = compared(rows(outcome=np.full(6, NAN))).grading
    assert grading is not None
    assert grading.rows == 0
    assert all(map(math.isnan, (grading.mean, *grading.before.values())))


def test_examples_are_the_most_changed() -> None:
    """Largest changes first, of equal ones the first row; what did not change is none; flips have examples of their own."""
    before, after = [0.125, 0.375, 0.625, 0.9, NAN, 0.5], [0.25, 0.625, 0.375, 0.9, 0.5, NAN]
    found = compared(rows(before, after, outcome=np.array(OUTCOME), ids=pa.array([f"f{row}" for row in range(6)])))
    assert [(one.id, one.entity, one.join, one.outcome) for one in found.most_changed] == [
        ("t-0-1-m", "e1", "f1", 1.0),
        ("t-0-2-m", "e2", "f2", 0.0),
        ("t-0-0-m", "e0", "f0", 0.0),
    ]
    assert [one.offset for one in found.to_yes] == [1]
    assert [(one.before, one.after, one.event_time_ms) for one in found.to_no] == [(0.625, 0.375, 2_000)]
    few = compared(rows([0.0] * 50, [0.5] * 50), examples=3)
    assert [one.offset for one in few.most_changed] == [0, 1, 2]
    assert [one.offset for one in few.to_yes] == [0, 1, 2]
    assert compared(rows(), examples=0).most_changed == ()


def test_segments_have_the_same_figures_of_their_rows() -> None:
    """The largest first; a row without a value has a segment, too."""
    found = compared(rows(segments=np.array(["b", "b", "a", "a", "b", None], dtype=object), outcome=np.array(OUTCOME)), by="text")
    assert [one.name for one in found.segments] == ["b", "a", ABSENT]
    first, second, last = found.segments
    assert first.rows == 2
    assert (first.mean_before, first.mean_after) == pytest.approx((0.25, 0.45))
    assert first.decisions is not None
    assert second.decisions is not None
    assert (first.decisions.to_yes, first.decisions.to_no, second.decisions.to_yes, second.decisions.to_no) == (1, 0, 0, 1)
    assert first.grading is not None
    assert first.grading.before["auc"] == 1.0
    assert last.rows == 0
    assert math.isnan(last.mean_before)


def test_numbers_and_conditions_tell_segments() -> None:
    """A number by its value, a condition as true and false."""
    numbers = compared(rows(segments=np.array([1.0, 1.0, 2.5, 2.5, 1.0, NAN])), by="number")
    assert [one.name for one in numbers.segments] == ["1", "2.5", ABSENT]
    conditions = compared(rows(segments=np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])), by="boolean")
    assert [one.name for one in conditions.segments] == ["true", "false"]


def test_many_segments_are_told_in_part(seed: int) -> None:
    """The twenty largest, and all others together: no row is lost; one more than twenty is told whole."""
    draw = np.random.default_rng(seed)
    before, after = draw.random((2, 600)).tolist()
    segments = np.array([f"s{number}" for number in np.minimum(draw.geometric(0.08, 600), 40)], dtype=object)
    found = compared(rows(before, after, segments=segments), by="text")
    counts = [one.rows for one in found.segments[:-1]]
    assert (len(found.segments), found.segments[-1].name) == (21, OTHERS)
    assert counts == sorted(counts, reverse=True)
    assert sum(one.rows for one in found.segments) == 600
    few = np.array([f"s{number % 21}" for number in range(600)], dtype=object)
    assert OTHERS not in {one.name for one in compared(rows(before, after, segments=few), by="text").segments}


def test_figures_of_many_rows(seed: int) -> None:
    """Flips, yes and no balance, and the most changed are the most changed, whatever the scores."""
    draw = np.random.default_rng(seed)
    before, after = draw.random((2, 3_000))
    found = compared(rows(before.tolist(), after.tolist()), thresholds=(0.5, 0.6), examples=7)
    assert found.decisions is not None
    assert found.decisions.yes_after - found.decisions.yes_before == found.decisions.to_yes - found.decisions.to_no
    wanted = sorted(np.abs(after - before).tolist(), reverse=True)[:7]
    assert [abs(one.after - one.before) for one in found.most_changed] == wanted
    assert found.shift.change.mean == pytest.approx(after.mean() - before.mean(), abs=1e-12)


def test_stretches_become_one_by_partition_and_offset() -> None:
    """Whatever order they were read in: every column moves along."""
    first = rows([0.1, 0.2], [0.3, 0.4], partitions=np.array([1, 0], dtype=np.int32), offsets=np.array([0, 9]))
    other = rows([0.5], [0.6], partitions=np.array([0], dtype=np.int32), offsets=np.array([3]), entities=pa.array(["x"]))
    found = in_order([first, other])
    assert list(zip(found.partitions.tolist(), found.offsets.tolist(), strict=True)) == [(0, 3), (0, 9), (1, 0)]
    assert (found.before.tolist(), found.after.tolist()) == ([0.5, 0.2, 0.1], [0.6, 0.4, 0.3])
    assert found.entities.to_pylist() == ["x", "e1", "e0"]
