"""The mistakes that are known, each as a recomputation that makes it.

A skew tells the vector of one event of an entity from all of its events, in another way than the definitions say. Where a mistake has a
place of its own (a stretch of events that is missing, or folded twice) a `Stretches` gives a skew for each place that could explain the
first wrong vector of an entity.

A mistake may be made in one feature and not in another (`each`): a window, a unit. Others concern the whole history of an entity.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from headrace.audit.findings import Kind
from headrace.audit.history import Occurrence, Told, given, told, told_of, vector
from headrace.audit.plain import plainly
from headrace.audit.twin import Answer, Given
from headrace.audit.wanted import Wanted
from headrace.features.aggregation import BY_NAME
from headrace.source import Source

Answers = Mapping[str, Answer]
Recompute = Callable[[Sequence[Wanted], Sequence[Occurrence], int], Answers]
"""The vector of the event at a place among its entity's events."""

LONGEST_STRETCH = 60
"""So many events of one entity may be missing, or folded twice."""
_HALF_HOUR_MS = 1_800_000
_SHIFTS = [shift for half in range(1, 29) for shift in (half, -half)]
"""In half hours; the nearest zones first."""
_FACTORS = (1_000.0, 0.001, 60.0, 1 / 60.0, 3_600.0, 1 / 3_600.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Skew:
    """A mistake."""

    kind: Kind
    says: str
    recompute: Recompute
    each: bool = False
    """Whether it may be made in some features only."""
    changed: Callable[[Sequence[Occurrence]], list[Occurrence]] | None = None
    """What the events themselves look like to who makes it."""
    since: bool = False
    """Whether it was made from the first wrong event on, by somebody who found the state of before."""
    place: tuple[int, int, int] | None = None
    """Partition, first and last offset of the events concerned."""

    def seen(self, occurrences: Sequence[Occurrence], first: int) -> Sequence[Occurrence]:
        """The events of an entity as they look to who makes it; `first` is the place of the first wrong one."""
        if self.changed is None:
            return occurrences
        found = self.changed(occurrences)
        return [*occurrences[:first], *found[first:]] if self.since else found


def _plain(wanted: Sequence[Wanted], occurrences: Sequence[Occurrence], place: int) -> Answers:
    return vector(wanted, told(occurrences, place))


def _retold(tell: Callable[[Sequence[Occurrence], int], Told]) -> Recompute:
    return lambda wanted, occurrences, place: vector(wanted, tell(occurrences, place))


def known_skews(source: Source, wanted: Sequence[Wanted], earlier: Sequence[tuple[str, Sequence[Wanted]]]) -> list[Skew]:
    """Everything that is tried; of two that explain the same the first is named."""
    found = [*_state(), *_windows(), *_nulls(source), *_definitions(earlier), *_units(source), *_rounding()]
    later = [replace(one, since=True, says=f"{one.says}, from some event on") for one in found if one.changed is not None]
    return [*found, *_time_zones(source, wanted), *later]


# ------------------------------------------------------------------------------------------------- what is folded, and when


def _state() -> Iterator[Skew]:
    yield Skew(kind=Kind.LATE_TAKEN, says="late events are folded", recompute=_plain, changed=_never_late)
    yield Skew(
        kind=Kind.LATE_TAKEN,
        says="late events are folded, as if there were no watermark",
        recompute=_plain,
        changed=lambda occurrences: [replace(one, late=False, horizon_ms=one.time_ms) for one in occurrences],
    )
    yield Skew(kind=Kind.STALE, says="the state is read before the scored event is in it", recompute=_retold(_unread))
    yield Skew(kind=Kind.STALE, says="the vector is the one of the event before", recompute=_one_behind)
    yield Skew(kind=Kind.STALE, says="the event before is not in the state yet", recompute=_retold(_without_last))
    yield Skew(kind=Kind.WRONG_ORDER, says="events are applied by event time", recompute=_retold(_by_time))
    yield Skew(
        kind=Kind.WRONG_ORDER,
        says="events are applied by event time, late ones too",
        recompute=_retold(_by_time),
        changed=_never_late,
    )
    yield Skew(kind=Kind.DUPLICATE, says="every event is folded twice", recompute=_retold(_all_twice))


def _never_late(occurrences: Sequence[Occurrence]) -> list[Occurrence]:
    return [replace(one, late=False) for one in occurrences]


def _unread(occurrences: Sequence[Occurrence], place: int) -> Told:
    truly = told(occurrences, place)
    return replace(truly, after=truly.before)


def _one_behind(wanted: Sequence[Wanted], occurrences: Sequence[Occurrence], place: int) -> Answers:
    true = vector(wanted, told(occurrences, place))
    if place == 0:
        return true
    before = vector(wanted, told(occurrences, place - 1))
    return {one.name: true[one.name] if one.feature is None else before[one.name] for one in wanted}


def _without_last(occurrences: Sequence[Occurrence], place: int) -> Told:
    return told_of(occurrences[: max(place - 1, 0)], occurrences[place])


def _by_time(occurrences: Sequence[Occurrence], place: int) -> Told:
    scored = occurrences[place]
    until = (scored.time_ms, scored.offset)
    before = sorted((one for one in occurrences if (one.time_ms, one.offset) < until), key=lambda one: (one.time_ms, one.offset))
    return replace(told_of(before, scored), as_of_ms=scored.time_ms)


def _all_twice(occurrences: Sequence[Occurrence], place: int) -> Told:
    scored = occurrences[place]
    return told_of([*chain.from_iterable((one, one) for one in occurrences[:place]), scored], scored)


def stretches(first: int, occurrences: Sequence[Occurrence]) -> Iterator[Skew]:
    """Stretches of an entity's events whose loss or repetition would be felt at `first`, its first wrong vector, and not before."""
    for length in range(1, min(LONGEST_STRETCH, first) + 1):
        yield _lost(first - length, first, occurrences)
        yield _repeated(first - length, first, occurrences)
    for length in range(1, min(LONGEST_STRETCH, len(occurrences) - first) + 1):
        yield _lost(first, first + length, occurrences)
    for length in range(1, min(LONGEST_STRETCH, first + 1) + 1):
        yield _repeated(first + 1 - length, first + 1, occurrences)


def _lost(start: int, end: int, occurrences: Sequence[Occurrence]) -> Skew:
    """Events from `start` up to, not with, `end` are not folded."""

    def tell(every: Sequence[Occurrence], place: int) -> Told:
        folded = [one for number, one in enumerate(every[:place]) if not start <= number < end]
        return told_of(folded, every[place], takes=not start <= place < end)

    return Skew(kind=Kind.MISSING, says="events are not folded", recompute=_retold(tell), place=_place(start, end, occurrences))


def _repeated(start: int, end: int, occurrences: Sequence[Occurrence]) -> Skew:
    """Once they are there, events from `start` up to `end` are folded again; if the last of them is scored, then the second time."""

    def tell(every: Sequence[Occurrence], place: int) -> Told:
        if place < end - 1:
            return told(every, place)
        folded = [*every[:end], *every[start:end], *every[end:place]] if place >= end else [*every[:end], *every[start : end - 1]]
        return told_of(folded, every[place])

    return Skew(kind=Kind.DUPLICATE, says="events are folded twice", recompute=_retold(tell), place=_place(start, end, occurrences))


def _place(start: int, end: int, occurrences: Sequence[Occurrence]) -> tuple[int, int, int]:
    return occurrences[start].partition, occurrences[start].offset, occurrences[end - 1].offset


# ------------------------------------------------------------------------------------------------- what is made of it


def _windows() -> Iterator[Skew]:
    for panes, says in ((1, "the window is a pane too long"), (-1, "the window is a pane too short")):
        yield Skew(kind=Kind.WINDOW, says=says, each=True, recompute=_reaching(panes))


def _reaching(panes: int) -> Recompute:
    return lambda wanted, occurrences, place: vector(wanted, told(occurrences, place), more_panes=panes)


def _finished(finish: Callable[[Answer], Answer]) -> Recompute:
    def recompute(wanted: Sequence[Wanted], occurrences: Sequence[Occurrence], place: int) -> Answers:
        return {name: finish(answer) for name, answer in vector(wanted, told(occurrences, place)).items()}

    return recompute


def _numbers_of(source: Source) -> list[str]:
    return [field.name for field in source.contract if field.kind in {"number", "integer"}]


def _rows(change: Callable[[dict[str, Any]], None]) -> Callable[[Sequence[Occurrence]], list[Occurrence]]:
    """The events with changed fields."""

    def changed(occurrences: Sequence[Occurrence]) -> list[Occurrence]:
        found = []
        for one in occurrences:
            row = dict(one.row)
            change(row)
            found.append(replace(one, row=row, given={}))
        return found

    return changed


def _nulls(source: Source) -> Iterator[Skew]:
    optional = [field.name for field in source.contract if field.optional and field.kind in {"number", "integer", "boolean"}]

    def filled(row: dict[str, Any]) -> None:
        row.update({name: 0.0 for name in optional if row.get(name) is None or math.isnan(row[name])})

    def emptied(row: dict[str, Any]) -> None:
        row.update({name: None for name in optional if row.get(name) == 0.0})

    said = {"kind": Kind.NULL_HANDLING, "each": True}
    yield Skew(says="absent fields are taken as 0", recompute=_plain, changed=_rows(filled), **said)  # type: ignore[arg-type]
    yield Skew(says="absent values are taken as 0", recompute=_given_zero, **said)  # type: ignore[arg-type]
    zero = _finished(lambda answer: Answer(0.0) if math.isnan(answer.value) and answer.off == 0.0 else answer)
    yield Skew(says="absent features are served as 0", recompute=zero, **said)  # type: ignore[arg-type]
    yield Skew(says="fields that are 0 are taken as absent", recompute=_plain, changed=_rows(emptied), **said)  # type: ignore[arg-type]


def _given_zero(wanted: Sequence[Wanted], occurrences: Sequence[Occurrence], place: int) -> Answers:
    def give(one: Wanted, occurrence: Occurrence) -> Given:
        found = given(one, occurrence)
        if found.value is None and (one.where is None or plainly(one.where, occurrence.row) == 1.0):
            return found._replace(value=0.0)
        return found

    return vector(wanted, told(occurrences, place), give)


def _definitions(earlier: Sequence[tuple[str, Sequence[Wanted]]]) -> Iterator[Skew]:
    for called, before in earlier:
        yield Skew(kind=Kind.CHANGED_CODE, says=f"served is {called}", each=True, recompute=_of_others(before))
    yield Skew(kind=Kind.CHANGED_CODE, says="spread is that of a sample, not of all events", each=True, recompute=_of_a_sample)


def _of_others(before: Sequence[Wanted]) -> Recompute:
    return lambda _, occurrences, place: vector(before, told(occurrences, place))


def _of_a_sample(wanted: Sequence[Wanted], occurrences: Sequence[Occurrence], place: int) -> Answers:
    truly = told(occurrences, place)
    found = vector(wanted, truly)
    for one in wanted:
        if one.feature is not None and one.feature.aggregation.name in {"std", "var"}:
            number = replace(one.feature, aggregation=BY_NAME["count"], empty=0.0)
            count = vector([replace(one, feature=number)], truly)[one.name].value
            more = count / (count - 1) if count > 1 else math.nan
            value, off = found[one.name]
            found[one.name] = Answer(value * (math.sqrt(more) if one.feature.aggregation.name == "std" else more), off * 2)
    return found


def _units(source: Source) -> Iterator[Skew]:
    for factor in _FACTORS:
        written = f"{factor:g}" if factor > 1 else f"1/{1 / factor:g}"
        yield Skew(kind=Kind.UNIT, says=f"the feature is multiplied by {written}", each=True, recompute=_finished(_scaling(factor)))
        for name in _numbers_of(source):
            yield Skew(
                kind=Kind.UNIT,
                says=f"field {name} is multiplied by {written}",
                each=True,
                recompute=_plain,
                changed=_rows(_scaled(name, factor)),
            )


def _scaling(factor: float) -> Callable[[Answer], Answer]:
    return lambda answer: Answer(answer.value * factor, answer.off * factor + 1e-12 * abs(answer.value * factor))


def _scaled(name: str, factor: float) -> Callable[[dict[str, Any]], None]:
    def scale(row: dict[str, Any]) -> None:
        if row.get(name) is not None:
            row[name] *= factor

    return scale


def _rounding() -> Iterator[Skew]:
    yield Skew(
        kind=Kind.FLOAT32,
        says="features are rounded to 32 bits",
        each=True,
        recompute=_finished(lambda answer: Answer(_rounded(answer.value), answer.off)),
    )
    yield Skew(kind=Kind.FLOAT32, says="fields are rounded to 32 bits", each=True, recompute=_plain, changed=_rows(_all_rounded))


def _all_rounded(row: dict[str, Any]) -> None:
    row.update({name: _rounded(value) for name, value in row.items() if isinstance(value, float) and abs(value) < 2**40})


def _rounded(number: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return math.nan


# ------------------------------------------------------------------------------------------------- clocks


def _time_zones(source: Source, wanted: Sequence[Wanted]) -> Iterator[Skew]:
    reading = any(_reads_clock(form) for one in wanted for form in (one.value, one.where))
    times = [field.name for field in source.contract if field.kind == "time"]
    for halves in _SHIFTS:
        shift_ms = halves * _HALF_HOUR_MS
        by = f"{abs(halves) / 2:g} h {'ahead' if halves > 0 else 'behind'}"
        if reading:
            yield Skew(kind=Kind.TIME_ZONE, says=f"hours and weekdays are read {by}", each=True, recompute=_on_other_clocks(shift_ms))
        yield Skew(kind=Kind.TIME_ZONE, says=f"all instants are {by}", recompute=_plain, changed=_shifted(times, shift_ms))


def _reads_clock(form: Any) -> bool:  # noqa: ANN401 - a canonical form is any JSON
    return isinstance(form, dict) and (form.get("op") in {"hour", "weekday"} or any(map(_reads_clock, form.get("of", ()))))


def _turned(form: Any, shift_ms: int) -> Any:  # noqa: ANN401
    """The form with all clocks set by so much."""
    if not isinstance(form, dict) or "of" not in form:
        return form
    inner = [_turned(one, shift_ms) for one in form["of"]]
    if form["op"] in {"hour", "weekday"}:
        inner = [{"op": "plus", "of": [inner[0], float(shift_ms)]}]
    return {**form, "of": inner}


def _on_other_clocks(shift_ms: int) -> Recompute:
    turned: dict[str, Wanted] = {}

    def recompute(wanted: Sequence[Wanted], occurrences: Sequence[Occurrence], place: int) -> Answers:
        for one in wanted:
            if one.name not in turned:
                turned[one.name] = one.with_form(_turned(one.value, shift_ms), _turned(one.where, shift_ms))
        return vector([turned[one.name] for one in wanted], told(occurrences, place))

    return recompute


def _shifted(times: Sequence[str], shift_ms: int) -> Callable[[Sequence[Occurrence]], list[Occurrence]]:
    def changed(occurrences: Sequence[Occurrence]) -> list[Occurrence]:
        found = []
        for one in occurrences:
            row = {name: value + shift_ms if name in times and isinstance(value, float) else value for name, value in one.row.items()}
            found.append(replace(one, time_ms=one.time_ms + shift_ms, horizon_ms=one.horizon_ms + shift_ms, row=row, given={}))
        return found

    return changed
