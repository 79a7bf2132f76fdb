"""Who scored what, by the facts: the casting of a verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from headrace.assembly import load_models, load_version
from headrace.definition import App, Pipeline
from headrace.line_up import Fallback
from headrace.predict.artifacts import ArtifactStore
from headrace.predict.casting import Cast
from headrace.predict.scores import Model
from headrace.switches import Switch, Where, switches_in
from headrace.types import Int32s, Int64s, TopicPartition

LoadArtifact = Callable[[Pipeline, str], Model]
"""Gets a version of a pipeline by the sha256 of its file. Raises `HeadraceError`."""


class CastByFacts:
    """The casts of every offset: those of pipelines that pin a model, and those that the switches on the facts topic name."""

    def __init__(self, app: App, *, pinned: Mapping[str, Model], switches: Mapping[Where, Sequence[Switch]], load: LoadArtifact) -> None:
        self._pinned = {name: Cast(champion=model) for name, model in pinned.items()}
        self._pipelines = {one.name: one for one in app.pipelines}
        self._reads = {stage.pipeline.name: stage.reads.topic for stage in app.stages if stage.scores}
        self._switches, self._load = switches, load
        self._models: dict[tuple[str, str], Model] = {}

    def casts(self, pipeline: str, partitions: Int32s, offsets: Int64s) -> Sequence[tuple[Cast, Int64s | None]]:
        """The cast of each stretch between two switches."""
        if pipeline in self._pinned:
            return [(self._pinned[pipeline], None)]
        found: list[tuple[Cast, Int64s | None]] = []
        for number in np.unique(partitions).tolist():
            switches = self._switches.get((pipeline, TopicPartition(self._reads[pipeline], number)), ())
            rows = np.flatnonzero(partitions == number)
            place = np.searchsorted([switch.offset for switch in switches], offsets[rows], side="right")
            for after in np.unique(place).tolist():
                cast = self._cast(self._pipelines[pipeline], switches[after - 1] if after else None)
                found.append((cast, rows[place == after]))
        return found

    def model_name(self, pipeline: str) -> str:
        """That of the pinned model; a version of the registry is named as its pipeline."""
        return self._pinned[pipeline].champion.name if pipeline in self._pinned else pipeline

    def _cast(self, pipeline: Pipeline, switch: Switch | None) -> Cast:
        if switch is None:  # nobody was cast there, so nothing of it is compared
            return Cast(champion=Fallback(pipeline.name, 0.0))
        roster = switch.roster
        models = {version: self._model(pipeline, sha256) for version, sha256 in switch.artifacts.items()}
        fallback = Fallback(pipeline.name, switch.fallback or 0.0)
        return Cast(
            champion=fallback if roster.champion is None else models[roster.champion],
            challenger=None if roster.challenger is None else models[roster.challenger],
            share=roster.share,
            shadows=tuple(models[version] for version in roster.shadows),
        )

    def _model(self, pipeline: Pipeline, sha256: str) -> Model:
        key = pipeline.name, sha256
        if key not in self._models:
            self._models[key] = self._load(pipeline, sha256)
        return self._models[key]


def casting_by_facts(app: App, artifacts: ArtifactStore, facts: Sequence[bytes | None]) -> CastByFacts:
    """The casting that facts tell, with the versions that the registry keeps."""
    return CastByFacts(app, pinned=load_models(app), switches=switches_in(facts), load=partial(load_version, artifacts))
