"""headrace leads events to models: rolling features from Kafka, predictions back to Kafka, exactly once.

    import headrace as hr

The names below are what engineers use; each is loaded when it is first asked for, so `import headrace` alone loads no client library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace import models, testing
    from headrace.definition import App, LookUp, Pipeline
    from headrace.errors import DefinitionError, HeadraceError
    from headrace.expression import Expression, col, hashed, haversine_km, hour, mapped, weekday
    from headrace.features.view import FeatureView
    from headrace.features.words import (
        change,
        count,
        decayed_count,
        decayed_mean,
        decayed_sum,
        difference,
        distinct,
        first,
        lag,
        last,
        max,
        mean,
        min,
        mode,
        quantile,
        rate,
        ratio,
        seconds_since_last,
        share,
        std,
        streak,
        sum,
        top_k,
        var,
        z_score,
    )
    from headrace.lookup import Features
    from headrace.source import Event, EventTime, Outcomes, Source
    from headrace.training import Preview, Scenario, Topics, TrainingFrame, preview, scenario, training_frame, write_training_set

__all__ = [
    "App",
    "DefinitionError",
    "Event",
    "EventTime",
    "Expression",
    "FeatureView",
    "Features",
    "HeadraceError",
    "LookUp",
    "Outcomes",
    "Pipeline",
    "Preview",
    "Scenario",
    "Source",
    "Topics",
    "TrainingFrame",
    "change",
    "col",
    "count",
    "decayed_count",
    "decayed_mean",
    "decayed_sum",
    "difference",
    "distinct",
    "first",
    "hashed",
    "haversine_km",
    "hour",
    "lag",
    "last",
    "mapped",
    "max",
    "mean",
    "min",
    "mode",
    "models",
    "preview",
    "quantile",
    "rate",
    "ratio",
    "scenario",
    "seconds_since_last",
    "share",
    "std",
    "streak",
    "sum",
    "testing",
    "top_k",
    "training_frame",
    "var",
    "weekday",
    "write_training_set",
    "z_score",
]

_HOMES = {
    "headrace.definition": ("App", "LookUp", "Pipeline"),
    "headrace.errors": ("DefinitionError", "HeadraceError"),
    "headrace.expression": ("Expression", "col", "hashed", "haversine_km", "hour", "mapped", "weekday"),
    "headrace.features.view": ("FeatureView",),
    "headrace.features.words": (
        "change",
        "count",
        "decayed_count",
        "decayed_mean",
        "decayed_sum",
        "difference",
        "distinct",
        "first",
        "lag",
        "last",
        "max",
        "mean",
        "min",
        "mode",
        "quantile",
        "rate",
        "ratio",
        "seconds_since_last",
        "share",
        "std",
        "streak",
        "sum",
        "top_k",
        "var",
        "z_score",
    ),
    "headrace.lookup": ("Features",),
    "headrace.source": ("Event", "EventTime", "Outcomes", "Source"),
    "headrace.training": ("Preview", "Scenario", "Topics", "TrainingFrame", "preview", "scenario", "training_frame", "write_training_set"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


_MODULES = ("models", "testing")
"""Modules that are reached as `hr.models.stamp(...)` and `hr.testing.Driver(...)`."""

if not TYPE_CHECKING:  # a type checker sees the imports above, and so knows which names do not exist

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"headrace.{name}")
        if name not in _HOME_OF:
            raise AttributeError(f"headrace has no public name {name!r}; it has {', '.join(__all__)}")
        found = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
