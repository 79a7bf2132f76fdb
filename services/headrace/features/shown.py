"""Definitions as notebooks show them: a row for each feature, with what decides about it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.duration import duration_text
from headrace.expression import Expression
from headrace.features.units import unit_of, unit_of_field
from headrace.features.view import Feature, FeatureView
from headrace.html_table import Cell, Section, table
from headrace.source import Source

_HEAD = [Cell(name) for name in ("feature", "kind", "window", "unit", "description", "when empty", "fingerprint")]


def view_html(view: FeatureView) -> str:
    """A view and its features."""
    notes = [f"{len(view.features)} features, at most {view.bytes_per_entity()['total']:,} bytes an entity in the store"]
    return table(f"View {_title(view)}", _HEAD, [Section("", _rows(view))], notes=notes)


def vector_html(
    caption: str,
    views: Sequence[FeatureView],
    event_features: Sequence[tuple[str, Sequence[tuple[str, Expression]], Source]],
    notes: Sequence[str],
) -> str:
    """Several views, and what events bring themselves: for each pipeline its heading, its event features and what they are of."""
    sections = [Section(_title(view), _rows(view)) for view in views]
    sections += [
        Section(heading, [_event_row(name, one, source) for name, one in found]) for heading, found, source in event_features if found
    ]
    return table(caption, _HEAD, sections, notes=notes)


def feature_html(feature: Feature) -> str:
    """One feature; the unit of its field and its fingerprint are known to its view."""
    return table(f"Feature {feature.name}", _HEAD[:3] + _HEAD[4:6], [Section("", [_about(feature)])])


def empty_text(number: float) -> str:
    """What a feature is when its window is empty."""
    return f"{number:g}" if math.isfinite(number) else "absent"


def _title(view: FeatureView) -> str:
    return f"{view.name}, version {view.version}: of each {view.entity} on {view.source.topic}"


def _rows(view: FeatureView) -> list[list[Cell]]:
    rows = []
    for feature in view.features:
        name, kind, window, description, empty = _about(feature)
        unit = Cell(unit_of(feature, view.source))
        rows.append([name, kind, window, unit, description, empty, Cell(view.fp, title=f"of the view: {view.fingerprint}")])
    return rows


def _about(feature: Feature) -> list[Cell]:
    pane = f"panes of {duration_text(feature.pane_ms)}" if feature.pane_ms else "exact"
    window = Cell(duration_text(feature.window_ms), title=pane) if feature.window_ms else Cell()
    empty = Cell(empty_text(feature.empty), number=True)
    return [Cell(feature.name), Cell(feature.aggregation.name), window, Cell(feature.description), empty]


def _event_row(name: str, expression: Expression, source: Source) -> list[Cell]:
    described = Cell(f"{expression!r} of the event itself")
    unit = Cell(unit_of_field(expression, source))
    return [Cell(name), Cell("event"), Cell(), unit, described, Cell("absent", number=True), Cell()]
