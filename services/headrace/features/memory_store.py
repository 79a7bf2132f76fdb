"""The online store in memory: for the embedded engine, users' tests and the simulation.

It keeps the port's promises on one process and adds what a test needs: `snapshot` and `restore` (a store that lost its last writes),
`flush` (one that lost all), `away` (one that cannot be reached), and hooks around every atomic step, where a scheduler may run somebody
else or raise a fault. Limits: nothing survives the process, and a snapshot copies every state it holds.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.errors import TransientError
from headrace.features.state_store import ApplyResult, Ask, Claim, Looked, aside, one_owner, one_topic_id
from headrace.types import PartitionWrite, StatesPage, StoredStates, TopicPartition, ViewHead, ViewWrite

_SLICES = 8
"""Pages a scan takes, however many states there are."""


def _go_on(step: str) -> None:
    """The hook of everybody who needs none."""


@dataclass(slots=True, kw_only=True)
class Cell:
    """What is kept of one view of one partition; `offset` is None until a reset gave it a start."""

    owner: bytes | None = None
    offset: int | None = None
    watermark_ms: int | None = None
    topic_id: str | None = None
    whole_from: int = 0
    states: dict[bytes, bytes] = field(default_factory=dict)

    def head(self) -> ViewHead:
        """Where it stands."""
        return ViewHead(offset=self.offset, watermark_ms=self.watermark_ms)

    def copy(self) -> Cell:
        """The same, with states of its own."""
        return replace(self, states=dict(self.states))

    def looked_at(self) -> Cell:
        """As look-ups see it."""
        return self if self.offset is not None and self.offset >= self.whole_from else Cell()


Cells = dict[tuple[TopicPartition, str], Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a `MemoryStore` held at one instant; it may be restored any number of times."""

    cells: Cells
    holders: dict[str, str]
    notes: dict[TopicPartition, bytes]
    partitions: dict[str, int]


class MemoryStore:
    """The state store in memory.

    `pause(step)` is called before each atomic step ("claim", "read", "scan", "apply", "reset", "note", "drop", "adopt") and `after(step)`
    once it is done, before its answer goes out: what they raise reaches the caller, from `after` as a reply that was lost. While `away` is
    true every call raises `TransientError` and does nothing. Safe to call from several threads.
    """

    def __init__(self, *, pause: Callable[[str], None] = _go_on, after: Callable[[str], None] = _go_on) -> None:
        self.pause = pause
        self.after = after
        self.away = False
        self._cells: Cells = {}
        self._holders: dict[str, str] = {}
        self._notes: dict[TopicPartition, bytes] = {}
        self._partitions: dict[str, int] = {}
        self._lock = threading.Lock()

    # The port.

    def claim(self, partition: TopicPartition, views: Sequence[str], owner: bytes) -> Claim:
        """Make `owner` the only one whose writes are taken; says where the views stand."""
        self._enter("claim")
        with self._lock:
            cells = {view: self._cells.setdefault((partition, view), Cell()) for view in views}
            for cell in cells.values():
                cell.owner = bytes(owner)
            answer = Claim(
                heads={view: cell.head() for view, cell in cells.items()},
                topic_id=one_topic_id(cell.topic_id for cell in cells.values()),
                note=self._notes.get(partition),
            )
        self.after("claim")
        return answer

    def read(self, partition: TopicPartition, views: Sequence[str], keys: Sequence[bytes]) -> StoredStates:
        """The states of some entities, with owner and heads of the same instant."""
        self._enter("read")
        with self._lock:
            cells = {view: self._cells.get((partition, view)) or Cell() for view in views}
            answer = StoredStates(
                owner=one_owner(cell.owner for cell in cells.values()),
                heads={view: cell.head() for view, cell in cells.items()},
                states={view: [cell.states.get(key) for key in keys] for view, cell in cells.items()},
            )
        self.after("read")
        return answer

    def scan(self, partition: TopicPartition, view: str, cursor: int) -> StatesPage:
        """A slice of the entities, by the hash of their keys: so what comes and goes meanwhile moves no other out of its slice."""
        self._enter("scan")
        with self._lock:
            states = (self._cells.get((partition, view)) or Cell()).states
            keys = [key for key in states if zlib.crc32(key) % _SLICES == cursor]
            answer = StatesPage(cursor=(cursor + 1) % _SLICES, keys=keys, states=[states[key] for key in keys])
        self.after("scan")
        return answer

    def apply(self, owner: bytes, write: PartitionWrite) -> ApplyResult:
        """Write only if the partition is `owner`'s and each view stands at its `start`; then each stands at its `end`."""
        self._enter("apply")
        with self._lock:
            answer = self._apply(owner, write)
        self.after("apply")
        return answer

    def reset(self, partition: TopicPartition, starts: Mapping[str, int], owner: bytes, topic_id: str, whole_from: int = 0) -> ApplyResult:
        """Drop all states of the given views and let them stand at their start offset, without a watermark. OK or FENCED."""
        self._enter("reset")
        with self._lock:
            if not self._owned(partition, starts, owner):
                answer = ApplyResult.FENCED
            else:
                for view, start in starts.items():
                    self._cells[partition, view] = Cell(owner=bytes(owner), offset=start, topic_id=topic_id, whole_from=whole_from)
                answer = ApplyResult.OK
        self.after("reset")
        return answer

    def drop(self, partition: TopicPartition, views: Sequence[str]) -> None:
        """Forget all of some views: states, offset, owner, and the partition's note."""
        self._enter("drop")
        with self._lock:
            self._notes.pop(partition, None)
            for view in views:
                self._cells.pop((partition, view), None)
        self.after("drop")

    def note(self, partition: TopicPartition, views: Sequence[str], owner: bytes, note: bytes | None) -> ApplyResult:
        """Leave a note for whoever claims the partition next; None takes it away. OK or FENCED."""
        self._enter("note")
        with self._lock:
            if not self._owned(partition, views, owner):
                answer = ApplyResult.FENCED
            else:
                self._notes.pop(partition, None)
                if note is not None:
                    self._notes[partition] = note
                answer = ApplyResult.OK
        self.after("note")
        return answer

    def adopt(self, partition: TopicPartition, ends: Mapping[str, int], owner: bytes) -> ApplyResult:
        """Let what was put aside take the place of each view. OK, FENCED or BEHIND."""
        self._enter("adopt")
        with self._lock:
            if not self._owned(partition, [name for view in ends for name in (view, aside(view))], owner):
                answer = ApplyResult.FENCED
            elif any(self._cells[partition, aside(view)].offset != end for view, end in ends.items()):
                answer = ApplyResult.BEHIND
            else:
                self._cells.update({(partition, view): self._cells.pop((partition, aside(view))) for view in ends})
                answer = ApplyResult.OK
        self.after("adopt")
        return answer

    def set_partitions(self, topic: str, partitions: int) -> None:
        """Write down how many partitions a source topic has, over what was there."""
        self._reachable()
        self._partitions[topic] = partitions

    def look(self, asked: Sequence[Ask]) -> list[Looked]:
        """The states of some entities in partitions of topics, with the heads of the same instant."""
        self._reachable()
        with self._lock:
            return [self._looked(ask) for ask in asked]

    def _looked(self, ask: Ask) -> Looked:
        cells = {number: (self._cells.get((TopicPartition(ask.topic, number), ask.view)) or Cell()).looked_at() for number in ask.keys}
        return Looked(
            partitions=self._partitions.get(ask.topic),
            heads={number: cell.head() for number, cell in cells.items()},
            states={number: [cell.states.get(key) for key in ask.keys[number]] for number, cell in cells.items()},
        )

    def announce(self, slot: str, identity: str) -> None:
        """Write down who runs a slot, over whoever was there."""
        self._reachable()
        self._holders[slot] = identity

    def holder(self, slot: str) -> str | None:
        """Who announced the slot last."""
        self._reachable()
        return self._holders.get(slot)

    def check(self) -> list[str]:
        """A store in memory may always be used while it is there; it has nothing to warn of."""
        self._reachable()
        return []

    def close(self) -> None:
        """There is no connection; what is held stays for whoever opens the store again."""

    # What only a store in memory can do.

    def snapshot(self) -> Snapshot:
        """Everything held now; later changes do not reach it."""
        with self._lock:
            return Snapshot(
                cells={key: cell.copy() for key, cell in self._cells.items()},
                holders=dict(self._holders),
                notes=dict(self._notes),
                partitions=dict(self._partitions),
            )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, as a server does that starts from an old dump."""
        with self._lock:
            self._cells = {key: cell.copy() for key, cell in snapshot.cells.items()}
            self._holders = dict(snapshot.holders)
            self._notes = dict(snapshot.notes)
            self._partitions = dict(snapshot.partitions)

    def flush(self) -> None:
        """Forget everything: states, offsets, owners."""
        with self._lock:
            self._cells = {}
            self._holders = {}
            self._notes = {}
            self._partitions = {}

    def head(self, partition: TopicPartition, view: str) -> ViewHead:
        """Where one view of a partition stands: for tests and `verify`."""
        with self._lock:
            return (self._cells.get((partition, view)) or Cell()).head()

    def states(self, partition: TopicPartition, view: str) -> dict[bytes, bytes]:
        """A copy of all packed states of one view of a partition, by entity key: for tests and `verify`."""
        with self._lock:
            cell = self._cells.get((partition, view)) or Cell()
            return dict(cell.states)

    def forget(self, partition: TopicPartition, view: str, keys: Sequence[bytes]) -> None:
        """Delete states behind everybody's back, as a hand in the store would: for tests."""
        with self._lock:
            cell = self._cells.get((partition, view)) or Cell()
            for key in keys:
                cell.states.pop(key, None)

    def _enter(self, step: str) -> None:
        self.pause(step)
        self._reachable()

    def _reachable(self) -> None:
        if self.away:
            raise TransientError("the state store in memory is switched away")

    def _owned(self, partition: TopicPartition, views: Iterable[str], owner: bytes) -> bool:
        cells = (self._cells.get((partition, view)) for view in views)
        return all(cell is not None and cell.owner == owner for cell in cells)

    def _apply(self, owner: bytes, write: PartitionWrite) -> ApplyResult:
        if not self._owned(write.partition, [view.view for view in write.views], owner):
            return ApplyResult.FENCED
        if any(self._cells[write.partition, view.view].offset != view.start for view in write.views):
            return ApplyResult.BEHIND
        for view in write.views:
            cell = self._cells[write.partition, view.view]
            _put(cell.states, view)
            cell.offset = view.end
            cell.watermark_ms = write.watermark_ms
        return ApplyResult.OK


def _put(states: dict[bytes, bytes], view: ViewWrite) -> None:
    """Later chunks over earlier ones, then the deletions; the bytes are copied, so the buffers may be used again."""
    for chunk in view.chunks:
        packed = chunk.buffer.tobytes()
        bounds = chunk.bounds.tolist()
        for row, key in enumerate(chunk.keys):
            states[key] = packed[bounds[row] : bounds[row + 1]]
    for key in view.deletions:
        states.pop(key, None)
