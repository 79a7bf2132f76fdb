"""Spans of a log: how bounds are written, what lies between them, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from headrace.errors import DefinitionError
from headrace.training.span import Bound, Span, span_of

NOON_MS = 1_767_182_400_000


@pytest.mark.parametrize(
    "bound",
    [
        NOON_MS,
        str(NOON_MS),
        "2025-12-31T12:00",
        "2025-12-31T13:00+01:00",
        ["2025-12-31T12:00:00Z"],
        datetime(2025, 12, 31, 12, tzinfo=UTC),
        datetime(2025, 12, 31, 11, tzinfo=timezone(-timedelta(hours=1))),
    ],
)
def test_an_instant_in_any_form(bound: Bound) -> None:
    """Milliseconds, ISO 8601 with and without a zone, a datetime: all the same."""
    assert span_of(bound, None) == Span(begin_ms=NOON_MS)
    assert span_of(None, bound) == Span(end_ms=NOON_MS)


def test_offsets_in_any_form() -> None:
    """As a mapping, or as texts, one for each partition."""
    assert span_of({0: 5, 2: 7}, ["2:9"]) == Span(begins={0: 5, 2: 7}, ends={2: 9})
    assert span_of(["0:5", "2:7"], "2:9") == Span(begins={0: 5, 2: 7}, ends={2: 9})
    assert span_of(None, None).whole


def test_what_lies_inside() -> None:
    """From the beginning up to, not with, the end; by offsets only partitions that are named; both together."""
    times, partitions = np.array([10, 20, 30, 20]), np.array([0, 0, 1, 2], dtype=np.int32)
    offsets = np.array([5, 6, 7, 0])

    def inside(begin: Bound | None, end: Bound | None) -> list[bool]:
        found: list[bool] = span_of(begin, end).inside(times, partitions, offsets).tolist()
        return found

    assert inside(None, None) == [True, True, True, True]
    assert inside(20, None) == [False, True, True, True]
    assert inside(20, 30) == [False, True, False, True]
    assert inside({0: 6}, None) == [False, True, False, False]
    assert inside({0: 5}, {0: 6, 1: 8}) == [True, False, True, False]
    assert inside(20, {0: 7, 2: 1}) == [False, True, False, True]


@pytest.mark.parametrize(
    ("begin", "end", "says"),
    [
        ("yesterday", None, "begin='yesterday' is neither an instant, such as"),
        (None, ["0:1", "2026-01-01"], "end='2026-01-01': give one instant, or one offset for each"),
        (["0:1", "0:2"], None, "begin='0:2': give one instant, or one offset for each"),
        (20, 20, "nothing lies between"),
        ({1: 4}, {1: 4}, "of partition 1 it ends at 4, where it begins at 4"),
        (True, None, "begin=True is neither an instant nor offsets by partition"),
    ],
)
def test_what_is_no_span(begin: Bound | None, end: Bound | None, says: str) -> None:
    """Each error names the bound, and what may be written."""
    with pytest.raises(DefinitionError, match=says):
        span_of(begin, end)


def test_partitions_that_are_not_there() -> None:
    """They are named with those that are; nobody asks for these where no offsets are named."""
    with pytest.raises(DefinitionError, match="there is no partition 3 to take offsets of; there are 0 to 1"):
        span_of({3: 0}, None).check(lambda: [1, 0])
    span_of(5, None).check(lambda: pytest.fail("nobody needs them"))
