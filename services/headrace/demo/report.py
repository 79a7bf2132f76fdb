"""The closing report of the demo: what came of every record, how long it took, how good the scores are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.demo.evaluation import Bin, Quality, auc, calibration_error, quality, reliability, share_by_delay
from headrace.demo.events import LAST_MONTH_OF_TRAINING, Departures
from headrace.demo.planted import KINDS
from headrace.types import Float64s, Int64s

if TYPE_CHECKING:
    from headrace.demo.boarding_replay import Boarded
    from headrace.demo.replay import Replayed  # loads the engine, which takes a second
    from headrace.demo.versions import Versions

MODEL, ALONE, DELAY, CONSTANT = "model", "without airport and airline", "departure delay alone", "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The scores of July to December against what happened. Opponents are fitted on January to June, as the model was."""

    events: int
    late_share: float
    by_predictor: Mapping[str, Quality]
    calibration: Sequence[Bin]
    calibration_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedKind:
    """One kind of bad record: how many were planted, what they should and did become."""

    kind: str
    expected: str
    planted: int
    became: Mapping[str, int]

    @property
    def right(self) -> bool:
        """Whether all became dead letters of the expected reason."""
        return dict(self.became) == {self.expected: self.planted}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the demo says at its end."""

    flights: int
    departures: int
    records: int
    predictions: int
    late: int
    dead_letters: Mapping[str, int]
    planted: Sequence[PlantedKind]
    unanswered: int
    answered_twice: int
    events_per_second: float
    loop_p50_ms: float
    loop_p99_ms: float
    stage_us: Mapping[str, float]
    """Microseconds a record in each stage of the loop."""
    seconds: Mapping[str, float]
    """How long each phase of the demo took."""
    model: Mapping[str, str]
    versions: Versions
    """Which version answered when."""
    judged: Judged | None
    """Of version 1, on all flights; None where the departures end before July."""
    boarded: Boarded | None
    """What came of the second application; None where the departures end before December."""

    def failures(self) -> list[str]:
        """What should not be; empty when all is well."""
        refused = sum(self.dead_letters.values())
        found = []
        if self.records != self.predictions + refused:
            found.append(f"{self.records} records became {self.predictions} predictions and {refused} dead letters")
        if self.unanswered or self.answered_twice:
            found.append(f"{self.unanswered} records have no answer, {self.answered_twice} have more than one")
        found += [f"{one.kind}: {dict(one.became)}, not {one.planted} {one.expected}" for one in self.planted if not one.right]
        if self.judged is not None and not self.judged.by_predictor[MODEL].auc > self.judged.by_predictor[DELAY].auc:
            found.append("the model ranks no better than departure delay alone")
        found += self.versions.failures()
        return found + ([] if self.boarded is None else self.boarded.failures())

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {**asdict(self), "ok": not self.failures(), "failures": self.failures()}


def report(
    departures: Departures, replayed: Replayed, boarded: Boarded | None, *, model: Mapping[str, str], seconds: Mapping[str, float]
) -> Report:
    """Judge a replay; `seconds` are the phases before it, by name."""
    answers = replayed.answers
    expected = {kind.name: kind.expected.value for kind in KINDS}
    return Report(
        flights=departures.flights,
        departures=len(departures),
        records=replayed.records,
        predictions=answers.predictions,
        late=answers.late,
        dead_letters=dict(answers.dead_letters.most_common()),
        planted=[
            PlantedKind(kind=kind, expected=expected[kind], planted=replayed.planted[kind], became=dict(became))
            for kind, became in answers.planted.items()
        ],
        unanswered=answers.unanswered,
        answered_twice=answers.answered_twice,
        events_per_second=replayed.replay_records / replayed.replay_s if replayed.replay_s else 0.0,
        loop_p50_ms=weighted_quantile(replayed.batch_ms, replayed.batch_records, 0.5),
        loop_p99_ms=weighted_quantile(replayed.batch_ms, replayed.batch_records, 0.99),
        stage_us=replayed.stage_us,
        seconds={
            **seconds,
            "first batch": replayed.first_s,
            "replay": replayed.replay_s,
            "moving versions": replayed.moving_s,
            "reading every answer": replayed.reading_s,
        },
        model=model,
        versions=replayed.versions,
        judged=judge(departures, replayed.first, replayed.alone),
        boarded=boarded,
    )


def judge(departures: Departures, scores: Float64s, alone: Float64s) -> Judged | None:
    """Compare the scores of July to December with those of the aircraft alone, with departure delay alone and with a constant; None where
    there are no outcomes of both kinds.
    """
    known = ~np.isnan(departures.late)
    training = known & (departures.months <= LAST_MONTH_OF_TRAINING)
    judged = known & (departures.months > LAST_MONTH_OF_TRAINING) & ~np.isnan(scores)
    true = departures.late[judged] == 1
    if not true.any() or true.all():
        return None
    known_true = departures.late[training] == 1
    delay = departures.dep_delay[judged]
    by_delay = quality(share_by_delay(departures.dep_delay[training], known_true, delay), true)
    by_predictor = {
        MODEL: quality(scores[judged], true),
        ALONE: quality(alone[judged], true),
        DELAY: replace(by_delay, auc=auc(delay, true)),
        CONSTANT: quality(np.full(len(true), known_true.mean()), true),
    }
    bins = reliability(scores[judged], true)
    return Judged(
        events=len(true),
        late_share=float(true.mean()),
        by_predictor=by_predictor,
        calibration=bins,
        calibration_error=calibration_error(bins),
    )


def weighted_quantile(values: Float64s, weights: Int64s, share: float) -> float:
    """The smallest value at or below which at least that share of the weight lies; NaN when there is none."""
    if not len(values):
        return float("nan")
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1])])
