from __future__ import annotations

import pytest

import headrace as hr
from headrace.apps.filling import Filling, extents, unfilled
from headrace.apps.pruning import leftovers, prune
from headrace.changes import definitions_fact
from headrace.crashes import crash_fact
from tests.unit.apps.operated import NAMES, Model, Run, app_of, fewer, habits, payments, spending

OLD, NEW = app_of(spending, habits), app_of(spending, fewer)


@pytest.fixture
def run(seed: int) -> Run:
    """An app that has scored 3,000 payments."""
    found = Run(seed, OLD)
    for app in (OLD, NEW):
        found.driver.log.append(app.facts, 0, None, definitions_fact(app))
    found.send(3_000)
    found.driver.run()
    return found


def fill(run: Run) -> list[bool]:
    """Fill what the new definitions need."""
    filled = []
    for name in NAMES:
        views = unfilled(NEW, run.subject, run.store, payments, name)
        if views:
            filled.append(Filling(NEW, run.subject, run.store, payments, name, views, told=lambda *_: None).run())
    return filled


def deploy(run: Run) -> list[str]:
    """A worker with the new definitions in place of the old one; what it said until its partitions were live."""
    before = len(run.driver.events())
    run.driver.deploy(NEW, models={"fraud": Model()})
    run.app = NEW
    run.driver.run()
    return run.driver.events()[before:]


def test_a_filled_view_is_what_the_log_gives(run: Run) -> None:
    """Beside the worker, which goes on unhindered: the new one has nothing to replay, and its states are those of a fold of the log."""
    assert 0 < sum(one.end - one.start for one in extents(NEW, run.subject, payments, [fewer])) <= 3_000
    assert [unfilled(NEW, run.subject, run.store, payments, name) for name in NAMES] == [[fewer], [fewer]]
    assert fill(run) == [True, True]
    assert fill(run) == []
    said = deploy(run)
    assert said.count("partition live") == 2
    assert "partition catches up" not in said
    run.send(200)
    run.driver.run()
    assert run.verified().verdict("I4") == "passed"


def test_without_filling_a_worker_replays(run: Run) -> None:
    """What the filling spares: a worker that finds no state of a view folds the log before it goes on."""
    assert "partition catches up" in deploy(run)


def test_what_comes_meanwhile_is_replayed_by_the_worker(run: Run) -> None:
    """Payments after the filling are scored by the old worker and folded by the new one; nothing is lost or doubled."""
    fill(run)
    run.send(120)
    run.driver.run()
    assert "partition catches up" in deploy(run)
    run.send(50)
    run.driver.run()
    assert len(run.driver.results("fraud")) == 3_170
    assert run.verified().verdict("I4") == "passed"


def test_a_worker_that_takes_over_ends_the_filling(run: Run) -> None:
    """A worker with the new definitions claims the views in the middle: the filling stops, and what is stored is right."""
    taken = iter([True])

    def step(name: str) -> None:
        if name == "apply" and next(taken, False):
            run.store.pause = lambda _: None
            deploy(run)

    run.store.pause = step
    assert False in fill(run)
    run.send(50)
    run.driver.run()
    assert run.verified().verdict("I4") == "passed"


def test_a_filling_goes_on_where_it_was_ended(run: Run) -> None:
    """One that breaks in the middle leaves a valid state behind; the next begins there and not at the beginning of the log."""
    steps = iter(range(1_000))

    def step(name: str) -> None:
        if name == "apply" and next(steps) == 1:
            raise KeyboardInterrupt

    run.store.pause = step
    with pytest.raises(KeyboardInterrupt):
        fill(run)
    run.store.pause = lambda _: None
    starts = {name: run.store.head(name, fewer.fp).offset for name in NAMES}
    assert any(offset for offset in starts.values())
    fill(run)
    deploy(run)
    assert run.verified().verdict("I4") == "passed"


def test_condemned_records_are_left_out(run: Run) -> None:
    """A record that ended the process three times is in no feature of a filled view either."""
    name = NAMES[0]
    last = run.store.head(name, habits.fp).offset or 0
    assert Filling(NEW, run.subject, run.store, payments, name, [fewer], told=lambda *_: None).run()
    with_all = run.store.states(name, fewer.fp)
    run.store.drop(name, [fewer.fp])
    run.driver.log.append(OLD.facts, 0, None, crash_fact(name, last - 1))
    assert Filling(NEW, run.subject, run.store, payments, name, [fewer], told=lambda *_: None).run()
    assert run.store.head(name, fewer.fp).offset == last
    assert run.store.states(name, fewer.fp) != with_all


def test_what_is_left_of_old_views_is_pruned(run: Run) -> None:
    """The state of a changed view is left alone as long as it follows the commits, and removed when nothing of it does."""
    fill(run)
    run.app = NEW
    found = leftovers(NEW, run.subject, run.store, NAMES)
    assert {(one.view, one.fp, one.followed) for one in found} == {("habits", habits.fp, True)}
    deploy(run)
    run.send(200)
    run.driver.run()
    found = leftovers(NEW, run.subject, run.store, NAMES)
    assert [one.followed for one in found] == [False, False]
    prune(run.store, found)
    assert leftovers(NEW, run.subject, run.store, NAMES) == []
    assert all(run.store.states(name, habits.fp) == {} for name in NAMES)
    assert run.verified().verdict("I4") == "passed"
    run.send(20)
    run.driver.run()
    assert "starting over" not in run.driver.events()[-20:]


def test_a_log_that_does_not_reach_back_is_named(run: Run) -> None:
    """Where retention has taken what the windows need there is nothing to fill from, and the reason says so."""
    run.driver.log.delete_before(NAMES[0], 1_200)
    with pytest.raises(hr.HeadraceError, match="no longer holds all events of the longest window"):
        Filling(NEW, run.subject, run.store, payments, NAMES[0], [fewer], told=lambda *_: None).run()
