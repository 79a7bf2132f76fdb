"""A picture of a scenario: scores before and after, how far each moved, and, where they are told, calibration and segments.

In the outermost bars of a histogram lie the tails, too: one percent on either side (`distribution.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from headrace.training.chart import Axes, drawn_on
from headrace.training.distribution import Distribution
from headrace.training.grading import Bin
from headrace.training.preview_shown import number
from headrace.training.scenario_shown import instant
from headrace.training.scenarios import Scenario
from headrace.training.what_changed import Segment

_BEFORE, _AFTER, _QUIET = "#2b6cb0", "#c05621", "#555555"
_ROW, _MARGIN = 3.1, 1.2
"""Inches."""
_MOST_BARS = 12
_LONGEST = 28

_Panel = Callable[[Axes], None]


def draw(found: Scenario, to: Path) -> None:
    """Write the picture as SVG or PNG, by the ending of the name. The same scenario gives the same SVG. Raises `DefinitionError`."""
    panels = _panels(found)
    rows = (len(panels) + 1) // 2
    with drawn_on(to, height=_ROW * rows + _MARGIN) as figure:
        grid = figure.subplots(rows, 2, squeeze=False)
        figure.suptitle(_title(found), x=0.01, ha="left", fontsize=10)
        for panel, axes in zip(panels, grid.flat, strict=False):
            panel(axes)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)


def _panels(found: Scenario) -> list[_Panel]:
    comparison = found.comparison
    panels: list[_Panel] = [lambda axes: _scores(axes, found), lambda axes: _change(axes, comparison.shift.change)]
    grading, segments = comparison.grading, comparison.segments
    if grading is not None and grading.calibration_before:
        panels.append(lambda axes: _calibration(axes, grading.calibration_before, grading.calibration_after))
    if segments:
        panels.append(lambda axes: _segments(axes, found.by, segments))
    return panels


def _title(found: Scenario) -> str:
    lines = [f"{found.pipeline}: {len(found.rows):,} events, {instant(found.first_ms)} to {instant(found.last_ms)} UTC"]
    lines.append(f"before: {found.before}; after: {found.after}")
    lines += ["; ".join(found.changed)] if found.changed else []
    decisions = found.comparison.decisions
    if decisions is not None:
        lines.append(f"{decisions.to_yes:,} decisions flip to yes, {decisions.to_no:,} to no")
    return "\n".join(lines)


def _scores(axes: Axes, found: Scenario) -> None:
    shift, decisions = found.comparison.shift, found.comparison.decisions
    limits = (None, None) if decisions is None else (decisions.threshold_before, decisions.threshold_after)
    for spread, color, name, limit in ((shift.before, _BEFORE, "before", limits[0]), (shift.after, _AFTER, "after", limits[1])):
        _histogram(axes, spread, color, f"{name}, mean {number(spread.mean)}")
        if limit is not None:
            axes.axvline(limit, color=color, linewidth=0.9, linestyle=(0, (3, 2)))
    _named(axes, "scores" if decisions is None else "scores; dashed: the threshold", "score", "share of events per unit")
    axes.legend(frameon=False, fontsize=7.5)


def _change(axes: Axes, change: Distribution) -> None:
    _histogram(axes, change, _QUIET, f"mean {number(change.mean)}")
    axes.axvline(0, color="black", linewidth=0.6)
    _named(axes, "change of each score", "after - before", "share of events per unit")
    axes.legend(frameon=False, fontsize=7.5)


def _histogram(axes: Axes, spread: Distribution, color: str, label: str) -> None:
    edges, counts = np.array(spread.edges), np.array(spread.counts, dtype=np.float64)
    if not len(counts):
        axes.plot([], [], color=color, label=label)
    elif edges[0] == edges[-1]:
        axes.axvline(edges[0], color=color, linewidth=2.0, label=label)
    else:
        axes.stairs(counts / (counts.sum() * np.diff(edges)), edges, color=color, fill=True, alpha=0.25)
        axes.stairs(counts / (counts.sum() * np.diff(edges)), edges, color=color, linewidth=1.1, label=label)


def _calibration(axes: Axes, before: Sequence[Bin], after: Sequence[Bin]) -> None:
    axes.plot([0, 1], [0, 1], color=_QUIET, linewidth=0.7)
    for bins, color, name in ((before, _BEFORE, "before"), (after, _AFTER, "after")):
        axes.plot(
            [one.predicted for one in bins], [one.observed for one in bins], "o-", color=color, linewidth=1.1, markersize=3, label=name
        )
    _named(axes, "calibration, by tenths", "predicted", "came true")
    axes.legend(frameon=False, fontsize=7.5)


def _segments(axes: Axes, by: str, segments: Sequence[Segment]) -> None:
    told = segments[:_MOST_BARS]
    moved = [one.mean_after - one.mean_before for one in told]
    axes.barh(range(len(told)), moved, color=[_AFTER if change > 0 else _BEFORE for change in moved], height=0.7)
    axes.set_yticks(range(len(told)), [_short(f"{one.name} ({one.rows:,})") for one in told])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    _named(axes, f"mean change by {by}", "after - before", "")


def _named(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=8.5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
