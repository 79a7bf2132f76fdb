from __future__ import annotations

import math

import pytest

import headrace as hr
from headrace.errors import LookupRefused, StoreRefused
from headrace.features.reader import StateReader
from headrace.types import TopicPartition
from tests.unit.features.folding import TOPIC, Folded
from tests.unit.features.naive import Happening

NOON_MS = 1_700_000_000_000


class Payment(hr.Event):
    """A payment."""

    card: str
    paid_at: hr.EventTime
    amount: float


SOURCE = hr.Source(TOPIC, Payment, key="card", time="paid_at", lateness="10s", historical=True)
VIEW = hr.FeatureView(
    "v",
    entity="card",
    source=SOURCE,
    features=[hr.sum("amount", over="1m"), hr.std("amount", over="1h"), hr.last("amount", over="1m"), hr.seconds_since_last(over="1m")],
)
PAYMENTS = [Happening(entity="a", time_ms=NOON_MS + step * 7_000, columns={"amount": 1.1 * step}) for step in range(8)]
STATE = Folded([VIEW], PAYMENTS).store.states[TopicPartition(TOPIC, 0), VIEW.fp][b"a"]
NEWEST_MS = PAYMENTS[-1].time_ms


@pytest.mark.parametrize("after_ms", [0, 1, 999, 4_000, 20_000, 59_999, 60_000, 70_000, 4_000_000])
def test_values_decay(after_ms: int) -> None:
    """A look-up merges panes as of the instant asked for: a second entity's event at that instant sees the same windows."""
    found = StateReader(VIEW).features(STATE, NEWEST_MS + after_ms)
    # What a last event of amount 0 at that instant sees is what the look-up sees, plus that event.
    folded = Folded([VIEW], [*PAYMENTS, Happening(entity="a", time_ms=NEWEST_MS + after_ms, columns={"amount": -0.0})])
    assert found["sum_amount_1m"] == folded.values[-1, 0]
    assert found["last_amount_1m"] == pytest.approx(folded.values[-1, 2], rel=0, nan_ok=True)
    assert found["seconds_since_last_1m"] == pytest.approx(folded.values[-1, 3], rel=0, nan_ok=True)


def test_as_of_the_newest_event() -> None:
    """As of its newest event a look-up gives that event's vector, to the bit; only the newest features move on to the event itself."""
    vector = Folded([VIEW], PAYMENTS).values[-1].tolist()
    found = StateReader(VIEW).features(STATE, NEWEST_MS)
    assert list(found.values())[:2] == vector[:2]
    assert found["last_amount_1m"] == PAYMENTS[-1].columns["amount"]
    assert found["seconds_since_last_1m"] == 0.0


def test_before_the_newest_event() -> None:
    """An instant before the newest event is refused, as what was true then is not kept."""
    reader = StateReader(VIEW)
    with pytest.raises(LookupRefused, match=f"has seen an event at {NEWEST_MS}: it cannot be read as of {NEWEST_MS - 1}"):
        reader.features(STATE, NEWEST_MS - 1)
    assert reader.features(STATE, NEWEST_MS)["seconds_since_last_1m"] == 0.0


def test_no_state() -> None:
    """An entity without a state has empty windows."""
    found = StateReader(VIEW).features(None, NOON_MS)
    assert found["sum_amount_1m"] == 0.0
    assert all(math.isnan(found[name]) for name in VIEW.feature_names[1:])


def test_several_at_once() -> None:
    """Several entities are read together, those without a state among them, as often as one likes."""
    reader = StateReader(VIEW)
    for _ in range(3):
        values = reader.vectors([None, STATE, None, STATE], NEWEST_MS + 5)
        assert values[1].tolist() == values[3].tolist() == list(reader.features(STATE, NEWEST_MS + 5).values())
        assert values[0, 0] == values[2, 0] == 0.0
    assert reader.vectors([], NEWEST_MS).shape == (0, 4)


def test_damaged_state() -> None:
    """Bytes that are no state are refused, and the reader goes on."""
    reader = StateReader(VIEW)
    with pytest.raises(StoreRefused, match="is damaged"):
        reader.features(STATE[:-1], NEWEST_MS)
    assert reader.features(STATE, NEWEST_MS)["seconds_since_last_1m"] == 0.0
