"""Spreads of scores: counted in the same bars, told in text, drawn in SVG."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from headrace.predict.score_spread import BARS, beside, histogram_text, picture_svg
from headrace.predict.signature import OutputKind
from headrace.types import Float64s

DRAW = np.random.default_rng(4)
LOW, HIGH = DRAW.beta(2, 8, 1_000), DRAW.beta(8, 2, 500)
SVG = "{http://www.w3.org/2000/svg}"


def parsed(picture: str) -> ET.Element:
    """A picture as a tree of elements."""
    return ET.fromstring(picture)  # noqa: S314 - it was drawn here


def test_probabilities_are_counted_between_nought_and_one() -> None:
    """Bars of probabilities are the same for every model, and every score is in one."""
    told = beside(OutputKind.PROBABILITY, LOW)
    assert (told["edges"][0], told["edges"][-1], len(told["edges"])) == (0, 1, BARS + 1)
    assert sum(told["candidate"]["counts"]) == 1_000
    assert told["candidate"]["mean"] == pytest.approx(LOW.mean())
    assert told["candidate"]["quantiles"]["0.5"] == pytest.approx(np.median(LOW))
    assert told["champion"] is told["apart"] is None


def test_both_are_counted_in_the_same_bars() -> None:
    """Candidate and champion share edges; how far their scores are apart is told."""
    told = beside(OutputKind.PROBABILITY, LOW[:500], HIGH)
    assert sum(told["candidate"]["counts"]) == sum(told["champion"]["counts"]) == 500
    assert told["apart"]["mean"] == pytest.approx(np.abs(LOW[:500] - HIGH).mean())
    assert told["apart"]["most"] == pytest.approx(np.abs(LOW[:500] - HIGH).max())


def test_outlier_does_not_flatten_the_bars() -> None:
    """A value far out is counted in the outermost bar, and told as the most."""
    scores = np.append(np.linspace(10, 20, 1_000), 1e9)
    told = beside(OutputKind.VALUE, scores)
    assert told["edges"][-1] < 21
    assert sum(told["candidate"]["counts"]) == 1_001
    assert told["candidate"]["most"] == 1e9


@pytest.mark.parametrize("scores", [np.full(5, 3.0), np.full(3, np.nan), np.zeros(0), np.array([0.0]), np.array([np.nan, 2.0])])
@pytest.mark.parametrize("kind", list(OutputKind))
def test_any_scores_can_be_told(scores: Float64s, kind: OutputKind) -> None:
    """One value, none at all, no rows: all are plain JSON, a text and a picture."""
    told = beside(kind, scores, scores)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["candidate"]["scored"] == int(np.isfinite(scores).sum())
    assert f"candidate: {len(scores)} rows" in histogram_text(told)
    assert parsed(picture_svg(told)).tag == f"{SVG}svg"


def test_text_has_a_line_a_bar_and_a_line_a_model() -> None:
    """The longest bar stands where most scores are, and shares are percentages of each model's own scores."""
    told = beside(OutputKind.PROBABILITY, LOW[:500], HIGH)
    lines = histogram_text(told, candidate="candidate 4", champion="champion 3").splitlines()
    assert len(lines) == 1 + BARS + 2
    assert lines[0].split() == ["candidate", "4", "champion", "3"]
    low, high = (max(told[name]["counts"]) / 500 for name in ("candidate", "champion"))
    assert any(f"{100 * low:.1f} %" in line for line in lines)
    longest = max(lines[1:-2], key=lambda line: line.count("█"))
    assert f"{100 * max(low, high):.1f} %" in longest
    assert lines[-1].startswith("champion 3: 500 rows, 0 without a score; mean 0.")
    assert all(len(line) < 100 for line in lines)


def test_rows_without_a_score_are_told() -> None:
    """NaN is in no bar, and is counted."""
    scores = np.where(np.arange(100) < 30, np.nan, 0.5)
    told = beside(OutputKind.PROBABILITY, scores)
    assert "candidate: 100 rows, 30 without a score; mean 0.5" in histogram_text(told)


def test_picture_draws_every_bar_and_escapes_names() -> None:
    """There is a bar for every count that is not nought, its height is its share, and a name cannot break out."""
    told = beside(OutputKind.PROBABILITY, LOW[:500], HIGH)
    picture = picture_svg(told, candidate="<script>", champion="b&c")
    root = parsed(picture)
    groups = root.findall(f"{SVG}g")
    for group, name in zip(groups, ("candidate", "champion"), strict=True):
        counts = [count for count in told[name]["counts"] if count]
        heights = [float(str(bar.get("height"))) for bar in group.findall(f"{SVG}rect")]
        assert len(heights) == len(counts)
        assert np.argmax(heights) == np.argmax(counts)
    assert "<script>" not in picture
    assert any((text.text or "").startswith("b&c: 500 of 500 rows scored") for text in root.iter(f"{SVG}text"))


def test_same_scores_give_the_same_picture() -> None:
    """Nothing of time or chance is in the picture."""
    assert picture_svg(beside(OutputKind.VALUE, HIGH)) == picture_svg(beside(OutputKind.VALUE, HIGH))
