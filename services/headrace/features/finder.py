"""Finds the states of entities in the store: which partition an entity is kept in, and what is there.

Where an entity is kept follows from its key by murmur2 and the number of partitions of its topic. That number is in the store: whoever
claims a partition writes it down. It is asked for beside the states, and where it is not the number that was gone by, they are asked for
again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.errors import TransientError
from headrace.features.state_store import Ask, Looked, LookupStore
from headrace.partitioner import Partitioner
from headrace.types import Int64s, ViewHead

AT_ONCE = 1_000
"""Keys of a partition in one question."""
_ATTEMPTS = 3


class Sought(NamedTuple):
    """Entities of one view, by their keys; `view` is its shortened fingerprint."""

    topic: str
    view: str
    keys: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the state of an entity was found, and where the store stood then."""

    partition: int
    head: ViewHead


@dataclass(slots=True, kw_only=True, eq=False)
class Found:
    """What the store holds of each key of a `Sought`, in their order."""

    places: list[Place]
    """Each once: as many as partitions were asked, or a few more where there were very many keys."""
    at: Int64s
    """Of each key, which of them."""
    packed: list[bytes | None]


class Finder:
    """Asks a store for states. May be called from several threads."""

    def __init__(self, store: LookupStore) -> None:
        self._store = store
        self._partitions: dict[str, int] = {}
        self._partitioner = Partitioner()
        self._lock = threading.Lock()
        """Held while keys are hashed, never while the store is waited for."""

    def find(self, sought: Sequence[Sought]) -> list[Found | None]:
        """All of them in one round trip; in two when the number of partitions is not known yet or has changed.

        None where the store knows nothing of a topic: nobody has served it there. Raises `TransientError` while the store is away, or
        `StoreRefused`.
        """
        for _ in range(_ATTEMPTS):
            gone_by = {one.topic: self._partitions.get(one.topic) for one in sought}
            wanted = [self._placed(one, gone_by[one.topic]) for one in sought]
            asked = [ask for asks in wanted for ask in asks.questions]
            answers = iter(self._store.look(asked) if asked else [])
            looked = [[next(answers) for _ in asks.questions] for asks in wanted]
            counts = {one.topic: answer.partitions for one, found in zip(sought, looked, strict=True) for answer in found}
            if self._right(gone_by, counts):
                return [
                    None if counts[one.topic] is None else _found(asks, found)
                    for one, asks, found in zip(sought, wanted, looked, strict=True)
                ]
        raise _restless(one.topic for one in sought)

    def heads(self, views: Sequence[tuple[str, str]]) -> list[dict[int, ViewHead]]:
        """Where the store stands for all partitions of some views, each given as its topic and shortened fingerprint; empty where nobody
        has served the topic. Raises as `find` does.
        """
        for _ in range(_ATTEMPTS):
            gone_by = {topic: self._partitions.get(topic) for topic, _ in views}
            answers = self._store.look([Ask(topic, view, dict.fromkeys(range(gone_by[topic] or 0), ())) for topic, view in views])
            if self._right(gone_by, {topic: answer.partitions for (topic, _), answer in zip(views, answers, strict=True)}):
                return [dict(answer.heads) for answer in answers]
        raise _restless(topic for topic, _ in views)

    def _right(self, gone_by: Mapping[str, int | None], counts: Mapping[str, int | None]) -> bool:
        """Whether the numbers of partitions that were gone by are those that the store has told, which are gone by from now on. That they
        are known now is not enough: another thread may have learned them meanwhile.
        """
        for topic, count in counts.items():
            if count is None:
                self._partitions.pop(topic, None)
            else:
                self._partitions[topic] = count
        return all(gone_by[topic] == count for topic, count in counts.items())

    def _placed(self, sought: Sought, count: int | None) -> _Placed:
        """The questions about these keys; where the number of partitions is not known, an empty one that asks for it."""
        if count is None:
            return _Placed(numbers=[], spots=[], questions=[Ask(sought.topic, sought.view, {})])
        with self._lock:
            numbers = self._partitioner.partitions(sought.keys, count)
        by_number: dict[int, dict[bytes, int]] = {}
        spots = []
        for number, key in zip(numbers, sought.keys, strict=True):
            of_partition = by_number.setdefault(number, {})
            spots.append(of_partition.setdefault(key, len(of_partition)))
        return _Placed(numbers=numbers, spots=spots, questions=list(_questions(sought, by_number)))


@dataclass(slots=True, kw_only=True, eq=False)
class _Placed:
    """Of each key its partition and its place among the keys asked for there, and the questions that ask for all of them."""

    numbers: list[int]
    spots: list[int]
    questions: list[Ask]


def _restless(topics: Iterable[str]) -> TransientError:
    return TransientError(f"the numbers of partitions of {', '.join(sorted(set(topics)))} change again and again")


def _questions(sought: Sought, by_number: dict[int, dict[bytes, int]]) -> Iterator[Ask]:
    left = {number: list(keys) for number, keys in by_number.items()}
    begin = 0
    while left or begin == 0:
        yield Ask(sought.topic, sought.view, {number: keys[begin : begin + AT_ONCE] for number, keys in left.items()})
        begin += AT_ONCE
        left = {number: keys for number, keys in left.items() if len(keys) > begin}


def _found(placed: _Placed, looked: Sequence[Looked]) -> Found:
    places = [Place(partition=number, head=head) for answer in looked for number, head in answer.heads.items()]
    partitions = 1 + max((place.partition for place in places), default=0)
    index = np.zeros((len(looked), partitions), dtype=np.int64)
    pieces = [piece for piece, answer in enumerate(looked) for _ in answer.heads]
    index[pieces, [place.partition for place in places]] = np.arange(len(places))
    numbers = np.array(placed.numbers, dtype=np.int64)
    piece_of, spot_of = np.divmod(np.array(placed.spots, dtype=np.int64), AT_ONCE)
    at = index[piece_of, numbers]
    states = [answer.states[number] for answer in looked for number in answer.heads]
    return Found(places=places, at=at, packed=[states[one][spot] for one, spot in zip(at.tolist(), spot_of.tolist(), strict=True)])
