"""How a scenario shows itself: as text, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.errors import DefinitionError
from tests.unit.training import shop
from tests.unit.training.shop_models import looking_at
from tests.unit.training.test_archive import with_outcomes

FIRST = looking_at("amount", times=0.1, plus=-1.0)
SECOND = looking_at("spending.mean_amount_6h", times=0.1, plus=-1.0, version="2")


@pytest.fixture
def whole() -> hr.Scenario:
    """A scenario with everything in it that can be told."""
    topics = hr.Topics.of(with_outcomes(shop.driven()).log)
    options: dict[str, Any] = {"inputs": {"amount": "amount + 3"}, "drop_inputs": ["pieces"], "by": "shop"}
    return hr.scenario(shop.app, events=topics, labels=topics, baseline=FIRST, model=SECOND, threshold=0.4, **options)


def test_all_of_it_in_a_terminal(whole: hr.Scenario) -> None:
    """What was compared stands first, then what was served, scores, decisions, outcomes, segments and examples; no line is ragged."""
    text = str(whole)
    assert repr(whole) == text
    lines = text.splitlines()
    assert lines[0].startswith(f"fraud: {len(whole.rows)} events of payments.v1, 2023-11-14T2")
    assert lines[1].startswith("  before     fraud version 1 (")
    assert lines[1].endswith("), yes from 0.5 on")
    assert lines[2].endswith("), yes from 0.4 on")
    heads = [line.split("  ")[0] for line in lines if line and not line.startswith(" ")]
    assert heads[1:4] == ["scores", "decisions", next(head for head in heads if head.startswith("outcomes, known of "))]
    assert heads[4:] == ["by shop", "most changed", *heads[6:]]
    order = [
        text.index(word) for word in ("  changed  ", "  left out ", "  served   ", "\nscores", "\ndecisions", "\noutcomes", "\nby shop")
    ]
    assert order == sorted(order)
    assert all(line == line.rstrip() for line in lines)
    assert "6 records: MALFORMED" in text
    assert "1 records: CRASH_LOOP" in text


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_a_picture_of_it(whole: hr.Scenario, ending: str, tmp_path: Path) -> None:
    """Four panels, as SVG with its words in it, or as PNG; the same scenario gives the same SVG."""
    for name in ("one", "two"):
        whole.draw((tmp_path / name).with_suffix(ending))
    first, second = ((tmp_path / name).with_suffix(ending).read_bytes() for name in ("one", "two"))
    if ending == ".png":
        assert first.startswith(b"\x89PNG")
        return
    assert first == second
    for words in ("fraud version 2", "change of each score", "calibration, by tenths", "mean change by shop", "decisions flip to yes"):
        assert words in first.decode()


def test_a_picture_of_no_change(tmp_path: Path) -> None:
    """Where every change is the same, and where there is no score at all, there is a picture, too; panels without content are left out."""
    plain = hr.scenario(shop.app, events=shop.table(shop.rows()), baseline=FIRST)
    plain.draw(tmp_path / "same.svg")
    empty = hr.scenario(shop.app, events=shop.table(shop.rows()), baseline=FIRST, empty_features=["amount"])
    empty.draw(tmp_path / "empty.svg")
    assert "calibration" not in (tmp_path / "same.svg").read_text(encoding="utf-8")
    assert (tmp_path / "empty.svg").exists()


def test_what_is_no_picture_is_refused(whole: hr.Scenario, tmp_path: Path) -> None:
    """The endings that can be drawn are named."""
    with pytest.raises(DefinitionError, match=r"is neither \.svg nor \.png"):
        whole.draw(tmp_path / "scenario.pdf")


def test_outcomes_of_which_none_is_known_are_told_in_a_line() -> None:
    """With the reason."""
    outcomes = [{"id": "nobody", "known_at": shop.START_MS, "disputed": 1.0}]
    found = hr.scenario(shop.app, events=shop.table(shop.rows()), labels=shop.table(outcomes), baseline=FIRST)
    assert "\noutcomes, known of 0 events; not: 300 no outcome known" in str(found)
    assert found.comparison.grading is not None
    assert "AUC" not in str(found)
