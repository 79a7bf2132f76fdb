"""A record that takes the process with it is found, and becomes a dead letter after it did so three times.

An exception is caught long before; what is meant here is native code (a parser, the fold, a model) that ends the process. Nobody is left to
say which record it was, so every claim of a partition begins an *attempt* that is noted in the store, and an owner that gives the
partition up in order takes the note back. Whoever claims next reads it (`begin`):

    the note of                            means                                                  then
    -------------------------------------  -----------------------------------------------------  ------------------------------
    nobody, or ourselves, or one released  nobody died                                            as it was
    another process, which got further     it died, but not of a record that it could not pass    as it was
    ... which got no further               it died of something just ahead                        go on *warily* through what two
                                                                                                  batches could hold
    ... in the middle of a record          it died while that record was between decode and       one death more of that record, as
                                           encode, or only lost the partition                     soon as its slot has another process
    ... three times                        the record is *condemned*                              dead letter CRASH_LOOP

Warily: the records go down the path one by one, each noted before it is looked at, and that it is over before anything else is done. A
store that is away ends that like any other call to it, so an outage condemns nobody; nor does a process that is killed for its memory,
unless it is the same record each time. Behind those records, and in every other partition, nothing of this costs anything.

That a record was condemned is no function of the log. So it is also a fact, on the app's facts topic, in the transaction of the dead
letter; every later fold (catch-up, rebuild, `verify`) reads the facts first and leaves the record out. One whose prediction is out already
cannot become a dead letter: if folding it again ends the process three times, its partition is given up.

Limits: notes live in the store; one that is emptied makes the count begin again. Whoever lost a partition in the middle of a record and
lives counts as dead once its slot has a new process. A process that dies in the client library before it hands
over a record, or after encode, is not helped by this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from headrace.errors import PartitionGivenUp, PartitionMoved, StoreRefused, TransientError
from headrace.features.state_store import ApplyResult, StateStore
from headrace.forgotten import Erasure, erasures_in
from headrace.types import Bools, RecordBatch, TopicPartition

WARY_RECORDS = 256
"""So many records are polled at a time while some go one by one: what was passed is committed every second or so."""
DEATHS = 3
"""So many deaths condemn a record."""
RELEASED = ""
"""The process of a note that was left in order."""
FACT_KIND = "crash_loop"
ERROR = f"the process ended {DEATHS} times while it took this record"

Facts = Callable[[], Sequence[bytes | None]]
"""The values of the facts topic up to its end. Raises `TransientError` while that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What an owner of a partition notes for the next one."""

    slot: str
    process: str
    start: int
    """Where its fold began."""
    committed: int
    """The committed offset it found."""
    wary_until: int = 0
    """Records below this offset go one by one."""
    taking: int | None = None
    """The offset of the record that is between decode and encode."""
    deaths: Mapping[int, int] = field(default_factory=dict)
    """How often the process ended then, by offset."""
    open_cases: Sequence[tuple[str, str, int]] = ()
    """Slot, process and offset of owners that were in the middle of a record and of which it is not known whether they live."""

    def note(self) -> bytes:
        """As it is kept in the store."""
        return json.dumps({**asdict(self), "deaths": list(self.deaths.items())}, separators=(",", ":")).encode()

    @classmethod
    def of(cls, note: bytes) -> Attempt:
        """The attempt that was noted."""
        told = json.loads(note)
        return cls(**{**told, "deaths": dict(told["deaths"]), "open_cases": [tuple(case) for case in told["open_cases"]]})

    def condemned(self) -> frozenset[int]:
        """The offsets that are not tried again."""
        return frozenset(offset for offset, deaths in self.deaths.items() if deaths >= DEATHS)


def begin(before: Attempt | None, mine: Attempt, *, wary_until: int, gone: Callable[[str, str], bool]) -> Attempt:
    """The attempt of a process that claims a partition, by the table above.

    `before` is what the claim found, `mine` says who claims it and where; `wary_until` is where a record must be that stopped another, and
    `gone(slot, process)` whether a slot is known to have another process now.
    """
    if before is None:
        return mine
    another = before.process not in {mine.process, RELEASED}
    cases = list(before.open_cases)
    if another and before.taking is not None:
        cases.append((before.slot, before.process, before.taking))
    deaths = {offset: count for offset, count in before.deaths.items() if offset >= mine.start}
    still_open = []
    for slot, process, offset in cases:
        if offset < mine.start or process == mine.process:
            continue
        if slot == mine.slot or gone(slot, process):
            deaths[offset] = deaths.get(offset, 0) + 1
        else:
            still_open.append((slot, process, offset))
    stuck = got_no_further(before, mine)
    suspects = [*deaths, *(offset for _, _, offset in still_open)]
    wary = max(before.wary_until, wary_until if stuck else 0, max(suspects, default=-1) + 1)
    return replace(mine, wary_until=wary if wary > mine.start else 0, deaths=deaths, open_cases=still_open)


def got_no_further(before: Attempt | None, mine: Attempt) -> bool:
    """Whether another process died, or lost the partition, without having committed anything."""
    if before is None or before.process in {mine.process, RELEASED}:
        return False
    return mine.start <= before.start and mine.committed <= before.committed


def crash_fact(partition: TopicPartition, offset: int) -> bytes:
    """The record that remembers a condemned offset."""
    told = {"kind": FACT_KIND, "topic": partition.topic, "partition": partition.partition, "offset": offset}
    return json.dumps(told, separators=(",", ":")).encode()


def condemned_offsets(facts: Sequence[bytes | None]) -> dict[TopicPartition, list[int]]:
    """All offsets that were ever condemned, by what `crash_fact` wrote."""
    found: dict[TopicPartition, set[int]] = {}
    for value in facts:
        fact = json.loads(value or b"{}")
        if fact.get("kind") == FACT_KIND:
            found.setdefault(TopicPartition(fact["topic"], fact["partition"]), set()).add(fact["offset"])
    return {partition: sorted(offsets) for partition, offsets in found.items()}


def rows_at(batch: RecordBatch, offsets: Mapping[TopicPartition, Sequence[int]]) -> Bools:
    """Which rows of a batch are records at these offsets."""
    found = np.zeros(len(batch), dtype=np.bool_)
    for partition, wanted in offsets.items():
        if partition.topic == batch.topic and wanted:
            found |= (batch.partitions == partition.partition) & np.isin(batch.offsets, wanted)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """An attempt that was noted, and the offsets that no fold of the partition takes."""

    owner: bytes
    attempt: Attempt
    left_out: Sequence[int] = ()
    erased: Sequence[Erasure] = ()
    """Whose state was taken away behind the start of the fold (`forgotten.py`)."""
    alone: int = 0
    """So many records go one by one at least, as long as they stood in the log at the claim: in a hop they are fewer than its offsets."""
    end: int = 0
    """Where the log ended then."""

    def wary_until(self) -> int:
        """Below which offset records go one by one."""
        return max(self.attempt.wary_until, self.end) if self.alone else self.attempt.wary_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Records that go down the path together; `condemned` ones do not go."""

    records: RecordBatch
    condemned: bool = False


class CrashWatch:
    """Notes attempts, and says which records go one by one and which not at all."""

    def __init__(
        self,
        *,
        store: StateStore,
        views: Mapping[str, Sequence[str]],
        facts: Facts,
        room: int,
        say: Callable[..., None],
        slot: str,
        process: str,
        is_newer: Callable[[str | None, str], bool],
    ) -> None:
        """`views` by source topic; `room`: how many records can be in memory before the first of them is committed; `process`: as it was
        announced for the slot, if it was; `is_newer(holder, process)`: whether who holds a slot came after a process.
        """
        self._store, self._views, self._facts, self._room, self._say = store, views, facts, room, say
        self._slot, self._process, self._is_newer = slot, process, is_newer
        self._begun: dict[TopicPartition, Begun] = {}
        self._stopped: dict[TopicPartition, Begun] = {}
        """Attempts of partitions that are to be claimed again: still noted as ours."""
        self._looked_at: set[TopicPartition] = set()
        """Those of which not every record simply goes down the path."""

    def begin(self, partition: TopicPartition, owner: bytes, note: bytes | None, *, start: int, committed: int, end: int) -> Begun:
        """Begin an attempt and note it; in the claim's executor. `end`: of the log now; what came later killed nobody.

        Raises `PartitionMoved`, `PartitionGivenUp`, `TransientError`.
        """
        facts = self._facts() if start < committed else ()
        left_out = [offset for offset in condemned_offsets(facts).get(partition, ()) if offset < committed]
        erased = [one for one in erasures_in(facts).get(partition, ()) if start < one.offset]
        before = None if note is None else Attempt.of(note)
        mine = Attempt(slot=self._slot, process=self._process, start=start, committed=committed)
        found = begin(before, mine, wary_until=min(start + self._room, end), gone=self._gone)
        name = f"{partition.topic}-{partition.partition}"
        if found.deaths:
            self._say("records ended the process", partition=partition, deaths=found.deaths, of=DEATHS)
        if found.wary_until:
            self._say("partition goes on record by record", partition=partition, start=start, until=found.wary_until)
        self._note(partition, owner, found)
        for offset in sorted(found.condemned().difference(left_out)):
            if offset < committed:
                raise PartitionGivenUp(
                    f"{name}: folding offset {offset} again ended the process {DEATHS} times, and its prediction is out, so it cannot be "
                    f"left out; install the version that made it, then `headrace state rebuild --partition {name}`, and restart the worker"
                )
        alone = self._room if got_no_further(before, mine) else 0
        return Begun(owner=owner, attempt=found, left_out=left_out, erased=erased, alone=alone, end=end)

    def _gone(self, slot: str, process: str) -> bool:
        return self._is_newer(self._store.holder(slot), process)

    def watch(self, partition: TopicPartition, begun: Begun) -> None:
        """The partition flows from now on."""
        self._begun[partition] = begun
        self._stopped.pop(partition, None)
        if begun.left_out or begun.attempt.wary_until:
            self._looked_at.add(partition)

    def erased(self, partition: TopicPartition) -> Sequence[Erasure]:
        """Whose state was taken away behind the start of its fold."""
        return self._begun[partition].erased if partition in self._begun else ()

    def wary_until(self, partition: TopicPartition) -> int:
        """Below which offset its records go one by one; 0 where none does."""
        return self._begun[partition].wary_until() if partition in self._looked_at else 0

    def stop(self, partition: TopicPartition) -> None:
        """It flows no more until it is claimed again."""
        begun = self._begun.pop(partition, None)
        if begun is not None:
            self._stopped[partition] = begun
        self._looked_at.discard(partition)

    def drop(self, partition: TopicPartition) -> None:
        """It is not ours any more; whoever claims it next may find the note."""
        self._begun.pop(partition, None)
        self._stopped.pop(partition, None)
        self._looked_at.discard(partition)

    def release(self, partitions: Iterable[TopicPartition]) -> None:
        """These are given up in order: nobody died. If the store is away the notes stay, and the next owner is wary for nothing."""
        for partition in partitions:
            begun = self._begun.get(partition) or self._stopped.get(partition)
            if begun is None:
                continue
            attempt = replace(begun.attempt, process=RELEASED, taking=None)
            passed = partition in self._begun and partition not in self._looked_at
            kept = attempt.note() if attempt.wary_until and not passed else None
            try:
                self._store.note(partition, self._views[partition.topic], begun.owner, kept)
            except (TransientError, StoreRefused) as refusal:
                self._say("attempts not taken back", partition=partition, reason=str(refusal))
                return

    def pieces(self, batch: RecordBatch) -> Iterator[Piece]:
        """A batch in the pieces it is to be taken in: nearly always as a whole.

        A piece is done with when the next one is asked for. Raises `TransientError`, `PartitionMoved`.
        """
        names = [name for name in self._looked_at if name.topic == batch.topic]
        rest = np.ones(len(batch), dtype=np.bool_)
        for name in names:
            yield from self._one_by_one(name, batch, rest)
        if rest.all():
            yield Piece(records=batch)
        elif rest.any():
            yield Piece(records=batch.select(np.flatnonzero(rest)))

    def _one_by_one(self, name: TopicPartition, batch: RecordBatch, rest: Bools) -> Iterator[Piece]:
        """What of one partition is taken alone, or not at all; the others stay in `rest`."""
        begun = self._begun[name]
        rows = np.flatnonzero(batch.partitions == name.partition)
        offsets = batch.offsets[rows]
        rest[rows[np.isin(offsets, begun.left_out)]] = False
        condemned = begun.attempt.condemned()
        suspected = (offsets < begun.attempt.wary_until) | ((offsets < begun.end) & (np.arange(len(rows)) < begun.alone))
        for row in rows[suspected & rest[rows]].tolist():
            rest[row] = False
            offset = int(batch.offsets[row])
            alone = batch.select(np.array([row]))
            if offset not in condemned:
                self._take(name, offset)
            yield Piece(records=alone, condemned=offset in condemned)
        if self._begun[name].attempt.taking is not None:
            self._take(name, None)
        begun = self._begun[name] = replace(self._begun[name], alone=max(0, begun.alone - len(rows)))
        if len(rows) and offsets[-1] + 1 >= max(begun.wary_until(), *(left_out + 1 for left_out in begun.left_out), 0):
            self._looked_at.discard(name)

    def _take(self, name: TopicPartition, offset: int | None) -> None:
        """Note which record is on the path alone."""
        begun = self._begun[name] = replace(self._begun[name], attempt=replace(self._begun[name].attempt, taking=offset))
        self._note(name, begun.owner, begun.attempt)

    def _note(self, partition: TopicPartition, owner: bytes, attempt: Attempt) -> None:
        if self._store.note(partition, self._views[partition.topic], owner, attempt.note()) is not ApplyResult.OK:
            raise PartitionMoved(f"{partition.topic}-{partition.partition}: claimed by another worker")
