"""Weaker protocols, each a patch of a few lines to the real loop; the simulation must catch every one of them.

V10  the records of a partition that was revoked inside the drain are still folded and sent, with fresh group metadata
V11  with a commit in flight, states are packed after the next batch was folded, not before
V12  a claim begins while a commit is in flight
V13  a worker that ends on an error stores what it folded and did not commit
V14  what was found old in the store is deleted, although an event has brought it back
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from headrace.assignment import Partition
from headrace.features.sweep import StoreSweep
from headrace.loop import Loop
from headrace.timeline import Timeline
from headrace.types import PartitionWrite, TopicPartition, Work


@contextmanager
def v10_revoked_records_are_sent() -> Iterator[None]:
    """A revoked partition is forgotten one turn too late."""
    late: dict[int, dict[TopicPartition, Partition]] = {}
    turn = Loop.turn

    def revoked(self: Loop, partitions: Sequence[TopicPartition]) -> None:
        self._settle(partitions)
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
    store = Loop._store

    def not_packed(self: Loop, *, backlog: bool) -> list[PartitionWrite]:
        del self, backlog
        return []

    def store_packed(self: Loop, work: Work, timeline: Timeline) -> None:
        work.writes = self._path.pack()
        store(self, work, timeline)

    with patch.object(Loop, "_packed", not_packed), patch.object(Loop, "_store", store_packed):
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


@contextmanager
def v13_an_error_leaves_what_is_not_committed() -> Iterator[None]:
    """A worker that ends on an error gives its partitions back as if a batch had just ended: what it folded goes to the store."""

    def run(self: Loop, topics: Sequence[str], *, leave: bool = False) -> None:
        self.start(topics)
        try:
            while not self._stopping:
                self.turn()
        finally:
            self._source.close(leave=leave)
            self._sink.close()

    with patch.object(Loop, "run", run):
        yield


@contextmanager
def v14_what_came_back_is_deleted() -> Iterator[None]:
    """The sweep of the store does not hear that an entity is in memory again."""
    with patch.object(StoreSweep, "came_back", lambda *_: None):
        yield


MUTANTS: Mapping[str, Callable[[], object]] = {
    "V10": v10_revoked_records_are_sent,
    "V11": v11_states_are_packed_late,
    "V12": v12_claims_do_not_wait_for_the_commit,
    "V13": v13_an_error_leaves_what_is_not_committed,
    "V14": v14_what_came_back_is_deleted,
}
"""By name; the protocol itself passes the same schedules."""
