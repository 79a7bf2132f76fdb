"""Which features depend on the order in which events came, and which only on what happened."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.features.aggregation import CATALOGUE
from headrace.features.reader import StateReader
from headrace.features.view import FeatureView
from headrace.types import TopicPartition
from tests.laws.readings import ALONE, LATENESS_MS, SOURCE, WORDS, view_of
from tests.unit.features.folding import TOPIC, Folded, bits
from tests.unit.features.naive import Happening

ORDERED = {entry.name for entry in CATALOGUE if "order of offsets" in entry.promises}
SAME = {"count", "rate", "min", "max", "distinct", "quantile", "mode", "top_k", "last", "seconds_since_last", "first"}
NOON_MS = 1_700_000_000_000
ANY_ORDER = view_of(
    [entry for entry in ALONE if entry.name not in ORDERED], more=[one for one in WORDS if one.aggregation.name not in ORDERED]
)


def final(view: FeatureView, log: list[Happening]) -> list[float]:
    """The features of entity a when everything is folded."""
    folded = Folded([view], log)
    assert not folded.late.any()
    state = folded.store.states[TopicPartition(TOPIC, 0), view.fp][b"a"]
    return list(StateReader(view).features(state, max(one.time_ms for one in log)).values())


@given(st.data())
def test_any_order_within_the_lateness_converges(drawn: st.DataObject) -> None:
    """Events that come in another order, none of them late, give the same features in the end: to the bit, or to rounding for sums."""
    count = drawn.draw(st.integers(1, 40))
    draw = random.Random(drawn.draw(st.integers(0, 2**32)))
    # Times are all different: of two events at one instant the later offset is the newer one.
    times_ms = sorted(draw.sample(range(60_000), count))
    log = [
        Happening(
            entity="a",
            time_ms=NOON_MS + at_ms,
            columns={"x": draw.choice([np.nan, draw.gauss(0, 3)]), "y": draw.gauss(5, 3), "ok": 1.0, "word": draw.choice([None, *"abc"])},
        )
        for at_ms in times_ms
    ]
    shuffled = sorted(log, key=lambda one: one.time_ms + draw.randrange(LATENESS_MS))
    one, other = final(ANY_ORDER, log), final(ANY_ORDER, shuffled)
    for feature, these, those in zip(ANY_ORDER.features, one, other, strict=True):
        if feature.aggregation.name in SAME:
            assert bits(np.array([[these]])) == bits(np.array([[those]])), feature.name
        else:
            assert these == pytest.approx(those, rel=1e-9, abs=1e-9, nan_ok=True), feature.name


def test_those_that_follow_offsets_say_so() -> None:
    """Streak, lag and change ignore an event that is older than the newest, and their description says it."""
    assert {"streak", "lag", "change"} == ORDERED
    view = hr.FeatureView(
        "v",
        entity="sensor",
        source=SOURCE,
        features=[hr.streak(hr.col("y") > 0, over="1m"), hr.lag("y", over="1m"), hr.change("y", over="1m")],
    )
    log = [
        Happening(entity="a", time_ms=NOON_MS + at_ms, columns={"x": 0.0, "y": y, "ok": 1.0, "word": None})
        for at_ms, y in ((0, 1.0), (2_000, 3.0), (1_000, -7.0), (3_000, 4.0))
    ]
    assert Folded([view], log).values.tolist()[1:] == [[2.0, 1.0, 2.0], [2.0, 1.0, 2.0], [3.0, 3.0, 1.0]]
    assert all("an event older than the newest of its entity is ignored" in feature.description for feature in view.features)
