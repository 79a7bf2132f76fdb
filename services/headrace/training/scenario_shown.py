"""How a scenario shows itself in a terminal: what was compared, how scores moved, what flipped, how good both are, and for whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from headrace.training.distribution import SHARES, Distribution
from headrace.training.preview_shown import blocks, number

if TYPE_CHECKING:
    from headrace.training.scenarios import Scenario
    from headrace.training.what_changed import Decisions, Example, Grading, Segment

GRADES = {
    "auc": "AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "precision": "precision",
    "recall": "recall",
    "mae": "MAE",
    "rmse": "RMSE",
}
WHY = {
    "none": "no outcome known",
    "too_late": "it came too late",
    "before": "it came before the event",
    "unknown": "its value is absent",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 24


def text(found: Scenario) -> str:
    """For a terminal."""
    parts = [_heading(found), _scores(found), *_decided(found), *_graded(found), *_segmented(found), *_examples(found)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _heading(found: Scenario) -> list[str]:
    first, last = instant(found.first_ms), instant(found.last_ms)
    lines = [f"{found.pipeline}: {len(found.rows):,} events of {found.topic}, {first} to {last} UTC"]
    decisions = found.comparison.decisions
    limits = ("", "") if decisions is None else (decisions.threshold_before, decisions.threshold_after)
    for name, version, limit in (("before", found.before, limits[0]), ("after", found.after, limits[1])):
        lines.append(f"  {name:<11}{version}{f', yes from {limit:g} on' if isinstance(limit, float) else ''}")
    lines += [f"  {'changed' if place == 0 else '':<11}{one}" for place, one in enumerate(found.changed)]
    for name, count in found.outside_contract.items():
        lines.append(f"  {'':<11}in {count:,} events {name!r} is now what the contract forbids: those would be dead letters")
    left_out = [f"{count:,} records: {reason}" for reason, count in sorted(found.account.refused.items()) if count]
    left_out += [f"{found.account.incomplete:,} events: their windows reach behind the log"] if found.account.incomplete else []
    lines += [f"  {'left out':<11}{one}" for one in left_out]
    return lines + _served(found)


def _served(found: Scenario) -> list[str]:
    """What was served, before anything else is compared."""
    if found.served is None:
        return []
    served = found.served
    lines = [f"  {'served':<11}{served.rows:,} of {served.events:,} events have a prediction"]
    for one in served.by:
        same = (
            "the same scores as before" if not one.differing else f"{one.differing:,} scores differ from before, by up to {one.largest:.3g}"
        )
        lines.append(f"  {'':<11}version {one.version} as {one.role}: {one.rows:,}, {same}")
    others = [f"{served.other_definitions:,} predictions are of other definitions"] if served.other_definitions else []
    others += [f"{served.foreign:,} records there are no predictions of this pipeline"] if served.foreign else []
    return lines + [f"  {'':<11}{one}" for one in others]


def _scores(found: Scenario) -> list[str]:
    shift = found.comparison.shift
    quantiles = ["median" if share == 0.5 else f"{100 * share:g} %" for share in SHARES]  # noqa: PLR2004
    head = ["scores", "mean", "least", *quantiles, "most", "middle 98 %"]
    rows = [_spread(name, one) for name, one in (("before", shift.before), ("after", shift.after), ("change", shift.change))]
    notes = [f"{shift.unchanged:,} of {shift.rows:,} scores are the same"]
    notes += (
        [f"the model gave none for {shift.refused_before:,} before, {shift.refused_after:,} after"]
        if (shift.refused_before or shift.refused_after)
        else []
    )
    return [*table(head, rows, left={0, len(head) - 1}), f"  {'; '.join(notes)}"]


def _spread(name: str, found: Distribution) -> list[str]:
    return [f"  {name}", *map(number, (found.mean, found.least, *found.quantiles, found.most)), blocks(found.counts)]


def _decided(found: Scenario) -> Iterator[list[str]]:
    decisions, rows = found.comparison.decisions, found.comparison.shift.rows
    if decisions is not None:
        to_yes, to_no = (
            f"{count:,} to {word} ({_share(count, rows)})" for count, word in ((decisions.to_yes, "yes"), (decisions.to_no, "no"))
        )
        yes = f"  yes        {decisions.yes_before:,} before, {decisions.yes_after:,} after, of {rows:,}"
        yield ["decisions", yes, f"  flipped    {to_yes}, {to_no}"]


def _graded(found: Scenario) -> Iterator[list[str]]:
    grading = found.comparison.grading
    if grading is None:
        return
    counts = found.labels or {}
    missing = ", ".join(f"{counts[name]:,} {why}" for name, why in WHY.items() if counts.get(name))
    mean = f", {number(grading.mean)} on average" if grading.rows else ""
    title = f"outcomes, known of {grading.rows:,} events{mean}{f'; not: {missing}' if missing else ''}"
    if not grading.rows:
        yield [title]
        return
    rows = [[f"  {GRADES[name]}", *_both(grading.before[name], grading.after[name])] for name in grading.before]
    yield [title, *table(["", "before", "after", "change"], rows)]


def _both(before: float, after: float) -> list[str]:
    return [number(before), number(after), _signed(after - before)]


def _segmented(found: Scenario) -> Iterator[list[str]]:
    if found.by:
        names = list(_grades(found.comparison.segments))
        head = [f"by {found.by}", "events", "mean before", "after", "change"]
        head += ["to yes", "to no"] if found.comparison.decisions is not None else []
        head += [word for name in names for word in (f"{GRADES[name]} before", "after")]
        yield table(head, [_segment(one, names) for one in found.comparison.segments])


def _grades(segments: Sequence[Segment]) -> Iterator[str]:
    """The figures that are worth a column: the first of each kind."""
    known = next((one.grading for one in segments if one.grading is not None), None)
    if known is not None:
        yield next(iter(known.before))


def _segment(one: Segment, names: Sequence[str]) -> list[str]:
    cells = [f"  {_short(one.name)}", f"{one.rows:,}", *_both(one.mean_before, one.mean_after)]
    cells += _flips(one.decisions) if one.decisions is not None else []
    return cells + [cell for name in names for cell in _grade(one.grading, name)]


def _flips(decisions: Decisions) -> list[str]:
    return [f"{decisions.to_yes:,}", f"{decisions.to_no:,}"]


def _grade(grading: Grading | None, name: str) -> list[str]:
    if grading is None or name not in grading.before:
        return ["-", "-"]
    return [number(grading.before[name]), number(grading.after[name])]


def _examples(found: Scenario) -> Iterator[list[str]]:
    comparison = found.comparison
    sorts = (("most changed", comparison.most_changed), ("flipped to yes", comparison.to_yes), ("flipped to no", comparison.to_no))
    for title, examples in sorts:
        if examples:
            known = any(one.outcome is not None for one in examples)
            joined = any(one.join is not None for one in examples)
            head = [title, "entity", *(["joined by"] if joined else []), "event time", "before", "after", "change"]
            rows = [_example(one, joined=joined, known=known) for one in examples]
            yield table([*head, *(["outcome"] if known else [])], rows, left={0, 1, 2, 3} if joined else {0, 1, 2})


def _example(one: Example, *, joined: bool, known: bool) -> list[str]:
    join = [] if not joined else [one.join if isinstance(one.join, str) else "-" if one.join is None else f"{one.join:.10g}"]
    outcome = [] if not known else ["-" if one.outcome is None else number(one.outcome)]
    return [f"  {one.id}", _short(one.entity), *join, instant(one.event_time_ms), *_both(one.before, one.after), *outcome]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: set[int] | None = None) -> list[str]:
    """Lines of columns: those in `left` begin at the left, all others end at the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if place in (left or {0}) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def instant(time_ms: int) -> str:
    """An instant in UTC, to the second."""
    return (_EPOCH + timedelta(milliseconds=time_ms)).strftime("%Y-%m-%dT%H:%M:%S")


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
