"""The nouns that travel between the stages.

On the hot path everything is a column: a list or a numpy array with one entry per record of the batch. Times are integers,
milliseconds UTC, named `..._ms`. Nothing here imports anything of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]
Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]

Headers = list[tuple[str, bytes | None]]

NO_WATERMARK_MS = -(1 << 62)
"""The watermark of a partition that has shown no event yet: minus infinity that survives subtraction."""


MAX_KEY_BYTES = 256
"""A key has 1 to so many bytes, UTF-8 without NUL."""


class HopWatermark(int):
    """The watermark of a partition of a hop: the least of the watermarks of the partitions that feed it, which it remembers in `parts`.

    A part that has shown nothing yet is `NO_WATERMARK_MS`, and so is the whole then. As a number it is that least one; two are equal only
    if all their parts are.
    """

    parts: tuple[int, ...]

    def __new__(cls, parts: Iterable[int]) -> Self:
        """The least of these."""
        kept = tuple(parts)
        made = super().__new__(cls, min(kept, default=NO_WATERMARK_MS))
        made.parts = kept
        return made

    def __eq__(self, other: object) -> bool:
        if isinstance(other, HopWatermark):
            return self.parts == other.parts
        return len(self.parts) == 1 and self.parts[0] == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.parts)


def watermark_text(watermark_ms: int) -> str:
    """A watermark as it is kept beside offsets and states: its milliseconds; of a hop, those of its parts, nothing for unseen ones."""
    if isinstance(watermark_ms, HopWatermark):
        return ",".join("" if part == NO_WATERMARK_MS else str(part) for part in watermark_ms.parts) + ","
    return str(watermark_ms)


def watermark_of(text: str) -> int:
    """The watermark that `watermark_text` wrote. Raises `ValueError` for anything else."""
    if "," not in text:
        return int(text)
    return HopWatermark(int(part) if part else NO_WATERMARK_MS for part in text.split(",")[:-1])


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Bytes with a position, one at a time: for tools and tests, never on the hot path."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)


@dataclass(slots=True, kw_only=True, eq=False)
class RecordBatch:
    """The records of one topic that one drain brought, as columns; in each partition they stand in offset order."""

    topic: str
    partitions: Int32s
    offsets: Int64s
    timestamps_ms: Int64s
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers | None]

    def __len__(self) -> int:
        return len(self.keys)

    def records(self) -> Iterator[Record]:
        """The records one by one: for tools and tests."""
        for row, (partition, offset, timestamp_ms) in enumerate(
            zip(self.partitions.tolist(), self.offsets.tolist(), self.timestamps_ms.tolist(), strict=True)
        ):
            yield Record(
                topic=self.topic,
                partition=partition,
                offset=offset,
                timestamp_ms=timestamp_ms,
                key=self.keys[row],
                value=self.values[row],
                headers=self.headers[row] or [],
            )

    def select(self, rows: Int64s) -> RecordBatch:
        """The same columns with only the given rows, in the given order."""
        wanted = rows.tolist()
        return RecordBatch(
            topic=self.topic,
            partitions=self.partitions[rows],
            offsets=self.offsets[rows],
            timestamps_ms=self.timestamps_ms[rows],
            keys=[self.keys[row] for row in wanted],
            values=[self.values[row] for row in wanted],
            headers=[self.headers[row] for row in wanted],
        )


@dataclass(slots=True, kw_only=True)
class Drain:
    """What one pass of `RecordSource.poll` brought: batches (at most one a topic) and the ends of partitions that were reached.

    `ends[p]` is the position behind everything a `read_committed` reader can see of `p` at that moment, transaction markers included.
    """

    batches: list[RecordBatch]
    ends: dict[TopicPartition, int]
    broken: dict[TopicPartition, str] = field(default_factory=dict)
    """Partitions whose position the log does not reach (any more), and why: they stay paused until the next `start_at`."""

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)


@dataclass(slots=True, kw_only=True, eq=False)
class Carried:
    """What the events of a hop bring with them, one entry per event: where the watermark of the partition stood from which each came, and
    what earlier stages made of it. `sent` are the records of the batch as they stood in the source's topic, row by row.
    """

    sent: RecordBatch
    feeders: Int64s
    """The partition of the topic that feeds the hop."""
    offsets: Int64s
    """The offset there."""
    watermarks_ms: Int64s
    """The watermark there, behind the event."""
    of: Int64s
    """How many partitions feed the hop."""
    late: Bools
    """Whether it was late at an earlier stage."""
    values: Float64s
    """[events, features so far]; NaN where they are not ours."""
    ours: Bools
    """Whether our definitions made these features."""


@dataclass(slots=True, kw_only=True, eq=False)
class EventBatch:
    """The accepted events of a record batch, as columns.

    `rows[i]` is the row of event i in `records`. `columns` holds numeric fields as float64 (absent = NaN; booleans as 0 and 1) and
    text fields as numpy object arrays (absent = None), by field name.
    """

    records: RecordBatch
    rows: Int64s
    entities: list[str]
    event_times_ms: Int64s
    columns: dict[str, NDArray[np.float64] | NDArray[np.object_]]
    carried: Carried | None = None
    """Of a hop only."""

    def __len__(self) -> int:
        return len(self.entities)

    @property
    def sent(self) -> RecordBatch:
        """The records as they stand in the source's topic, row by row: `records` themselves, but for a hop."""
        return self.records if self.carried is None else self.carried.sent


@dataclass(slots=True, kw_only=True, eq=False)
class Corrected:
    """Vectors of earlier events that events of a batch corrected, one entry per correction, in the order of what caused them."""

    causes: Int64s
    """Which event of the batch caused it; entity and partition are that one's."""
    offsets: Int64s
    """Where the event stands whose vector it is."""
    event_times_ms: Int64s
    revisions: Int64s
    """How many corrections that event has had, with this one."""
    values: Float64s
    """[corrections, features of the pipeline]"""
    joins: NDArray[np.object_]
    """What its outcome is joined by; empty where there are no outcomes."""

    def __len__(self) -> int:
        return len(self.causes)

    def select(self, which: Int64s) -> Corrected:
        """The same of some of them, in the given order."""
        return Corrected(
            causes=self.causes[which],
            offsets=self.offsets[which],
            event_times_ms=self.event_times_ms[which],
            revisions=self.revisions[which],
            values=self.values[which],
            joins=self.joins[which] if len(self.joins) else self.joins,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class FeatureVectors:
    """One feature vector per event, as of `as_of_ms`; `values` is float64 [events, features] in the order of `names`."""

    names: tuple[str, ...]
    values: Float64s
    late: Bools
    as_of_ms: Int64s
    watermarks_ms: Int64s
    """Where the watermark stood behind each event."""
    corrected: Mapping[str, Corrected] = field(default_factory=dict)
    """By pipeline, the vectors of earlier events that these events corrected."""


@dataclass(slots=True, kw_only=True, eq=False)
class LookedUp:
    """What a pipeline looked up for some events in views of other sources, one entry per event."""

    views: tuple[str, ...]
    values: Float64s
    """[events, features of these views], in their order."""
    stale: Bools
    """[events, views]: the store had not seen enough of the time before the event."""
    ahead: Bools
    """[events, views]: it had seen something newer than the event, which was left out as far as possible."""
    places: list[bytes]
    """`<view>=<partition>:<applied offset>:<how far event time had come>` joined by `;`: what was read, so that it can be computed again.
    """

    def select(self, events: Int64s) -> LookedUp:
        """The same of the given events, in the given order."""
        wanted = events.tolist()
        return LookedUp(
            views=self.views,
            values=self.values[events],
            stale=self.stale[events],
            ahead=self.ahead[events],
            places=[self.places[event] for event in wanted],
        )

    def marks(self) -> dict[tuple[str, str], int]:
        """How many events found each view fresh, stale or ahead; an event can find it both stale and ahead."""
        found: dict[tuple[str, str], int] = {}
        for place, view in enumerate(self.views):
            stale, ahead = self.stale[:, place], self.ahead[:, place]
            for mark, counted in (("fresh", ~(stale | ahead)), ("stale", stale), ("ahead", ahead)):
                found[view, mark] = int(counted.sum())
        return found


Role = Literal["champion", "challenger", "shadow"]
"""In which role a model version gave a score: published and acted on, for all entities or for a share of them; or kept apart."""


class Delivery(StrEnum):
    """What a prediction topic promises its readers."""

    EXACTLY_ONCE = "exactly_once"
    """One prediction or dead letter per event and model for `read_committed` readers, whatever dies."""
    AT_LEAST_ONCE = "at_least_once"
    """No transaction, lower delay; after a crash a prediction may be repeated, with the id of its first."""


class Reason(StrEnum):
    """Why a record was refused. The list is closed, and a name once published never changes its meaning."""

    NULL_VALUE = "NULL_VALUE"
    """The record has no value."""
    TOO_LARGE = "TOO_LARGE"
    """The value is larger than the limit (1 MiB); it was not parsed."""
    MALFORMED = "MALFORMED"
    """The value cannot be parsed at all: not JSON, bad UTF-8, truncated, nested too deep, a number JSON does not have."""
    CONTRACT = "CONTRACT"
    """The value was parsed but breaks the contract: a missing field, a wrong type, a value out of range."""
    ENVELOPE = "ENVELOPE"
    """The CloudEvents envelope is broken: a required attribute is missing or the version is unknown."""
    BAD_KEY = "BAD_KEY"
    """The record's key is null, empty, longer than 256 bytes, holds a NUL, or is not the entity key in the event; or an entity that a later
    stage is keyed by could not be such a key.
    """
    EVENT_TIME_INVALID = "EVENT_TIME_INVALID"
    """The event time is before 2000 or after 2100."""
    EVENT_TIME_AHEAD = "EVENT_TIME_AHEAD"
    """The event time is further ahead of the record's timestamp than the source allows (`max_ahead`)."""
    CRASH_LOOP = "CRASH_LOOP"
    """The process ended three times while it took this record; it was left out of every feature."""
    MODEL_OUTPUT = "MODEL_OUTPUT"
    """The model gave NaN or infinity for this event, or raised for it; the state has taken the event all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A refused record: its row in the batch, why, in which stage; `model` names the model where only its score was refused."""

    row: int
    reason: Reason
    stage: str
    error: str
    """What is wrong and where (a field path), never the offending value."""
    model: str | None = None
    looked_up: bytes | None = None
    """What the model refused was made of (`LookedUp.places`); None where nothing is looked up."""
    role: Role | None = None
    """In which role the model was that refused it."""


@dataclass(slots=True, kw_only=True, eq=False)
class OutRecords:
    """Records to publish on one topic, as columns."""

    topic: str
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]
    timestamps_ms: list[int]
    rows: Int64s | None = None
    """Which records of a batch led to them, for results."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What a transaction commits for a source partition: the next offset to consume and the watermark there (None: not known)."""

    offset: int
    watermark_ms: int | None
    epochs: Mapping[str, str] = field(default_factory=dict, hash=False)
    """By pipeline, the mark of what scores its events from there on (`line_up.Standing`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRange:
    """The offsets a `read_committed` reader can see of a partition: from `start` up to, not with, `end` (the last stable offset)."""

    start: int
    end: int


@dataclass(slots=True, kw_only=True, eq=False)
class StateChunk:
    """Packed states of some entities of one view: state i is `buffer[bounds[i]:bounds[i + 1]]` and belongs to `keys[i]`."""

    keys: list[bytes]
    buffer: NDArray[np.uint8]
    bounds: Int64s


@dataclass(slots=True, kw_only=True, eq=False)
class ViewWrite:
    """What an apply does to one view of a partition: `start` -> `end`, later chunks over earlier ones, then the deletions."""

    view: str
    start: int
    end: int
    chunks: list[StateChunk]
    deletions: list[bytes]


@dataclass(slots=True, kw_only=True, eq=False)
class PartitionWrite:
    """One apply: all views of a partition that move, all or nothing."""

    partition: TopicPartition
    watermark_ms: int
    views: list[ViewWrite]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewHead:
    """Where the store stands for one view of a partition; `offset` is None while it holds no state of it."""

    offset: int | None
    watermark_ms: int | None

    @property
    def come_ms(self) -> int:
        """How far event time has come there: the watermark; of a hop the newest of those it is made of. Without an event minus infinity."""
        if self.offset is None or self.watermark_ms is None:
            return NO_WATERMARK_MS
        return max(self.watermark_ms.parts, default=NO_WATERMARK_MS) if isinstance(self.watermark_ms, HopWatermark) else self.watermark_ms


@dataclass(slots=True, kw_only=True, eq=False)
class StoredStates:
    """An answer of `StateStore.read`: who owns the partition, and per view its head and the packed states in the order of the keys asked
    for.
    """

    owner: bytes | None
    heads: Mapping[str, ViewHead]
    states: Mapping[str, Sequence[bytes | None]]


@dataclass(slots=True, kw_only=True, eq=False)
class StatesPage:
    """An answer of `StateStore.scan`: some entities of one view with their packed states, and the cursor of the next page; 0 when this
    was the last.
    """

    cursor: int
    keys: Sequence[bytes]
    states: Sequence[bytes]


@dataclass(slots=True, kw_only=True, eq=False)
class Tally:
    """What became of the records of one source topic in one batch; counted when the batch is definite. `scored`: predictions by model
    name.
    """

    topic: str
    timestamps_ms: Int64s
    events: int = 0
    late: int = 0
    unknown_fields: int = 0
    newest_ms: dict[TopicPartition, int] = field(default_factory=dict)
    """The timestamp of the last record of each partition."""
    scored: dict[str, int] = field(default_factory=dict)
    corrected: dict[str, int] = field(default_factory=dict)
    """Corrections by pipeline."""
    passed_on: dict[str, int] = field(default_factory=dict)
    """Events passed on to a hop, by its topic."""
    answered: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """By pipeline and version, how many vectors it was asked about, and for how many of them it had no score."""
    shadowed: dict[str, int] = field(default_factory=dict)
    """Scores of shadows, by pipeline."""
    looked_up: dict[tuple[str, str], int] = field(default_factory=dict)
    """Views looked up, by name and mark: fresh, stale, ahead."""
    refused: list[DeadLetter] = field(default_factory=list)


@dataclass(slots=True, kw_only=True, eq=False)
class Work:
    """What one batch leads to: records to publish, offsets to commit with them, and the states to store once that is definite."""

    outputs: list[OutRecords]
    positions: dict[TopicPartition, Position]
    writes: list[PartitionWrite]
    tallies: list[Tally]

    def records(self) -> int:
        """How many source records it is about."""
        return sum(len(tally.timestamps_ms) for tally in self.tallies)
