"""Which version answered when, by the facts, and how the two compare on the same flights.

A worker takes a change up between two batches of what its last stage reads, which is a hop: so the offsets are those of the hop. What
the predictions say of themselves is counted beside what the facts say; one by one they are compared by `headrace verify`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.demo.answers import Answers, Shadowed
from headrace.demo.engineer import Engineer, Moved, Registered
from headrace.demo.evaluation import auc
from headrace.demo.events import LAST_MONTH_OF_TRAINING, Departures
from headrace.memory_log import MemoryLog
from headrace.predict.onnx_model import OnnxModel
from headrace.switches import Switch, switches_in
from headrace.types import Bools, Float64s, Int64s, TopicPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """A change of who scores, and from where on it held."""

    did: str
    given_after: int
    """Records that had their answers when the command was given."""
    topic: str
    offsets: Mapping[int, int]
    """By partition, the first offset that was scored so."""
    held_after: int
    """How many events stand before these offsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What both versions reach on the same flights."""

    which: str
    when: str
    flights: int
    auc: Mapping[str, float]
    """By version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What became of the versions."""

    registered: Sequence[Registered]
    switches: Sequence[Switched]
    predictions: Mapping[str, int]
    """By version, as the predictions say."""
    shadowed: Mapping[str, int]
    """The same of what shadows scored."""
    by_facts: Mapping[str, int]
    """By version, how many predictions the facts tell of."""
    shadowed_by_facts: Mapping[str, int]
    compared: Sequence[Compared]
    not_taken_up: Sequence[str]
    """Commands that some partition knows no fact of."""

    def failures(self) -> list[str]:
        """What should not be; empty when all is well."""
        found = [f"{did}, and not every partition took it up" for did in self.not_taken_up]
        for what, said, told in (
            ("predictions", self.predictions, self.by_facts),
            ("shadow scores", self.shadowed, self.shadowed_by_facts),
        ):
            if said != told:
                found.append(f"{what} by version are {dict(said)}, by the facts {dict(told)}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """The part of `Versions` that the log tells."""

    switches: Sequence[Switched]
    by_facts: Mapping[str, int]
    shadowed_by_facts: Mapping[str, int]
    not_taken_up: Sequence[str]


def switches_of(log: MemoryLog, engineer: Engineer, pipeline: str) -> Switches:
    """Read the facts, and count the events that they are about."""
    facts = switches_in(engineer.facts())
    told = {where: switches for (name, where), switches in facts.items() if name == pipeline}
    events = {where: _offsets(log, where) for where in told}
    answers, shadows = Counter[str](), Counter[str]()
    for where, switches in told.items():
        ends = [*(switch.offset for switch in switches[1:]), np.iinfo(np.int64).max]
        for switch, end in zip(switches, ends, strict=True):
            count = int(((events[where] >= switch.offset) & (events[where] < end)).sum())
            answers[switch.roster.champion or ""] += count
            shadows.update(dict.fromkeys(switch.roster.shadows, count))
    found, missed = [], []
    for moved in engineer.moved:
        first = {where: at for where, switches in told.items() if (at := _first(switches, moved.epoch)) is not None}
        if len(first) < len(told) or not told:
            missed.append(moved.did)
        if first:
            found.append(_switched(moved, first, events))
    return Switches(
        switches=found,
        by_facts={version: count for version, count in sorted(answers.items()) if count},
        shadowed_by_facts={version: count for version, count in sorted(shadows.items()) if count},
        not_taken_up=missed,
    )


def scored_by(model: OnnxModel, answers: Answers) -> Float64s:
    """The scores of one version for every flight that was answered: those it gave, and for the others what it makes of the vectors that
    were published.
    """
    scores = answers.scores.copy()
    others = np.flatnonzero((answers.versions != model.version) & ~np.isnan(scores))
    if len(others):
        scores[others] = model.score(answers.features[others]).scores
    return scores


def versions_of(
    departures: Departures, answers: Answers, shadowed: Shadowed, first: Float64s, told: Switches, engineer: Engineer
) -> Versions:
    """All of it; `first` are the scores of the version that was there first, for every flight."""
    names = [registered.version for registered in engineer.registered]
    compared = []
    if names[1:]:
        one, other = names
        for which, rows, scores in (
            (f"version {other} in the shadow of {one}", ~np.isnan(shadowed.scores), shadowed.scores),
            (f"version {other} as champion", answers.versions == other, answers.scores),
        ):
            compared += _compared(which, departures, rows, {one: first, other: scores})
    return Versions(
        registered=list(engineer.registered),
        switches=told.switches,
        predictions=dict(sorted(answers.by_version.items())),
        shadowed=dict(sorted(shadowed.by_version.items())),
        by_facts=told.by_facts,
        shadowed_by_facts=told.shadowed_by_facts,
        compared=compared,
        not_taken_up=told.not_taken_up,
    )


def _compared(which: str, departures: Departures, rows: Bools, scores: Mapping[str, Float64s]) -> list[Compared]:
    """Flights before July were in the training of both, so they are told apart from the others."""
    found = []
    learned = departures.months <= LAST_MONTH_OF_TRAINING
    for when, of in (("until June", learned), ("from July on", ~learned)):
        some = rows & of & ~np.isnan(departures.late)
        true = departures.late[some] == 1
        if true.any() and not true.all():
            reached = {version: auc(one[some], true) for version, one in scores.items()}
            found.append(Compared(which=which, when=when, flights=len(true), auc=reached))
    return found


def _switched(moved: Moved, first: Mapping[TopicPartition, int], events: Mapping[TopicPartition, Int64s]) -> Switched:
    return Switched(
        did=moved.did,
        given_after=moved.answered,
        topic=next(iter(first)).topic,
        offsets={where.partition: at for where, at in sorted(first.items())},
        held_after=sum(int(np.searchsorted(events[where], at)) for where, at in first.items()),
    )


def _first(switches: Sequence[Switch], epoch: int) -> int | None:
    """From where on a partition was scored by this state of the registry or a later one: where nothing came between two, one is told."""
    return next((switch.offset for switch in switches if switch.epoch >= epoch), None)


def _offsets(log: MemoryLog, where: TopicPartition) -> Int64s:
    """Where records stand in a partition: the ends of transactions take offsets, too."""
    end = log.stable_end(where)
    found = log.fetch(where, 0, end)
    return np.empty(0, np.int64) if found is None else found[0][0]
