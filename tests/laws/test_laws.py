"""Laws that hold for every entry of the catalogue, without naming it, and for the fold as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.features.aggregation import CATALOGUE, Aggregation
from headrace.features.kernel import finish, merge
from headrace.features.reader import StateReader
from headrace.features.state import same_state, unpack_state
from headrace.features.view import FeatureView
from headrace.types import TopicPartition
from tests.laws.readings import EVERYTHING, LATENESS_MS, SMALL, SOURCE, cuts_of, declared, logs, view_of
from tests.unit.features.folding import TOPIC, Folded, bits
from tests.unit.features.naive import Happening, Twin

each_entry = pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
BOTH = [EVERYTHING, SMALL]
PARTITION = TopicPartition(TOPIC, 0)


def reading(time_ms: int, x: float = 0.75, *, entity: str = "a", partition: int = 0) -> Happening:
    """An event with one number in both fields."""
    return Happening(entity=entity, time_ms=time_ms, partition=partition, columns={"x": x, "y": x, "ok": 1.0, "word": "a"})


@settings(max_examples=2_000)
@given(st.data())
def test_cut_independence_and_twin(drawn: st.DataObject) -> None:
    """T50: any cut into batches, any memory and any eviction give the bits of the offline fold, and these are the twin's."""
    happenings = drawn.draw(logs())
    cuts = drawn.draw(cuts_of(len(happenings)))
    offline = Folded(BOTH, happenings)
    streamed = Folded(BOTH, happenings, cuts, capacity=drawn.draw(st.sampled_from([1, 2, 1_000])))
    assert bits(streamed.values) == bits(offline.values)
    assert streamed.late.tolist() == offline.late.tolist()
    assert streamed.as_of_ms.tolist() == offline.as_of_ms.tolist()
    assert_same_states(offline, streamed)

    twin = Twin(happenings, LATENESS_MS)
    features = EVERYTHING.features + SMALL.features
    assert [seen.late for seen in twin.seen] == offline.late.tolist()
    assert [seen.as_of_ms for seen in twin.seen] == offline.as_of_ms.tolist()
    assert bits(np.array([twin.vector(features, event) for event in range(len(happenings))])) == bits(offline.values)


@settings(max_examples=150)
@given(logs())
def test_twin_by_the_book(happenings: list[Happening]) -> None:
    """The fold agrees with the mathematics: exactly for counts, extremes and newest values, else to 1e-9 of what was added up."""
    folded = Folded([EVERYTHING], happenings)
    twin = Twin(happenings, LATENESS_MS)
    for column, feature in enumerate(EVERYTHING.features):
        largest = max((abs(number) for number in twin.numbers(feature) if not math.isnan(number)), default=0.0)
        for event in range(len(happenings)):
            found, expected = folded.values[event, column], twin.plainly(feature, event)
            exact = feature.aggregation.name in {"count", "min", "max", "last", "seconds_since_last"}
            assert found == pytest.approx(expected, rel=0 if exact else 1e-9, abs=0 if exact else 1e-9 * largest * 30, nan_ok=True)


@given(st.data())
def test_pack_unpack_identity(drawn: st.DataObject) -> None:
    """A state that went through bytes at every event gives the same vectors and state as one that never left memory."""
    happenings = drawn.draw(logs())
    whole = Folded(BOTH, happenings, range(1, len(happenings)))
    through = Folded(BOTH, happenings, range(1, len(happenings)), forgetful=True)
    assert bits(through.values) == bits(whole.values)
    assert_same_states(whole, through)


@each_entry
def test_merging_nothing(entry: Aggregation) -> None:
    """Merging an empty state changes nothing, to the sign of zero, and an empty window finishes as its declared value."""
    nothing = (0.0, 0.0, 0.0, 0.0, 0.0)
    for number in (-0.0, 0.0, 1.5, -1e300):
        amount = (1.0, number, 0.0, number, number)
        assert [math.copysign(1.0, one) for one in unwrap(merge)(nothing, amount, 15)] == [math.copysign(1.0, one) for one in amount]
    assert unwrap(finish)(entry.code, nothing, -7.0) == -7.0


@each_entry
@given(
    window=st.sampled_from([("3s", "1s"), ("20s", "5s"), ("1m", "1m"), ("60ms", "1ms")]),
    head_ms=st.integers(0, 200_000),
    ago=st.sampled_from([-1, 0, 1]),
    edge=st.booleans(),
)
def test_window_bound(entry: Aggregation, window: tuple[str, str], head_ms: int, ago: int, *, edge: bool) -> None:
    """A window covers everything younger than w and nothing that is w + one pane old or older."""
    view = FeatureView("one", entity="sensor", source=SOURCE, features=[declared(entry, over=window[0], pane=window[1], empty=-99.0)])
    (feature,) = view.features
    age_ms = feature.window_ms + ago + (feature.pane_ms if edge else 0)
    state = _last_state(view, [reading(1_700_000_000_000 + head_ms, 0.75)])
    seen = StateReader(view).features(state, 1_700_000_000_000 + head_ms + age_ms)[feature.name] != -99.0
    if age_ms < feature.window_ms:
        assert seen
    if age_ms >= feature.window_ms + feature.pane_ms:
        assert not seen


@each_entry
def test_decay(entry: Aggregation) -> None:
    """While an entity is quiet its values fall back to empty, pane by pane, without an event."""
    view = view_of([entry])
    state = _last_state(view, [reading(1_700_000_000_000 + step * 1_000) for step in range(60)])
    reader = StateReader(view)
    ages = range(0, 150_000, 1_000)
    found = [reader.features(state, 1_700_000_059_000 + age_ms) for age_ms in ages]
    for feature in view.features:
        empty = [bits(np.array([[values[feature.name]]])) == bits(np.array([[feature.empty]])) for values in found]
        assert not empty[0]
        assert empty == sorted(empty)
        assert empty[-1]


@given(st.data())
def test_late_changes_nothing(drawn: st.DataObject) -> None:
    """A late event changes no state and no later vector: without it, everything else is the same."""
    happenings = drawn.draw(logs())
    with_late = Folded(BOTH, happenings)
    kept = [event for event, late in enumerate(with_late.late) if not late]
    without = Folded(BOTH, [happenings[event] for event in kept])
    assert bits(with_late.values[kept]) == bits(without.values)
    assert_same_states(with_late, without)


@given(st.data())
def test_sweeping_changes_no_answer(drawn: st.DataObject) -> None:
    """Deleting what no window sees changes neither a vector nor a look-up."""
    happenings = drawn.draw(logs())
    quiet = [reading(happenings[-1].time_ms + 500_000 + step, entity=f"other {step}", partition=one) for one in (0, 1) for step in range(3)]
    back = [reading(quiet[-1].time_ms + step, entity=entity, partition=one) for one in (0, 1) for step, entity in enumerate("abc")]
    log = happenings + quiet + back
    swept = Folded(BOTH, log, range(1, len(log)))
    kept = Folded(BOTH, log)
    assert swept.store.deleted > 0
    assert bits(swept.values) == bits(kept.values)


def test_horizon_moves_windows() -> None:
    """Other entities move the horizon, and with it the as-of time of an entity whose own events lag behind."""
    log = [reading(1_700_000_000_000), reading(1_700_000_100_000, entity="b"), reading(1_700_000_000_000)]
    folded = Folded([SMALL], log)
    assert folded.late.tolist() == [False, False, True]
    assert folded.as_of_ms.tolist() == [1_700_000_000_000, 1_700_000_100_000, 1_700_000_090_000]
    assert folded.values[2].tolist() == [0.0, 7.0]


def assert_same_states(one: Folded, other: Folded) -> None:
    """Both stores hold the same, but for what no window sees as of the horizon."""
    for partition in one.partitions:
        place = TopicPartition(TOPIC, partition)
        horizon_ms = one.states.watermark_ms(place) - LATENESS_MS
        assert other.states.watermark_ms(place) == one.states.watermark_ms(place)
        for view in BOTH:
            these, those = one.store.states[place, view.fp], other.store.states[place, view.fp]
            for key in these.keys() | those.keys():
                assert same_state(view, these.get(key), those.get(key), horizon_ms)


def _last_state(view: FeatureView, happenings: Sequence[Happening]) -> bytes:
    """The packed state of entity a."""
    folded = Folded([view], happenings)
    state = folded.store.states[PARTITION, view.fp][b"a"]
    assert unpack_state(view, state).newest_ms == happenings[-1].time_ms
    return state
