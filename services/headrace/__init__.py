"""headrace leads events to models: rolling features from Kafka, predictions back to Kafka, exactly once.

    import headrace as hr

The names below are what engineers use; each is loaded when it is first asked for, so `import headrace` alone loads no client library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace import models, testing
    from headrace.definition import App, Pipeline
    from headrace.errors import DefinitionError, HeadraceError
    from headrace.expression import Expression, col
    from headrace.features.aggregation import count, last, max, mean, min, seconds_since_last, share, std, sum  # noqa: A004 - as in aggregation
    from headrace.features.view import FeatureView
    from headrace.lookup import Features
    from headrace.source import Event, EventTime, Outcomes, Source

__all__ = [
    "App",
    "DefinitionError",
    "Event",
    "EventTime",
    "Expression",
    "FeatureView",
    "Features",
    "HeadraceError",
    "Outcomes",
    "Pipeline",
    "Source",
    "col",
    "count",
    "last",
    "max",
    "mean",
    "min",
    "models",
    "seconds_since_last",
    "share",
    "std",
    "sum",
    "testing",
]

_HOMES = {
    "headrace.definition": ("App", "Pipeline"),
    "headrace.errors": ("DefinitionError", "HeadraceError"),
    "headrace.expression": ("Expression", "col"),
    "headrace.features.aggregation": ("count", "last", "max", "mean", "min", "seconds_since_last", "share", "std", "sum"),
    "headrace.features.view": ("FeatureView",),
    "headrace.lookup": ("Features",),
    "headrace.source": ("Event", "EventTime", "Outcomes", "Source"),
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
