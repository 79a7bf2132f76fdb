from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from headrace.types import LogRange, TopicPartition
from tests.faults.harness import Trial


def test_ends_looked_at_before_the_loader_was_done_are_not_kept() -> None:
    """A loader that finishes while the ends are looked at leaves them to be looked at again; those found later are final."""
    trial = Trial.__new__(Trial)
    loader = SimpleNamespace(done=False)
    found = iter((5, 8, 9))

    def look(_: TopicPartition) -> LogRange:
        loader.done = True
        return LogRange(start=0, end=next(found))

    partition = TopicPartition("payments", 0)
    trial.__dict__.update(loader=loader, source_partitions=[partition], folder=Path(), _ends=None, _stable=SimpleNamespace(log_range=look))
    assert [trial.ends()[partition] for _ in range(3)] == [5, 8, 8]
