"""The units of features, where they are known: by the aggregation, or as the contract says of the field.

A contract says it as `amount: float = Field(json_schema_extra={"unit": "EUR"})`.
"""

from __future__ import annotations

from headrace.expression import Expression
from headrace.features.view import Feature
from headrace.source import Source

_UNITS = {"count": "events", "share": "1", "seconds_since_last": "s"}
"""What is known without asking anybody."""
_OF_THE_FIELD = {"sum", "mean", "min", "max", "std", "last", "first", "quantile"}
"""What has the unit of its field."""


def unit_of(feature: Feature, source: Source) -> str:
    """The unit of a feature of a view; nothing where it is not known."""
    word = feature.aggregation.name
    return unit_of_field(feature.value, source) if word in _OF_THE_FIELD else _UNITS.get(word, "")


def unit_of_field(value: Expression | None, source: Source) -> str:
    """The unit of a field, as its contract says; nothing for what is computed."""
    field = None if value is None else source.event.model_fields.get(value.field() or "")
    said = field.json_schema_extra if field is not None else None
    return str(said.get("unit", "")) if isinstance(said, dict) else ""
