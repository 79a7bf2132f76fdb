"""What a scenario would have changed, told from two scores a row. Pure, numpy and pyarrow only.

Everything is over the rows that have both scores, so that before and after are of the same events; what a model refused on either side is
counted. Outcomes are over those of them whose outcome is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa

from headrace.expression import Column, Kind
from headrace.predict.signature import OutputKind
from headrace.training.distribution import Distribution, distribution, is_binary
from headrace.training.grading import Bin, Grades, calibration, probability_grades, value_grades
from headrace.types import Bools, Float64s, Int32s, Int64s

MOST_SEGMENTS = 20
"""So many of the largest are told one by one, all others together."""
ABSENT, OTHERS = "(absent)", "(others)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredRows:
    """The rows of a span as columns, by partition and offset."""

    entities: pa.Array
    ids: pa.Array | None
    segments: Column | None
    times_ms: Int64s
    partitions: Int32s
    offsets: Int64s
    before: Float64s
    """NaN where the model gave no score."""
    after: Float64s
    outcome: Float64s | None = None
    """NaN where it is not known."""

    def __len__(self) -> int:
        return len(self.times_ms)


def in_order(parts: Sequence[ScoredRows]) -> ScoredRows:
    """At least one stretch of rows as one, by partition and offset."""
    partitions, offsets = (np.concatenate([getattr(one, name) for one in parts]) for name in ("partitions", "offsets"))
    order = np.lexsort((offsets, partitions))
    ids = [one.ids for one in parts if one.ids is not None]
    segments = [one.segments for one in parts if one.segments is not None]
    return ScoredRows(
        entities=pa.concat_arrays([one.entities for one in parts]).take(pa.array(order)),
        ids=pa.concat_arrays(ids).take(pa.array(order)) if ids else None,
        segments=cast("Column", np.concatenate(segments)[order]) if segments else None,
        times_ms=np.concatenate([one.times_ms for one in parts])[order],
        partitions=partitions[order],
        offsets=offsets[order],
        before=np.concatenate([one.before for one in parts])[order],
        after=np.concatenate([one.after for one in parts])[order],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How scores moved."""

    rows: int
    """Those with both scores; all figures are of them."""
    refused_before: int
    """Rows without a score before,"""
    refused_after: int
    """and after."""
    unchanged: int
    """Rows whose score is the same to the last bit."""
    before: Distribution
    after: Distribution
    change: Distribution
    """Of after - before, row by row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Yes or no: whether a score is at least the threshold."""

    threshold_before: float
    threshold_after: float
    yes_before: int
    yes_after: int
    to_yes: int
    """No before, yes after."""
    to_no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """How good both are, over the rows with both scores and a known outcome."""

    rows: int
    mean: float
    """Of the outcome."""
    before: Grades
    after: Grades
    calibration_before: tuple[Bin, ...] = ()
    """Of probabilities."""
    calibration_after: tuple[Bin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The same figures of the rows of one segment."""

    name: str
    rows: int
    mean_before: float
    mean_after: float
    decisions: Decisions | None
    grading: Grading | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One event."""

    id: str
    """That of its prediction; of an event in a file, the number of its row."""
    entity: str
    event_time_ms: int
    partition: int
    offset: int
    join: str | float | None
    """What its outcome is joined by."""
    before: float
    after: float
    outcome: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that is told of a span."""

    shift: Shift
    decisions: Decisions | None
    grading: Grading | None
    """None where no outcomes were given."""
    segments: tuple[Segment, ...]
    most_changed: tuple[Example, ...]
    to_yes: tuple[Example, ...]
    """Of those that flipped, the most changed."""
    to_no: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How rows are read."""

    kind: OutputKind
    thresholds: tuple[float, float] | None
    """From which score on the answer is yes, before and after."""
    by: Kind | None
    """What the column is that tells segments."""
    examples: int
    """How many of each sort."""
    id_of: Callable[[int, int], str]
    """What the event at a partition and offset is called."""


def compare(rows: ScoredRows, rules: Rules) -> Comparison:
    """Compare before and after."""
    both = np.isfinite(rows.before) & np.isfinite(rows.after)
    moved = np.where(both, np.abs(rows.after - rows.before), -np.inf)
    to_yes, to_no = _flips(rows, both, rules.thresholds)
    return Comparison(
        shift=_shift(rows, both),
        decisions=_decisions(rows, both, rules.thresholds),
        grading=_grading(rows, both, rules),
        segments=tuple(_segments(rows, both, rules)),
        most_changed=_examples(rows, both & (moved > 0), moved, rules),
        to_yes=_examples(rows, to_yes, moved, rules),
        to_no=_examples(rows, to_no, moved, rules),
    )


def _shift(rows: ScoredRows, both: Bools) -> Shift:
    before, after = rows.before[both], rows.after[both]
    return Shift(
        rows=int(both.sum()),
        refused_before=int((~np.isfinite(rows.before)).sum()),
        refused_after=int((~np.isfinite(rows.after)).sum()),
        unchanged=int((before == after).sum()),
        before=distribution(before),
        after=distribution(after),
        change=distribution(after - before),
    )


def _flips(rows: ScoredRows, among: Bools, thresholds: tuple[float, float] | None) -> tuple[Bools, Bools]:
    """Which rows become yes, and which no."""
    if thresholds is None:
        nobody = np.zeros(len(rows), dtype=np.bool_)
        return nobody, nobody
    before, after = rows.before >= thresholds[0], rows.after >= thresholds[1]
    return among & ~before & after, among & before & ~after


def _decisions(rows: ScoredRows, among: Bools, thresholds: tuple[float, float] | None) -> Decisions | None:
    if thresholds is None:
        return None
    to_yes, to_no = _flips(rows, among, thresholds)
    return Decisions(
        threshold_before=thresholds[0],
        threshold_after=thresholds[1],
        yes_before=int((rows.before[among] >= thresholds[0]).sum()),
        yes_after=int((rows.after[among] >= thresholds[1]).sum()),
        to_yes=int(to_yes.sum()),
        to_no=int(to_no.sum()),
    )


def _grading(rows: ScoredRows, among: Bools, rules: Rules) -> Grading | None:
    if rows.outcome is None:
        return None
    known = among & np.isfinite(rows.outcome)
    before, after, outcome = rows.before[known], rows.after[known], rows.outcome[known]
    mean = float(outcome.mean()) if len(outcome) else float("nan")
    if rules.kind is OutputKind.VALUE or rules.thresholds is None or not is_binary(rows.outcome):
        return Grading(rows=len(outcome), mean=mean, before=value_grades(before, outcome), after=value_grades(after, outcome))
    return Grading(
        rows=len(outcome),
        mean=mean,
        before=probability_grades(before, outcome, rules.thresholds[0]),
        after=probability_grades(after, outcome, rules.thresholds[1]),
        calibration_before=tuple(calibration(before, outcome)),
        calibration_after=tuple(calibration(after, outcome)),
    )


def _segments(rows: ScoredRows, both: Bools, rules: Rules) -> Iterator[Segment]:
    """The largest first; what is left over, last."""
    if rows.segments is None or rules.by is None:
        return
    codes, names = _named(rows.segments, rules.by)
    counts = np.bincount(codes, minlength=len(names))
    order = sorted(range(len(names)), key=lambda code: (-counts[code], names[code]))
    told = order if len(order) <= MOST_SEGMENTS + 1 else order[:MOST_SEGMENTS]
    rest = ~np.isin(codes, told)
    for name, mine in [*((names[code], codes == code) for code in told), *([(OTHERS, rest)] if rest.any() else [])]:
        among = both & mine
        yield Segment(
            name=name,
            rows=int(among.sum()),
            mean_before=float(rows.before[among].mean()) if among.any() else float("nan"),
            mean_after=float(rows.after[among].mean()) if among.any() else float("nan"),
            decisions=_decisions(rows, among, rules.thresholds),
            grading=_grading(rows, among, rules),
        )


def _named(segments: Column, by: Kind) -> tuple[Int64s, list[str]]:
    """The number of each row's segment, and what they are called."""
    encoded = pa.array(segments, pa.string() if by == "text" else pa.float64(), from_pandas=True).dictionary_encode()
    found = encoded.dictionary.to_pylist()
    codes = np.asarray(encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False), dtype=np.int64)
    return codes, [*(_name(value, by) for value in found), *([ABSENT] if encoded.null_count else [])]


def _name(value: Any, by: Kind) -> str:  # noqa: ANN401 - a text or a number
    if by == "boolean":
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.10g}"


def _examples(rows: ScoredRows, which: Bools, moved: Float64s, rules: Rules) -> tuple[Example, ...]:
    """The most changed of some rows; of equally changed ones the first."""
    found, most = np.flatnonzero(which), rules.examples
    if len(found) > most > 0:
        # Millions need not be sorted: only those that are as far as the last one that has a place.
        found = found[moved[found] >= np.partition(moved[found], len(found) - most)[len(found) - most]]
    order = found[np.argsort(-moved[found], kind="stable")][:most]
    return tuple(_example(rows, row, rules) for row in order.tolist())


def _example(rows: ScoredRows, row: int, rules: Rules) -> Example:
    partition, offset = int(rows.partitions[row]), int(rows.offsets[row])
    return Example(
        id=rules.id_of(partition, offset),
        entity=rows.entities[row].as_py() or "",
        event_time_ms=int(rows.times_ms[row]),
        partition=partition,
        offset=offset,
        join=None if rows.ids is None else rows.ids[row].as_py(),
        before=float(rows.before[row]),
        after=float(rows.after[row]),
        outcome=None if rows.outcome is None or not np.isfinite(rows.outcome[row]) else float(rows.outcome[row]),
    )
