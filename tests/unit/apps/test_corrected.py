"""What operators do to an app with corrections: switched on, filled, saved, put back, rebuilt, switched off."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import headrace as hr
from headrace.apps.filling import Filling, unfilled
from headrace.apps.pruning import leftovers, prune
from headrace.changes import definitions_fact
from headrace.features.state_store import aside
from headrace.types import TopicPartition
from headrace.verify.entity import EntityState
from tests.corrections import compare_corrections
from tests.unit.apps.operated import NAMES, SOURCE, Model, Payment, Run, app_of, habits, payments, spending

PLAIN = app_of(spending, habits)
CORRECTING = hr.App(
    "cards",
    pipelines=[
        hr.Pipeline("fraud", views=[spending, habits], event_features=["amount"], predictions="fraud.v1", corrections=True),
    ],
)
(PIPELINE,) = CORRECTING.pipelines


def send(run: Run, count: int) -> None:
    """Some payments of few cards, many of them out of order."""
    for _ in range(count):
        run.driver.advance(run.rng.choice([0, 500, 5_000]))
        at = run.driver.clock.now_ms() - run.rng.choice([0, 0, 10_000, 40_000])
        run.driver.send(SOURCE, Payment(card=f"card-{run.rng.randrange(6)}", at=at, amount=float(run.rng.randrange(1_000))))


def wrong(run: Run) -> Counter[str]:
    """What naive means find wrong with the corrections, by kind."""
    logs = {name: run.driver.log.read(name) for name in NAMES}
    found = [record for number in range(2) for record in run.driver.log.read(TopicPartition(PIPELINE.corrections or "", number))]
    return Counter(problem.partition(":")[0] for problem in compare_corrections(CORRECTING, PIPELINE, logs, found, {}))


def deploy(run: Run, app: hr.App) -> list[str]:
    """A worker of other definitions in place of the one before; what it said until its partitions were live."""
    before = len(run.driver.events())
    run.driver.deploy(app, models={"fraud": Model()})
    run.app = app
    run.driver.run()
    return run.driver.events()[before:]


@pytest.fixture
def run(seed: int) -> Run:
    """An app with corrections that has scored 300 payments."""
    found = Run(seed, CORRECTING)
    send(found, 300)
    found.driver.run()
    assert len(found.driver.corrections("fraud")) > 50
    return found


def retained() -> str:
    """Its name in the store."""
    assert PIPELINE.retained is not None
    return PIPELINE.retained.fp


@pytest.mark.parametrize("filled", [False, True])
def test_corrections_are_switched_on(seed: int, filled: bool) -> None:  # noqa: FBT001 - a case
    """An app at work gets them: what is retained is folded from the log, beside the old worker or by the new one; from then on corrections
    are numbered as if they had always been there. Views are left as they are.
    """
    run = Run(seed, PLAIN)
    send(run, 200)
    run.driver.run()
    before = run.offsets()
    if filled:
        for name in NAMES:
            views = unfilled(CORRECTING, run.subject, run.store, payments, name)
            assert [view.fp for view in views] == [retained()]
            assert Filling(CORRECTING, run.subject, run.store, payments, name, views, told=lambda *_: None).run()
            assert unfilled(CORRECTING, run.subject, run.store, payments, name) == []
    said = deploy(run, CORRECTING)
    assert said.count("partition live" if filled else "partition caught up") == 2
    assert run.offsets() == before
    assert run.driver.corrections("fraud") == []
    assert run.verified().verdict("I4") == "passed"
    send(run, 200)
    run.driver.run()
    assert run.verified().verdict("I4") == "passed"
    assert set(wrong(run)) == {"lost"}
    causes = [one["caused_by"] for one in run.driver.corrections("fraud")]
    assert len(causes) > 30
    assert all(one["offset"] >= before[TopicPartition(SOURCE, one["partition"])][0] for one in causes)


def test_a_snapshot_holds_what_is_retained(run: Run, tmp_path: Path) -> None:
    """An old one is put back, the worker folds what came since, and every correction is there once."""
    assert run.save(tmp_path / "state") == []
    send(run, 100)
    run.driver.run()
    assert run.restore(tmp_path / "state") == []
    send(run, 100)
    run.driver.run()
    assert "partition caught up" in run.driver.events()
    assert run.verified().verdict("I4") == "passed"
    assert wrong(run) == {}


def test_an_entity_is_mended(run: Run) -> None:
    """What is retained of an entity is written again as the log gives it, beside its worker."""
    name = next(name for name in NAMES if run.store.states(name, retained()))
    key = next(iter(run.store.states(name, retained())))
    whole = run.store.states(name, retained())[key]
    run.store.forget(name, retained(), [key])
    state = EntityState(CORRECTING, run.subject, run.store, payments, name=name, key=key, told=lambda *_: None)
    try:
        assert [one.same() for one in state.mend()] == [True, True, False]
    finally:
        state.close()
    assert run.store.states(name, retained())[key] == whole
    send(run, 100)
    run.driver.run()
    assert wrong(run) == {}


def test_what_was_retained_is_pruned(run: Run) -> None:
    """Switched off, what was retained stays in the store until somebody prunes it."""
    for app in (CORRECTING, PLAIN):
        run.driver.log.append(app.facts, 0, None, definitions_fact(app))
    deploy(run, PLAIN)
    send(run, 100)
    run.driver.run()
    found = leftovers(PLAIN, run.subject, run.store, NAMES)
    assert {(one.view, one.fp, one.followed) for one in found} == {("fraud.retained", retained(), False)}
    prune(run.store, found)
    assert all(run.store.states(name, fp) == {} for name in NAMES for fp in (retained(), aside(retained())))


def test_two_pipelines_correct_by_themselves(seed: int) -> None:
    """Of two pipelines of one source each retains what it needs; one without corrections beside them is told nothing."""
    app = hr.App(
        "cards",
        pipelines=[
            hr.Pipeline("fraud", views=[spending, habits], event_features=["amount"], predictions="fraud.v1", corrections=True),
            hr.Pipeline("most", views=[habits], predictions="most.v1", corrections=True),
            hr.Pipeline("plain", views=[spending], predictions="plain.v1"),
        ],
    )
    run = Run(seed, PLAIN)
    run.driver.deploy(app, models={"fraud": Model(), "most": Model(), "plain": Model()})
    send(run, 150)
    run.driver.run()
    logs = {name: run.driver.log.read(name) for name in NAMES}
    for pipeline in app.pipelines[:2]:
        found = [record for number in range(2) for record in run.driver.log.read(TopicPartition(pipeline.corrections or "", number))]
        assert found
        assert compare_corrections(app, pipeline, logs, found, {}) == []
    assert len(run.driver.corrections("most")) < len(run.driver.corrections("fraud"))
    assert run.driver.corrections("plain") == []
    assert len(run.driver.results("plain")) == 150
