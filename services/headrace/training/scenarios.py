"""`headrace.scenario`: what would have been different, had another model, threshold or input been there.

    log --replaying.py--> vectors before and after --versions.py--> scores before and after --what_changed.py--> Scenario
                                                    served_scores.py: is what is called before what was served?

Before is the champion as declared, over the events as they were; after is the scenario. Everything else is the same, and everything is told
from the same pass over the log, by the one fold that serves: a scenario that changes nothing changes nothing. Limits: those of
`replaying.py`; a scenario replays one pipeline, and what its predictions would have caused downstream is not in the log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.definition import App, Pipeline
from headrace.errors import DefinitionError
from headrace.expression import Expression, Kind, expression_in
from headrace.predict.scores import Model
from headrace.training import scenario_shown
from headrace.training.building import chosen_pipeline, labels_of
from headrace.training.changed_inputs import Wish, changed_inputs
from headrace.training.frame import INSTANT
from headrace.training.history import Account, Told, Topics
from headrace.training.labels import LabelTally
from headrace.training.replaying import Replay, Stretch, places_of
from headrace.training.served_scores import ServedScores, served_scores
from headrace.training.span import Bound, Span, span_of
from headrace.training.tables import Tabular
from headrace.training.versions import Fetch, Given, VersionShown, declared_kind, from_files, kind_of, loaded, shown, thresholds
from headrace.training.what_changed import Comparison, Rules, ScoredRows, compare, in_order

EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """What `headrace.scenario` found. By `print` it shows itself; `to_json` has all of it, `table` the rows."""

    pipeline: str
    topic: str
    """Of the source."""
    first_ms: int
    """The earliest event time in the span,"""
    last_ms: int
    """and the latest."""
    before: VersionShown
    after: VersionShown
    kind: str
    """What scores mean: probability or value."""
    changed: tuple[str, ...]
    """What was changed in events and vectors, in words."""
    outside_contract: Mapping[str, int]
    """By field, in how many events it was changed to what the contract forbids: those would have been dead letters."""
    by: str
    """What segments are told by; empty where they are not asked for."""
    comparison: Comparison
    served: ServedScores | None
    """None where events come from files, or nothing was published."""
    labels: Mapping[str, int] | None
    """How many rows have an outcome, and why the others have none; None where no outcomes were given."""
    account: Account
    """What became of the records of the log."""
    rows: ScoredRows

    @property
    def table(self) -> pa.Table:
        """A row an event: who, when, where, the scores before and after, its outcome and segment where they are known."""
        rows = self.rows
        columns: dict[str, pa.Array] = {
            "_entity": rows.entities,
            "_event_time": pa.array(rows.times_ms).cast(INSTANT),
            "_partition": pa.array(rows.partitions),
            "_offset": pa.array(rows.offsets),
            "before": pa.array(rows.before, mask=np.isnan(rows.before)),
            "after": pa.array(rows.after, mask=np.isnan(rows.after)),
        }
        if rows.outcome is not None:
            columns["outcome"] = pa.array(rows.outcome, mask=np.isnan(rows.outcome))
        if rows.segments is not None:
            columns["segment"] = pa.array(rows.segments, from_pandas=True)
        return pa.table(columns)

    def to_json(self) -> dict[str, Any]:
        """Everything but the rows as plain JSON; a figure that there is not is null."""
        account = {"records": self.account.records, "refused": _refused(self.account), "incomplete": self.account.incomplete}
        offsets = {topic: {str(one): list(span) for one, span in spans.items()} for topic, spans in self.account.offsets.items()}
        found: dict[str, Any] = {
            "pipeline": self.pipeline,
            "events": len(self.rows),
            "topic": self.topic,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "kind": self.kind,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "changed": list(self.changed),
            "outside_contract": dict(self.outside_contract),
            "served": None if self.served is None else {**asdict(self.served), "differing": self.served.differing},
            "labels": None if self.labels is None else dict(self.labels),
            "by": self.by or None,
            **asdict(self.comparison),
            "log": {**account, "offsets": offsets},
        }
        plain: dict[str, Any] = _plain(found)
        return plain

    def to_parquet(self, path: str | Path) -> None:
        """`table` as a Parquet file. Raises `DefinitionError` where it cannot be written."""
        try:
            pq.write_table(self.table, path, compression="zstd")
        except OSError as error:
            raise DefinitionError(f"{path} cannot be written: {error.strerror}; name another file") from error

    def draw(self, to: str | Path) -> None:
        """Write a picture of it as SVG or PNG, by the ending of the name (`headrace[plot]`). Raises `DefinitionError`."""
        from headrace.training import scenario_chart  # noqa: PLC0415 - only who asks for it needs matplotlib

        scenario_chart.draw(self, Path(to))

    def __str__(self) -> str:
        return scenario_shown.text(self)

    __repr__ = __str__


def scenario(
    app: App | Pipeline,
    *,
    events: Topics | Tabular,
    labels: Topics | Tabular | Expression | None = None,
    pipeline: str | None = None,
    label_time: str | None = None,
    model: Given | None = None,
    baseline: Given | None = None,
    threshold: float | None = None,
    baseline_threshold: float | None = None,
    inputs: Mapping[str, Wish] | None = None,
    drop_inputs: Collection[str] = (),
    empty_features: Collection[str] = (),
    by: str | Expression | None = None,
    begin: Bound | None = None,
    end: Bound | None = None,
    examples: int = EXAMPLES,
    fetch: Fetch = from_files,
    told: Told = lambda _, __: None,
) -> Scenario:
    """Replay a span of a log, and say what would have changed: scores, decisions, and where outcomes are known how good they are.

    `events`, `labels`, `pipeline`, `label_time` and `told` are those of `training_frame`. `model`: another version, as a file, as bytes or
    as anything that scores; `baseline`: what it is compared with, else the model that the pipeline declares. `threshold`: the score from
    which on the answer is yes, `baseline_threshold`: the one that holds now; a half for probabilities unless said, and the same for both.
    `inputs`: by field of the event what it shall be, as an expression over the event as it was (or its text), before the fold, so that
    rolling features change as well; `drop_inputs`: fields that no event has; `empty_features`: features, or views, that are NaN after the
    fold. Inputs change from `begin` up to, not with, `end`: instants of event time, or offsets by partition; what lies before them is
    history. `by`: a field, or an expression, that rows are told apart by. `fetch`: where the bytes of a named version come from, and those
    of the champion. Raises `DefinitionError` for what does not fit the definitions.
    """
    chosen = chosen_pipeline(app, pipeline)
    _insist(chosen, labels, examples)
    change = changed_inputs(chosen, inputs=inputs, drop_inputs=drop_inputs, empty_features=empty_features)
    span, (segment, by_kind) = span_of(begin, end), _segment(chosen, by)
    before = loaded(chosen, baseline, fetch)
    after = before if model is None else loaded(chosen, model, fetch)
    declared = declared_kind(before, after)
    if declared is not None:
        thresholds(declared, threshold, baseline_threshold)  # what is wrong with them is said before the log is read
    replay = Replay(
        app,
        chosen,
        events,
        change=change,
        span=span,
        joined=None if chosen.outcomes is None else chosen.outcomes.join,
        by=segment,
        more=sorted(labels.fields()) if isinstance(labels, Expression) else (),
        told=told,
    )
    scored = _Scored([])
    for stretch in replay.stretches():
        if len(stretch):
            scored.take(stretch, before, after)
    if not scored.parts:
        raise DefinitionError(_nothing(chosen, span, replay.history.account))
    rows, tally = _with_outcomes(scored.rows(), chosen, replay, labels, label_time)
    kind = declared or kind_of(rows.before, rows.after)
    rules = Rules(
        kind=kind,
        thresholds=thresholds(kind, threshold, baseline_threshold),
        by=by_kind,
        examples=examples,
        id_of=_id_of(chosen, before.name, events),
    )
    served = None
    if isinstance(events, Topics):
        served = served_scores(
            chosen, events, places_of(rows.partitions, rows.offsets), rows.before, from_ms=scored.first_record_ms, told=told
        )
    return Scenario(
        pipeline=chosen.name,
        topic=chosen.source.topic,
        first_ms=int(rows.times_ms.min()),
        last_ms=int(rows.times_ms.max()),
        before=shown(before),
        after=shown(after),
        kind=str(kind),
        changed=tuple(change.words()),
        outside_contract=replay.broken,
        by="" if segment is None else repr(segment),
        comparison=compare(rows, rules),
        served=served,
        labels=None if tally is None else tally.counts(),
        account=replay.history.account,
        rows=rows,
    )


def _id_of(pipeline: Pipeline, model: str, events: object) -> Callable[[int, int], str]:
    """How an event is called: by the id of its prediction, which `headrace explain` takes; in a file by the number of its row."""
    if not isinstance(events, Topics):
        return lambda _, offset: f"row-{offset}"
    return lambda partition, offset: f"{pipeline.source.topic}-{partition}-{offset}-{model}"


def _insist(pipeline: Pipeline, labels: object, examples: int) -> None:
    """Raises `DefinitionError` for what would be found out only when the log was read."""
    if examples < 0:
        raise DefinitionError(f"scenario: examples={examples} are fewer than none; give 0 or more")
    if labels is not None and not isinstance(labels, Expression) and pipeline.outcomes is None:
        raise DefinitionError(
            f"{pipeline!r} declares no outcomes, so labels cannot be joined; write outcomes=hr.Outcomes(...), or leave labels out"
        )


def _segment(pipeline: Pipeline, by: str | Expression | None) -> tuple[Expression | None, Kind | None]:
    """What rows are told apart by, and its kind."""
    if by is None:
        return None, None
    where = f"scenario of {pipeline!r}: by"
    found = expression_in(by, where=where) if isinstance(by, str) else by
    kind = found.kind(pipeline.source.kinds, where=where)
    if not found.fields():
        raise DefinitionError(f"{where}: {found!r} is the same of every event; name a field, one of {', '.join(pipeline.source.kinds)}")
    return found, kind


@dataclass(slots=True)
class _Scored:
    """The rows of a replay with both scores, their vectors forgotten."""

    parts: list[ScoredRows]
    first_record_ms: int = 1 << 62
    """The earliest timestamp of their records."""

    def take(self, stretch: Stretch, before: Model, after: Model) -> None:
        """Score some rows."""
        scores = before.score(stretch.before).scores
        same = after is before and stretch.after is stretch.before
        self.parts.append(
            ScoredRows(
                entities=stretch.entities,
                ids=stretch.ids,
                segments=stretch.segments,
                times_ms=stretch.times_ms,
                partitions=stretch.partitions,
                offsets=stretch.offsets,
                before=scores,
                after=scores if same else after.score(stretch.after).scores,
            )
        )
        self.first_record_ms = min(self.first_record_ms, int(stretch.record_times_ms.min()))

    def rows(self) -> ScoredRows:
        """All of them, by partition and offset: the same whatever the order in which partitions were read."""
        return in_order(self.parts)


def _with_outcomes(
    rows: ScoredRows, pipeline: Pipeline, replay: Replay, labels: object, label_time: str | None
) -> tuple[ScoredRows, LabelTally | None]:
    if labels is None:
        return rows, None
    found, tally = labels_of(pipeline, replay.history, labels, label_time, ids=rows.ids, times_ms=rows.times_ms, offsets=rows.offsets)
    return replace(rows, outcome=found), tally


def _nothing(pipeline: Pipeline, span: Span, account: Account) -> str:
    """Why there is no row."""
    left_out = [f"{count:,} left out as {reason}" for reason, count in _refused(account).items()]
    left_out += [f"{account.incomplete:,} whose windows reach behind the beginning of the log"] if account.incomplete else []
    told = f"{account.records:,} records were read{', ' if left_out else ''}{', '.join(left_out)}"
    fix = "" if span.whole else "; choose an earlier begin (--from) or a later end (--to)"
    return f"scenario of {pipeline!r}: no event {'is there' if span.whole else 'lies in the span'}: {told}{fix}"


def _refused(account: Account) -> dict[str, int]:
    return {str(reason): count for reason, count in sorted(account.refused.items()) if count}


def _plain(found: Any) -> Any:  # noqa: ANN401 - JSON, whatever is in it
    """Without numbers that JSON does not have."""
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    if isinstance(found, Mapping):
        return {str(name): _plain(one) for name, one in found.items()}
    return [_plain(one) for one in found] if isinstance(found, (list, tuple)) else found
