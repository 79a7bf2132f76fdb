"""What a scenario changes in the events of a span, and in the vectors made of them.

    set     field = an expression over the event as it was          }  before the fold: rolling features change with it, for as long
    drop    the field has no value in any event of the span         }  as a window sees an event of the span
    empty   the feature has no value in any vector of the span         after the fold: nothing else changes

All fields are changed at once: each expression reads the event as it was. A scenario changes what an event says, never which event it is:
the event time, the entities it is kept or looked up by and the field its outcome is joined by stay, or the events would come in another
order, be late or not, and meet other outcomes. Who wants that makes another log.

A changed event is folded even where its contract forbids what it says now, such as an amount below zero, or nothing in a field that is not
optional. How many there are is counted: those would be dead letters.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from headrace.definition import Pipeline
from headrace.errors import DefinitionError
from headrace.expression import Column, Expression, Scalar, expression_in
from headrace.expression.column import absent
from headrace.features.view import FeatureView
from headrace.source import ContractField
from headrace.training.labels import features_read
from headrace.types import Bools, EventBatch

Wish = Expression | Scalar
"""What a field shall be; a text is an expression as one writes it on a command line."""

_ASSIGNMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=(?!=)(.+)", re.DOTALL)


def assignments(given: Sequence[str], *, where: str) -> dict[str, Wish]:
    """Texts like `dep_delay=dep_delay + 10` by field. Raises `DefinitionError`, beginning with `where`."""
    found: dict[str, Wish] = {}
    for text in given:
        parts = _ASSIGNMENT.fullmatch(text)
        if parts is None:
            raise DefinitionError(f"{where}: {text!r} names no field to set; write FIELD=EXPRESSION, for example dep_delay=dep_delay + 10")
        if parts[1] in found:
            raise DefinitionError(f"{where}: {parts[1]!r} is set twice; write one expression")
        found[parts[1]] = parts[2].strip()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedInputs:
    """The changes of one scenario, checked against its pipeline; make it with `changed_inputs`."""

    sets: Mapping[str, Expression] = field(default_factory=dict)
    drops: frozenset[str] = frozenset()
    empties: tuple[str, ...] = ()
    """The names of features, in the order of the vector."""
    contract: Mapping[str, ContractField] = field(default_factory=dict)
    """Of the source, by field."""

    @property
    def fields(self) -> frozenset[str]:
        """The fields that are changed."""
        return self.drops | self.sets.keys()

    @property
    def reads(self) -> set[str]:
        """The fields that must be there to change them."""
        return set(self.fields).union(*(expression.fields() for expression in self.sets.values()))

    def words(self) -> list[str]:
        """What is changed, for people."""
        found = [f"{name} = {expression!r}" for name, expression in self.sets.items()]
        found += [f"{name} missing in every event" for name in sorted(self.drops)]
        return found + [f"{name} empty in every vector" for name in self.empties]

    def touches(self, view: FeatureView) -> bool:
        """Whether values of a view change."""
        return bool(view.fields & self.fields)

    def applied(self, events: EventBatch, inside: Bools) -> tuple[EventBatch, dict[str, int]]:
        """The events with what is `inside` changed, and by field how many of these break the contract; the others stay as they are."""
        if not self.fields or not inside.any():
            return events, {}
        columns, broken = dict(events.columns), {}
        for name in sorted(self.fields):
            now = np.where(inside, self._new(name, events.columns), events.columns[name])
            columns[name] = now
            broken[name] = int(breaches(self.contract[name], now[inside]).sum())
        return replace(events, columns=columns), {name: count for name, count in broken.items() if count}

    def _new(self, name: str, columns: Mapping[str, Column]) -> Column:
        if name in self.drops:
            count = len(columns[name])
            return np.full(count, None, dtype=np.object_) if self.contract[name].kind == "text" else np.full(count, np.nan)
        return self.sets[name].column(columns)


def changed_inputs(
    pipeline: Pipeline,
    *,
    inputs: Mapping[str, Wish] | None = None,
    drop_inputs: Collection[str] = (),
    empty_features: Collection[str] = (),
) -> ChangedInputs:
    """The changes, if they can be made. Raises `DefinitionError` naming the field or feature and what may be written."""
    where = f"scenario of {pipeline!r}"
    sets = {name: _expression(name, wish, where) for name, wish in (inputs or {}).items()}
    twice = sorted(sets.keys() & set(drop_inputs))
    if twice:
        raise DefinitionError(f"{where}: {twice[0]!r} is both set and dropped; leave one of the two out")
    for name in (*sets, *drop_inputs):
        _check_field(pipeline, name, where)
    for name, expression in sets.items():
        _check_kind(pipeline, name, expression, where)
    return ChangedInputs(
        sets=sets,
        drops=frozenset(drop_inputs),
        empties=_features(pipeline, empty_features, where),
        contract={one.name: one for one in pipeline.source.contract},
    )


def _expression(name: str, wish: Wish, where: str) -> Expression:
    if isinstance(wish, Expression):
        return wish
    # A number, a truth value: what it says as text.
    return expression_in(wish if isinstance(wish, str) else repr(wish), where=f"{where}: {name}")


def _check_field(pipeline: Pipeline, name: str, where: str) -> None:
    """Raises `DefinitionError` for a field that is not there, that no feature reads, or that says which event it is."""
    source = pipeline.source
    if name not in source.kinds:
        raise DefinitionError(f"{where}: {source!r} has no field {name!r}{near(name, source.kinds)}")
    asked = () if pipeline.look_up is None else [view.entity for view in pipeline.look_up.views]
    fixed = {source.time: "the event time", source.key: "the key"}
    fixed |= dict.fromkeys((*pipeline.entities, *asked), "an entity")
    fixed |= {} if pipeline.outcomes is None else {pipeline.outcomes.join: "what outcomes are joined by"}
    if name in fixed:
        raise DefinitionError(
            f"{where}: {name!r} is {fixed[name]} of an event, which a scenario leaves as it is; change what the event says, or make a file "
            "of other events and give it as events"
        )
    read = features_read(pipeline)
    if name not in read:
        raise DefinitionError(f"{where}: no feature reads {name!r}, so nothing would change; they read {', '.join(sorted(read))}")


def _check_kind(pipeline: Pipeline, name: str, expression: Expression, where: str) -> None:
    wanted = pipeline.source.kinds[name]
    found = expression.kind(pipeline.source.kinds, where=f"{where}: {name}")
    if found != wanted and (found, wanted) != ("boolean", "number"):
        says = {"text": "a text", "number": "a number", "boolean": "a condition (or True, or False)"}
        raise DefinitionError(f"{where}: {name} = {expression!r} is {says[found]}, and the field is {says[wanted]}")


def _features(pipeline: Pipeline, wanted: Collection[str], where: str) -> tuple[str, ...]:
    """Features by their names; the name of a view means all of its features, a name without the view those of any."""
    found: set[str] = set()
    for one in wanted:
        meant = {name for name in pipeline.feature_names if one in {name, *name.split(".", 1)}}
        if not meant:
            names = dict.fromkeys(part for name in pipeline.feature_names for part in (name, *name.split(".", 1)))
            raise DefinitionError(f"{where}: there is neither a feature nor a view {one!r}{near(one, names)}")
        found |= meant
    return tuple(name for name in pipeline.feature_names if name in found)


def near(name: str, names: Collection[str]) -> str:
    """What may have been meant, and what there is, for the end of an error."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; is it {close[0]!r}?" if close else f"; it has {', '.join(names)}"


def breaches(contract: ContractField, values: Column) -> Bools:
    """Which values of a field its contract forbids."""
    missing = absent(values)
    if contract.kind == "text":
        wrong = {text for text in set(values.tolist()) - {None} if _forbidden(contract, text)}
        broken = np.array([text in wrong for text in values.tolist()], dtype=np.bool_) if wrong else np.zeros(len(values), dtype=np.bool_)
    else:
        broken = np.zeros(len(values), dtype=np.bool_)
        for bound, breaks in (
            (contract.ge, np.less),
            (contract.gt, np.less_equal),
            (contract.le, np.greater),
            (contract.lt, np.greater_equal),
        ):
            if bound is not None:
                broken |= breaks(values, bound)
        if contract.kind in {"integer", "time"}:
            broken |= ~missing & (np.floor(values) != values)
    return broken if contract.optional else broken | missing


def _forbidden(contract: ContractField, text: str) -> bool:
    return (
        bool(contract.choices and text not in contract.choices)
        or (contract.min_length is not None and len(text) < contract.min_length)
        or (contract.max_length is not None and len(text) > contract.max_length)
        or (contract.pattern is not None and re.search(contract.pattern, text) is None)
    )
