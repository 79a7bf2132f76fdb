"""How a preview shows itself: as a plain text table in a terminal, as HTML with small histograms in a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.html_table import Cell, Section, bars, table
from headrace.training.distribution import SHARES, Distribution

if TYPE_CHECKING:
    from headrace.training.previewing import FeaturePreview, Preview

_BLOCKS = " ▁▂▃▄▅▆▇█"
_GROUPED = 2
"""So many bars are one block of text."""
_QUANTILES = tuple("median" if share == 0.5 else f"{100 * share:g} %" for share in SHARES)  # noqa: PLR2004
_FIGURES = ("mean", "least", *_QUANTILES, "most")
_BETWEEN = "middle 98 %"
_LARGE, _SMALL, _GROUPS = 1e7, 1e-3, 1e3


def text(preview: Preview) -> str:
    """For a terminal: heading, then a line a feature."""
    measure = _measure(preview.features)
    head = ["feature", "absent", "default", *_FIGURES, _BETWEEN, *([measure, "pearson"] if measure else [])]
    rows = [[one.name, *_line(one.distribution)] for one in preview.features]
    if all(one.distribution.defaults == 0 for one in preview.features):
        head, *rows = [[cell for place, cell in enumerate(row) if head[place] != "default"] for row in (head, *rows)]
    widths = [max(map(len, found)) for found in zip(head, *rows, strict=True)]
    left = {0, head.index(_BETWEEN)}
    lines = []
    for row in [head, *rows]:
        sized = list(zip(row, widths, strict=True))
        lines.append(
            "  ".join(cell.ljust(width) if place in left else cell.rjust(width) for place, (cell, width) in enumerate(sized)).rstrip()
        )
    return "\n".join([*preview.heading, "", *lines])


def _line(found: Distribution) -> list[str]:
    shares = [_percent(part, found.rows) for part in (found.absent, found.defaults)]
    about = [] if found.outcome is None else [_share(found.outcome.value), _share(found.outcome.pearson)]
    return [*shares, *map(number, _figures(found)), blocks(found.counts), *about]


def html(preview: Preview) -> str:
    """For a notebook."""
    measure = _measure(preview.features)
    head = [Cell("feature"), *(Cell(name, number=True) for name in ("events", "absent", "default", *_FIGURES)), Cell(_BETWEEN)]
    head += [Cell(measure, title=_EXPLAINED[measure], number=True), Cell("pearson", number=True)] if measure else []
    drawn = table(preview.heading[0], head, [Section("", [_row(one) for one in preview.features])], notes=preview.heading[1:])
    return f"<div>{drawn}<br/>{_examples(preview.examples)}</div>"


_EXPLAINED = {
    "AUC": "the chance that of two events, one with outcome 1 and one with 0, the former has the larger value; 0.5 says nothing",
    "Spearman": "the correlation of ranks, -1 to 1; 0 says nothing",
}


def _row(one: FeaturePreview) -> list[Cell]:
    found = one.distribution
    unit = f" [{one.unit}]" if one.unit else ""
    cells = [Cell(one.name + unit, title=one.description)]
    figures = [f"{found.rows:,}", _percent(found.absent, found.rows), _percent(found.defaults, found.rows), *map(number, _figures(found))]
    cells += [Cell(figure, number=True) for figure in figures]
    title = f"{number(found.edges[0])} to {number(found.edges[-1])}; tails are in the outermost bars" if found.edges else "no values"
    cells.append(Cell(drawn=bars(found.counts, title)))
    if found.outcome is not None:
        cells += [Cell(_share(found.outcome.value), title=f"over {found.outcome.rows:,} events", number=True)]
        cells += [Cell(_share(found.outcome.pearson), number=True)]
    return cells


def _examples(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    head = [Cell("examples"), *(Cell(f"{place}", number=True) for place in range(1, len(rows) + 1))]
    return table("", head, [Section("", [[Cell(name), *(Cell(_value(row[name]), number=True) for row in rows)] for name in rows[0]])])


def _measure(features: Sequence[FeaturePreview]) -> str:
    """The same for all features: it depends on the outcome alone."""
    return next((one.distribution.outcome.measure for one in features if one.distribution.outcome is not None), "")


def _figures(found: Distribution) -> tuple[float, ...]:
    return (found.mean, found.least, *found.quantiles, found.most)


def blocks(counts: Sequence[int]) -> str:
    """A histogram in one line of text."""
    grouped = [sum(counts[place : place + _GROUPED]) for place in range(0, len(counts), _GROUPED)]
    most = max(grouped, default=0) or 1
    return "".join(_BLOCKS[math.ceil((len(_BLOCKS) - 1) * count / most)] for count in grouped)


def number(value: float) -> str:
    """A number as people read it: four digits that matter."""
    if math.isnan(value):
        return "-"
    if value and not _SMALL <= abs(value) < _LARGE:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= _GROUPS else f"{value:.4g}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _percent(part: int, whole: int) -> str:
    if not part:
        return "0"
    share = 100 * part / whole
    return f"{share:.1f} %" if share >= 0.1 else "<0.1 %"  # noqa: PLR2004 - less is not seen


def _value(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return number(value) if isinstance(value, float) else str(value)
