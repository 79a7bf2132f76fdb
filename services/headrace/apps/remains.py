"""What topics still hold of an entity whose state was taken away: how many records, and what becomes of them.

Counted are records with its key, in the partition of its key, among the newest of them. Topics that are kept by another key are named and
not counted: which of their records tell of the entity stands inside of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from headrace.consume.record_reader import RecordReader
from headrace.definition import App
from headrace.duration import duration_text
from headrace.partitioner import partition_of
from headrace.publish.kafka_topics import FoundTopic
from headrace.source import Hop, Source
from headrace.types import TopicPartition

Describe = Callable[[Sequence[str]], dict[str, FoundTopic | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What one topic holds of an entity."""

    topic: str
    records: int | None
    """With its key; None where the topic is kept by another one."""
    scanned: int
    """Records that were looked at."""
    whole: bool
    """Whether that was all of the partition."""
    removed: str
    """What removes them, in words."""

    def text(self) -> str:
        """In a line."""
        if self.records is None:
            return f"{self.topic}: kept by another key, so not counted; {self.removed}"
        among = "" if self.whole else f" among the newest {self.scanned:,} of the partition"
        return f"{self.topic}: {self.records:,} records with its key{among}; {self.removed}"


def remains_of(
    app: App, reader: Callable[[], RecordReader], describe: Describe, inputs: Sequence[Source], entity: str, *, most: int
) -> list[Remains]:
    """What is left of an entity that was forgotten in these sources and hops, topic by topic."""
    keyed = topics_of(app, inputs)
    found = []
    there = {name: topic for name, topic in describe(list(keyed)).items() if topic is not None}
    with closing(reader()) as records:
        for name, topic in there.items():
            removed = _removed(topic.settings)
            if not keyed[name]:
                found.append(Remains(topic=name, records=None, scanned=0, whole=False, removed=removed))
                continue
            key = entity.encode()
            partition = TopicPartition(name, partition_of(key, topic.partitions))
            count, scanned, whole = _count(records, partition, key, most)
            found.append(Remains(topic=name, records=count, scanned=scanned, whole=whole, removed=removed))
    return found


def topics_of(app: App, inputs: Sequence[Source]) -> dict[str, bool]:
    """The topics that may tell of an entity of these sources and hops, and whether they are keyed by it."""
    found: dict[str, bool] = {}
    for reads in inputs:
        source = reads.source if isinstance(reads, Hop) else reads
        found[reads.topic] = True
        found.setdefault(source.topic, source.key == reads.key)
        for pipeline in app.pipelines:
            if pipeline.source.topic == source.topic:
                last = pipeline.entities[-1] == reads.key
                found[pipeline.predictions] = found.get(pipeline.predictions, False) or last
                if pipeline.corrections is not None:
                    found[pipeline.corrections] = last
        for hop in app.hops:
            if hop.source.topic == source.topic:
                found.setdefault(hop.topic, False)
        found[app.dead_letters] = found.get(app.dead_letters, False) or source.key == reads.key
    return found


def _count(reader: RecordReader, partition: TopicPartition, key: bytes, most: int) -> tuple[int, int, bool]:
    log = reader.log_range(partition)
    start = max(log.start, log.end - most)
    count = scanned = 0
    for batch in reader.batches({partition: start}, {partition: log.end}) if start < log.end else ():
        count += sum(found == key for found in batch.keys)
        scanned += len(batch)
    return count, scanned, start == log.start


def _removed(settings: Mapping[str, str]) -> str:
    policy, retention_ms = settings.get("cleanup.policy", "delete"), int(settings.get("retention.ms", "-1"))
    parts = []
    if "delete" in policy:
        parts.append(
            "kept for ever (retention.ms is -1)" if retention_ms < 0 else f"each is removed after about {duration_text(retention_ms)}"
        )
    if "compact" in policy:
        parts.append("the newest of each key stays until a tombstone is compacted")
    return " and ".join(parts)
