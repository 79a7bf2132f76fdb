"""What happened to the entities of the sample: their events, in the order of offsets, as far back as a window may reach.

The watermark of a partition follows every event, also of those who are not in the sample. `told` says what a vector is told from; `vector`
tells it. Limit: memory is that of the events of the sample inside the longest window.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.audit.plain import Row, plainly
from headrace.audit.twin import CLOSE, UNKNOWN, Answer, Given, derived
from headrace.audit.twin import plainly as by_the_book
from headrace.audit.wanted import Wanted
from headrace.forgotten import Erasure, last_erasures
from headrace.types import NO_WATERMARK_MS, EventBatch, TopicPartition

Served = Mapping[str, float | None]
"""The features of a prediction."""
_SALT = b"headrace-audit:"
_LEAST_SWEPT = 1_000


@dataclass(slots=True, kw_only=True, eq=False)
class Occurrence:
    """An event of an entity of the sample; where it stands in the topic of its source."""

    partition: int
    offset: int
    read_at: tuple[int, int]
    """Partition and offset where it was read: in the source, or in a hop."""
    time_ms: int
    horizon_ms: int
    """The watermark behind it, minus the lateness."""
    late: bool
    row: Row
    served: dict[str, Served] = field(default_factory=dict)
    """What was served for it, by pipeline."""
    given: dict[str, Given] = field(default_factory=dict)
    """What it gives, by `Wanted.key`, once that was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one vector is told from: what its entity had taken before the event, and with it, and as of when."""

    before: Sequence[Occurrence]
    after: Sequence[Occurrence]
    scored: Occurrence
    as_of_ms: int


Give = Callable[[Wanted, Occurrence], Given]


def in_sample(entity: str, share: float) -> bool:
    """Whether an entity belongs to the sample: the same ones every time, and in a larger sample too."""
    return int.from_bytes(hashlib.sha256(_SALT + entity.encode()).digest()[:8], "big") < share * 2.0**64


def given(wanted: Wanted, occurrence: Occurrence) -> Given:
    """What an event gives to a feature; None where nothing."""
    found = occurrence.given.get(wanted.key)
    if found is None:
        holds = wanted.where is None or plainly(wanted.where, occurrence.row) == 1.0
        value = None if not holds else 1.0 if wanted.value is None else plainly(wanted.value, occurrence.row)
        found = occurrence.given[wanted.key] = Given(occurrence.time_ms, value)
    return found


def told(occurrences: Sequence[Occurrence], place: int) -> Told:
    """What the vector of one of an entity's events is told from, as the definitions say: late events change nothing."""
    return told_of(occurrences[:place], occurrences[place])


def told_of(folded: Sequence[Occurrence], scored: Occurrence, *, takes: bool = True) -> Told:
    """The same, if these events had been folded before; `takes`: whether the scored one is."""
    before = [one for one in folded if not one.late]
    after = [*before, scored] if takes and not scored.late else before
    newest_ms = max((one.time_ms for one in after), default=NO_WATERMARK_MS)
    return Told(before=before, after=after, scored=scored, as_of_ms=max(scored.time_ms, newest_ms, scored.horizon_ms))


def vector(wanted: Sequence[Wanted], from_: Told, give: Give = given, more_panes: int = 0) -> dict[str, Answer]:
    """The features, in the order of their definitions."""
    found: dict[str, Answer] = {}
    lists: dict[str, tuple[list[Given], list[Given]]] = {}
    for one in wanted:
        if one.feature is None:
            own = give(one, from_.scored).value
            number = math.nan if own is None else float(own)
            found[one.name] = Answer(number, CLOSE * abs(number) if one.rounded and own is not None else 0.0)
        elif one.feature.aggregation.of == "features":
            left, right = (found[one.part(name)] for name in (one.feature.options.left, one.feature.options.right))
            found[one.name] = derived(one.feature, left, right)
        else:
            if one.key not in lists:
                before = [give(one, each) for each in from_.before]
                # The scored event stands last in `after` if it was taken.
                lists[one.key] = before, before + [give(one, each) for each in from_.after[len(before) :]]
            before, after = lists[one.key]
            answer = by_the_book(one.feature, before, after, give(one, from_.scored).value, from_.as_of_ms, more_panes=more_panes)
            found[one.name] = _loosened(one, answer, after) if one.rounded else answer
    return found


def _loosened(wanted: Wanted, answer: Answer, after: Sequence[Given]) -> Answer:
    """The answer where the last bits of what events give are not known."""
    if wanted.feature is not None and wanted.feature.aggregation.of == "hashes" and answer.value > wanted.feature.options.exact:
        return UNKNOWN
    sizes = [abs(float(value)) for _, value in after if value is not None and not isinstance(value, str)]
    return Answer(answer.value, answer.off + 2.0 * CLOSE * max(sizes, default=0.0))


def same(served: float | None, answer: Answer) -> bool:
    """Whether a served value is what it should be."""
    if math.isinf(answer.off):
        return True
    if served is None or math.isnan(answer.value):
        return served is None and math.isnan(answer.value)
    return abs(served - answer.value) <= answer.off


@dataclass(slots=True, kw_only=True, eq=False)
class Life:
    """The events of one entity in one partition."""

    entity: str
    occurrences: list[Occurrence] = field(default_factory=list)
    settled: dict[str, int] = field(default_factory=dict)
    """By pipeline: how many of the first ones are served, or will never be."""
    kept: int = 0

    def newest_ms(self) -> int:
        """Up to when it is known."""
        return max(one.time_ms for one in self.occurrences)

    def forget(self, span_ms: int) -> None:
        """Drop events that no vector yet to be compared can see; looked at only when there are twice as many as were left the last time."""
        if len(self.occurrences) < 2 * self.kept + 16:
            return
        open_from = min(self.settled.values(), default=0)
        waiting = self.occurrences[max(open_from - 1, 0) :]
        horizon_ms = min((one.time_ms for one in waiting), default=self.newest_ms()) - span_ms
        dropped = 0
        while dropped < open_from and self.occurrences[dropped].time_ms < horizon_ms:
            dropped += 1
        del self.occurrences[:dropped]
        self.settled = {name: count - dropped for name, count in self.settled.items()}
        self.kept = len(self.occurrences)


class History:
    """The lives of the entities in the sample, of one source or hop."""

    def __init__(self, *, share: float, lateness_ms: int, span_ms: int, pipelines: Sequence[str]) -> None:
        """`span_ms`: how far back a vector may see."""
        self._share, self._lateness_ms, self._span_ms, self._pipelines = share, lateness_ms, span_ms + lateness_ms, pipelines
        self._watermarks_ms: dict[int, int] = {}
        self._feeders_ms: dict[int, dict[int, int]] = {}
        """Of a partition of a hop, the watermarks of those that feed it."""
        self.lives: dict[tuple[int, str], Life] = {}
        self.events = 0
        self._swept_at = 0
        self._erased: dict[int, Callable[[str, int], int]] = {}

    def heed(self, topic: str, erased: Mapping[TopicPartition, Sequence[Erasure]]) -> None:
        """Know whose state was taken away: from there on its life begins anew."""
        self._erased = {name.partition: last_erasures(topic, found) for name, found in erased.items() if name.topic == topic}

    def erased_at(self, partition: int, entity: str, offset: int) -> int:
        """At which offset up to a given one an entity's state was taken away last."""
        return self._erased[partition](entity, offset) if partition in self._erased else 0

    def take(self, events: EventBatch) -> Iterator[tuple[Life, int]]:
        """Move the watermarks over a batch; gives the place of each event of the sample in the life of its entity."""
        records, sent = events.records, events.sent
        columns: dict[str, list[Any]] = {name: values.tolist() for name, values in events.columns.items()}
        numbers, offsets = records.partitions[events.rows].tolist(), records.offsets[events.rows].tolist()
        places = list(zip(sent.partitions[events.rows].tolist(), sent.offsets[events.rows].tolist(), strict=True))
        chosen = {entity: in_sample(entity, self._share) for entity in set(events.entities)}
        for number, (partition, entity, time_ms) in enumerate(zip(numbers, events.entities, events.event_times_ms.tolist(), strict=True)):
            before_ms = self._watermarks_ms.get(partition, NO_WATERMARK_MS)
            self._watermarks_ms[partition] = max(before_ms, time_ms) if events.carried is None else self._least(events, number, partition)
            if not chosen[entity]:
                continue
            self.events += 1
            life = self._life(partition, entity, offsets[number])
            self.forget(life)
            life.occurrences.append(
                Occurrence(
                    partition=places[number][0],
                    offset=places[number][1],
                    read_at=(partition, offsets[number]),
                    time_ms=time_ms,
                    horizon_ms=self._watermarks_ms[partition] - self._lateness_ms,
                    late=time_ms < before_ms - self._lateness_ms,
                    row={name: values[number] for name, values in columns.items()},
                )
            )
            yield life, len(life.occurrences) - 1
        if self.events - self._swept_at >= max(_LEAST_SWEPT, len(self.lives)):
            self.sweep()

    def _life(self, partition: int, entity: str, offset: int) -> Life:
        """The life that an event belongs to: a new one behind an erasure; vectors that still wait are told from the old one."""
        life = self.lives.get((partition, entity))
        if life is None or (life.occurrences and life.occurrences[-1].read_at[1] < self.erased_at(partition, entity, offset)):
            life = self.lives[partition, entity] = Life(entity=entity, settled=dict.fromkeys(self._pipelines, 0))
        return life

    def _least(self, events: EventBatch, number: int, partition: int) -> int:
        """The watermark of a partition of a hop behind an event: the least of those that feed it, once all of them have shown one."""
        carried = events.carried
        if carried is None:
            raise ValueError("these are no events of a hop")
        known = self._feeders_ms.setdefault(partition, {})
        feeder = int(carried.feeders[number])
        known[feeder] = max(known.get(feeder, NO_WATERMARK_MS), int(carried.watermarks_ms[number]))
        return min(known.values()) if len(known) == carried.of[number] else NO_WATERMARK_MS

    def forget(self, life: Life) -> None:
        """Drop what no vector of an entity can see any more, if that is worth a look."""
        life.forget(self._span_ms)

    def sweep(self) -> None:
        """Forget whom no window sees any more; done once in as many events as there are entities."""
        self._swept_at = self.events
        gone = [
            key
            for key, life in self.lives.items()
            if min(life.settled.values(), default=0) == len(life.occurrences)
            and life.newest_ms() < self._watermarks_ms[key[0]] - self._lateness_ms - self._span_ms
        ]
        for key in gone:
            del self.lives[key]
