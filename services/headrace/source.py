"""Topic contracts: what the events of a source topic look like, which field is the entity and which the event time.

A contract is a pydantic class, because that is how engineers write one; but it is not pydantic that reads events. Decoding makes its
structs from `Source.contract`, so a contract may only say what every reader decides alike: plain types, closed lists of texts, bounds,
lengths, patterns. Validators written in Python are refused: their code would decide about events without being part of the fingerprint.
Limits: fields are flat; patterns are Python's (`re.search`), everywhere.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from headrace.duration import duration_ms
from headrace.errors import DefinitionError
from headrace.expression import Expression, Kind
from headrace.types import Bools, Int64s

FieldKind = Literal["text", "integer", "number", "boolean", "time"]


class _Milliseconds:
    """Marks a field as an instant."""

    def __repr__(self) -> str:
        return "milliseconds UTC"


EventTime = Annotated[int, _Milliseconds()]
"""The type of a field that holds an instant: a JSON integer, milliseconds UTC."""


class Event(BaseModel):
    """The contract of a topic: subclass it and declare the fields. Types are strict, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False, regex_engine="python-re")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractField:
    """One field of a contract, as plain as every reader needs it. An optional field may be missing or null; both mean absent."""

    name: str
    kind: FieldKind
    optional: bool = False
    choices: tuple[str, ...] = ()
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None

    def canonical(self) -> dict[str, object]:
        """A JSON form without what was not said."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in said.items() if value not in (None, ())}


class Source:
    """A topic with its event contract, entity key, event-time field, allowed lateness and `max_ahead`.

    `historical` says that event times have nothing to do with the time of the records (a replay): it switches the `max_ahead` check off.
    `rekey` says that records may have any key or none: their events go through a hop to be kept by `key`. Raises `DefinitionError`.
    """

    def __init__(
        self,
        topic: str,
        event: type[Event],
        *,
        key: str,
        time: str,
        lateness: str | int = "2h",
        max_ahead: str | int = "5m",
        historical: bool = False,
        rekey: bool = False,
    ) -> None:
        where = f"Source({topic!r})"
        self.topic = topic_name(topic, of=where)
        self.event = event
        self.contract = contract_of(event)
        self.key = key
        self.time = time
        self.lateness_ms = duration_ms(lateness, of=f"{where}: lateness", least_ms=0)
        self.max_ahead_ms = duration_ms(max_ahead, of=f"{where}: max_ahead", least_ms=0)
        self.historical = historical
        self.rekey = rekey
        self.insist_on(key, "text", of=f"{where}: key", fix="str")
        self.insist_on(time, "time", of=f"{where}: time", fix="hr.EventTime")

    def insist_on(self, field: str, kind: FieldKind, *, of: str, fix: str) -> None:
        """See that every event has this field, of this kind. Raises `DefinitionError`."""
        by_name = {one.name: one for one in self.contract}
        if field not in by_name:
            raise DefinitionError(f"{of}={field!r} is no field of {self.event.__name__}; it has {', '.join(by_name)}")
        if by_name[field].kind != kind or by_name[field].optional:
            raise DefinitionError(f"{of}={field!r} must be declared as {fix}, never optional, in {self.event.__name__}")

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """What an expression sees of each field."""
        return {field.name: _EXPRESSION_KINDS[field.kind] for field in self.contract}

    def ahead(self, event_times_ms: Int64s, timestamps_ms: Int64s) -> Bools:
        """Which events lie more than `max_ahead` beyond the timestamps of their records; exactly `max_ahead` is accepted.

        It stands here and not beside the watermark because decoding decides it, before any state is looked at.
        """
        if self.historical:
            return np.zeros(len(event_times_ms), dtype=np.bool_)
        ahead: Bools = event_times_ms - timestamps_ms > self.max_ahead_ms
        return ahead

    def canonical(self) -> dict[str, object]:
        """A JSON form of everything that decides about events and state."""
        return {
            "topic": self.topic,
            "contract": [field.canonical() for field in self.contract],
            "key": self.key,
            "time": self.time,
            "lateness_ms": self.lateness_ms,
            "max_ahead_ms": self.max_ahead_ms,
            "historical": self.historical,
            **({"rekey": True} if self.rekey else {}),
        }

    def __repr__(self) -> str:
        return f"Source({self.topic!r})"


class Hop(Source):
    """The topic between two stages of a pipeline: the events of a source by another of their entities, with the features so far.

    To whoever reads it, it is a source with the same contract and another key. `feeds` is where its records come from (the source, or the
    hop before), `carried` the names of the features that come with each event, and `made_by` the fingerprint of the definitions that made
    them. Its events have been accepted before, so their times are not judged again.
    """

    def __init__(self, topic: str, *, source: Source, entity: str, feeds: Source, carried: Sequence[str], made_by: str) -> None:
        super().__init__(topic, source.event, key=entity, time=source.time, lateness=source.lateness_ms, max_ahead=source.max_ahead_ms)
        self.historical = source.historical
        self.source, self.feeds = source, feeds
        self.carried, self.made_by = tuple(carried), made_by

    def ahead(self, event_times_ms: Int64s, timestamps_ms: Int64s) -> Bools:
        """None: the stage before has looked."""
        del timestamps_ms
        return np.zeros(len(event_times_ms), dtype=np.bool_)

    def __repr__(self) -> str:
        return f"Hop({self.topic!r})"


class Outcomes:
    """A topic of what turned out to be true: which field joins it to predictions, the value, and how long an outcome may take.

    Raises `DefinitionError`.
    """

    def __init__(self, topic: str, event: type[Event], *, join: str, value: Expression, within: str | int) -> None:
        where = f"Outcomes({topic!r})"
        self.topic = topic_name(topic, of=where)
        self.event = event
        self.contract = contract_of(event)
        self.join = join
        self.value = value
        self.within_ms = duration_ms(within, of=f"{where}: within")
        if join not in {field.name for field in self.contract}:
            raise DefinitionError(f"{where}: join={join!r} is no field of {event.__name__}")
        if value.kind({field.name: _EXPRESSION_KINDS[field.kind] for field in self.contract}, where=f"{where}: value") == "text":
            raise DefinitionError(f"{where}: value={value!r} is text; compare it, for example {value!r} == 'yes'")

    def canonical(self) -> dict[str, object]:
        """A JSON form of everything that decides about the join."""
        return {
            "topic": self.topic,
            "contract": [field.canonical() for field in self.contract],
            "join": self.join,
            "value": self.value.canonical(),
            "within_ms": self.within_ms,
        }

    def __repr__(self) -> str:
        return f"Outcomes({self.topic!r})"


def topic_name(topic: str, *, of: str) -> str:
    """The name, if Kafka takes it; raises `DefinitionError` otherwise."""
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic) or topic in {".", ".."}:
        raise DefinitionError(f"{of}: {topic!r} is no topic name; write up to 249 letters, digits, dots, dashes and underscores")
    return topic


# ------------------------------------------------------------------------------------------------- from pydantic to plain fields

_PLAIN: Mapping[object, FieldKind] = {str: "text", int: "integer", float: "number", bool: "boolean"}
_EXPRESSION_KINDS: Mapping[FieldKind, Kind] = {
    "text": "text",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "time": "number",
}
_BOUNDS, _LENGTHS = ("ge", "gt", "le", "lt"), ("min_length", "max_length", "pattern")
_CONSTRAINTS: Mapping[FieldKind, Sequence[str]] = {
    "text": _LENGTHS,
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "boolean": (),
    "time": _BOUNDS,
}
_PYTHON_CODE = ("validators", "field_validators", "root_validators", "field_serializers", "model_serializers", "model_validators")


def contract_of(event: type[Event]) -> tuple[ContractField, ...]:
    """The fields of a contract, in order. Raises `DefinitionError` for whatever two readers could decide differently."""
    if event is Event or Event not in getattr(event, "__mro__", ()):
        raise DefinitionError(f"{event!r} is no contract; declare one with class Departure(hr.Event): ...")
    name = event.__name__
    code = [kind for kind in _PYTHON_CODE if getattr(event.__pydantic_decorators__, kind)]
    if code or event.model_post_init is not BaseModel.model_post_init or "__get_pydantic_core_schema__" in vars(event):
        kind = ", ".join(code) or "a hook"
        raise DefinitionError(f"{name} has Python code in its contract ({kind}); use types and Field(ge=, pattern=, ...)")
    if event.model_config != Event.model_config:
        raise DefinitionError(f"{name} changes model_config; a contract is strict as it is: remove that")
    if not event.model_fields:
        raise DefinitionError(f"{name} declares no fields")
    return tuple(_contract_field(f"{name}.{field}", field, found) for field, found in event.model_fields.items())


def _contract_field(where: str, name: str, found: FieldInfo) -> ContractField:
    if found.alias or found.validation_alias or found.serialization_alias:
        raise DefinitionError(f"{where} has an alias; name the field as it is in the event")
    said: list[Any] = list(found.metadata)
    plain, optional = _unwrapped(where, found.annotation, said)
    if not found.is_required() and not (optional and found.default is None):
        raise DefinitionError(f"{where} has a default; only `| None = None` may be left out of an event")
    if optional and found.is_required():
        raise DefinitionError(f"{where} may be null but has no default; write `| None = None`")
    choices: tuple[str, ...] = ()
    if any(isinstance(mark, _Milliseconds) for mark in said):
        kind: FieldKind = "time"
    elif get_origin(plain) is Literal and all(type(choice) is str for choice in get_args(plain)):
        kind, choices = "text", get_args(plain)
    elif plain in _PLAIN:
        kind = _PLAIN[plain]
    else:
        raise DefinitionError(f"{where} is {plain!r}; write str, int, float, bool, hr.EventTime or Literal of texts, also `| None = None`")
    constraints: dict[str, Any] = {}
    for mark in said:
        if not isinstance(mark, _Milliseconds):
            constraints.update(_constraint(where, mark, () if choices else _CONSTRAINTS[kind]))
    return ContractField(name=name, kind=kind, optional=optional, choices=choices, **constraints)


def _unwrapped(where: str, annotation: object, said: list[Any]) -> tuple[Any, bool]:
    """The type inside `Annotated` and `| None`, and whether None was there; what was annotated is added to `said`."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        for mark in marks:
            said.extend(mark.metadata if isinstance(mark, FieldInfo) else [mark])
        return _unwrapped(where, inner, said)
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) != 1:
            raise DefinitionError(f"{where} may be of several types; declare one")
        return _unwrapped(where, members[0], said)[0], True
    return annotation, False


def _constraint(where: str, mark: object, allowed: Sequence[str]) -> dict[str, object]:
    """What one piece of pydantic metadata says, by name."""
    said = {name: value for name in (*_BOUNDS, *_LENGTHS) if (value := getattr(mark, name, None)) is not None}
    unknown = [name for name, value in getattr(mark, "__dict__", {}).items() if value not in (None, PydanticUndefined) and name not in said]
    if not said or unknown or not set(said) <= set(allowed):
        allowed_text = ", ".join(allowed) or "nothing"
        raise DefinitionError(f"{where} is constrained by {mark!r}; here readers agree on {allowed_text} only")
    if any(isinstance(value, float) and not math.isfinite(value) for value in said.values()):
        raise DefinitionError(f"{where} is constrained by {mark!r}; a bound is a finite number")
    return said
