"""Laws that hold for every entry of the catalogue, without naming it, and for the fold as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import unwrap
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.features import kernel, sequence
from headrace.features.aggregation import MOMENTS, Aggregation
from headrace.features.reader import StateReader
from headrace.features.state import same_state, unpack_state
from headrace.features.view import FeatureView
from headrace.types import TopicPartition
from tests.laws.readings import ALONE, EVERYTHING, LATENESS_MS, PARTS, SMALL, SOURCE, cuts_of, declared, logs, view_of
from tests.unit.features.folding import TOPIC, Folded, bits
from tests.unit.features.naive import Happening, Twin

KEPT = [entry for entry in ALONE if entry.name != "z_score"]
"""Without what is made of the scored event itself."""
each_entry = pytest.mark.parametrize("entry", KEPT, ids=lambda entry: entry.name)
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
    views = [drawn.draw(st.sampled_from(PARTS)), SMALL]
    cuts = drawn.draw(cuts_of(len(happenings)))
    offline = Folded(views, happenings)
    streamed = Folded(views, happenings, cuts, capacity=drawn.draw(st.sampled_from([1, 2, 1_000])))
    assert bits(streamed.values) == bits(offline.values)
    assert streamed.late.tolist() == offline.late.tolist()
    assert streamed.as_of_ms.tolist() == offline.as_of_ms.tolist()
    assert_same_states(offline, streamed, views)

    twin = Twin(happenings, LATENESS_MS)
    features = [feature for view in views for feature in view.features]
    assert [seen.late for seen in twin.seen] == offline.late.tolist()
    assert [seen.as_of_ms for seen in twin.seen] == offline.as_of_ms.tolist()
    assert bits(np.array([twin.vector(features, event) for event in range(len(happenings))])) == bits(offline.values)


@settings(max_examples=150)
@given(logs(), st.sampled_from(PARTS))
def test_twin_by_the_book(happenings: list[Happening], view: FeatureView) -> None:
    """The fold agrees with the mathematics: exactly where it counts or chooses, to the declared bound of an estimate, else to rounding."""
    folded = Folded([view], happenings)
    twin = Twin(happenings, LATENESS_MS)
    for column, feature in enumerate(view.features):
        for event in range(len(happenings)):
            expected, off = twin.plainly(feature, event)
            if not math.isinf(off):
                assert folded.values[event, column] == pytest.approx(expected, rel=0, abs=off, nan_ok=True), feature.name


@given(st.data())
def test_pack_unpack_identity(drawn: st.DataObject) -> None:
    """A state that went through bytes at every event gives the same vectors and state as one that never left memory."""
    happenings = drawn.draw(logs())
    whole = Folded(BOTH, happenings, range(1, len(happenings)))
    through = Folded(BOTH, happenings, range(1, len(happenings)), forgetful=True)
    assert bits(through.values) == bits(whole.values)
    assert_same_states(whole, through)


@pytest.mark.parametrize("kind", range(4))
def test_merging_nothing(kind: int) -> None:
    """Merging an empty amount changes nothing, to the sign of zero."""
    nothing = (0.0, 0.0, 0.0, 0.0, 0.0)
    merging = kernel.merge if kind == MOMENTS else sequence.merge
    for number in (-0.0, 0.0, 1.5, -1e300):
        amount = (1.0, number, 0.0, number, number)
        found = unwrap(merging)(nothing, amount, SimpleNamespace(needs=15, kind=kind))
        assert [math.copysign(1.0, one) for one in found] == [math.copysign(1.0, one) for one in amount]


@each_entry
def test_unknown_entity(entry: Aggregation) -> None:
    """Of an entity that never was, every feature is its declared empty value."""
    view = view_of([entry])
    found = StateReader(view).features(None, 1_700_000_000_000)
    assert bits(np.array([[found[feature.name] for feature in view.features]])) == bits(np.array([[one.empty for one in view.features]]))


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
    state = _last_state(view, 3 * [reading(1_700_000_000_000 + head_ms, 0.75)])
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


def assert_same_states(one: Folded, other: Folded, views: Sequence[FeatureView] = BOTH) -> None:
    """Both stores hold the same, but for what no window sees as of the horizon."""
    for partition in one.partitions:
        place = TopicPartition(TOPIC, partition)
        horizon_ms = one.states.watermark_ms(place) - LATENESS_MS
        assert other.states.watermark_ms(place) == one.states.watermark_ms(place)
        for view in views:
            these, those = one.store.states[place, view.fp], other.store.states[place, view.fp]
            for key in these.keys() | those.keys():
                assert same_state(view, these.get(key), those.get(key), horizon_ms)


def _last_state(view: FeatureView, happenings: Sequence[Happening]) -> bytes:
    """The packed state of entity a."""
    folded = Folded([view], happenings)
    state = folded.store.states[PARTITION, view.fp][b"a"]
    assert unpack_state(view, state).newest_ms == happenings[-1].time_ms
    return state
