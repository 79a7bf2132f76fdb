"""The port of the online store: packed states per (view fingerprint, source partition), moved by compare-and-set on the applied offset.

Calls are atomic per source partition and all raise `TransientError` while the store is away (then it is not known whether they happened)
and `StoreRefused` when it must not be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from headrace.types import PartitionWrite, StatesPage, StoredStates, TopicPartition, ViewHead


class ApplyResult(Enum):
    """How an apply ended; nothing was written unless OK."""

    OK = "ok"
    BEHIND = "behind"
    """Some view's applied offset is not the start of the write."""
    FENCED = "fenced"
    """Somebody else has claimed the partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An answer of `claim`: where each view stands, the id of the source topic the states were made from (None: no state yet), and what
    an owner noted last.

    Views made from different topics give their ids joined by `|`, which is no topic's id.
    """

    heads: Mapping[str, ViewHead]
    topic_id: str | None
    note: bytes | None = None


class Ask(NamedTuple):
    """A question of `look`: entities of one view in partitions of a topic, at most 1,000 a partition."""

    topic: str
    view: str
    keys: Mapping[int, Sequence[bytes]]


@dataclass(slots=True, kw_only=True, eq=False)
class Looked:
    """An answer of `look`: the number of partitions that is written down for the topic (None: none is); of each partition the head of the
    view and the packed states in the order of the keys asked for, of one instant.
    """

    partitions: int | None
    heads: Mapping[int, ViewHead]
    states: Mapping[int, Sequence[bytes | None]]


class LookupStore(Protocol):
    """What look-ups need of a store: reading alone. Raises as `StateStore` does."""

    def look(self, asked: Sequence[Ask]) -> list[Looked]:
        """The states of some entities, an answer for each question, all in one round trip.

        The states and the head of a partition in one answer are of one instant; two partitions need not be. A view that is being rebuilt
        and is not whole yet (`reset`) is answered as one that is not there.
        """

    def close(self) -> None:
        """Close the connections."""


def one_owner(owners: Iterable[bytes | None]) -> bytes | None:
    """The owner of a partition: the one all views agree on, None where they do not."""
    found = set(owners)
    return found.pop() if len(found) == 1 else None


def one_topic_id(topic_ids: Iterable[str | None]) -> str | None:
    """The topic id of a partition: that of the views that have one, joined by `|` where they differ."""
    return "|".join(sorted({topic_id for topic_id in topic_ids if topic_id is not None})) or None


def aside(view: str) -> str:
    """The name under which the states of a view are put aside, until `adopt` lets them take its place."""
    return f"{view}.aside"


class StateStore(LookupStore, Protocol):
    """Where states live for reading now."""

    def claim(self, partition: TopicPartition, views: Sequence[str], owner: bytes) -> Claim:
        """Make `owner` (a fresh random nonce) the only one whose writes are taken; says where the views stand."""

    def read(self, partition: TopicPartition, views: Sequence[str], keys: Sequence[bytes]) -> StoredStates:
        """The states of some entities, with owner and heads of the same instant. Keys are any bytes of 1 to 256."""

    def scan(self, partition: TopicPartition, view: str, cursor: int) -> StatesPage:
        """A few hundred states of a view, or as many as are packed together; the first page has cursor 0.

        An entity that is there during a whole round is in it at least once; the others may be or not.
        """

    def apply(self, owner: bytes, write: PartitionWrite) -> ApplyResult:
        """Write only if the partition is `owner`'s and each view stands at its `start`; then each stands at its `end`.

        Sent twice, it answers BEHIND with the views at their `end`.
        """

    def reset(self, partition: TopicPartition, starts: Mapping[str, int], owner: bytes, topic_id: str, whole_from: int = 0) -> ApplyResult:
        """Drop all states of the given views and let them stand at their start offset, without a watermark: how a rebuild begins.

        Before they stand at `whole_from` again they hold a part of what they should, and look-ups do not see them. Answers OK or FENCED.
        """

    def drop(self, partition: TopicPartition, views: Sequence[str]) -> None:
        """Forget all of some views: states, offset, owner, and the partition's note. Whoever owns the partition is fenced, claims it again
        and rebuilds them.
        """

    def note(self, partition: TopicPartition, views: Sequence[str], owner: bytes, note: bytes | None) -> ApplyResult:
        """Leave a note for whoever claims the partition next, over the one that was there; None takes it away. OK or FENCED."""

    def adopt(self, partition: TopicPartition, ends: Mapping[str, int], owner: bytes) -> ApplyResult:
        """Let what was put aside (`aside`) take the place of each view: states, offset, watermark, topic id; all views or none.

        Only if view and what is aside are `owner`'s, else FENCED, and the latter stands at its offset in `ends`, else BEHIND: a load that
        lost a piece on the way never passes for whole.
        """

    def set_partitions(self, topic: str, partitions: int) -> None:
        """Write down how many partitions a source topic has, over what was there: look-ups find the partition of a key by it."""

    def announce(self, slot: str, identity: str) -> None:
        """Write down who runs a slot (host and pid), over whoever was there."""

    def holder(self, slot: str) -> str | None:
        """Who announced the slot last."""

    def check(self) -> list[str]:
        """Ask whether the store may be used (reachable, version, eviction policy); the answer holds warnings, mostly none.

        Raises `StoreRefused` or `TransientError`.
        """
