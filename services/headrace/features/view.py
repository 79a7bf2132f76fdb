"""A feature view: a named, ordered set of features of one entity from one source.

Declarations become features, one per window. Features share what they can: those over panes with the same value, filter, window and pane
share a *lane* (one row of panes), those of the newest event with the same value and filter share a *cell*. What an event gives to a lane or
cell is one number, or nothing: a *stream*, one per pair of value and filter. Counting events needs no lane of its own beside the lane of a
field that every event has.

The fingerprint is the sha256 of the view's canonical JSON; it names the state in the store. Whatever decides about state is in it, so a
changed definition never meets the state of another. Limits: the entity is the key of the source; at most 4,096 panes a window.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from headrace.duration import duration_text
from headrace.errors import DefinitionError
from headrace.expression import Expression
from headrace.features.aggregation import (
    FOLD_VERSION,
    NEEDS_MAX,
    NEEDS_MIN,
    NEEDS_SQUARES,
    NEEDS_SUM,
    Aggregation,
    Declaration,
    WrittenWindow,
)
from headrace.features.window import pane_of
from headrace.source import Source

STATE_LAYOUT_VERSION = 1
"""The first byte of every packed state, and part of every fingerprint; `state.py` draws the bytes."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feature:
    """One number of the feature vector."""

    name: str
    aggregation: Aggregation
    value: Expression | None
    where: Expression | None
    window_ms: int
    pane_ms: int
    """0 for features of the newest event: their windows are exact."""
    empty: float

    @property
    def description(self) -> str:
        """What it means, in one line of documentation."""
        value = "" if self.value is None else repr(self.value)
        text = self.aggregation.says.format(value=value, window=f"the last {duration_text(self.window_ms)}")
        if self.where is not None:
            text += f", of events with {self.where!r}"
        if self.pane_ms:
            text += f"; the far end is rounded back by less than {duration_text(self.pane_ms)}"
        return f"{text}; {self.empty:g} when empty" if math.isfinite(self.empty) else f"{text}; absent when empty"

    def canonical(self) -> dict[str, object]:
        """A JSON form of everything that decides about its values."""
        return {
            "name": self.name,
            "aggregation": [self.aggregation.name, self.aggregation.code],
            "value": None if self.value is None else self.value.canonical(),
            "where": None if self.where is None else self.where.canonical(),
            "window_ms": self.window_ms,
            "pane_ms": self.pane_ms,
            "empty": self.empty if math.isfinite(self.empty) else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """What an event gives: `value` (1 where there is none), if it has one and `where` holds."""

    value: Expression | None
    where: Expression | None

    def key(self) -> str:
        """Equal for streams that give the same numbers."""
        return canonical_json([one if one is None else one.canonical() for one in (self.value, self.where)])

    def __str__(self) -> str:
        value = "events" if self.value is None else repr(self.value)
        return value if self.where is None else f"{value} where {self.where!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Panes shared by features: of which stream (its place in `FeatureView.streams`), how long, and what is kept of each (`NEEDS_...`)."""

    stream: int
    window_ms: int
    pane_ms: int
    needs: int

    @property
    def panes(self) -> int:
        """How many closed panes the window has."""
        return self.window_ms // self.pane_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestCell:
    """The newest event of a stream: its time, and its value if a feature asks for that; older than `window_ms` it is absent for all."""

    stream: int
    window_ms: int
    keeps_value: bool


class FeatureView:
    """A named, ordered set of features of one entity from one source. Raises `DefinitionError`."""

    def __init__(self, name: str, *, version: int = 1, entity: str, source: Source, features: Sequence[Declaration]) -> None:
        where = f"FeatureView({name!r})"
        if not _NAME.fullmatch(name):
            raise DefinitionError(f"{where}: a name is up to 100 letters, digits and underscores, beginning with a letter")
        if type(version) is not int or version < 1:
            raise DefinitionError(f"{where}: version={version!r} must be a whole number from 1 on")
        if entity != source.key:
            raise DefinitionError(
                f"{where}: entity={entity!r} is not the key of {source!r}; declare a source keyed by it, or use {source.key!r}"
            )
        self.name = name
        self.version = version
        self.entity = entity
        self.source = source
        self.features = _features(features, source, where)
        self.streams: tuple[Stream, ...] = ()
        self.lanes: tuple[Lane, ...] = ()
        self.newest_cells: tuple[NewestCell, ...] = ()
        self.places: tuple[int, ...] = ()
        """For each feature its lane or newest cell."""
        self._share()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of its features, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def fields(self) -> frozenset[str]:
        """The event fields its features read."""
        expressions = (expression for stream in self.streams for expression in (stream.value, stream.where) if expression is not None)
        return frozenset().union(*(expression.fields() for expression in expressions))

    @property
    def longest_window_ms(self) -> int:
        """The longest window of any feature."""
        return max(feature.window_ms for feature in self.features)

    @property
    def longest_pane_ms(self) -> int:
        """The longest pane of any feature; 0 when none has panes."""
        return max(feature.pane_ms for feature in self.features)

    def canonical(self) -> dict[str, object]:
        """A JSON form of everything that decides about its state and values."""
        return {
            "name": self.name,
            "version": self.version,
            "entity": self.entity,
            "source": self.source.canonical(),
            "features": [feature.canonical() for feature in self.features],
            "fold": FOLD_VERSION,
            "layout": STATE_LAYOUT_VERSION,
        }

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the canonical JSON, in hex."""
        return fingerprint_of(self.canonical())

    @property
    def fp(self) -> str:
        """The first 16 digits of the fingerprint: the view's name in the store."""
        return self.fingerprint[:16]

    def bytes_per_entity(self) -> dict[str, int]:
        """The most bytes a packed state can take, by what takes them; "total" is the sum. Holds up to 2**35 events a pane."""
        parts = {"header": _HEADER_BYTES}
        for cell in self.newest_cells:
            parts[f"newest of {self.streams[cell.stream]}"] = _VARINT_BYTES + 8 * cell.keeps_value
        for lane in self.lanes:
            pane = f"{duration_text(lane.window_ms)} by {duration_text(lane.pane_ms)}"
            parts[f"{self.streams[lane.stream]} over {pane}"] = 2 + (lane.panes + 1) * (2 + 5 + 8 * stored_numbers(lane.needs))
        return {**parts, "total": sum(parts.values())}

    def __repr__(self) -> str:
        return f"FeatureView({self.name!r}, version={self.version})"

    def _share(self) -> None:
        """Give every feature its lane or newest cell."""
        streams: dict[str, Stream] = {}
        lanes: dict[tuple[int, int, int], Lane] = {}
        cells: dict[int, NewestCell] = {}
        keys: list[tuple[int, int, int] | int] = []
        for feature in self.features:
            stream = self._stream(feature)
            streams.setdefault(stream.key(), stream)
            number = list(streams).index(stream.key())
            if feature.aggregation.of == "panes":
                key = (number, feature.window_ms, feature.pane_ms)
                needs = feature.aggregation.needs | (lanes[key].needs if key in lanes else 0)
                lanes[key] = Lane(stream=number, window_ms=feature.window_ms, pane_ms=feature.pane_ms, needs=needs)
                keys.append(key)
            else:
                window_ms = max(feature.window_ms, cells[number].window_ms if number in cells else 0)
                cells[number] = NewestCell(stream=number, window_ms=window_ms, keeps_value=feature.value is not None)
                keys.append(number)
        self.streams = tuple(streams.values())
        self.lanes, self.newest_cells = tuple(lanes.values()), tuple(cells.values())
        places: dict[tuple[int, int, int] | int, int] = {key: place for place, key in enumerate(lanes)}
        places |= {key: place for place, key in enumerate(cells)}
        self.places = tuple(places[key] for key in keys)

    def _stream(self, feature: Feature) -> Stream:
        """What events give to a feature. Where they are only counted, a field that all of them have and another feature uses will do."""
        if feature.value is None and feature.aggregation.of == "panes":
            always = {field.name for field in self.source.contract if not field.optional and field.kind != "text"}
            for other in self.features:
                name = None if other.value is None else other.value.field()
                shape = (other.window_ms, other.pane_ms, Stream(value=None, where=other.where).key())
                if name in always and shape == (feature.window_ms, feature.pane_ms, Stream(value=None, where=feature.where).key()):
                    return Stream(value=other.value, where=other.where)
        return Stream(value=feature.value, where=feature.where)


_VARINT_BYTES = 10
_HEADER_BYTES = 1 + _VARINT_BYTES


def stored_numbers(needs: int) -> int:
    """How many floats a packed pane of several events holds."""
    return (needs & (NEEDS_SUM | NEEDS_SQUARES | NEEDS_MIN | NEEDS_MAX)).bit_count()


def canonical_json(form: object) -> str:
    """JSON in the one way it is hashed: keys sorted, no spaces, ASCII, no NaN."""
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint_of(form: object) -> str:
    """The sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(form).encode("ascii")).hexdigest()


def _features(declarations: Sequence[Declaration], source: Source, where: str) -> tuple[Feature, ...]:
    if not declarations:
        raise DefinitionError(f"{where} has no features; write for example features=[hr.count(over='3h')]")
    lengths = [window.length_ms for declaration in declarations for window in declaration.windows]
    features: dict[str, Feature] = {}
    for declaration in declarations:
        for feature in _features_of(declaration, max(lengths, default=0), source, where):
            if feature.name in features:
                raise DefinitionError(f"{where} declares {feature.name!r} twice; drop one, or name its expression with .alias(...)")
            features[feature.name] = feature
    return tuple(features.values())


def _features_of(declaration: Declaration, longest_ms: int, source: Source, view: str) -> list[Feature]:
    aggregation, where = declaration.aggregation, f"{view}: {declaration.name()}"
    if declaration.value is not None:
        kind = declaration.value.kind(source.kinds, where=where)
        if kind == "text":
            raise DefinitionError(f"{where} needs a number; {declaration.value!r} is text")
        if aggregation.takes == "condition" and kind != "boolean":
            raise DefinitionError(f"{where} needs a condition; write for example hr.share({declaration.value!r} > 0, ...)")
    if declaration.where is not None and declaration.where.kind(source.kinds, where=where) != "boolean":
        raise DefinitionError(f"{where}: where={declaration.where!r} is no condition; write for example {declaration.where!r} > 0")
    windows = declaration.windows
    if not windows:
        if not longest_ms:
            raise DefinitionError(f'{where} needs over=: the view has no window to take the longest of; write for example over="24h"')
        windows = (WrittenWindow(text="", length_ms=longest_ms),)
    return [
        Feature(
            name=f"{declaration.name()}_{window.text}" if window.text else declaration.name(),
            aggregation=aggregation,
            value=declaration.value,
            where=declaration.where,
            window_ms=window.length_ms,
            pane_ms=0 if aggregation.of == "newest" else pane_of(window.length_ms, declaration.pane_ms, of=where),
            empty=declaration.empty,
        )
        for window in windows
    ]
