"""A chart of one entity's features over time: small multiples with one axis of time. The home of matplotlib (`headrace[plot]`).

A row a feature. Lines are what a look-up would have answered; ticks below them are events. Where a window holds no event of the entity the
ground is grey and the line dashed: that is the value declared for nothing, or a gap where none is. Where the log no longer holds all that a
window reaches back to there is no line. Other pictures are drawn on a figure that `drawn_on` gives, too (`scenario_chart.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if find_spec("matplotlib") is None:
    raise ModuleNotFoundError("charts need matplotlib: pip install 'headrace[plot]'", name="matplotlib")

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from headrace.duration import duration_text
from headrace.errors import DefinitionError
from headrace.features.shown import empty_text
from headrace.features.units import unit_of
from headrace.features.view import Feature
from headrace.training.course import Course
from headrace.types import Bools, Int64s

__all__ = ["FORMATS", "Axes", "draw", "drawn_on"]

FORMATS = (".svg", ".png")
_LINE, _EVENTS, _EMPTY, _QUIET = "#2b6cb0", "#c05621", "#e8e8e8", "#555555"
_WIDTH, _ROW, _MARGIN = 11.0, 0.95, 1.1
"""Inches."""
_DOTS_PER_INCH = 150
_WITH_WINDOW = re.compile(r".*_[0-9]+(ms|s|m|h|d)")
_STYLE: Any = {
    "svg.hashsalt": "headrace",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a key may hold a dollar
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(course: Course, to: Path) -> None:
    """Write the chart as SVG or PNG, by the ending of the name. The same course gives the same SVG. Raises `DefinitionError`."""
    features = course.view.features
    with drawn_on(to, height=_ROW * len(features) + _MARGIN) as figure:
        rows = figure.subplots(len(features), 1, sharex=True, squeeze=False)[:, 0]
        figure.suptitle(_title(course), x=0.01, ha="left", fontsize=11, fontweight="bold")
        for place, (axes, feature) in enumerate(zip(rows, features, strict=True)):
            _draw_feature(axes, course, place, feature)
        _draw_time(rows[-1], course)


@contextmanager
def drawn_on(to: Path, *, height: float) -> Iterator[Figure]:
    """A figure in the style of the house, so many inches high, written when all is drawn: as SVG or PNG, by the ending of the name.

    The same drawing gives the same SVG. Raises `DefinitionError` for another ending, and where the file cannot be written.
    """
    if to.suffix.lower() not in FORMATS:
        raise DefinitionError(f"{to} is neither {' nor '.join(FORMATS)}; write for example {to.with_suffix('.svg').name}")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure
        kept = {"metadata": {"Date": None}} if to.suffix.lower() == ".svg" else {"dpi": _DOTS_PER_INCH}
        try:
            figure.savefig(to, **kept)
        except OSError as error:
            raise DefinitionError(f"{to} cannot be written: {error.strerror}; name another file") from error


def _title(course: Course) -> str:
    count = len(_events_shown(course))
    return f"{course.view.name} of {course.view.entity} {course.entity}   {count:,} events, grey where a window holds none"


def _draw_feature(axes: Axes, course: Course, place: int, feature: Feature) -> None:
    times, values, empty = _times(course.instants_ms), course.values[:, place].copy(), course.empty(feature)
    values[~course.whole] = np.nan
    for begin, end in _stretches(empty):
        axes.axvspan(times[begin], times[min(end, len(times) - 1)], color=_EMPTY, linewidth=0, zorder=0)
    filled = np.where(empty, np.nan, values)
    axes.plot(times, filled, color=_LINE, linewidth=1.1, drawstyle="steps-post")
    alone = _alone(np.isfinite(filled))
    axes.plot(times[alone], filled[alone], ".", color=_LINE, markersize=2)
    axes.plot(times, np.where(empty, values, np.nan), color=_LINE, linewidth=0.9, linestyle=(0, (3, 2)), drawstyle="steps-post")
    events = _times(_events_shown(course))
    ticks: Any = {"color": _EVENTS, "markersize": 5, "alpha": 0.8, "transform": axes.get_xaxis_transform(), "clip_on": False}
    axes.plot(events, np.full(len(events), -0.04), "|", **ticks)
    axes.set_title(_label(course, feature), loc="left", fontsize=8.5, pad=2)
    axes.set_title(f"when empty: {empty_text(feature.empty)}", loc="right", fontsize=7.5, pad=2, color=_QUIET)
    axes.margins(x=0, y=0.12)
    axes.locator_params(axis="y", nbins=3)
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.tick_params(axis="x", length=0)
    axes.set_axisbelow(True)


def _label(course: Course, feature: Feature) -> str:
    unit = unit_of(feature, course.view.source)
    window = "" if _WITH_WINDOW.fullmatch(feature.name) else f" over {duration_text(feature.window_ms)}"
    return f"{feature.name}{window}{f'  [{unit}]' if unit and unit != '1' else ''}"


def _draw_time(axes: Axes, course: Course) -> None:
    locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.tick_params(axis="x", length=3)
    axes.set_xlabel("event time, UTC")
    begin, end = _times(course.instants_ms[[0, -1]])
    if begin < end:
        axes.set_xlim(begin, end)


def _events_shown(course: Course) -> Int64s:
    times_ms = course.event_times_ms
    shown: Int64s = times_ms[(times_ms >= course.instants_ms[0]) & (times_ms <= course.instants_ms[-1])]
    return shown


def _times(instants_ms: Int64s) -> NDArray[np.datetime64]:
    return instants_ms.astype("datetime64[ms]")


def _alone(there: Bools) -> Bools:
    """Points without neighbours, through which no line goes."""
    padded = np.concatenate(([False], there, [False]))
    return there & ~padded[:-2] & ~padded[2:]


def _stretches(rows: Bools) -> list[tuple[int, int]]:
    """Where true begins, and the place behind where it ends."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], rows, [False])).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
