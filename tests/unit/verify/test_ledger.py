"""Results that are met before and after they are expected."""

from __future__ import annotations

import numpy as np

from headrace.types import OutRecords, RecordBatch
from headrace.verify.compare import PredictionPlaces
from headrace.verify.ledger import Ledger, OffsetBits, Outcome

PLACES = PredictionPlaces("payments.v1", "fraud")


def value(offset: int, scored_at: int) -> bytes:
    """A prediction for an offset of partition 0."""
    return b'{"id":"payments.v1-0-%d-fraud","score":0.5,"model":{},"scored_at":%d}' % (offset, scored_at)


def ledger() -> Ledger:
    """A ledger of the first hundred offsets of partition 0."""
    return Ledger(firsts={0: 0}, place_firsts={0: 0})


def met(of: Ledger, offsets: list[int]) -> list[Outcome]:
    """What becomes of predictions that are found, one after another in one partition."""
    count = len(offsets)
    batch = RecordBatch(
        topic="fraud.v1",
        partitions=np.zeros(count, np.int32),
        offsets=np.arange(count),
        timestamps_ms=np.ones(count, np.int64),
        keys=[b"a"] * count,
        values=[value(offset, 77) for offset in offsets],
        headers=[[("x", b"y")]] * count,
    )
    return list(of.meet(batch, PLACES.of))


def expected(of: Ledger, offsets: list[int]) -> list[Outcome]:
    """What becomes of predictions that the source leads to."""
    records = OutRecords(
        topic="fraud.v1",
        keys=[b"a"] * len(offsets),
        values=[value(offset, 0) for offset in offsets],
        headers=[[("x", b"y")]] * len(offsets),
        timestamps_ms=[1] * len(offsets),
    )
    places = np.zeros(len(offsets), np.int32), np.array(offsets)
    return list(of.expect(records, places, places))


def test_whoever_comes_first_waits_for_the_other() -> None:
    """Right results say nothing, whether they are expected first or met first; what waits is counted."""
    one = ledger()
    assert expected(one, [1, 2, 3]) == []
    assert (len(one.waiting), one.waiting_of[0]) == (3, 3)
    assert met(one, [1, 2, 3, 4, 5]) == []
    assert (len(one.waiting), one.waiting_of[0], len(one.early), one.early_of[0]) == (0, 0, 2, 2)
    assert expected(one, [4, 5]) == []
    assert (len(one.early), one.early_of[0]) == (0, 0)


def test_repeats_are_repeats_before_they_are_expected_too() -> None:
    """A stretch that comes twice, as after a death without transactions, is named as repeated and as nothing else."""
    for early in (True, False):
        one = ledger()
        found = [] if early else expected(one, [1, 2, 3, 4])
        found += met(one, [1, 2, 3, 1, 2, 3, 4])
        found += expected(one, [1, 2, 3, 4]) if early else []
        assert [(outcome.place, outcome.again, outcome.behind) for outcome in found] == [((0, offset), True, None) for offset in (1, 2, 3)]


def test_an_older_one_behind_a_newer_one_is_told_in_either_order() -> None:
    """Two that changed places: the earlier offset stands behind the later one."""
    for early in (True, False):
        one = ledger()
        found = [] if early else expected(one, [1, 2, 3])
        found += met(one, [1, 3, 2])
        found += expected(one, [1, 2, 3]) if early else []
        assert [(outcome.place, outcome.behind) for outcome in found if outcome.behind is not None] == [((0, 2), 3)]


def test_a_set_of_offsets() -> None:
    """What was put in is in it, and nothing else; far ones too."""
    bits = OffsetBits(1_000)
    bits.add(np.array([1_000, 1_007, 1_008, 50_000]))
    bits.add(np.array([], dtype=np.int64))
    assert [offset for offset in (999, 1_000, 1_001, 1_007, 1_008, 1_009, 49_999, 50_000, 10**9) if offset in bits] == [
        1_000,
        1_007,
        1_008,
        50_000,
    ]
