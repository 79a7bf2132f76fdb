from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.errors import StoreRefused
from headrace.features.aggregation import Declaration
from headrace.features.state import Pane, State, joined, parse_some, same_state, unpack_state
from headrace.features.tables import plan_of
from headrace.types import TopicPartition
from tests.unit.features.folding import TOPIC, Folded
from tests.unit.features.naive import Happening


class Payment(hr.Event):
    """A payment."""

    card: str
    paid_at: hr.EventTime
    amount: float


SOURCE = hr.Source(TOPIC, Payment, key="card", time="paid_at", lateness="1h", historical=True)
NOON_MS = 1_700_000_000_000


def view_of(*features: Declaration) -> hr.FeatureView:
    """A view of cards."""
    return hr.FeatureView("v", entity="card", source=SOURCE, features=features)


COUNTED = view_of(hr.count(over="1m"))
AMOUNTS = view_of(hr.std("amount", over="1m"), hr.min("amount", over="1m"), hr.max("amount", over="1m"), hr.last("amount"))


def packed(view: hr.FeatureView, *payments: tuple[int, float], entity: str = "a") -> bytes:
    """The packed state of a card after payments at (ms after noon, amount)."""
    happenings = [Happening(entity=entity, time_ms=NOON_MS + after_ms, columns={"amount": amount}) for after_ms, amount in payments]
    return Folded([view], happenings).store.states[TopicPartition(TOPIC, 0), view.fp][entity.encode()]


def test_drawn_bytes() -> None:
    """The bytes are those that are drawn: version, newest event time, and per lane the panes, by the gaps between them."""
    newest = (2 * (NOON_MS + 3_000)).to_bytes(6, "little")
    varint = bytearray()
    number = int.from_bytes(newest, "little")
    while number > 127:
        varint.append(number & 127 | 128)
        number >>= 7
    varint.append(number)
    # Two payments in the pane at the oldest edge + 57 s, one in the pane 3 s later, the newest.
    assert packed(COUNTED, (0, 1.0), (1, 1.0), (3_000, 1.0)) == bytes([1, *varint, 2, 2 * 57 + 1, 2, 2 * 3])


def test_a_lonely_event_costs_one_float() -> None:
    """A pane of one event stores its value once; one of several stores what its lane needs."""
    one, two = packed(AMOUNTS, (0, 1.5)), packed(AMOUNTS, (0, 1.5), (10, 2.5))
    # Version, newest, last amount with its age; then the count of panes and a gap.
    frame = 1 + 6 + (1 + 8) + 1 + 1
    assert len(one) == frame + 8
    assert len(two) == frame + 1 + 4 * 8
    assert max(len(one), len(two)) <= AMOUNTS.bytes_per_entity()["total"]


def test_readable_form() -> None:
    """Packed bytes can be read by people."""
    assert unpack_state(AMOUNTS, packed(AMOUNTS, (0, 1.0), (10, 4.0), (2_000, -2.0))) == State(
        newest_ms=NOON_MS + 2_000,
        newest=((NOON_MS + 2_000, -2.0),),
        lanes=(
            (
                Pane(number=NOON_MS // 1_000, count=2, kept=(5.0, 4.5, 1.0, 4.0)),
                Pane(number=NOON_MS // 1_000 + 2, count=1, kept=(-2.0, 0.0, -2.0, -2.0)),
            ),
        ),
    )


def test_negative_times() -> None:
    """Event times before 1970 pack as well."""
    assert unpack_state(COUNTED, packed(COUNTED, (-NOON_MS - 1, 1.0))).newest_ms == -1


def test_bound_holds() -> None:
    """An entity that fills every pane of every window stays below the announced bytes."""
    view = view_of(hr.std("amount", over=["1m", "1h"]), hr.min("amount", over="1m"), hr.max("amount", over="1h"), hr.last("amount"))
    payments = [(step * 500, float(step)) for step in range(2 * 3_700)]
    bound = view.bytes_per_entity()
    assert bound["total"] * 0.8 < len(packed(view, *payments)) <= bound["total"]
    assert bound["total"] == sum(size for part, size in bound.items() if part != "total")


def test_outside_of_the_windows() -> None:
    """What no window sees as of the newest event is not packed: the bytes are those of a state that never saw it."""
    assert packed(COUNTED, (0, 1.0), (500_000, 1.0)) == packed(COUNTED, (500_000, 1.0))
    last = view_of(hr.last("amount", over="1m"), hr.count(over="1m", where=hr.col("amount") > 0))
    assert packed(last, (0, 1.0), (1, 2.0), (500_000, 1.0)) == packed(last, (500_000, 1.0))
    positive = view_of(hr.last("amount", over="1m", where=hr.col("amount") > 0))
    assert packed(positive, (0, 1.0), (60_000, -1.0)) == packed(positive, (60_000, -1.0))
    assert packed(positive, (0, 1.0), (59_999, -1.0)) != packed(positive, (59_999, -1.0))


def test_same_state() -> None:
    """States are compared by what a window can still see; none at all equals one of which nothing can be seen."""
    one, other = packed(COUNTED, (0, 1.0), (30_000, 1.0)), packed(COUNTED, (30_000, 1.0))
    assert not same_state(COUNTED, one, other, NOON_MS)
    assert same_state(COUNTED, one, one, NOON_MS)
    assert same_state(COUNTED, one, other, NOON_MS + 61_000)
    assert not same_state(COUNTED, one, None, NOON_MS + 61_000)
    assert same_state(COUNTED, one, None, NOON_MS + 91_000)
    assert same_state(COUNTED, None, None, NOON_MS)
    assert not same_state(AMOUNTS, packed(AMOUNTS, (0, 1.0)), packed(AMOUNTS, (0, np.nextafter(1.0, 2.0))), NOON_MS)


def test_other_layout() -> None:
    """Bytes of another layout version are refused by name."""
    state = packed(COUNTED, (0, 1.0))
    with pytest.raises(StoreRefused, match="has layout version 2, this program reads 1"):
        unpack_state(COUNTED, b"\x02" + state[1:])
    with pytest.raises(StoreRefused, match="has layout version None"):
        unpack_state(COUNTED, b"")


@given(st.data())
def test_damaged_bytes(drawn: st.DataObject) -> None:
    """Cut, longer or random bytes are refused or read as some state; they never reach beyond their end."""
    view = drawn.draw(st.sampled_from([COUNTED, AMOUNTS]))
    state = packed(view, (0, 1.0), (1, 2.0), (3_000, 1.0), (40_000, 9.0))
    cut = drawn.draw(st.integers(1, len(state) - 1))
    for damaged in (state[:cut], state + b"\x00", state[:cut] + drawn.draw(st.binary(max_size=40))):
        try:
            found = unpack_state(view, damaged)
        except StoreRefused:
            continue
        for lane, panes in zip(view.lanes, found.lanes, strict=True):
            head = found.newest_ms // lane.pane_ms
            numbers = [pane.number for pane in panes]
            assert numbers == sorted(set(numbers))
            assert all(head - lane.panes <= number <= head for number in numbers)


def test_damage_behind_good_states() -> None:
    """A damaged state among good ones: those in front of it are read, then it is refused."""
    good = packed(COUNTED, (0, 1.0))
    plan = plan_of([COUNTED])
    buffer, bounds = joined([good, good, good[:-1]])
    assert len(parse_some(plan, 0, buffer, bounds, 0).newest_ms) == 2
    with pytest.raises(StoreRefused, match="is damaged"):
        parse_some(plan, 0, buffer, bounds, 2)
