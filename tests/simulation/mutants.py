"""Weaker protocols, each a patch of a few lines to the real loop; the simulation must catch every one of them.

V10  the records of a partition that was revoked inside the drain are still folded and sent, with fresh group metadata
V11  with a commit in flight, states are packed after the next batch was folded, not before
V12  a claim begins while a commit is in flight
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from headrace.assignment import Partition
from headrace.loop import Loop
from headrace.paths import Paths
from headrace.timeline import Timeline
from headrace.types import RecordBatch, TopicPartition, Work


@contextmanager
def v10_revoked_records_are_sent() -> Iterator[None]:
    """A revoked partition is forgotten one turn too late."""
    late: dict[int, dict[TopicPartition, Partition]] = {}
    turn = Loop.turn

    def revoked(self: Loop, partitions: Sequence[TopicPartition]) -> None:
        self._finish_commit()
        self._applier.flush(partitions)
        late.setdefault(id(self), {}).update({name: self._assignment.partitions[name] for name in partitions})

    def turn_late(self: Loop) -> None:
        found = late.pop(id(self), {})
        self._assignment.remove([name for name, mine in found.items() if self._assignment.partitions.get(name) is mine])
        turn(self)

    with patch.object(Loop, "revoked", revoked), patch.object(Loop, "turn", turn_late):
        yield


@contextmanager
def v11_states_are_packed_late() -> Iterator[None]:
    """What is handed to the store is packed when the commit is definite; by then the next batch may be folded."""
    score, store = Paths.score, Loop._store
    ends_of: dict[int, Mapping[TopicPartition, int]] = {}

    def score_unpacked(self: Paths, batches: Sequence[RecordBatch], ends: Mapping[TopicPartition, int], timeline: Timeline) -> Work:
        work = score(self, batches, {}, timeline) if not batches else _score_without_pack(self, batches, ends, timeline)
        ends_of[id(work)] = dict(ends)
        return work

    def _score_without_pack(self: Paths, batches: Sequence[RecordBatch], ends: Mapping[TopicPartition, int], timeline: Timeline) -> Work:
        packs = {topic: path.states.pack for topic, path in self._paths.items()}
        for path in self._paths.values():
            path.states.pack = lambda ends: []  # type: ignore[method-assign]  # noqa: ARG005
        try:
            return score(self, batches, ends, timeline)
        finally:
            for topic, path in self._paths.items():
                path.states.pack = packs[topic]  # type: ignore[method-assign]

    def store_packed(self: Loop, work: Work, timeline: Timeline) -> None:
        ends = ends_of.pop(id(work))
        work.writes = [write for path in self._path._paths.values() for write in path.states.pack(ends)]  # type: ignore[attr-defined]
        store(self, work, timeline)

    with patch.object(Paths, "score", score_unpacked), patch.object(Loop, "_store", store_packed):
        yield


@contextmanager
def v12_claims_do_not_wait_for_the_commit() -> Iterator[None]:
    """A claim may ask for the committed offset while our own commit is about to move it."""

    def claim(self: Loop) -> None:
        if self._fresh_sink.ready():
            self._assignment.recover(self._applier.turn().moved)
            self._assignment.turn()

    with patch.object(Loop, "_claim_what_is_due", claim):
        yield


MUTANTS: Mapping[str, Callable[[], object]] = {
    "V10": v10_revoked_records_are_sent,
    "V11": v11_states_are_packed_late,
    "V12": v12_claims_do_not_wait_for_the_commit,
}
"""By name; the protocol itself passes the same schedules."""
