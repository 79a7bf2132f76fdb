"""Sweeping the store of entities that are not in memory."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.errors import TransientError
from headrace.features import sweep
from headrace.features.resident import ResidentStates
from headrace.features.state import newest_times_ms
from headrace.features.view import STATE_LAYOUT_VERSION
from headrace.types import NO_WATERMARK_MS, StatesPage, TopicPartition
from tests.unit.features.folding import TOPIC, DictStore, batch_of
from tests.unit.features.naive import Happening

ZERO = TopicPartition(TOPIC, 0)
NOON_MS = 1_700_000_000_000
HOUR_MS, LATENESS_MS = 3_600_000, 10_000


class Payment(hr.Event):
    """A payment."""

    card: str
    paid_at: hr.EventTime
    amount: float


SOURCE = hr.Source(TOPIC, Payment, key="card", time="paid_at", lateness="10s", historical=True)
MINUTE = hr.FeatureView("minute", entity="card", source=SOURCE, features=[hr.sum("amount", over="1m")])
HOUR = hr.FeatureView("hour", entity="card", source=SOURCE, features=[hr.count(over="1h")])
BOTH = [MINUTE, HOUR]


def paid(card: str, after_ms: int = 0) -> Happening:
    """A payment, so long after noon."""
    return Happening(entity=card, time_ms=NOON_MS + after_ms, partition=0, columns={"amount": 1.0})


class Worker:
    """States of both views over a store, one batch and one apply at a time."""

    def __init__(self, store: DictStore, *, empty: bool = False) -> None:
        self.store = store
        self.offset = store.ends.get((ZERO, HOUR.fp), 0)
        self.states = ResidentStates(views=BOTH, read=store.read, scan=store.scan, capacity=1_000)
        self.states.start(ZERO, {view.fp: self.offset for view in BOTH}, NO_WATERMARK_MS, empty=empty)

    def takes(self, *happenings: Happening) -> list[list[bytes]]:
        """Fold, pack and apply; what was deleted, per view."""
        self.states.fold(batch_of(happenings, range(self.offset, self.offset + len(happenings))))
        self.offset += len(happenings)
        (write,) = self.states.pack({ZERO: self.offset})
        self.store.apply([write])
        self.states.applied(ZERO, self.offset)
        return [sorted(view.deletions) for view in write.views]

    def kept(self) -> list[list[bytes]]:
        """The entities in the store, per view."""
        return [sorted(self.store.states.get((ZERO, view.fp), {})) for view in BOTH]


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with every batch."""
    monkeypatch.setattr(sweep, "SELDOM", 1)
    monkeypatch.setattr(sweep, "OFTEN", 1)


def left_behind() -> DictStore:
    """The store of a worker that is no more, with four cards in each view."""
    store = DictStore(BOTH)
    Worker(store).takes(*(paid(card) for card in ("a", "bb", "c", "dd")))
    return store


def test_what_a_worker_before_us_left_is_swept() -> None:
    """Each view is rid of an entity once its own longest window, a pane and the lateness have passed; not a millisecond before."""
    worker = Worker(left_behind())
    minute_ms, hour_ms = (view.longest_window_ms + view.longest_pane_ms + LATENESS_MS for view in BOTH)
    for after_ms, kept in ((minute_ms, [4, 4]), (minute_ms + 1, [0, 4]), (hour_ms, [0, 4]), (hour_ms + 1, [0, 0])):
        for _ in range(8):
            worker.takes(paid("new", after_ms))
        assert [len(set(keys) - {b"new"}) for keys in worker.kept()] == kept


def test_an_entity_that_comes_back_stays() -> None:
    """Found old and asked for in the same batch: it is in memory, so its fate is decided there."""
    worker = Worker(left_behind())
    for _ in range(8):
        worker.takes(paid("a", 2 * HOUR_MS), paid("bb", 2 * HOUR_MS))
    assert worker.kept() == [[b"a", b"bb"]] * 2
    assert worker.states.fold(batch_of([paid("a", 2 * HOUR_MS)], [worker.offset])).values.tolist() == [[9.0, 9.0]]


def test_an_entity_that_comes_back_between_the_look_and_the_write_stays() -> None:
    """Found old in one batch, touched in the next, packed after both."""
    worker = Worker(left_behind())
    states = worker.states
    states.fold(batch_of([paid("new", 2 * HOUR_MS)], [4]))
    for offset in range(5, 9):
        states.fold(batch_of([paid("new", 2 * HOUR_MS)], [offset]))
    states.fold(batch_of([paid("a", 2 * HOUR_MS)], [9]))
    (write,) = states.pack({ZERO: 10})
    assert [sorted(view.deletions) for view in write.views] == [[b"bb", b"c", b"dd"]] * 2
    worker.store.apply([write])
    assert worker.kept() == [[b"a", b"new"]] * 2


def test_a_drop_forgets_what_was_found() -> None:
    """A partition that is claimed anew starts to look anew: nothing found before can be deleted after."""
    worker = Worker(left_behind())
    for offset in range(4, 8):
        worker.states.fold(batch_of([paid("new", 2 * HOUR_MS)], [offset]))
    worker.states.start(ZERO, {view.fp: 4 for view in BOTH}, NO_WATERMARK_MS)
    (write,) = worker.states.pack({ZERO: 5})
    assert [view.deletions for view in write.views] == [[], []]


def test_nobody_looks_into_a_store_that_holds_nothing_else() -> None:
    """While everything stored is in memory too, no page is read."""
    pages: list[int] = []

    def scan(_partition: TopicPartition, _view: str, cursor: int) -> StatesPage:
        pages.append(cursor)
        return StatesPage(cursor=0, keys=[], states=[])

    store = DictStore(BOTH)
    for empty in (True, False):
        states = ResidentStates(views=BOTH, read=store.read, scan=scan)
        states.start(ZERO, {view.fp: 0 for view in BOTH}, NO_WATERMARK_MS, empty=empty)
        states.fold(batch_of([paid("a")], [0]))
        assert len(pages) == (0 if empty else 1)


def test_pages_come_often_while_they_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a quarter of a page to sweep: the next one soon; less: late."""
    monkeypatch.setattr(sweep, "SELDOM", 100)
    monkeypatch.setattr(sweep, "OFTEN", 10)
    looked: list[int] = []
    old = Worker(left_behind()).store.states[ZERO, MINUTE.fp]

    def scan(_partition: TopicPartition, _view: str, _cursor: int) -> StatesPage:
        looked.append(seen)
        held = old if len(looked) < 4 else {}
        return StatesPage(cursor=len(looked), keys=list(held), states=list(held.values()))

    found = sweep.StoreSweep([MINUTE], scan)
    found.start(ZERO)
    for seen in range(1, 301):  # noqa: B007 - scan above looks at it
        found.folded(ZERO, 1, NOON_MS + HOUR_MS, {"a"})
    assert looked == [100, 110, 120, 130, 230]
    assert sorted(found.take(ZERO, 0)) == [b"bb", b"c", b"dd"]
    assert found.take(ZERO, 0) == []


def test_a_store_that_is_away_changes_nothing() -> None:
    """What the scan raises reaches the caller before anything was folded."""

    def away(*_: object) -> StatesPage:
        raise TransientError("away")

    states = ResidentStates(views=BOTH, read=DictStore(BOTH).read, scan=away)
    states.start(ZERO, {view.fp: 0 for view in BOTH}, NOON_MS)
    with pytest.raises(TransientError):
        states.fold(batch_of([paid("a", 5)], [0]))
    assert states.watermark_ms(ZERO) == NOON_MS
    assert states.entities() == 0


def test_the_newest_time_of_a_packed_state() -> None:
    """It is read without parsing the rest; what is no state of this layout is never old."""
    store = left_behind()
    assert newest_times_ms(list(store.states[ZERO, HOUR.fp].values())).tolist() == [NOON_MS] * 4
    never = 2**63 - 1
    version = bytes([STATE_LAYOUT_VERSION])
    negative = version + b"\x01"
    broken = [b"", version, version + b"\xc8", bytes([STATE_LAYOUT_VERSION + 1]) + b"\x02"]
    assert newest_times_ms([*broken, negative, version + b"\x80\x01rest"]).tolist() == [never] * 4 + [-1, 64]
