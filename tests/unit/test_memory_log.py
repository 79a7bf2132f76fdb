"""What the log in memory can do that a real one cannot be made to do on time: late markers, lost steps, a rebalance inside a drain."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headrace.clock import ManualClock
from headrace.errors import TransientError, UnstableOffsets
from headrace.memory_log import Fate, MemoryLog, MemorySink, MemorySource
from headrace.publish.record_sink import CommitResult
from headrace.types import OutRecords, Position, TopicPartition

IN, OUT = TopicPartition("in", 0), TopicPartition("out", 0)
AT_FIVE = Position(offset=5, watermark_ms=9)


class Deaf:
    """A listener that starts what it is assigned and remembers the rest."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[TopicPartition]]] = []

    def assigned(self, partitions: object) -> None:
        self.told.append(("assigned", list(partitions)))  # type: ignore[call-overload]

    def revoked(self, partitions: object) -> None:
        self.told.append(("revoked", list(partitions)))  # type: ignore[call-overload]

    def lost(self, partitions: object) -> None:
        self.told.append(("lost", list(partitions)))  # type: ignore[call-overload]


def make(partitions: int = 1, **wishes: int) -> tuple[MemoryLog, ManualClock]:
    clock = ManualClock()
    log = MemoryLog(clock, **wishes)
    log.create_topic("in", partitions)
    log.create_topic("out")
    return log, clock


def joined(log: MemoryLog, member: str = "a", pause: Callable[[str], Fate | None] = lambda _: None) -> tuple[MemorySource, Deaf]:
    source, listener = MemorySource(log, group="g", member=member, pause=pause), Deaf()
    source.start(["in"], listener)
    source.poll(1, 0)
    return source, listener


def one() -> OutRecords:
    return OutRecords(topic="out", keys=[b"k"], values=[b"v"], headers=[[]], timestamps_ms=[1])


def sent(log: MemoryLog, pause: Callable[[str], Fate | None] = lambda _: None) -> MemorySink:
    sink = MemorySink(log, transactional_id="t", pause=pause)
    sink.open()
    sink.begin()
    sink.send(one())
    return sink


def test_held_markers_arrive_one_by_one() -> None:
    """A commit is final at once, but records and offsets are seen only when their own marker has arrived."""
    log, _ = make()
    source, _ = joined(log)
    log.hold_markers = True
    assert sent(log).commit({IN: AT_FIVE}, source.group()) is CommitResult.COMMITTED

    assert log.read(OUT) == []
    with pytest.raises(UnstableOffsets):
        source.committed(IN)
    places = [marker.place for marker in log.undelivered]
    log.deliver(places.index(None))
    assert source.committed(IN) == AT_FIVE
    assert log.read(OUT) == []
    log.deliver()
    assert len(log.read(OUT)) == 1


def test_the_next_thing_an_id_does_waits_for_its_markers() -> None:
    """Held markers of an id arrive when it begins to write again, and when it is opened again."""
    log, _ = make()
    source, _ = joined(log)
    log.hold_markers = True
    sink = sent(log)
    sink.commit({}, source.group())
    sink.begin()
    sink.send(one())
    assert len(log.read(OUT)) == 1
    sink.commit({}, source.group())
    sink.open()
    assert len(log.read(OUT)) == 2


@pytest.mark.parametrize(("fate", "there"), [(Fate.LOST_REQUEST, 0), (Fate.LOST_REPLY, 1)])
def test_a_lost_end_is_unknown_whether_it_happened_or_not(fate: Fate, there: int) -> None:
    """The answer is UNKNOWN either way; after `open` the log says what happened, and nothing is pending."""
    log, _ = make()
    source, _ = joined(log)
    sink = sent(log, lambda step: fate if step == "end" else None)

    assert sink.commit({IN: AT_FIVE}, source.group()) is CommitResult.UNKNOWN

    with pytest.raises(ValueError, match="open"):
        sink.begin()
    sink.open()
    assert log.pending() == []
    assert len(log.read(OUT)) == there
    assert source.committed(IN) == (AT_FIVE if there else None)


@pytest.mark.parametrize("fate", [Fate.LOST_REQUEST, Fate.LOST_REPLY])
def test_lost_offsets_end_in_a_definite_abort(fate: Fate) -> None:
    """When the offsets call gets no answer the transaction is aborted: nothing is there and nothing pending."""
    log, _ = make()
    source, _ = joined(log)
    sink = sent(log, lambda step: fate if step == "offsets" else None)
    assert sink.commit({IN: AT_FIVE}, source.group()) is CommitResult.ABORTED
    assert log.read(OUT) == []
    assert log.pending() == []
    assert source.committed(IN) is None


def test_a_question_without_an_answer_is_transient() -> None:
    """Each question of a source may get lost."""
    log, _ = make()
    source, _ = joined(log, pause=lambda step: None if step in {"heartbeat", "fetch", "drain"} else Fate.LOST_REQUEST)
    for ask in (lambda: source.committed(IN), lambda: source.log_range(IN), lambda: source.offset_at(IN, 0), lambda: source.topic_id("in")):
        with pytest.raises(TransientError):
            ask()


def test_a_transaction_expires_by_the_clock() -> None:
    """With a time-out set, an older pending transaction is aborted and its sink fenced."""
    log, clock = make(transaction_timeout_ms=1_000)
    source, _ = joined(log)
    sink = sent(log)
    clock.advance(999)
    source.log_range(OUT)
    assert log.pending() == ["t"]
    clock.advance(1)
    assert sink.commit({}, source.group()) is CommitResult.FENCED
    assert log.pending() == []


def test_a_rebalance_can_happen_in_the_middle_of_a_drain() -> None:
    """Records of a partition that is revoked inside the drain are already in it; those behind are not."""
    log, _ = make(partitions=2)
    for number in range(2):
        log.extend("in", number, [b"k"] * 10, [b"v"] * 10, [1] * 10)

    def interrupt(step: str) -> None:
        if step == "drain" and source.member_id and "b" not in log.group("g").members:
            joined(log, "b")

    source, listener = MemorySource(log, group="g", member="a", pause=interrupt), Deaf()
    source.start(["in"], listener)
    source.poll(1, 0)
    for number in range(2):
        source.start_at(TopicPartition("in", number), 0)

    drain = source.poll(20, 0)

    (gone,) = next(partitions for kind, partitions in listener.told if kind == "revoked")
    (batch,) = drain.batches
    inside = [offset for partition, offset in zip(batch.partitions, batch.offsets, strict=True) if partition == gone.partition]
    assert 0 < len(inside) < 10
    assert inside == list(range(len(inside)))


def test_a_zombie_hears_of_its_loss_only_when_news_reaches_it() -> None:
    """An evicted member whose heartbeats are lost goes on reading, and its offsets are refused; then it hears `lost`."""
    log, _ = make()
    log.extend("in", 0, [b"k"] * 4, [b"v"] * 4, [1] * 4)
    cut = False
    source, listener = joined(log, pause=lambda step: Fate.LOST_REQUEST if cut and step == "heartbeat" else None)
    source.start_at(IN, 0)
    cut = True
    log.group("g").evict("a")

    assert len(source.poll(1, 0)) == 1
    assert sent(log).commit({IN: AT_FIVE}, source.group()) is CommitResult.ABORTED
    cut = False
    source.poll(1, 0)
    assert ("lost", [IN]) in listener.told
