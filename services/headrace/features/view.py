"""A feature view: a named, ordered set of features of one entity from one source.

Declarations become features, one per window. Features share what they can: those of one kind with the same value, filter, window and pane
share a *lane* (one row of panes), those of the newest event with the same value and filter share a *cell*. What an event gives to a lane or
cell is one number, or nothing: a *stream* (`streams.py`), one per value, filter and form. Counting events needs no lane of its own beside
the lane of a field that every event has.

The fingerprint is the sha256 of the view's canonical JSON; it names the state in the store. Whatever decides about state is in it, so a
changed definition never meets the state of another. The entity is any text that each event has; where it is not the key of the source, the
events come to it by a hop (`definition.py`). Limit: at most 4,096 panes a window.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cached_property

from headrace.duration import duration_text
from headrace.errors import DefinitionError
from headrace.expression import Expression
from headrace.features.aggregation import FOLD_VERSION, KINDS, MOMENTS, NO_OPTIONS, Aggregation, Declaration, Options, WrittenWindow
from headrace.features.lane import Lane, lane_of
from headrace.features.streams import BinForm, Form, HashForm, Stream, SymbolForm, canonical_json
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
    """0 for features without panes: their windows are exact."""
    empty: float
    options: Options = NO_OPTIONS

    @property
    def description(self) -> str:
        """What it means, in one line of documentation."""
        value = "" if self.value is None else repr(self.value)
        text = self._filled(self.aggregation.says, value=value, window=f"the last {duration_text(self.window_ms)}")
        if self.where is not None:
            text += f", of events with {self.where!r}"
        if self.pane_ms:
            text += f"; the far end is rounded back by less than {duration_text(self.pane_ms)}"
        if self.aggregation.promises:
            text += f"; {self._filled(self.aggregation.promises)}"
        return f"{text}; {self.empty:g} when empty" if math.isfinite(self.empty) else f"{text}; absent when empty"

    @property
    def parameter(self) -> float:
        """What finishing it needs to know: seconds of a rate, places of a lag, rank of a frequent value, share of a quantile."""
        if self.aggregation.name == "rate":
            return self.window_ms / 1000.0
        return float(self.options.n or self.options.rank or self.options.q)

    @property
    def form(self) -> Form | None:
        """The form in which its lane wants the value; None: as it is."""
        if self.aggregation.of == "hashes":
            return HashForm()
        if self.aggregation.of != "bins":
            return None
        if self.options.vocabulary:
            return SymbolForm(vocabulary=self.options.vocabulary)
        return BinForm.of(self.options.error, self.options.smallest, self.options.largest)

    def _filled(self, text: str, **others: str) -> str:
        written = {one.name: _written(getattr(self.options, one.name)) for one in fields(self.options)}
        return text.format(**{**written, "half_life_ms": duration_text(self.options.half_life_ms)}, **others)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from headrace.features.shown import feature_html  # noqa: PLC0415 - it describes what is defined here

        return feature_html(self)

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
            **({"options": self.options.declared()} if self.options.declared() else {}),
        }


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
        source.insist_on(entity, "text", of=f"{where}: entity", fix="str")
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

    def lacking(self, names: Collection[str]) -> FeatureView:
        """The same features of events that may lack the fields `names`, whatever the contract says: nothing is counted by these fields."""
        found = copy(self)
        found.source = copy(self.source)
        found.source.contract = tuple(replace(field, optional=field.optional or field.name in names) for field in self.source.contract)
        found._share()  # noqa: SLF001 - it is one of us
        return found

    def bytes_per_entity(self) -> dict[str, int]:
        """The most bytes a packed state can take, by what takes them; "total" is the sum. Holds up to 2**35 events a pane."""
        parts = {"header": _HEADER_BYTES}
        for cell in self.newest_cells:
            parts[f"newest of {self.streams[cell.stream]}"] = _VARINT_BYTES + 8 * cell.keeps_value
        for lane in self.lanes:
            parts[f"{lane.name} of {self.streams[lane.stream]} over {lane.text()}"] = lane.most_bytes()
        return {**parts, "total": sum(parts.values())}

    def __repr__(self) -> str:
        return f"FeatureView({self.name!r}, version={self.version})"

    def _repr_html_(self) -> str:
        """For notebooks: its features, a row each."""
        from headrace.features.shown import view_html  # noqa: PLC0415 - it describes what is defined here

        return view_html(self)

    def _share(self) -> None:
        """Give every feature its lane or newest cell."""
        streams: dict[str, Stream] = {}
        lanes: dict[tuple[object, ...], Lane] = {}
        cells: dict[int, NewestCell] = {}
        # Lanes of moments come first: the other kinds are folded by a pass of their own.
        for feature in sorted(self.features, key=lambda one: KINDS.get(one.aggregation.of, MOMENTS) != MOMENTS):
            if feature.aggregation.of == "features":
                continue
            stream = self._stream(feature)
            streams.setdefault(stream.key(), stream)
            number = list(streams).index(stream.key())
            if feature.aggregation.of == "newest":
                window_ms = max(feature.window_ms, cells[number].window_ms if number in cells else 0)
                cells[number] = NewestCell(stream=number, window_ms=window_ms, keeps_value=feature.value is not None)
            else:
                lane = lane_of(feature.aggregation, number, stream.form, feature.window_ms, feature.pane_ms, feature.options)
                lanes[lane.key()] = lane.joined(lanes[lane.key()]) if lane.key() in lanes else lane
        self.streams = tuple(streams.values())
        self.lanes, self.newest_cells = tuple(lanes.values()), tuple(cells.values())
        self.places = tuple(self._place(feature, list(streams), list(lanes), list(cells)) for feature in self.features)

    def _place(self, feature: Feature, streams: list[str], lanes: list[tuple[object, ...]], cells: list[int]) -> int:
        """The number of its lane or newest cell; -1 for a derived feature."""
        if feature.aggregation.of == "features":
            return -1
        stream = self._stream(feature)
        number = streams.index(stream.key())
        if feature.aggregation.of == "newest":
            return cells.index(number)
        lane = lane_of(feature.aggregation, number, stream.form, feature.window_ms, feature.pane_ms, feature.options)
        return lanes.index(lane.key())

    def _stream(self, feature: Feature) -> Stream:
        """What events give to a feature. Where they are only counted, a field that all of them have and another feature uses will do."""
        if feature.value is None and feature.aggregation.paned:
            always = {field.name for field in self.source.contract if not field.optional and field.kind != "text"}
            shape = self._shape(feature)
            for other in self.features:
                name = None if other.value is None else other.value.field()
                if name in always and self._shape(other) == shape:
                    return Stream(value=other.value, where=other.where, form=other.form)
        return Stream(value=feature.value, where=feature.where, form=feature.form)

    @staticmethod
    def _shape(feature: Feature) -> tuple[object, ...]:
        """What must be equal for two features to be told from one lane, but for the value."""
        where = Stream(value=None, where=feature.where).key()
        return feature.aggregation.of, feature.window_ms, feature.pane_ms, where, feature.options.half_life_ms


_VARINT_BYTES = 10
_HEADER_BYTES = 1 + _VARINT_BYTES


def fingerprint_of(form: object) -> str:
    """The sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(form).encode("ascii")).hexdigest()


def _features(declarations: Sequence[Declaration], source: Source, where: str) -> tuple[Feature, ...]:
    if not declarations:
        raise DefinitionError(f"{where} has no features; write for example features=[hr.count(over='3h')]")
    lengths = [window.length_ms for declaration in declarations for window in declaration.windows]
    features: dict[str, Feature] = {}
    for declaration in declarations:
        found = (
            [_derived(declaration, features, where)]
            if declaration.aggregation.of == "features"
            else _features_of(declaration, max(lengths, default=0), source, where)
        )
        for feature in found:
            if feature.name in features:
                raise DefinitionError(f"{where} declares {feature.name!r} twice; drop one, or name its expression with .alias(...)")
            features[feature.name] = feature
    return tuple(features.values())


def _features_of(declaration: Declaration, longest_ms: int, source: Source, view: str) -> list[Feature]:
    aggregation, where = declaration.aggregation, f"{view}: {declaration.name()}"
    _insist_on_kinds(declaration, source, where)
    windows = declaration.windows
    if not windows:
        if not longest_ms:
            raise DefinitionError(f'{where} needs over=: the view has no window to take the longest of; write for example over="24h"')
        windows = (WrittenWindow(text="", length_ms=longest_ms),)
    return [
        Feature(
            name=f"{name}_{window.text}" if window.text else name,
            aggregation=aggregation,
            value=declaration.value,
            where=declaration.where,
            window_ms=window.length_ms,
            pane_ms=_pane_ms(declaration, number, where),
            empty=declaration.empty,
            options=replace(options, half_life_ms=declaration.half_lives_ms[number]) if declaration.half_lives_ms else options,
        )
        for number, window in enumerate(windows)
        for name, options in declaration.variants()
    ]


def _insist_on_kinds(declaration: Declaration, source: Source, where: str) -> None:
    aggregation, value = declaration.aggregation, declaration.value
    if value is not None:
        kind = value.kind(source.kinds, where=where)
        vocabulary = declaration.options.vocabulary
        if vocabulary and isinstance(vocabulary[0], str) != (kind == "text"):
            raise DefinitionError(f"{where}: {value!r} is {kind}, which is never one of {', '.join(map(repr, vocabulary))}")
        if kind == "text" and aggregation.takes != "anything":
            raise DefinitionError(f"{where} needs a number; {value!r} is text")
        if aggregation.takes == "condition" and kind != "boolean":
            raise DefinitionError(f"{where} needs a condition; write for example hr.{aggregation.name}({value!r} > 0, ...)")
    if declaration.where is not None and declaration.where.kind(source.kinds, where=where) != "boolean":
        raise DefinitionError(f"{where}: where={declaration.where!r} is no condition; write for example {declaration.where!r} > 0")


def _pane_ms(declaration: Declaration, number: int, where: str) -> int:
    """The pane of a window. What decays is exact whatever the pane, which only rounds the horizon: a half-life will do."""
    if not declaration.aggregation.paned:
        return 0
    length_ms, pane_ms = declaration.windows[number].length_ms, declaration.pane_ms
    if pane_ms is None and declaration.half_lives_ms and length_ms % declaration.half_lives_ms[number] == 0:
        pane_ms = declaration.half_lives_ms[number]
    return pane_of(length_ms, pane_ms, of=where)


def _derived(declaration: Declaration, before: Mapping[str, Feature], view: str) -> Feature:
    """A feature made of two that stand before it."""
    parts = [declaration.options.left, declaration.options.right]
    for name in parts:
        if name not in before:
            near = get_close_matches(name, before, n=3) or list(before)
            raise DefinitionError(
                f"{view}: {declaration.name()} is made of {name!r}, which is no feature before it; there is {', '.join(near) or 'none'}"
            )
    return Feature(
        name=declaration.name(),
        aggregation=declaration.aggregation,
        value=None,
        where=None,
        window_ms=max(before[name].window_ms for name in parts),
        pane_ms=0,
        empty=declaration.empty,
        options=declaration.options,
    )


def _written(option: float | str | tuple[str | float, ...]) -> str:
    if isinstance(option, tuple):
        return f"[{', '.join(str(one) for one in option)}]"
    return f"{option:g}" if isinstance(option, float) else str(option)
