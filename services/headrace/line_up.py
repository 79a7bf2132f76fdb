"""The models of a worker, and how they change while it runs.

    control topic --(again and again, beside the loop)--> registry --> artifacts --> loaded, warmed
                                                                                        |
    the loop, between two batches --------------------------------------------- taken up v

What is new is loaded and warmed beside what answers, so a change costs the loop the exchange of a reference. Everything in a batch is
scored by one line-up. A champion that cannot be had, or cannot be loaded, changes nothing: the old versions of its pipeline go on. A
challenger or a shadow that cannot be loaded is left out, and nobody else waits for it. Either is said, and tried again. The rosters of
different pipelines change one without the other.

An *epoch* is the state of the registry, for one pipeline: the offset behind the command that changed its roster last; an *era* is a life of
the control topic. The *mark* of what scores a partition travels with its committed offset, so whoever comes to it next does not score
before it knows at least as much, and tells a switch where something else scores. Pipelines that pin a model have no mark and never change.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.definition import App, Pipeline
from headrace.errors import HeadraceError, TransientError
from headrace.executor import Executor, Outcome
from headrace.predict.casting import Cast
from headrace.predict.commands import FALLBACK, Move
from headrace.predict.registry import Registry, Role
from headrace.predict.roles import Roster
from headrace.predict.scores import Model, Scores
from headrace.switches import Switch
from headrace.types import Float64s, Int32s, Int64s, TopicPartition

WHATEVER = 1 << 53
"""What a command expects that is right whatever was done meanwhile."""
AGAIN_MS = 1_000
"""How often it is tried again to load what could not be loaded."""
HEARD_MS = 10_000
"""By when a worker hears of its own command: one that was not carried out by then went with a transaction that was aborted."""
_MARK = re.compile(r"(\w+)\.(\d+)")

Read = Callable[[], Registry]
"""Reads the control topic on, beside the loop. Raises `HeadraceError`."""
Load = Callable[[Pipeline, str], Model]
"""Gets and warms a version by the sha256 of its file. Raises `HeadraceError`."""


class Fallback:
    """The score of a pipeline that no model answers for."""

    def __init__(self, name: str, score: float) -> None:
        self.name, self.version, self._score = name, FALLBACK, score

    def score(self, values: Float64s) -> Scores:
        """The same for every vector."""
        return Scores(scores=np.full(len(values), self._score), refused=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What answers for a pipeline: the roster of an epoch as far as it could be loaded. `cast` is None where nobody answers."""

    era: str
    """Which life of the control topic it is of."""
    epoch: int
    roster: Roster
    cast: Cast | None
    artifacts: Mapping[str, str]
    missing: tuple[str, ...] = ()
    """Challenger and shadows that could not be loaded: they are not in the roster."""
    fallback: float | None = None
    """The score while there is no champion."""

    @property
    def mark(self) -> str:
        """Names it, beside a committed offset: what scores otherwise has another."""
        left_out = "!" + ",".join(self.missing) if self.missing else ""
        return f"{self.era}.{self.epoch}{left_out}" + (f"={self.fallback!r}" if self.roster.champion is None else "")


def epoch_in(mark: str) -> tuple[str, int]:
    """Era and epoch of a mark; of one that says nothing, those of an empty registry."""
    found = _MARK.match(mark)
    return (found[1], int(found[2])) if found else ("", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """A shadow or challenger is taken out of its role when it has no score for more than this share of so many events."""

    share: float
    window: int


class LineUp:
    """The `Casting` of a worker."""

    def __init__(
        self,
        app: App,
        *,
        pinned: Mapping[str, Model],
        read: Read,
        load: Load,
        executor: Executor,
        now_ms: Callable[[], int],
        say: Callable[..., None],
        changed: Callable[[str, Standing], None],
        patience: Patience,
        by: str,
        wall_ms: Callable[[], int],
        every_ms: int,
    ) -> None:
        """`pinned`: the models of the pipelines that name one; `changed` hears of each new standing that was taken up; `by` and `wall_ms`
        stand in the commands that take a version out of its role; `every_ms` is how often the control topic is looked at.
        """
        self._pinned = {name: Cast(champion=model) for name, model in pinned.items()}
        self._pipelines = {one.name: one for one in app.pipelines if one.name not in pinned}
        self._read, self._load, self._executor, self._now_ms, self._say, self._changed = read, load, executor, now_ms, say, changed
        self._standings: dict[str, Standing] = {}
        self._patience, self._by, self._wall_ms, self._every_ms = patience, by, wall_ms, every_ms
        self._models: dict[tuple[str, str], Model] = {}
        """What is loaded, by pipeline and sha256; belongs to the executor, as does the next one."""
        self._tried: dict[str, tuple[str, int, int]] = {}
        """For which era and epoch it was tried to load a pipeline's versions last, and when."""
        self._withdrawn_ms: dict[tuple[str, str, int], int] = {}
        """When what was taken out of its role, and in which epoch."""
        self._answered: dict[tuple[str, str], tuple[int, int]] = {}
        """Of shadows and challengers, what they were asked in the window at hand, and had no score for."""
        self._look: Outcome[dict[str, Standing]] | None = None
        self._looked_ms: int | None = None

    def turn(self) -> None:
        """Between two batches: take up what is loaded, and look for more when it is time."""
        if not self._pipelines:
            return
        if self._look is None and (self._looked_ms is None or self._now_ms() - self._looked_ms >= self._every_ms):
            self._looked_ms = self._now_ms()
            self._look = self._executor.submit(self._look_for_more, dict(self._standings))
        if self._look is None or not self._look.done():
            return
        look, self._look = self._look, None
        try:
            found = look.result()
        except HeadraceError as away:  # what answers goes on, and it is looked again
            self._say("registry not read", reason=str(away))
            return
        for name, standing in found.items():
            self._standings[name] = standing
            roster = standing.roster
            told = {"champion": roster.champion, "challenger": roster.challenger, "shadows": list(roster.shadows)}
            self._say("roles changed", pipeline=name, epoch=standing.epoch, **told)
            self._changed(name, standing)

    def casts(self, pipeline: str, partitions: Int32s, offsets: Int64s) -> Sequence[tuple[Cast, Int64s | None]]:
        """What answers now. Raises `TransientError` where nobody does any more."""
        del partitions, offsets
        found = self._pinned.get(pipeline) or self._standings[pipeline].cast
        if found is None:
            raise TransientError(self._nobody(pipeline))
        return [(found, None)]

    def model_name(self, pipeline: str) -> str:
        """That of the pinned model; a version of the registry is named as its pipeline."""
        return self._pinned[pipeline].champion.name if pipeline in self._pinned else pipeline

    def epochs(self, pipelines: Iterable[str]) -> dict[str, str]:
        """The marks of the standings by which the events of some pipelines are scored."""
        return {name: self._standings[name].mark for name in pipelines if name in self._standings}

    def awaited(self, pipelines: Iterable[str], epochs: Mapping[str, str]) -> str | None:
        """Why a partition cannot be scored yet that was last scored by standings with these marks; None where it can. From any thread."""
        for name in pipelines:
            if name in self._pinned:
                continue
            standing, (era, epoch) = self._standings.get(name), epoch_in(epochs.get(name, ""))
            if standing is None:
                return f"the versions of pipeline {name!r} are not loaded yet"
            if standing.era == era and standing.epoch < epoch:
                return f"pipeline {name!r} was scored by the registry's state at {epoch}, which is read up to {standing.epoch} here"
            if standing.cast is None:
                return self._nobody(name)
        return None

    def switches(self, pipelines: Iterable[str], told: Mapping[str, str], partition: TopicPartition, offset: int) -> list[Switch]:
        """The switches of a partition that was last scored by standings with the marks `told`."""
        return [
            Switch(
                pipeline=name,
                partition=partition,
                offset=offset,
                epoch=standing.epoch,
                roster=standing.roster,
                artifacts=standing.artifacts,
                fallback=standing.fallback,
            )
            for name in pipelines
            if (standing := self._standings.get(name)) is not None and standing.mark != told.get(name)
        ]

    def observe(self, answered: Mapping[tuple[str, str], tuple[int, int]]) -> list[Move]:
        """Take note of how versions answered; gives the commands that take those out of their roles that fail. A champion that fails stops
        the worker (`publish/dead_letter.RefusedShare`): nobody answers in its place.
        """
        moves = []
        for (pipeline, version), counts in answered.items():
            standing = self._standings.get(pipeline)
            if standing is None or version not in {standing.roster.challenger, *standing.roster.shadows}:
                continue
            before = self._answered.pop((pipeline, version), (0, 0))
            asked, none = counts[0] + before[0], counts[1] + before[1]
            if asked < self._patience.window:
                self._answered[pipeline, version] = asked, none
            elif none > self._patience.share * asked:
                case, now_ms = (pipeline, version, standing.epoch), self._now_ms()
                if case in self._withdrawn_ms and now_ms - self._withdrawn_ms[case] < HEARD_MS:
                    continue
                self._withdrawn_ms = {**{one: at for one, at in self._withdrawn_ms.items() if now_ms - at < HEARD_MS}, case: now_ms}
                reason = f"it had no score for {none:,} of the last {asked:,} events"
                self._say("version taken out of its role", pipeline=pipeline, version=version, reason=reason)
                moves.append(self._withdrawal(pipeline, version, reason))
        return moves

    def _withdrawal(self, pipeline: str, version: str, reason: str) -> Move:
        return Move(
            id=uuid.uuid4().hex,
            at_ms=self._wall_ms(),
            by=self._by,
            pipeline=pipeline,
            version=version,
            to=Role.REGISTERED,
            reason=reason,
            expects=WHATEVER,
        )

    # ------------------------------------------------------------------------------------------------------ beside the loop

    def _look_for_more(self, standings: Mapping[str, Standing]) -> dict[str, Standing]:
        """Read on, and load what has changed; runs in the executor."""
        registry, now_ms = self._read(), self._now_ms()
        found = {}
        for name, pipeline in self._pipelines.items():
            known, at = standings.get(name), (registry.era, registry.epoch_of(name))
            if known is not None and (known.era, known.epoch) == at and not known.missing:
                continue
            *before, tried_ms = self._tried.get(name, ("", 0, 0))
            if tuple(before) == at and now_ms - tried_ms < AGAIN_MS:
                continue
            self._tried[name] = (*at, now_ms)
            standing = self._loaded(pipeline, registry)
            if standing is not None and (known is None or standing.mark != known.mark):
                found[name] = standing
        return found

    def _loaded(self, pipeline: Pipeline, registry: Registry) -> Standing | None:
        """The standing of a pipeline now; None where its champion cannot be loaded, so that whoever answers goes on.

        A challenger or a shadow that cannot be loaded is left out: nobody else waits for it.
        """
        roster, models, missing = registry.roster(pipeline.name), dict[str, Model](), list[str]()
        versions = {name: registry.version(pipeline.name, name) for name in roster.versions}
        for name, version in versions.items():
            key = pipeline.name, version.sha256
            try:
                if key not in self._models:
                    self._models[key] = self._load(pipeline, version.sha256)
                models[name] = self._models[key]
            except HeadraceError as refusal:
                self._say("version not loaded", pipeline=pipeline.name, version=name, reason=str(refusal))
                missing.append(name)
        if roster.champion in missing:
            return None
        wanted = {version.sha256 for version in versions.values()}
        self._models = {key: model for key, model in self._models.items() if key[0] != pipeline.name or key[1] in wanted}
        there = Roster(
            champion=roster.champion,
            challenger=roster.challenger if roster.challenger in models else None,
            share=roster.share if roster.challenger in models else 0.0,
            shadows=tuple(name for name in roster.shadows if name in models),
        )
        return Standing(
            era=registry.era,
            epoch=registry.epoch_of(pipeline.name),
            roster=there,
            cast=_cast(pipeline, there, models),
            artifacts={name: versions[name].sha256 for name in there.versions},
            missing=tuple(missing),
            fallback=pipeline.fallback if there.champion is None else None,
        )

    def _nobody(self, pipeline: str) -> str:
        return (
            f"pipeline {pipeline!r} has no champion: `headrace model register` and `headrace model promote` give it one, or say "
            "Pipeline(fallback=...)"
        )


def _cast(pipeline: Pipeline, roster: Roster, models: Mapping[str, Model]) -> Cast | None:
    champion: Model | None = models.get(roster.champion or "")
    if champion is None and pipeline.fallback is not None:
        champion = Fallback(pipeline.name, pipeline.fallback)
    if champion is None:
        return None
    challenger = None if roster.challenger is None else models[roster.challenger]
    return Cast(champion=champion, challenger=challenger, share=roster.share, shadows=tuple(models[name] for name in roster.shadows))
