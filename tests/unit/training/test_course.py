"""One entity's features over time, and the chart of them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

import headrace as hr
from headrace.errors import DefinitionError
from headrace.training.chart import draw
from headrace.training.course import Course, entity_course
from tests.unit.training import shop

CARD = "card-3"
HOUR_MS = 3_600_000


def course(**options: object) -> Course:
    """Of a card that pays now and then."""
    given: dict[str, object] = {"events": shop.table(shop.rows()), **options}
    return entity_course(shop.app, "spending", CARD, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["table", "topics"])
def test_values_are_answers_of_look_ups(where: str) -> None:
    """Each value is what a look-up as of that instant would have answered; the instants are the grid, its ends and the entity's events."""
    table = shop.table(shop.rows())
    found = course(events=table if where == "table" else hr.Topics.of(shop.driven(disorder=False).log), grid="10m")
    at = pa.table({"card": [CARD] * len(found.instants_ms), "as_of": found.instants_ms})
    asked = hr.training_frame(hr.Pipeline("p", views=[shop.spending], predictions="p.v1"), events=table, at=at)
    assert shop.bits(found.values) == shop.bits(asked.values)
    times = sorted(row["at"] for row in shop.rows() if row["card"] == CARD)
    assert found.event_times_ms.tolist() == times
    assert (found.instants_ms[0], found.instants_ms[-1]) == (times[0], times[-1])
    assert set(times) <= set(found.instants_ms.tolist())
    assert {int(one) % 600_000 for one in set(found.instants_ms.tolist()) - set(times)} == {0}


def test_where_nothing_is_in_the_window_is_known() -> None:
    """An hour behind the last event the window of an hour is empty, that of six is not."""
    times = sorted(row["at"] for row in shop.rows() if row["card"] == CARD)
    found = course(from_ms=times[-1], until_ms=times[-1] + 2 * HOUR_MS, grid="10m")
    short, long = (next(one for one in shop.spending.features if one.name == name) for name in ("count_1h", "count_6h"))
    assert found.empty(short).tolist() == (found.values[:, 0] == 0).tolist()
    assert found.empty(short)[-1]
    assert not found.empty(short)[0]
    assert not found.empty(long).any()


def test_without_a_grid_there_are_some_hundred_instants() -> None:
    """The grid is chosen by how long the course is."""
    assert 600 <= len(course().instants_ms) < 3_000
    assert len(course(from_ms=shop.START_MS, until_ms=shop.START_MS).instants_ms) >= 1


def test_what_has_no_course_is_told() -> None:
    """A view or entity that is not there, a grid that is too fine and an end before the beginning are refused with what there is."""
    events = shop.table(shop.rows())
    with pytest.raises(DefinitionError, match="has no view 'nothing'; it has spending"):
        entity_course(shop.app, "nothing", CARD, events=events)
    with pytest.raises(DefinitionError, match="hold none of card 'card-99'"):
        entity_course(shop.app, "spending", "card-99", events=events)
    with pytest.raises(DefinitionError, match="would end before it begins"):
        course(from_ms=2, until_ms=1)
    with pytest.raises(DefinitionError, match="makes more than 200,000 instants"):
        course(grid="10ms")


def test_the_chart_says_what_it_shows(tmp_path: Path) -> None:
    """A row a feature, labelled with its unit and what it is when empty; one axis of time; the same course gives the same file."""
    found = course()
    for name in ("one.svg", "two.svg"):
        draw(found, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    tree = ET.parse(tmp_path / "one.svg")  # noqa: S314 - our own
    texts = ["".join(one.itertext()).strip() for one in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"count_1h  [events]", "mean_amount_6h  [EUR]", "seconds_since_last over 6h  [s]"} <= set(texts)
    assert (texts.count("when empty: 0"), texts.count("when empty: absent")) == (2, len(shop.spending.features) - 2)
    assert texts.count("event time, UTC") == 1
    assert any(text.startswith("spending of card card-3") for text in texts)


def test_the_picture_is_one(tmp_path: Path) -> None:
    """A PNG, wide enough to read."""
    draw(course(), tmp_path / "chart.PNG")
    content = (tmp_path / "chart.PNG").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20], "big") > 1_500


def test_a_key_with_a_dollar_is_a_text(tmp_path: Path) -> None:
    """No part of a key is taken for a formula."""
    rows = [row | {"card": r"a$\frac{b$"} for row in shop.rows(20)]
    found = entity_course(shop.app, "spending", r"a$\frac{b$", events=shop.table(rows))
    draw(found, tmp_path / "chart.svg")
    assert r"a$\frac{b$" in (tmp_path / "chart.svg").read_text(encoding="utf-8")


def test_other_endings_are_refused(tmp_path: Path) -> None:
    """What cannot be written is told with what can, and so is a place where nothing can."""
    with pytest.raises(DefinitionError, match=r"neither \.svg nor \.png"):
        draw(course(), tmp_path / "chart.pdf")
    with pytest.raises(DefinitionError, match="cannot be written"):
        draw(course(), tmp_path / "nowhere" / "chart.svg")


def test_one_event_is_enough(tmp_path: Path) -> None:
    """A course of one instant has a chart."""
    found = entity_course(shop.app, "spending", "card-x", events=shop.table([shop.rows(1)[0] | {"card": "card-x"}]))
    assert np.array_equal(found.instants_ms, found.event_times_ms)
    draw(found, tmp_path / "chart.svg")
