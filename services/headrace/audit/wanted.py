"""What the twin is asked for: the features of a pipeline as canonical forms, of the definitions at hand or of earlier ones.

Earlier definitions come from the facts topic, where `headrace apply` remembers what it applied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.audit.plain import is_rounded
from headrace.changes import FACT_KIND
from headrace.definition import Pipeline
from headrace.features.aggregation import BY_NAME, Options
from headrace.features.streams import canonical_json
from headrace.features.view import Feature, FeatureView


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """One number of a feature vector."""

    name: str
    """As it stands in a prediction."""
    feature: Feature | None
    """How its window is told; None: a value of the scored event itself."""
    value: Any
    where: Any
    """Canonical forms; None: nothing was declared."""
    view: str = ""

    key: str = field(init=False)
    """Equal for those to which events give the same."""
    rounded: bool = field(init=False)
    """Whether the last bits of what events give are the engine's own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", canonical_json([self.value, self.where]))
        object.__setattr__(self, "rounded", is_rounded(self.value))

    def part(self, name: str) -> str:
        """The name of another feature of its view."""
        return f"{self.view}.{name}"

    def with_form(self, value: Any, where: Any) -> Wanted:  # noqa: ANN401 - a canonical form is any JSON
        """The same of another expression."""
        return replace(self, value=value, where=where)


def wanted_of(pipeline: Pipeline) -> list[Wanted]:
    """The feature vector of a pipeline, in order."""
    return wanted_at(pipeline.views, pipeline)


def wanted_at(views: Sequence[FeatureView], pipeline: Pipeline | None) -> list[Wanted]:
    """What is told where these views are kept; with the pipeline also what is told of the scored event."""
    found = [one for view in views for one in _of_view(view)]
    forms = () if pipeline is None else pipeline.event_features
    return found + [Wanted(name=name, feature=None, value=form.canonical(), where=None) for name, form in forms]


def _of_view(view: FeatureView) -> list[Wanted]:
    return [
        Wanted(
            name=f"{view.name}.{feature.name}",
            feature=feature,
            value=None if feature.value is None else feature.value.canonical(),
            where=None if feature.where is None else feature.where.canonical(),
            view=view.name,
        )
        for feature in view.features
    ]


def wanted_before(facts: Sequence[bytes | None], views: Sequence[FeatureView]) -> list[tuple[str, list[Wanted]]]:
    """Earlier definitions of these views, the newest first, each with what to call it. Facts that hold no forms are passed over."""
    ours = {view.name: view for view in views}
    found: dict[str, tuple[str, list[Wanted]]] = {}
    for value in reversed(facts):
        fact = json.loads(value or b"{}")
        for name, said in fact["views"].items() if fact.get("kind") == FACT_KIND else ():
            form = said.get("definition")
            if name not in ours or form is None or said["fingerprint"] == ours[name].fingerprint:
                continue
            called = f"{name} version {form['version']} as it was applied earlier ({said['fingerprint'][:16]})"
            found.setdefault(said["fingerprint"], (called, [_from_form(name, one) for one in form["features"]]))
    return list(found.values())


def _from_form(view: str, form: Mapping[str, Any]) -> Wanted:
    said = dict(form.get("options", {}))
    if "vocabulary" in said:
        said["vocabulary"] = tuple(said["vocabulary"])
    feature = Feature(
        name=form["name"],
        aggregation=BY_NAME[form["aggregation"][0]],
        value=None,
        where=None,
        window_ms=form["window_ms"],
        pane_ms=form["pane_ms"],
        empty=math.nan if form["empty"] is None else form["empty"],
        options=Options(**said),
    )
    return Wanted(name=f"{view}.{form['name']}", feature=feature, value=form["value"], where=form["where"], view=view)
