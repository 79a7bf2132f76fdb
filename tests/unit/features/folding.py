"""How tests drive the fold: events from a list, any cut into batches, and a store that is a dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from headrace.features.resident import ResidentStates
from headrace.features.retained_view import Kept
from headrace.features.view import FeatureView
from headrace.types import NO_WATERMARK_MS, Bools, EventBatch, Float64s, Int64s, PartitionWrite, RecordBatch, StatesPage, TopicPartition
from tests.unit.features.naive import Happening, columns_of

TOPIC = "readings.v1"


def batch_of(happenings: Sequence[Happening], offsets: Sequence[int], topic: str = TOPIC) -> EventBatch:
    """An event batch as decoding makes it."""
    count = len(happenings)
    return EventBatch(
        records=RecordBatch(
            topic=topic,
            partitions=np.array([one.partition for one in happenings], dtype=np.int32),
            offsets=np.array(offsets, dtype=np.int64),
            timestamps_ms=np.array([one.time_ms for one in happenings], dtype=np.int64),
            keys=[one.entity.encode() for one in happenings],
            values=[b"{}"] * count,
            headers=[None] * count,
        ),
        rows=np.arange(count),
        entities=[one.entity for one in happenings],
        event_times_ms=np.array([one.time_ms for one in happenings], dtype=np.int64),
        columns=columns_of(happenings),
    )


def offsets_of(happenings: Sequence[Happening]) -> list[int]:
    """Offsets of a log in which every partition begins at 0 and has no holes."""
    behind: dict[int, int] = {}
    offsets = []
    for one in happenings:
        offsets.append(behind.get(one.partition, 0))
        behind[one.partition] = offsets[-1] + 1
    return offsets


class DictStore:
    """A store in which an apply is a loop over a dict."""

    def __init__(self, views: Sequence[Kept]) -> None:
        self.states: dict[tuple[TopicPartition, str], dict[bytes, bytes]] = {}
        self.ends: dict[tuple[TopicPartition, str], int] = {}
        self.reads = 0
        self.deleted = 0
        self._views = [view.fp for view in views]

    def read(self, partition: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        """The states of some entities."""
        self.reads += 1
        return {view: [self.states.get((partition, view), {}).get(key) for key in keys] for view in self._views}

    def scan(self, partition: TopicPartition, view: str, cursor: int) -> StatesPage:
        """Two pages: the keys of even length, then the others."""
        states = {key: state for key, state in self.states.get((partition, view), {}).items() if len(key) % 2 == cursor}
        return StatesPage(cursor=1 - cursor, keys=list(states), states=list(states.values()))

    def apply(self, writes: Iterable[PartitionWrite]) -> None:
        """Chunks first, then deletions; every write begins where the one before ended."""
        for write in writes:
            for view in write.views:
                states = self.states.setdefault((write.partition, view.view), {})
                assert view.start == self.ends.get((write.partition, view.view), 0)
                self.ends[write.partition, view.view] = view.end
                written = set()
                for chunk in view.chunks:
                    for place, key in enumerate(chunk.keys):
                        states[key] = chunk.buffer[chunk.bounds[place] : chunk.bounds[place + 1]].tobytes()
                        written.add(key)
                for key in view.deletions:
                    assert key not in written
                    self.deleted += states.pop(key, None) is not None


class Folded:
    """A fold from the beginning of a log to its end: all vectors, in order, and the store behind it."""

    def __init__(
        self,
        views: Sequence[FeatureView],
        happenings: Sequence[Happening],
        cuts: Sequence[int] = (),
        *,
        capacity: int = 1_000,
        forgetful: bool = False,
    ) -> None:
        self.store = DictStore(views)
        self.states = ResidentStates(views=views, read=self.store.read, capacity=capacity)
        self.partitions = sorted({one.partition for one in happenings})
        for partition in self.partitions:
            self.states.start(TopicPartition(TOPIC, partition), {view.fp: 0 for view in views}, NO_WATERMARK_MS, empty=True)
        offsets = offsets_of(happenings)
        values, late, as_of_ms = [], [], []
        for begin, end in zip([0, *cuts], [*cuts, len(happenings)], strict=True):
            if begin == end:
                continue
            vectors = self.states.fold(batch_of(happenings[begin:end], offsets[begin:end]))
            values.append(vectors.values)
            late.append(vectors.late)
            as_of_ms.append(vectors.as_of_ms)
            ends = {
                TopicPartition(TOPIC, one.partition): offset + 1
                for one, offset in zip(happenings[begin:end], offsets[begin:end], strict=True)
            }
            self.store.apply(self.states.pack(ends))
            for place, end_offset in ends.items():
                self.states.applied(place, end_offset)
                if forgetful:
                    at = {view.fp: self.store.ends[place, view.fp] for view in views}
                    self.states.start(place, at, self.states.watermark_ms(place))
        self.values: Float64s = np.concatenate(values)
        self.late: Bools = np.concatenate(late)
        self.as_of_ms: Int64s = np.concatenate(as_of_ms)


def bits(values: Float64s) -> list[list[int]]:
    """The numbers as the bits they are, every NaN as the same one."""
    plain = np.where(np.isnan(values), np.nan, values)
    return [[int(one) for one in row] for row in plain.view(np.int64)]
