"""What an app needs that is not there yet: the difference between its definitions and a cluster (pure).

Topics that are missing are made; topics that are there are never changed. A view whose fingerprint is new gets a new state beside the old
one, filled from the log by the workers. Definitions that were applied are remembered on `<app>.facts.v1`, so that a change can be named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.definition import App
from headrace.features.view import FeatureView
from headrace.types import Position, TopicPartition

FOR_EVER = "-1"
FACT_KIND, STARTS_KIND = "definitions", "starts"


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingTopic:
    """A topic to be made."""

    name: str
    partitions: int
    settings: Mapping[str, str]
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewChange:
    """A view that is new, changed or gone; `rebuilds`: its state is filled from the log."""

    name: str
    what: str
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    rebuilds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Everything that `headrace apply` would do."""

    app: str
    topics: list[MissingTopic] = field(default_factory=list)
    views: list[ViewChange] = field(default_factory=list)
    offsets: list[TopicPartition] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What apply cannot mend."""

    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.topics or self.views or self.offsets)


def topic_names(app: App) -> list[str]:
    """Every topic an app reads or writes, its sources first."""
    return [
        *(source.topic for source in app.sources),
        *(pipeline.predictions for pipeline in app.pipelines),
        app.dead_letters,
        app.facts,
    ]


def definitions_fact(app: App) -> bytes:
    """The record that remembers what was applied: names for `plan`, whole definitions for `audit`."""
    views = {
        view.name: {"fingerprint": view.fingerprint, "features": list(view.feature_names), "definition": view.canonical()}
        for view in all_views(app)
    }
    return json.dumps({"kind": FACT_KIND, "app": app.name, "views": views}, sort_keys=True, separators=(",", ":")).encode()


def starts_fact(starts: Mapping[TopicPartition, Position]) -> bytes:
    """The record that remembers at which offsets an app began: below them nothing was promised."""
    offsets: dict[str, dict[int, int]] = {}
    for name, position in sorted(starts.items()):
        offsets.setdefault(name.topic, {})[name.partition] = position.offset
    return json.dumps({"kind": STARTS_KIND, "offsets": offsets}, separators=(",", ":")).encode()


def starting_offsets(facts: Sequence[bytes | None]) -> dict[TopicPartition, int]:
    """The offsets at which an app began, by what `starts_fact` wrote; those it did not write are not there."""
    found: dict[TopicPartition, int] = {}
    for value in facts:
        fact = json.loads(value or b"{}")
        if fact.get("kind") == STARTS_KIND:
            for topic, offsets in fact["offsets"].items():
                found.update({TopicPartition(topic, int(number)): offset for number, offset in offsets.items()})
    return found


def all_views(app: App) -> list[FeatureView]:
    """The views of an app, each once."""
    return [view for source in app.sources for view in app.views_of(source)]


def last_applied(facts: Sequence[bytes | None]) -> dict[str, dict[str, object]]:
    """The views of the newest definitions fact; none where nothing was applied."""
    for value in reversed(facts):
        fact = json.loads(value or b"{}")
        if fact.get("kind") == FACT_KIND:
            views: dict[str, dict[str, object]] = fact["views"]
            return views
    return {}


def changes(
    app: App,
    *,
    found: Mapping[str, int | None],
    committed: Mapping[TopicPartition, bool],
    applied: Mapping[str, Mapping[str, object]],
    partitions: int,
    retention_ms: str = FOR_EVER,
    largest_record_bytes: int,
) -> Changes:
    """Compare. `found`: partitions of each topic, None where it is missing; `committed`: whether the group has an offset; `applied`:
    `last_applied`.
    """
    answer = Changes(app=app.name)
    by_source = {source.topic: found.get(source.topic) or partitions for source in app.sources}
    kept = {"retention.ms": retention_ms}
    for source in app.sources:
        _want(answer, found, MissingTopic(name=source.topic, partitions=partitions, settings=kept, role="source"))
    for pipeline in app.pipelines:
        wanted = by_source[pipeline.source.topic]
        role = f"predictions of {pipeline.name}"
        _want(answer, found, MissingTopic(name=pipeline.predictions, partitions=wanted, settings=kept, role=role))
        there = found.get(pipeline.predictions)
        if there is not None and there != wanted:
            answer.problems.append(
                f"{pipeline.predictions} has {there} partitions, its source {pipeline.source.topic} has {wanted}: "
                "order per key holds, but a key's prediction is not found by the partition of its event"
            )
    dead = {**kept, "max.message.bytes": str(largest_record_bytes)}
    _want(answer, found, MissingTopic(name=app.dead_letters, partitions=max(by_source.values()), settings=dead, role="dead letters"))
    facts = {"retention.ms": FOR_EVER}
    _want(answer, found, MissingTopic(name=app.facts, partitions=1, settings=facts, role="facts"))
    answer.views.extend(_view_changes(app, applied))
    for source in app.sources:
        for number in range(by_source[source.topic]):
            partition = TopicPartition(source.topic, number)
            if not committed.get(partition, False):
                answer.offsets.append(partition)
    return answer


def _want(answer: Changes, found: Mapping[str, int | None], topic: MissingTopic) -> None:
    if found.get(topic.name) is None:
        answer.topics.append(topic)


def _view_changes(app: App, applied: Mapping[str, Mapping[str, object]]) -> list[ViewChange]:
    answer = []
    views = all_views(app)
    for view in views:
        before = applied.get(view.name)
        if before is None:
            answer.append(ViewChange(name=view.name, what="new", added=view.feature_names, rebuilds=True))
        elif before["fingerprint"] != view.fingerprint:
            old = list(map(str, before["features"])) if isinstance(before["features"], list) else []
            added = [name for name in view.feature_names if name not in old]
            removed = [name for name in old if name not in view.feature_names]
            answer.append(ViewChange(name=view.name, what="changed", added=added, removed=removed, rebuilds=True))
    names = {view.name for view in views}
    answer.extend(ViewChange(name=name, what="gone") for name in applied if name not in names)
    return answer
