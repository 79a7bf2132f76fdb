"""Snapshots of an app in memory that works on while they are taken, and what they are worth afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.apps import snapshots
from headrace.apps.snapshots import plan
from headrace.errors import SnapshotRefused, TransientError
from headrace.features.memory_store import Snapshot
from headrace.features.snapshot_file import SnapshotFile
from headrace.features.state_store import aside
from headrace.types import Position, TopicPartition
from headrace.verify.findings import Kind
from headrace.verify.subject import Subject
from tests.unit.apps.operated import NAMES, Run, app_of, fewer, habits, spending


@pytest.fixture
def run(seed: int) -> Run:
    """An app that has scored 600 payments."""
    found = Run(seed)
    found.send(600)
    found.driver.run()
    return found


def test_an_old_snapshot_is_a_valid_start(run: Run, tmp_path: Path) -> None:
    """After the restore the store stands where the file does, the worker folds what came since, and the state is that of the log."""
    assert run.save(tmp_path / "state") == []
    before = run.offsets()
    run.send(500)
    run.driver.run()
    assert run.restore(tmp_path / "state") == []
    assert run.offsets() == before
    assert all(not run.store.states(name, aside(view.fp)) for name in NAMES for view in (spending, habits))
    run.send(100)
    run.driver.run()
    assert run.driver.events().count("partition caught up") == 2
    found = run.verified()
    assert (found.verdict("I4"), found.checked["partitions"], found.checked["events"]) == ("passed", 4, 1_200)
    assert len(run.driver.results("fraud")) == 1_200


def test_a_snapshot_of_a_busy_app_is_one_of_its_instants(run: Run, tmp_path: Path) -> None:
    """While a worker folds on before every page that is read, the file still holds what the log gives up to where it stands."""
    first = run.offsets()
    run.save(tmp_path / "state", before_each=run.work)
    last = run.offsets()
    run.store.flush()
    run.restore(tmp_path / "state")
    there = run.offsets()
    for name in NAMES:
        for begin, at, end in zip(first[name], there[name], last[name], strict=True):
            assert begin is not None
            assert at is not None
            assert end is not None
            assert begin < at <= end
    run.driver.run()
    assert run.driver.events().count("partition caught up") > 0
    assert run.verified().verdict("I4") == "passed"


def test_a_backlog_is_followed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that moves further than is looked ahead is followed in steps, and the file is as right."""
    monkeypatch.setattr(snapshots, "LOOK_AHEAD", 4)
    monkeypatch.setattr(snapshots, "MOST_AHEAD", 16)
    steps = iter(range(60))

    def work_for_a_while(step: str) -> None:
        if next(steps, None) is not None:
            run.work(step)

    run.save(tmp_path / "state", before_each=work_for_a_while)
    run.restore(tmp_path / "state")
    run.driver.run()
    assert run.verified().verdict("I4") == "passed"


def test_a_partition_that_changes_hands_is_begun_anew(run: Run, tmp_path: Path) -> None:
    """A worker that starts in the middle of a scan owns the partition from then on: nothing of the pages before is in the file."""
    hands = iter(range(2))

    def crash(step: str) -> None:
        if step == "scan" and next(hands, None) is not None:
            run.store.pause = lambda _: None
            run.driver.crash()
            run.send(20)
            run.driver.run()
            run.store.pause = crash

    run.save(tmp_path / "state", before_each=crash)
    run.restore(tmp_path / "state")
    run.driver.run()
    assert run.verified().verdict("I4") == "passed"


def test_a_partition_that_never_settles_is_no_file(run: Run, tmp_path: Path) -> None:
    """If somebody else claims it again and again the command says so, and leaves nothing."""

    def claim(step: str) -> None:
        if step == "scan":
            run.store.pause = lambda _: None
            run.store.claim(NAMES[0], [spending.fp, habits.fp], run.rng.randbytes(16))
            run.store.pause = claim

    with pytest.raises(TransientError, match=r"payments\.v1-0 changed hands 20 times"):
        run.save(tmp_path / "state", before_each=claim)
    assert list(tmp_path.iterdir()) == []


def test_a_restore_that_breaks_changes_nothing(run: Run, tmp_path: Path) -> None:
    """Whichever step fails, the states are those from before or those of the file, never some of each, and nothing stays aside."""
    run.save(tmp_path / "state")
    run.send(300)
    run.driver.run()
    kept = run.store.snapshot()
    after, breaks = [run.store.states(name, spending.fp) for name in NAMES], 0
    for broken in range(1_000):
        run.store.restore(kept)
        steps = iter(range(broken))

        def fail(_: str, steps: Iterator[int] = steps) -> None:
            if next(steps, None) is None:
                run.store.pause = lambda _: None
                raise TransientError("away for a moment")

        run.store.pause = fail
        try:
            run.restore(tmp_path / "state", {NAMES[0]})
        except TransientError:
            breaks += 1
        else:
            break
        assert [run.store.states(name, spending.fp) for name in NAMES] == after
        assert all(not run.store.states(NAMES[0], aside(view.fp)) for view in (spending, habits))
    assert breaks > 10
    assert run.store.states(NAMES[0], spending.fp) != after[0]
    assert run.store.states(NAMES[1], spending.fp) == after[1]


def test_a_piece_that_is_lost_is_missed(run: Run, tmp_path: Path) -> None:
    """A store that goes back while states are put aside is told from one that did not: nothing takes their place."""
    run.save(tmp_path / "state")
    before = run.offsets()
    kept: list[Snapshot] = []

    def go_back(step: str) -> None:
        if step == "apply" and len(kept) < 5:
            kept.append(run.store.snapshot())
        if step == "adopt":
            run.store.restore(kept[3])
            run.store.claim(NAMES[0], [spending.fp, habits.fp], owners[-1])

    owners: list[bytes] = []
    claim = run.store.claim

    def heard(partition: TopicPartition, views: list[str], owner: bytes) -> object:
        owners.append(owner)
        return claim(partition, views, owner)

    run.store.claim = heard  # type: ignore[method-assign, assignment]
    run.store.pause = go_back
    with pytest.raises(TransientError, match="the store lost some of what was put aside"):
        run.restore(tmp_path / "state", {NAMES[0]})
    run.store.pause = lambda _: None
    assert run.offsets() == before


def test_a_file_of_another_app_is_refused(run: Run, tmp_path: Path) -> None:
    """The text names both, and the state is as it was."""
    run.save(tmp_path / "state")
    other = Run(1, app_of(spending, name="other"))
    with SnapshotFile(tmp_path / "state") as file, pytest.raises(SnapshotRefused, match="of app cards, not of other: nothing was changed"):
        plan(other.app, other.subject, file, None)


def test_a_view_that_was_changed_is_left_out(run: Run, tmp_path: Path) -> None:
    """States of other definitions are not taken; the views that are as they were are restored."""
    run.save(tmp_path / "state")
    run.app = app_of(spending, fewer)
    with SnapshotFile(tmp_path / "state") as file:
        found = plan(run.app, run.subject, file, None)
    assert [views for _, views in found.parts] == [[spending.fp], [spending.fp]]
    assert len(found.changed) == 2
    assert "view habits of payments.v1-0 is left out" in found.changed[0]


def test_a_state_that_would_be_wrong_is_refused(run: Run, tmp_path: Path) -> None:
    """A recreated topic, offsets that were set back, a log that begins later, a partition that is not in the file: all are named."""
    run.save(tmp_path / "state")
    before = run.offsets()

    def refused(text: str, subject: Subject, wanted: set[TopicPartition] | None = None) -> None:
        with SnapshotFile(tmp_path / "state") as file, pytest.raises(SnapshotRefused, match=text):
            plan(run.app, subject, file, wanted)

    refused("deleted and made again", changed(run.subject, topic_id=lambda _: "another"))
    position = Position(offset=1, watermark_ms=None)
    refused("beyond the committed offset 1: ", changed(run.subject, committed=lambda _: position))
    refused("elsewhere-7 is not in the file", run.subject, {TopicPartition("elsewhere", 7)})
    run.send(600)
    run.driver.run()
    for name in NAMES:
        run.driver.log.delete_before(name, (run.offsets()[name][0] or 0) - 10)
    refused("the log begins at", run.subject)
    assert run.offsets() != before


def changed(subject: Subject, **wishes: object) -> Subject:
    """The same deployment, but for something."""
    fields = {name: getattr(subject, name) for name in Subject.__slots__}
    return Subject(**{**fields, **wishes})


def test_what_has_no_state_is_not_in_the_file(seed: int, tmp_path: Path) -> None:
    """Partitions no worker has ever served are told of, and the file is one without them."""
    run = Run(seed)
    assert run.save(tmp_path / "state") == ["payments.v1-0", "payments.v1-1"]
    with SnapshotFile(tmp_path / "state") as file:
        assert file.parts == []


def test_two_restores_do_not_mix(run: Run, tmp_path: Path) -> None:
    """Of two that run at once the later one wins whole, and the earlier one says that there is another."""
    run.save(tmp_path / "state")
    steps = iter(range(4))

    def another(step: str) -> None:
        if step == "apply" and next(steps, None) is None:
            run.store.pause = lambda _: None
            assert run.restore(tmp_path / "state") == []

    run.store.pause = another
    with pytest.raises(TransientError, match="somebody else restores"):
        run.restore(tmp_path / "state")
    run.driver.run()
    assert run.verified().verdict("I4") == "passed"


def test_deleted_states_are_named(run: Run) -> None:
    """T39 in memory: ten states that somebody deleted are named, and nothing else."""
    gone = run.rng.sample(sorted(run.store.states(NAMES[1], spending.fp)), 10)
    run.store.forget(NAMES[1], spending.fp, gone)
    found = run.verified()
    assert found.counts == {Kind.STATE: 10}
    assert {(one.partition, one.entity, one.of) for one in found.violations} == {(1, key.decode(), "spending") for key in gone}
