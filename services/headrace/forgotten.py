"""Entities whose state was erased: `headrace state forget`, as facts that every later fold heeds.

That somebody's state was erased is no function of the log, as that a record was condemned is none (`crashes.py`). So it is a fact on the
app's facts topic: at offset X of this partition the state of this entity was taken away. It means the same in every fold:

    records of the entity below X  are folded and scored as ever; none of them is in its state from X on
    records at X and above         begin with nothing

Workers, which publish nothing below the committed offset again, simply do not let those below X into the state (`leaves_out`), while they
move the watermark as ever; whoever tells predictions again (`verify`) takes the state away at X. X is the committed offset at a moment when
the group had no member, so every prediction below it is out and none above it is.

The fact does not name the entity: it holds a hash of topic and key, as the facts are kept for ever. Limit: who knows all keys there can be
may find out which one it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headrace.features.state_store import StateStore
from headrace.types import PartitionWrite, TopicPartition, ViewHead, ViewWrite

FACT_KIND = "forgotten"
_SALT = "headrace-forgotten:"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Erasure:
    """At `offset` the state of the entity with this token was taken away."""

    offset: int
    token: str


def token_of(topic: str, entity: str) -> str:
    """What stands for an entity in the facts."""
    return hashlib.sha256(f"{_SALT}{topic}:{entity}".encode()).hexdigest()[:32]


def forgotten_fact(partition: TopicPartition, erasure: Erasure) -> bytes:
    """The record that remembers an erasure."""
    told = {"kind": FACT_KIND, **partition._asdict(), "offset": erasure.offset, "token": erasure.token}
    return json.dumps(told, separators=(",", ":")).encode()


def erasures_in(facts: Sequence[bytes | None]) -> dict[TopicPartition, list[Erasure]]:
    """All that was ever erased, by what `forgotten_fact` wrote, in the order of offsets."""
    found: dict[TopicPartition, set[Erasure]] = {}
    for value in facts:
        fact = json.loads(value or b"{}")
        if fact.get("kind") == FACT_KIND:
            erasure = Erasure(offset=fact["offset"], token=fact["token"])
            found.setdefault(TopicPartition(fact["topic"], fact["partition"]), set()).add(erasure)
    return {partition: sorted(erasures) for partition, erasures in found.items()}


def leaves_out(topic: str, erasures: Sequence[Erasure]) -> Callable[[str], int]:
    """Below which offset an entity's events are not in its state; 0 for whom nobody forgot."""
    until = {one.token: one.offset for one in sorted(erasures)}
    known: dict[str, int] = {}

    def below(entity: str) -> int:
        found = known.get(entity)
        if found is None:
            found = known[entity] = until.get(token_of(topic, entity), 0)
        return found

    return below


def last_erasures(topic: str, erasures: Sequence[Erasure]) -> Callable[[str, int], int]:
    """At which offset up to a given one an entity's state was taken away last; 0 where it was not."""
    of: dict[str, list[int]] = {}
    for one in sorted(erasures):
        of.setdefault(one.token, []).append(one.offset)

    def last(entity: str, offset: int) -> int:
        return max((found for found in of.get(token_of(topic, entity), ()) if found <= offset), default=0)

    return last


def erased_again(
    store: StateStore, partition: TopicPartition, heads: Mapping[str, ViewHead], erasures: Sequence[Erasure]
) -> list[PartitionWrite]:
    """The writes that take away what a store still holds of the forgotten: it went back to before (a dump, a snapshot).

    `heads`: where the views of the partition stand; each is written where it stands. Reads every key of the partition.
    """
    writes = []
    for view, head in heads.items():
        due = {one.token for one in erasures if head.offset is not None and head.offset < one.offset}
        gone = [key for key in _keys(store, partition, view) if token_of(partition.topic, key.decode()) in due] if due else []
        if gone and head.offset is not None and head.watermark_ms is not None:
            write = ViewWrite(view=view, start=head.offset, end=head.offset, chunks=[], deletions=list(dict.fromkeys(gone)))
            writes.append(PartitionWrite(partition=partition, watermark_ms=head.watermark_ms, views=[write]))
    return writes


def _keys(store: StateStore, partition: TopicPartition, view: str) -> list[bytes]:
    """Every entity of a view, some twice."""
    found: list[bytes] = []
    cursor, more = 0, True
    while more:
        page = store.scan(partition, view, cursor)
        found += page.keys
        cursor = page.cursor
        more = cursor != 0
    return found
