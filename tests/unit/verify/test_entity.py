from __future__ import annotations

import pytest

from headrace.crashes import crash_fact
from headrace.errors import PartitionMoved, TransientError
from headrace.partitioner import partition_of
from headrace.types import TopicPartition
from headrace.verify.entity import EntityState
from headrace.verify.findings import Findings, Kind
from tests.unit.apps.operated import SOURCE, Run, payments, spending

KEY = b"card-7"
NAME = TopicPartition(SOURCE, partition_of(KEY, 2))


@pytest.fixture
def run(seed: int) -> Run:
    """An app that has scored 600 payments, some of them of the entity."""
    found = Run(seed)
    found.send(600)
    found.pay("card-7")
    found.driver.run()
    return found


def entity(run: Run) -> EntityState:
    """The entity in store and log."""
    return EntityState(run.app, run.subject, run.store, payments, name=NAME, key=KEY, told=lambda *_: None)


def test_a_deleted_entity_is_named_and_mended(run: Run) -> None:
    """Before it is one violation; after it the state is the log's, the store stands where it stood, and the worker goes on from there."""
    good = run.store.states(NAME, spending.fp)
    before = run.store.head(NAME, spending.fp)
    run.store.forget(NAME, spending.fp, [KEY])
    one = entity(run)
    findings = Findings()
    one.check(findings)
    assert (findings.counts, findings.violations[0].entity) == ({Kind.STATE: 1}, "card-7")
    assert [seen.same() for seen in one.mend()] == [False, True]
    one.close()
    assert run.store.states(NAME, spending.fp) == good
    assert run.store.head(NAME, spending.fp) == before
    run.pay("card-7")
    run.driver.run()
    assert run.verified().verdict("I4") == "passed"


def test_an_entity_that_never_was_is_none(run: Run) -> None:
    """A state that somebody put there without a record in the log is taken away."""
    stranger = TopicPartition(SOURCE, partition_of(b"stranger", 2))
    one = EntityState(run.app, run.subject, run.store, payments, name=stranger, key=b"stranger", told=lambda *_: None)
    state = next(iter(run.store.states(NAME, spending.fp).values()))
    run.store._cells[stranger, spending.fp].states[b"stranger"] = state
    assert [seen.same() for seen in one.mend()] == [False, True]
    one.close()
    assert b"stranger" not in run.store.states(stranger, spending.fp)


def test_a_worker_in_between_is_waited_for(run: Run) -> None:
    """Whether a worker folds more of the entity before the claim or claims before the write, what is written is right where it is."""
    run.store.forget(NAME, spending.fp, [KEY])
    moves = iter([*["claim", "apply"] * 3])

    def work(step: str) -> None:
        if step in {"claim", "apply"} and next(moves, None):
            run.store.pause = lambda _: None
            run.pay("card-8")
            run.driver.run()
            run.store.pause = work

    one = entity(run)
    run.store.pause = work
    one.mend()
    run.store.pause = lambda _: None
    findings = Findings()
    one.check(findings)
    one.close()
    assert findings.sound()
    run.send(50)
    run.pay("card-7")
    run.driver.run()
    assert run.verified().verdict("I4") == "passed"


def test_a_worker_that_is_always_quicker_is_named(run: Run) -> None:
    """When the claim never holds, the command ends and says what to do."""

    def claim(step: str) -> None:
        if step == "apply":
            run.store.pause = lambda _: None
            run.store.claim(NAME, [view.fp for view in run.app.pipelines[0].views], run.rng.randbytes(16))
            run.store.pause = claim

    one = entity(run)
    run.store.pause = claim
    with pytest.raises(TransientError, match="was claimed by its worker 20 times"):
        one.mend()
    run.store.pause = lambda _: None
    one.close()


def test_a_record_condemned_meanwhile_ends_the_command(run: Run) -> None:
    """The fold took it, the worker never will: nothing is written, and the next run leaves it out."""
    before = run.store.states(NAME, spending.fp)
    one = entity(run)
    run.driver.log.append(run.app.facts, 0, None, crash_fact(NAME, 3))
    with pytest.raises(TransientError, match="was condemned meanwhile"):
        one.mend()
    one.close()
    assert run.store.states(NAME, spending.fp) == before
    again = entity(run)
    assert [seen.folded is not None for seen in again.look()] == [True, True]
    again.close()


def test_a_partition_without_state_is_told(run: Run) -> None:
    """There is nothing to mend where a worker has to fold everything anyway."""
    run.store.flush()
    with pytest.raises(PartitionMoved, match="has no state of payments"):
        entity(run)
