"""What an app needs that is not there yet: the difference between its definitions and a cluster (pure).

Topics that are missing are made; topics that are there are never changed. A view whose fingerprint is new gets a new state beside the old
one, filled from the log by the workers. Definitions that were applied are remembered on `<app>.facts.v1`, so that a change can be named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from headrace.definition import App, Pipeline
from headrace.duration import duration_text
from headrace.errors import DefinitionError
from headrace.features.view import FeatureView
from headrace.source import Hop, Source
from headrace.types import Position, TopicPartition

FOR_EVER = "-1"
FACT_KIND, STARTS_KIND = "definitions", "starts"

MOST_FEEDERS = 256
"""Their watermarks travel beside a committed offset, where a broker takes 4,096 bytes."""
CONTROL_SETTINGS = {"retention.ms": FOR_EVER, "max.message.bytes": "16777216"}
"""A snapshot of the registry holds all versions ever registered."""
HOP_SETTINGS = {"max.message.bytes": "2097152"}
"""A record of a hop is one of the source with the features so far."""


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
        *(reads.topic for reads in app.inputs),
        *app.result_topics,
        app.dead_letters,
        app.facts,
        *([app.control] if app.registry_pipelines else []),
    ]


def definitions_fact(app: App) -> bytes:
    """The record that remembers what was applied: names for `plan`, whole definitions for `audit`."""
    views = {
        view.name: {"fingerprint": view.fingerprint, "features": list(view.feature_names), "definition": view.canonical()}
        for view in app.views
    }
    retained = {pipeline.retained.name: pipeline.retained.fingerprint for pipeline in app.pipelines if pipeline.retained is not None}
    fact = {"kind": FACT_KIND, "app": app.name, "views": views, **({"retained": retained} if retained else {})}
    return json.dumps(fact, sort_keys=True, separators=(",", ":")).encode()


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
    settings: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Changes:
    """Compare. `found`: partitions of each topic, None where it is missing; `committed`: whether the group has an offset; `applied`:
    `last_applied`; `settings` of the topics that are there.

    Raises `DefinitionError` where a source topic does not keep what the windows need.
    """
    answer = Changes(app=app.name)
    for reads in app.inputs:
        keeps = settings.get(reads.topic, {"retention.ms": retention_ms})
        answer.problems.extend(_kept_too_short(reads, app.views_of(reads), keeps))
    by_source = {source.topic: found.get(source.topic) or partitions for source in app.sources}
    kept = {"retention.ms": retention_ms}
    for source in app.sources:
        _want(answer, found, MissingTopic(name=source.topic, partitions=partitions, settings=kept, role="source"))
    for hop in app.hops:
        wanted = by_source[hop.source.topic]
        if wanted > MOST_FEEDERS:
            raise DefinitionError(
                f"{hop!r} would be fed by {wanted} partitions of {hop.feeds!r}; at most {MOST_FEEDERS} can: their "
                "watermarks stand beside each offset"
            )
        _want(answer, found, MissingTopic(name=hop.topic, partitions=wanted, settings={**kept, **HOP_SETTINGS}, role=f"hop by {hop.key}"))
    for pipeline in app.pipelines:
        _want_results(answer, found, pipeline, by_source[pipeline.source.topic], kept)
    dead = {**kept, "max.message.bytes": str(largest_record_bytes)}
    _want(answer, found, MissingTopic(name=app.dead_letters, partitions=max(by_source.values()), settings=dead, role="dead letters"))
    facts = {"retention.ms": FOR_EVER}
    _want(answer, found, MissingTopic(name=app.facts, partitions=1, settings=facts, role="facts"))
    if app.registry_pipelines:
        _want(
            answer,
            found,
            MissingTopic(name=app.control, partitions=1, settings=CONTROL_SETTINGS, role="commands to the registry of models"),
        )
    answer.views.extend(_view_changes(app, applied))
    for reads in app.inputs:
        wanted = by_source[reads.source.topic] if isinstance(reads, Hop) else by_source[reads.topic]
        for number in range(found.get(reads.topic) or wanted):
            partition = TopicPartition(reads.topic, number)
            if not committed.get(partition, False):
                answer.offsets.append(partition)
    return answer


def _want_results(
    answer: Changes, found: Mapping[str, int | None], pipeline: Pipeline, partitions: int, settings: Mapping[str, str]
) -> None:
    """The topics of what a pipeline publishes, with as many partitions as its source."""
    topics = ((pipeline.predictions, "prediction"), (pipeline.corrections, "correction"), (pipeline.shadow, "shadow score"))
    for topic, what in topics:
        if topic is None:
            continue
        _want(answer, found, MissingTopic(name=topic, partitions=partitions, settings=settings, role=f"{what}s of {pipeline.name}"))
        there = found.get(topic)
        if there is not None and there != partitions:
            answer.problems.append(
                f"{topic} has {there} partitions, its source {pipeline.source.topic} has {partitions}: "
                f"order per key holds, but a key's {what} is not found by the partition of its event"
            )


def _kept_too_short(source: Source, views: Sequence[FeatureView], settings: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with how long a source topic keeps its records: state is rebuilt from the log, which must hold the longest window.

    Raises `DefinitionError` below that window and twice the lateness; warns below twice the window.
    """
    if not views:
        return
    kept_ms = int(settings.get("retention.ms", FOR_EVER))
    if "compact" in settings.get("cleanup.policy", ""):
        yield f"{source.topic} is compacted: events are gone that a newer one of their key replaced, so a rebuilt state is wrong"
    if kept_ms < 0:
        return
    longest = max(views, key=lambda view: view.longest_window_ms)
    window_ms = longest.longest_window_ms
    least_ms = window_ms + 2 * source.lateness_ms
    what = f"topic {source.topic} keeps its records for {duration_text(kept_ms)} (retention.ms={kept_ms})"
    if source.historical:
        yield f"{what}, and its event times are historical: a broker deletes records by their timestamps, so say retention.ms=-1"
    elif kept_ms < least_ms:
        raise DefinitionError(
            f"{source!r}: {what}, but the longest window of {longest!r} is {duration_text(window_ms)} and twice the lateness "
            f"{duration_text(2 * source.lateness_ms)}: a lost state could not be rebuilt. Set retention.ms of the topic to at least "
            f"{least_ms}, better {2 * window_ms}, or shorten the window"
        )
    elif kept_ms < 2 * window_ms:
        yield f"{what}, less than twice the longest window ({duration_text(window_ms)}): double it, or a long stop may cost a state"


def _want(answer: Changes, found: Mapping[str, int | None], topic: MissingTopic) -> None:
    if found.get(topic.name) is None:
        answer.topics.append(topic)


def _view_changes(app: App, applied: Mapping[str, Mapping[str, object]]) -> list[ViewChange]:
    answer = []
    views = app.views
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
