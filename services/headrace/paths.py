"""The paths of all source topics of an app: what the loop sees of the inside (`assignment.Path`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.crashes import CrashWatch, crash_fact
from headrace.decode.decoder import MAX_VALUE_BYTES, Decoder
from headrace.decode.hop_decoder import HopDecoder
from headrace.definition import App
from headrace.features.retained_view import Kept
from headrace.forgotten import leaves_out
from headrace.line_up import LineUp
from headrace.pipeline import SourcePath
from headrace.predict.commands import command_bytes
from headrace.recovery import Plan
from headrace.source import Hop, Source
from headrace.switches import FACT_KIND as SWITCH
from headrace.switches import switch_fact
from headrace.timeline import Timeline
from headrace.types import OutRecords, PartitionWrite, Position, RecordBatch, TopicPartition, Work


def span_ms(source: Source, views: Sequence[Kept]) -> int | None:
    """How far below the watermark an event can still matter to the views of a source; None for a historical one."""
    if source.historical:
        return None
    return source.lateness_ms + source.max_ahead_ms + max((view.longest_window_ms + view.longest_pane_ms for view in views), default=0)


def decoder_of(
    app: App, reads: Source, *, max_value_bytes: int = MAX_VALUE_BYTES, fields: Collection[str] | None = None
) -> Decoder | HopDecoder:
    """What decides which records of a source or hop are events of the app. `fields` are the columns to build, None for all."""
    if isinstance(reads, Hop):
        return HopDecoder(reads, max_value_bytes=max_value_bytes, fields=fields)
    keys_to_be = {hop.key for hop in app.hops if hop.source.topic == reads.topic}
    return Decoder(reads, max_value_bytes=max_value_bytes, fields=fields, keys_to_be=keys_to_be)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The small topics of an app."""

    facts: str
    control: str


def small_records(topic: str, values: Sequence[bytes], *, key: bytes, timestamps_ms: Sequence[int] | None = None) -> OutRecords:
    """Records for one of them."""
    return OutRecords(
        topic=topic,
        keys=[key] * len(values),
        values=list(values),
        headers=[[] for _ in values],
        timestamps_ms=list(timestamps_ms or [0] * len(values)),
    )


class Paths:
    """Sends each batch down the path of its topic."""

    def __init__(self, paths: Mapping[str, SourcePath], *, crashes: CrashWatch, line_up: LineUp, topics: Topics) -> None:
        """`crashes` says what is taken alone or not at all, `line_up` who scores; `topics` are for what they decide."""
        self._paths, self._crashes, self._line_up, self._topics = paths, crashes, line_up, topics
        self._unpacked: dict[TopicPartition, int] = {}
        """The position behind what was folded since the last pack."""
        self._live_from: dict[TopicPartition, int] = {}
        self._epochs: dict[TopicPartition, dict[str, str]] = {}
        """The marks of what scored partitions last (`line_up.Standing`)."""

    def views(self, topic: str) -> Sequence[str]:
        """The fingerprints of the views filled from a topic, and of what is kept for corrections."""
        return [view.fp for view in self._paths[topic].states.kept]

    def span_ms(self, topic: str) -> int | None:
        """How far below the watermark an event can still matter; None for a historical source."""
        return span_ms(self._paths[topic].source, self._paths[topic].states.views)

    def start(self, partition: TopicPartition, plan: Plan) -> None:
        """Begin with a partition whose state stands as the plan says."""
        self._unpacked.pop(partition, None)
        self._live_from[partition] = plan.live_from
        self._epochs[partition] = dict(plan.epochs)
        empty = plan.resets.keys() == plan.starts.keys()
        self._paths[partition.topic].partitions = plan.partitions
        states = self._paths[partition.topic].states
        states.start(partition, plan.starts, plan.watermark_ms, empty=empty)
        erased = self._crashes.erased(partition)
        if erased:
            states.leave_out(partition, leaves_out(partition.topic, erased))

    def live_from(self, partition: TopicPartition) -> int:
        """Where the news of a partition begins that was started."""
        return self._live_from[partition]

    def go_live(self, partition: TopicPartition, watermark_ms: int | None) -> None:
        """Scoring begins; the committed watermark, where known, is the watermark."""
        states = self._paths[partition.topic].states
        states.leave_out(partition, None)
        if watermark_ms is not None:
            states.set_watermark(partition, watermark_ms)

    def drop(self, partition: TopicPartition) -> None:
        """Forget everything about a partition."""
        self._unpacked.pop(partition, None)
        self._live_from.pop(partition, None)
        self._epochs.pop(partition, None)
        self._paths[partition.topic].states.drop(partition)

    def applied(self, partition: TopicPartition, offset: int) -> None:
        """The store holds everything below offset."""
        self._paths[partition.topic].states.applied(partition, offset)

    def entities(self) -> dict[str, int]:
        """Entities in memory, by source topic."""
        return {topic: path.states.entities() for topic, path in self._paths.items()}

    def awaited(self, topic: str, epochs: Mapping[str, str]) -> str | None:
        """Why a partition cannot be scored yet that was last scored by these epochs; None where it can. From any thread."""
        return self._line_up.awaited(self._pipelines(topic), epochs)

    def switched(self, live: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Between two batches: take up what has changed about who scores; gives those of these partitions that do not know it yet."""
        self._line_up.turn()
        marks = {topic: self._line_up.epochs(self._pipelines(topic)) for topic in self._paths}
        return [name for name in live if marks[name.topic] != self._epochs[name]]

    def _pipelines(self, topic: str) -> list[str]:
        return [scorer.pipeline.name for scorer in self._paths[topic].scorers]

    def replay(self, batch: RecordBatch, timeline: Timeline) -> None:
        """Fold records whose predictions are already committed."""
        for piece in self._crashes.pieces(batch):
            self._paths[batch.topic].replay(piece.records, timeline)

    def score(
        self,
        batches: Sequence[RecordBatch],
        ends: Mapping[TopicPartition, int],
        begins: Mapping[TopicPartition, int],
        timeline: Timeline,
    ) -> Work:
        """Fold and score; what was folded waits for `pack`. The partitions of `begins` are told first who scores from there on."""
        work = Work(outputs=[], positions={}, writes=[], tallies=[])
        for name, begin in begins.items():
            self._tell(name, begin, work)
        for batch in batches:
            path = self._paths[batch.topic]
            for piece in self._crashes.pieces(batch):
                outputs, tally = path.refuse(piece.records) if piece.condemned else path.score(piece.records, timeline)
                work.outputs.extend(outputs)
                work.tallies.append(tally)
                if piece.condemned:
                    work.outputs.append(self._remembered(piece.records))
            for number in np.unique(batch.partitions).tolist():
                name = TopicPartition(batch.topic, number)
                work.positions[name] = self._position(name, ends[name])
                work.tallies[-1].newest_ms[name] = int(batch.timestamps_ms[np.flatnonzero(batch.partitions == number)[-1]])
        taken_out = [one for tally in work.tallies for one in self._line_up.observe(tally.answered)]
        if taken_out:
            work.outputs.append(small_records(self._topics.control, [command_bytes(move) for move in taken_out], key=b"worker"))
        self._unpacked.update(ends)
        timeline.mark("encode")
        return work

    def _position(self, name: TopicPartition, end: int) -> Position:
        return Position(offset=end, watermark_ms=self._paths[name.topic].states.watermark_ms(name), epochs=self._epochs[name])

    def _tell(self, name: TopicPartition, begin: int, work: Work) -> None:
        """That from here on others score this partition, and its position, should nothing of it be in the batch."""
        pipelines = self._pipelines(name.topic)
        switches = self._line_up.switches(pipelines, self._epochs[name], name, begin)
        self._epochs[name] = self._line_up.epochs(pipelines)
        work.positions[name] = self._position(name, begin)
        if switches:
            work.outputs.append(small_records(self._topics.facts, [switch_fact(switch) for switch in switches], key=SWITCH.encode()))

    def _remembered(self, condemned: RecordBatch) -> OutRecords:
        """The facts that these records are left out of every fold."""
        facts = [crash_fact(TopicPartition(record.topic, record.partition), record.offset) for record in condemned.records()]
        return small_records(self._topics.facts, facts, key=b"crash_loop", timestamps_ms=condemned.timestamps_ms.tolist())

    def unpacked(self) -> int:
        """How many positions and states have moved since the last pack."""
        return len(self._unpacked) + sum(self._paths[topic].states.touched() for topic in {name.topic for name in self._unpacked})

    def pack(self) -> list[PartitionWrite]:
        """Everything folded since the last pack, for the store; to be called before a later batch is folded into it."""
        ends, self._unpacked = self._unpacked, {}
        writes: list[PartitionWrite] = []
        for topic in {name.topic for name in ends}:
            writes += self._paths[topic].states.pack({name: end for name, end in ends.items() if name.topic == topic})
        return writes
