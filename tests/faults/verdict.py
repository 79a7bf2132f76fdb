"""The last word on a run: everything that topics, group and store hold, collected, and compared with what the source log alone demands.

`collect` asks the servers, `judge` is a pure function of what was found: that it sees damage is tested by damaging what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.consume.kafka_reader import Isolation, KafkaReader
from headrace.crashes import condemned_offsets
from headrace.definition import App
from headrace.features.redis_store import RedisStore
from headrace.partitioner import Partitioner
from headrace.predict.scores import Model
from headrace.publish.kafka_topics import KafkaTopics
from headrace.types import Position, Record, TopicPartition, ViewHead
from headrace.verify.deployment import deployment
from headrace.verify.findings import WITNESSED, Findings
from headrace.verify.journal import check_journal
from headrace.verify.seen import check_seen
from tests.audit import Audit, place_of
from tests.corrections import compare_corrections
from tests.faults.traffic import Result

PORTION = 1_000
"""Records folded at a time: the cut changes no bit, and 100,000 take a second."""


@dataclass(kw_only=True)
class Found:
    """What is there after everything has come to rest."""

    source: dict[TopicPartition, list[Record]]
    predictions: dict[str, list[Record]]
    """By pipeline."""
    dead_letters: list[Record]
    states: dict[tuple[TopicPartition, str], dict[bytes, bytes]]
    heads: dict[tuple[TopicPartition, str], ViewHead]
    committed: dict[TopicPartition, Position | None]
    stable_ends: dict[TopicPartition, int]
    """The last stable offset of every partition of the app's topics."""
    ends: dict[TopicPartition, int]
    aborted: int
    """Results and hops that `read_uncommitted` sees and `read_committed` does not."""
    left_out: dict[TopicPartition, list[int]]
    """The source records that were condemned, by the facts of the app."""
    corrections: dict[str, list[Record]] = field(default_factory=dict)
    """By pipeline, where it has any."""
    shadows: dict[str, list[Record]] = field(default_factory=dict)
    """By pipeline, where models come from the registry."""
    seen: set[Result] = field(default_factory=set)
    """What a `read_committed` reader saw during the faults."""
    repeated_reads: int = 0
    """How many records that reader was given twice."""

    def results(self) -> list[Record]:
        """Everything that was published."""
        results = (*self.predictions.values(), *self.corrections.values(), *self.shadows.values(), self.dead_letters)
        return [record for records in results for record in records]

    def see(self, during: list[Result]) -> None:
        """Take what the reader saw during the faults."""
        self.seen = set(during)
        self.repeated_reads = len(during) - len(self.seen)


def collect(app: App, properties: Mapping[str, str], store: RedisStore) -> Found:
    """Ask the servers."""
    committed, uncommitted = KafkaReader(properties), KafkaReader(properties, isolation=Isolation.UNCOMMITTED)
    try:
        sources = [reads.topic for reads in app.inputs]
        results = [app.dead_letters, *app.result_topics]
        everywhere = [partition for topic in (*sources, *results) for partition in committed.partitions(topic)]
        source: dict[TopicPartition, list[Record]] = {partition: [] for topic in sources for partition in committed.partitions(topic)}
        for topic in sources:
            for record in committed.records(topic):
                source[TopicPartition(topic, record.partition)].append(record)
        predictions = {pipeline.name: committed.records(pipeline.predictions) for pipeline in app.pipelines}
        corrections = {one.name: committed.records(one.corrections) for one in app.pipelines if one.corrections is not None}
        shadows = {one.name: committed.records(one.shadow) for one in app.pipelines if one.shadow is not None}
        dead_letters = committed.records(app.dead_letters)
        hops = sorted(set(sources) - {one.topic for one in app.sources})
        written = {partition: 0 for topic in (*results, *hops) for partition in uncommitted.partitions(topic)}
        seen_by_all = sum(map(len, uncommitted.batches(written)))
        hopped = sum(len(source[partition]) for partition in source if partition.topic in hops)
        owned = [(partition, view.fp) for one in app.inputs for partition in committed.partitions(one.topic) for view in app.kept_of(one)]
        found = Found(
            source=source,
            predictions=predictions,
            dead_letters=dead_letters,
            states={(partition, view): store.states(partition, view) for partition, view in owned},
            heads={(partition, view): store.read(partition, [view], ()).heads[view] for partition, view in owned},
            committed=KafkaTopics(properties).group_offsets(app.name, list(source)),
            stable_ends={partition: committed.log_range(partition).end for partition in everywhere},
            ends={partition: uncommitted.log_range(partition).end for partition in everywhere},
            aborted=0,
            corrections=corrections,
            shadows=shadows,
            left_out=condemned_offsets([record.value for record in committed.records(app.facts)] if committed.exists(app.facts) else []),
        )
        found.aborted = seen_by_all - len(found.results()) - hopped
        return found
    finally:
        committed.close()
        uncommitted.close()


def judge(app: App, found: Found, models: Mapping[str, Model], *, partitions: int) -> list[str]:
    """Everything that is wrong (I1 to I6 of the test plan)."""
    audit = Audit(app, models, found.left_out)
    for partition, records in found.source.items():
        audit.fold(partition, records, portion=PORTION)
    problems = audit.compare_results(found.predictions, found.dead_letters)
    for pipeline in (one for one in app.pipelines if one.corrections is not None):
        problems += compare_corrections(app, pipeline, found.source, found.corrections[pipeline.name], found.left_out)
    for (partition, view), stored in found.states.items():
        problems += audit.compare_states(partition, view, stored, found.heads[partition, view])
    return problems + _unlike_the_log(found) + _not_at_rest(found, audit) + _misplaced(found, partitions) + _seen_otherwise(found)


def heard(app: App, properties: Mapping[str, str], store: RedisStore, seen: Iterable[str], journal: Path) -> list[str]:
    """What `headrace verify` makes of what a reader was given meanwhile (I1), and of the journal as far as processes go (I7).

    How real the faults had to be (I9), each test says itself.
    """
    findings, processes = Findings(), Findings()
    with deployment(app.name, properties, store) as subject:
        check_seen(app, subject, seen, findings)
    with journal.open(encoding="utf-8") as lines:
        check_journal(lines, processes, lambda: 0)
    assert findings.verdict("I1+") != "not checked", findings.not_checked
    assert processes.verdict("I7") != "not checked", processes.not_checked
    wrong = [incident.text() for incident in processes.incidents if incident.kind in WITNESSED["I7"][1]]
    return [violation.text() for violation in findings.violations] + wrong


def _unlike_the_log(found: Found) -> list[str]:
    """Dead letters that are not the refused record."""
    log = {(record.topic, record.partition, record.offset): record for records in found.source.values() for record in records}
    problems = []
    for letter in found.dead_letters:
        original = log.get(place_of(letter))
        if original is None or (letter.key, letter.value, letter.timestamp_ms) != (original.key, original.value, original.timestamp_ms):
            problems.append(f"dead letter: the one of {place_of(letter)} is not the record")
    return problems


def _not_at_rest(found: Found, audit: Audit) -> list[str]:
    """Lag, open transactions, and heads of the store that are not the committed offset."""
    problems = []
    for partition, records in found.source.items():
        position = found.committed[partition]
        end = records[-1].offset + 1 if records else 0
        if position is None or position.offset != end:
            problems.append(f"lag: {partition} is committed to {position}, its end is {end}")
        elif records and position.watermark_ms != audit.expected.watermarks[partition]:
            problems.append(
                f"watermark: {position.watermark_ms} is committed for {partition}, expected {audit.expected.watermarks[partition]}"
            )
        problems += [
            f"diverged: {view} of {partition} stands at {head.offset}, expected {end}"
            for (where, view), head in found.heads.items()
            if where == partition and head.offset != end
        ]
    problems += [
        f"open: {partition} ends at {end}, stable up to {found.stable_ends[partition]}"
        for partition, end in found.ends.items()
        if end != found.stable_ends[partition]
    ]
    return problems


def _misplaced(found: Found, partitions: int) -> list[str]:
    """Predictions that are not where their key belongs."""
    problems = []
    partitioner = Partitioner()
    for records in (*found.predictions.values(), *found.corrections.values(), *found.shadows.values()):
        belongs = partitioner.partitions([record.key or b"" for record in records], partitions)
        problems += [
            f"misplaced: {record.topic}-{record.partition} at {record.offset} has key {record.key!r}"
            for record, number in zip(records, belongs, strict=True)
            if record.partition != number
        ]
    return problems


def _seen_otherwise(found: Found) -> list[str]:
    """What the reader during the faults saw is what a reader sees now."""
    now = {(record.topic, record.partition, record.offset, record.key, record.value) for record in found.results()}
    problems = [f"seen, and gone: {topic}-{partition} at {offset}" for topic, partition, offset, _, _ in found.seen - now]
    problems += [f"not seen: {topic}-{partition} at {offset}" for topic, partition, offset, _, _ in now - found.seen]
    return problems + ([f"seen twice: {found.repeated_reads} records"] if found.repeated_reads else [])
