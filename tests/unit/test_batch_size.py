"""Batches that did not get through in time are followed by smaller ones."""

from __future__ import annotations

from headrace.batch_size import QUICK_MS, SLOW_MS, BatchSize


class Transactions:
    """Transactions that take a time we choose."""

    def __init__(self, largest: int) -> None:
        self.now_ms = 0
        self.size = BatchSize(largest, lambda: self.now_ms)

    def one(self, took_ms: int, *, records: int | None = None, ends: bool = True) -> int:
        """A transaction; gives the size of the next batch."""
        self.size.begin()
        self.now_ms += took_ms
        if ends:
            self.size.committed()
        else:
            self.size.failed(self.size.records if records is None else records)
        return self.size.records


def test_a_failed_batch_is_followed_by_half_of_it() -> None:
    """Half of what was tried, not of what was allowed; never less than a few records."""
    run = Transactions(1_000)
    assert run.one(5) == 1_000
    assert run.one(9_000, records=300, ends=False) == 150
    assert [run.one(9_000, ends=False) for _ in range(5)] == [75, 37, 18, 16, 16]


def test_a_quick_failure_says_nothing_of_the_size() -> None:
    """What a rebalance or a fence ended at once is followed by as much, and a single record that failed slowly by more."""
    run = Transactions(1_000)
    assert run.one(SLOW_MS - 1, ends=False) == 1_000
    assert run.one(SLOW_MS, records=1, ends=False) == 16


def test_quick_transactions_bring_the_size_back() -> None:
    """It doubles up to the limit with every transaction that was quick, and stays with one that was not."""
    run = Transactions(1_000)
    run.one(9_000, records=300, ends=False)
    assert [run.one(QUICK_MS), run.one(QUICK_MS + 1), run.one(0), run.one(0), run.one(0)] == [300, 300, 600, 1_000, 1_000]


def test_a_slow_line_is_used_without_failures() -> None:
    """Where a record takes 4 ms, sizes settle within the time-out and nothing fails any more."""
    run = Transactions(16_384)
    sizes = [run.one(4 * run.size.records, ends=4 * run.size.records < 8_000) for _ in range(40)]
    assert sizes[10:] == [sizes[10]] * 30
    assert 125 <= sizes[10] <= 2_000
