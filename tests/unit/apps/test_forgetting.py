"""What becomes of an entity that was forgotten, in every way in which state is made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from headrace.apps.filling import Filling, unfilled
from headrace.apps.forgetting import Forgetting, Forgotten
from headrace.audit.auditing import Audit
from headrace.errors import FatalError, PartitionMoved, TransientError
from headrace.forgotten import Erasure, erasures_in, token_of
from headrace.partitioner import partition_of
from headrace.parts import Limits
from headrace.predict.casting import Pinned
from headrace.publish.encoder import HeaderPolicy
from headrace.types import TopicPartition
from headrace.verify.entity import EntityState
from headrace.verify.findings import Findings
from headrace.verify.verification import Verification, Wishes
from tests.unit.apps.operated import NAMES, SOURCE, Model, Run, app_of, fewer, habits, payments, spending

CARD = "card-7"
NAME = TopicPartition(SOURCE, partition_of(CARD.encode(), 2))


@pytest.fixture
def run(seed: int) -> Run:
    """An app that has scored 600 payments, the last one of the card."""
    found = Run(seed)
    found.send(600)
    found.pay(CARD)
    found.driver.run()
    return found


def forget(
    run: Run, card: str = CARD, *, members: Callable[[], Sequence[str]] = list, remember: Callable[[bytes], None] | None = None
) -> Forgotten:
    """Take a card's state away, the worker being stopped, and start a worker."""

    def write(fact: bytes) -> None:
        run.driver.log.append(run.app.facts, 0, None, fact)

    forgetting = Forgetting(run.app, run.subject, run.store, members=members, remember=remember or write)
    try:
        return forgetting.forget(payments, TopicPartition(SOURCE, partition_of(card.encode(), 2)), card)
    finally:
        run.driver.crash()


def judged(run: Run) -> Findings:
    """What `headrace verify` says of everything: predictions, dead letters, states."""
    models = {"fraud": Model()}
    return Verification(run.app, run.subject, casting_of=lambda _: Pinned(models), headers=HeaderPolicy.CLOUDEVENTS, limits=Limits()).run(
        Wishes(rest_ms=0)
    )


def counted(run: Run, card: str = CARD) -> int:
    """How many payments the state of a card counts."""
    return int(run.driver.features(spending, card)["count_1h"])


def test_what_is_forgotten_is_gone_and_verified(run: Run) -> None:
    """Its states are gone, the others and the offset are as they were; later events begin with nothing; `verify` finds nothing wrong."""
    before = run.store.states(NAME, spending.fp)
    head = run.store.head(NAME, spending.fp)
    done = forget(run)
    assert done.states.keys() == {"spending", "habits"}
    assert (done.offset, run.store.head(NAME, spending.fp)) == (head.offset, head)
    left = run.store.states(NAME, spending.fp)
    assert left == {key: state for key, state in before.items() if key != CARD.encode()}
    assert counted(run) == 0
    assert judged(run).sound()
    run.pay(CARD)
    run.send(100)
    run.pay(CARD)
    assert 2 <= counted(run) < 10
    assert judged(run).sound()
    assert run.verified().sound()


def test_the_fact_does_not_name_the_entity(run: Run) -> None:
    """The facts are kept for ever: they hold offset and a hash, not the key."""
    done = forget(run)
    (fact,) = [record.value or b"" for record in run.driver.log.read(TopicPartition(run.app.facts, 0))][-1:]
    assert CARD.encode() not in fact
    assert json.loads(fact)["kind"] == "forgotten"
    assert erasures_in([None, fact]) == {NAME: [Erasure(offset=done.offset, token=token_of(SOURCE, CARD))]}


@pytest.mark.parametrize("lost", ["rebuild", "flush"])
def test_a_rebuild_does_not_bring_it_back(run: Run, lost: str) -> None:
    """State that was dropped, by hand or with the whole store, is folded again from the log: without it, and as `verify` has it."""
    forget(run)
    run.send(40)
    run.driver.run()
    before = counted(run)
    if lost == "flush":
        run.store.flush()
    else:
        run.store.drop(NAME, [view.fp for view in run.app.pipelines[0].views])
    run.driver.crash()
    assert counted(run) == before < 5
    assert "partition catches up" in run.driver.events()
    run.pay(CARD)
    run.driver.run()
    assert judged(run).sound()


def test_a_store_that_goes_back_to_before_forgets_it_again(run: Run) -> None:
    """A Redis that starts from an old dump holds the state again: whoever claims the partition takes it away before anything is folded."""
    old = run.store.snapshot()
    run.send(30)
    run.driver.run()
    before = judged(run)
    forget(run)
    run.store.restore(old)
    run.driver.crash()
    assert counted(run) == 0
    run.send(30)
    run.driver.run()
    assert before.sound()
    assert judged(run).sound()


def test_the_audit_knows_of_it(run: Run) -> None:
    """`headrace audit` tells the features of the forgotten from what came since, and those from before as they were served."""
    forget(run)
    for _ in range(3):
        run.send(20)
        run.pay(CARD)
    run.driver.run()
    found = Audit(run.app, run.subject, share=1.0).more()
    assert found.pipelines["fraud"].vectors > 600
    assert found.pipelines["fraud"].wrong == 0


def test_forgetting_twice(run: Run) -> None:
    """What came since the first time goes the second time; each rebuild and each verification knows both."""
    first = forget(run)
    run.pay(CARD)
    run.driver.run()
    assert counted(run) == 1
    second = forget(run)
    assert second.offset > first.offset
    run.pay(CARD)
    run.driver.run()
    run.store.flush()
    run.driver.crash()
    assert counted(run) == 1
    assert judged(run).sound()


def test_whoever_is_not_there_is_forgotten_too(run: Run) -> None:
    """There is nothing to take away, and nothing is wrong afterwards."""
    assert forget(run, "stranger").states == {}
    run.pay("stranger")
    run.driver.run()
    assert counted(run, "stranger") == 1
    assert judged(run).sound()


def test_a_view_that_is_filled_leaves_it_out(run: Run) -> None:
    """`headrace state fill` folds the log for a changed view: without the forgotten."""
    forget(run)
    run.send(60)
    run.driver.run()
    new = app_of(spending, fewer)
    for name in NAMES:
        views = unfilled(new, run.subject, run.store, payments, name)
        assert Filling(new, run.subject, run.store, payments, name, views, told=lambda *_: None).run()
    run.driver.deploy(new, models={"fraud": Model()})
    run.app = new
    run.pay(CARD)
    run.driver.run()
    assert run.verified().sound()


def test_mending_the_entity_does_not_bring_it_back(run: Run) -> None:
    """`headrace state rebuild --entity` writes what the log gives, which is nothing but what came since."""
    forget(run)
    run.pay(CARD)
    run.driver.run()
    one = EntityState(run.app, run.subject, run.store, payments, name=NAME, key=CARD.encode(), told=lambda *_: None)
    findings = Findings()
    one.check(findings)
    assert [seen.same() for seen in one.mend()] == [True, True]
    one.close()
    run.driver.crash()
    assert findings.sound()
    assert counted(run) == 1


@pytest.mark.parametrize("since", [0, 30])
def test_an_old_snapshot_is_restored_without_it(run: Run, tmp_path: Path, since: int) -> None:
    """A file of states from before holds it, whether something came since or not; what is restored does not."""
    run.save(tmp_path / "old.state")
    run.send(since)
    run.driver.run()
    forget(run)
    run.restore(tmp_path / "old.state")
    run.driver.crash()
    assert counted(run) == 0
    assert judged(run).sound()


def test_while_somebody_is_at_work_nothing_is_taken_away(run: Run) -> None:
    """A member of the group keeps states in memory: the command waits, then names it and what to do."""
    before = run.store.states(NAME, spending.fp)
    with pytest.raises(FatalError, match=r"1 workers are members of group cards \(slot 0 on here\).*end them \(SIGTERM"):
        forget(run, members=lambda: ["slot 0 on here"])
    assert run.store.states(NAME, spending.fp) == before
    looks = iter([["slot 0 on here"], ["slot 0 on here"], []])
    Forgetting(run.app, run.subject, run.store, members=lambda: next(looks), remember=lambda _: None).wait_for_nobody(10_000)
    assert next(looks, None) is None


def test_a_worker_that_starts_in_between_wins(run: Run) -> None:
    """It claims the partition before the write: nothing is taken away, nothing remembered, and the command says to end it."""

    def step(name: str) -> None:
        if name == "apply":
            run.store.pause = lambda _: None
            run.store.claim(NAME, [view.fp for view in (spending, habits)], b"another")

    run.store.pause = step
    with pytest.raises(PartitionMoved, match="claimed by a worker that has just started"):
        forget(run)
    assert CARD.encode() in run.store.states(NAME, spending.fp)
    assert erasures_in([record.value for record in run.driver.log.read(TopicPartition(run.app.facts, 0))]) == {}
    assert judged(run).sound()


def test_a_store_behind_the_commits_is_refused(run: Run) -> None:
    """Where a worker was killed between commit and store nothing is taken away: first one has to catch up."""
    run.pay(CARD)
    run.driver.crash(before="apply")
    run.driver._workers[0].turn()
    old = run.store.snapshot()
    run.driver.run()
    run.pay(CARD)
    run.driver.run()
    run.store.restore(old)
    with pytest.raises(FatalError, match="a worker was killed before it wrote the rest; start one"):
        forget(run)


def test_a_fact_that_cannot_be_written_is_told(run: Run) -> None:
    """The state is gone and Kafka away: the command says that it must be run again, which writes the fact at the same offset."""

    def away(_: bytes) -> None:
        raise TransientError("the broker is away")

    with pytest.raises(FatalError, match=r"is gone, but the fact that says so was not written \(the broker is away\)"):
        forget(run, remember=away)
    assert forget(run).states == {}
    run.pay(CARD)
    run.driver.run()
    assert judged(run).sound()


@pytest.mark.parametrize("cards", [("card-3", "card-7", "card-11", "card-20")])
def test_many_are_forgotten_while_life_goes_on(run: Run, cards: Sequence[str]) -> None:
    """Several entities at several offsets, with late events in between, and a rebuild at last: all predictions and states are right."""
    for card in (*cards, *cards[:2]):
        forget(run, card)
        run.send(int(run.rng.randrange(80)))
        run.pay(card)
        run.driver.run()
    run.store.flush()
    run.driver.crash()
    run.driver.run()
    assert judged(run).sound()
    values = np.array([counted(run, card) for card in cards])
    assert (values >= 1).all()
