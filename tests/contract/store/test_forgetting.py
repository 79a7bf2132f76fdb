"""`headrace state forget` on every store: what a worker kept is taken away, under its claim, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.apps.forgetting import Forgetting
from headrace.errors import PartitionMoved
from headrace.features.state_store import ApplyResult
from headrace.forgotten import Erasure, erased_again, token_of
from headrace.partitioner import partition_of
from headrace.types import TopicPartition, ViewHead
from tests.contract.store.subjects import Subject, view_write, write
from tests.unit.apps.operated import SOURCE, Run, payments

CARD = b"card-7"
NAME = TopicPartition(SOURCE, partition_of(CARD, 2))
APP = "cards-forgotten"


@pytest.fixture
def run(seed: int) -> Run:
    """An app that has scored payments in memory."""
    found = Run(seed)
    found.send(300)
    found.pay(CARD.decode())
    found.driver.run()
    return found


def kept(run: Run, subject: Subject) -> dict[str, ViewHead]:
    """Put what the app's worker keeps of the card's partition into a store; gives where its views stand."""
    store, owner = subject.store(APP), b"worker"
    subject.store(APP).drop(NAME, [view.fp for view in run.app.views])
    store.claim(NAME, [view.fp for view in run.app.views], owner)
    assert store.reset(NAME, dict.fromkeys((view.fp for view in run.app.views), 0), owner, "topic") is ApplyResult.OK
    for view in run.app.views:
        head = run.store.head(NAME, view.fp)
        assert head.offset is not None
        assert head.watermark_ms is not None
        moved = view_write(view.fp, 0, head.offset, run.store.states(NAME, view.fp))
        assert store.apply(owner, write(moved, partition=NAME, watermark_ms=head.watermark_ms)) is ApplyResult.OK
    return {view.fp: run.store.head(NAME, view.fp) for view in run.app.views}


def test_the_state_is_taken_away_where_it_stands(run: Run, subject: Subject) -> None:
    """The entity is gone from all views; offset, watermark and everybody else are as they were; whoever owned the partition is fenced."""
    heads = kept(run, subject)
    store = subject.store(APP)
    facts: list[bytes] = []
    forgetting = Forgetting(run.app, replace(run.subject, store=store), store, members=list, remember=facts.append)
    done = forgetting.forget(payments, NAME, CARD.decode())
    assert (done.offset, len(done.states), len(facts)) == (heads[run.app.views[0].fp].offset, 2, 1)
    assert store.read(NAME, list(heads), ()).heads == heads
    for view in run.app.views:
        expected = {key: state for key, state in run.store.states(NAME, view.fp).items() if key != CARD}
        assert subject.states(APP, NAME, view.fp) == expected
        start = heads[view.fp].offset or 0
        assert store.apply(b"worker", write(view_write(view.fp, start, start + 1), partition=NAME)) is ApplyResult.FENCED


def test_a_claim_in_between_leaves_everything(run: Run, subject: Subject) -> None:
    """A worker that claims before the write wins: nothing is taken away, nothing remembered."""
    heads = kept(run, subject)
    store = subject.store(APP)

    def members() -> list[str]:
        store.claim(NAME, list(heads), b"another")
        return []

    with pytest.raises(PartitionMoved, match="has just started"):
        Forgetting(run.app, run.subject, store, members=members, remember=lambda _: None).forget(payments, NAME, CARD.decode())
    for view in run.app.views:
        assert subject.states(APP, NAME, view.fp) == run.store.states(NAME, view.fp)


def test_what_came_back_is_found_by_its_hash(run: Run, subject: Subject) -> None:
    """A store that went back to before holds the forgotten again: they are found among all keys, and taken away where the views stand."""
    heads = kept(run, subject)
    store = subject.store(APP)
    later = max(head.offset or 0 for head in heads.values()) + 1
    store.claim(NAME, list(heads), b"next")
    writes = erased_again(store, NAME, heads, [Erasure(offset=later, token=token_of(SOURCE, CARD.decode()))])
    assert [store.apply(b"next", one) for one in writes] == [ApplyResult.OK] * 2
    assert store.read(NAME, list(heads), [CARD]).states == {view: [None] for view in heads}
    assert store.read(NAME, list(heads), ()).heads == heads
