"""Corrections are what sorting and folding everything again gives, however the log is cut, packed, forgotten or begun late."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.features import resident
from headrace.features.aggregation import CATALOGUE
from headrace.features.resident import ResidentStates
from headrace.features.retained_view import RetainedView
from headrace.features.same import same_kept
from headrace.types import NO_WATERMARK_MS, TopicPartition
from tests.laws.readings import ALONE, LATENESS_MS, SOURCE, WORDS, cuts_of, logs, view_of
from tests.retelling import Moment, Told, Vector, retold
from tests.unit.features.folding import TOPIC, DictStore, Folded, batch_of, bits, offsets_of
from tests.unit.features.naive import Happening

NOON_MS = 1_700_000_000_000
MOMENTS = hr.FeatureView(
    "moments",
    entity="sensor",
    source=SOURCE,
    features=[
        hr.count(over=["4s", "1m"]),
        hr.mean("x", over="20s"),
        hr.std("y", over="20s", pane="5s"),
        hr.max("y", over="4s"),
        hr.last("y", over="20s"),
        hr.seconds_since_last(),
        hr.z_score("y", over="1m"),
    ],
)
SKETCHES = hr.FeatureView(
    "sketches",
    entity="sensor",
    source=SOURCE,
    features=[
        hr.distinct("word", over="20s"),
        hr.quantile("y", 0.5, over="20s"),
        hr.first("y", over="20s"),
        hr.decayed_sum("y", half_life="5s", horizon="20s"),
    ],
)


def retained(*, most: int = 256) -> RetainedView:
    """What a pipeline of both views keeps."""
    return RetainedView("fraud", [MOMENTS, SKETCHES], extras=[("y", hr.col("y"))], join="word", most=most)


class Corrections:
    """The corrections that the fold tells of a log; `forgetful`: after each batch all is read from the store again."""

    def __init__(
        self, view: RetainedView, happenings: Sequence[Happening], cuts: Sequence[int], *, forgetful: bool = False, begin: int = 0
    ) -> None:
        self.told: list[Told] = []
        self.extras: list[tuple[float, str | None]] = []
        self.states = ResidentStates(views=view.views, retained=[view], read=self._read)
        self.store = DictStore(self.states.kept)
        self._partitions = {one.partition for one in happenings}
        offsets = offsets_of(happenings)
        for number in self._partitions:
            self._start(number, NO_WATERMARK_MS, empty=True)
        for begins, ends in zip([begin, *cuts], [*cuts, len(happenings)], strict=True):
            if begins < ends:
                self._fold(happenings[begins:ends], offsets[begins:ends], forgetful=forgetful)

    def _read(self, partition: TopicPartition, keys: Sequence[bytes]) -> dict[str, list[bytes | None]]:
        return {fp: list(states) for fp, states in self.store.read(partition, keys).items()}

    def _start(self, number: int, watermark_ms: int, *, empty: bool) -> None:
        name = TopicPartition(TOPIC, number)
        starts = {one.fp: self.store.ends.get((name, one.fp), 0) for one in self.states.kept}
        self.states.start(name, starts, watermark_ms, empty=empty)

    def _fold(self, some: Sequence[Happening], offsets: Sequence[int], *, forgetful: bool) -> None:
        events = batch_of(some, offsets)
        found = self.states.fold(events).corrected.get("fraud")
        if found is not None:
            partitions = [some[cause].partition for cause in found.causes.tolist()]
            vectors = bits(np.ascontiguousarray(found.values[:, :-1]))
            for place, number in enumerate(partitions):
                cause = (number, int(events.records.offsets[found.causes[place]]))
                self.told.append(Told(cause, (number, int(found.offsets[place])), int(found.revisions[place]), tuple(vectors[place])))
                self.extras.append((float(found.values[place, -1]), found.joins[place]))
        ends = {TopicPartition(TOPIC, one.partition): offset + 1 for one, offset in zip(some, offsets, strict=True)}
        if forgetful or len(some) % 2:
            self.store.apply(self.states.pack(ends))
            for name, end in ends.items():
                self.states.applied(name, end)
                if forgetful:
                    self._start(name.partition, self.states.watermark_ms(name), empty=False)


def naively(view: RetainedView, happenings: Sequence[Happening]) -> list[Told]:
    """All corrections of a log by naive means."""
    offsets = offsets_of(happenings)
    log = [Moment(one.partition, offset, one.entity, one.time_ms) for one, offset in zip(happenings, offsets, strict=True)]

    def fold(numbers: Sequence[int]) -> list[Vector]:
        line = [happenings[number] for number in numbers]
        return [tuple(row) for row in bits(Folded(view.views, line).values)] if line else []

    return retold(log, fold, lateness_ms=LATENESS_MS, most=view.most)


def in_order(told: Sequence[Told], happenings: Sequence[Happening]) -> list[Told]:
    """In the order of causes in the log, and of the times of what they correct."""
    places = list(zip((one.partition for one in happenings), offsets_of(happenings), strict=True))
    times = dict(zip(places, (one.time_ms for one in happenings), strict=True))
    return sorted(told, key=lambda one: (places.index(one.cause), times[one.about], one.about))


@settings(deadline=None)
@given(st.data())
def test_corrections_are_those_of_sorting_everything(drawn: st.DataObject) -> None:
    """Vectors to the bit, how many each event has had, what caused them and in which order: as by naive means, in any cut."""
    log = drawn.draw(logs(most=30))
    view = retained(most=drawn.draw(st.sampled_from([1, 2, 3, 256])))
    found = Corrections(view, log, drawn.draw(cuts_of(len(log))), forgetful=drawn.draw(st.booleans()))
    assert found.told == in_order(naively(view, log), log)


def noisy(seed: int, count: int, *, entities: str = "ab") -> list[Happening]:
    """A log of which every third event is out of order, all within the lateness."""
    draw = random.Random(seed)
    log, now_ms = [], NOON_MS
    for _ in range(count):
        now_ms += draw.choice([0, 100, 700, 2_500])
        columns: dict[str, float | str | None] = {
            "x": draw.choice([np.nan, draw.gauss(0, 3)]),
            "y": draw.gauss(5, 3),
            "ok": 1.0,
            "word": draw.choice([None, *"abc"]),
        }
        back_ms = draw.choice([0, 0, draw.randrange(LATENESS_MS)])
        log.append(Happening(entity=draw.choice(entities), time_ms=now_ms - back_ms, columns=columns))
    return log


def test_what_is_carried_along_is_that_of_the_corrected_event() -> None:
    """A correction has the event features and the join of the event it corrects, also when it was read from the store."""
    log = noisy(1, 60)
    found = Corrections(retained(), log, list(range(1, 60)), forgetful=True)
    assert len(found.told) > 40
    abouts = [log[one.about[1]] for one in found.told]
    assert found.extras == [(one.columns["y"], one.columns["word"]) for one in abouts]


def test_entities_are_given_up_where_they_retain_too_much() -> None:
    """What is retained counts as memory: entities come and go, and every correction is the same."""
    log = noisy(3, 300, entities=string.ascii_letters)
    cuts = list(range(5, 300, 5))
    with patch.object(resident, "_MOST_CELLS", 100):
        found = Corrections(retained(), log, cuts)
    assert found.store.reads > 5
    assert found.told == Corrections(retained(), log, cuts).told != []


def test_an_event_at_the_horizon_settles_at_once() -> None:
    """One that is as old as the lateness allows is in time, and nothing can come before it: nothing of its entity is retained, and that is
    read back as well.
    """
    times = [("b", 0), ("a", -LATENESS_MS), ("a", 100), ("a", 50)]
    log = [Happening(entity=who, time_ms=NOON_MS + at_ms, columns={"x": 1.0, "y": 2.0, "ok": 1.0, "word": "a"}) for who, at_ms in times]
    found = Corrections(retained(), log, [1, 2, 3], forgetful=True)
    assert found.told == naively(retained(), log)
    assert [one.about[1] for one in found.told] == [3, 2]


def test_a_fold_that_begins_late_comes_to_the_same() -> None:
    """From where no event before can matter any more, corrections, their numbers and the packed states are those of the whole log."""
    log = noisy(2, 400)
    late = next(number for number, one in enumerate(log) if one.time_ms > log[200].time_ms)
    view = retained(most=4)
    whole, part = Corrections(view, log, [200]), Corrections(view, log, [250], begin=late)
    assert part.told
    name = TopicPartition(TOPIC, 0)
    since_ms = log[late].time_ms + LATENESS_MS + 2 * (view.longest_window_ms + view.longest_pane_ms)
    recent = [one for one in whole.told if log[one.cause[1]].time_ms > since_ms]
    assert recent
    assert recent == [one for one in part.told if log[one.cause[1]].time_ms > since_ms]
    for found in (whole, part):
        found.store.apply(found.states.pack({name: len(log)}))
    ours, theirs = (found.store.states[name, view.fp] for found in (whole, part))
    as_of_ms = max(one.time_ms for one in log) - LATENESS_MS
    for entity in (b"a", b"b"):
        assert same_kept(view, ours[entity], theirs[entity], as_of_ms)
        assert not same_kept(view, ours[entity], None, as_of_ms)
        assert not same_kept(view, ours[entity], theirs[b"ab".replace(entity, b"")], as_of_ms)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_the_last_word_on_an_event_is_the_same_in_any_order(seed: int) -> None:
    """Whatever order events of a log come in, within the lateness: what was told of each last, prediction or correction, is the vector in
    the order of event time, to the bit where features count or choose, else to 1e-9.
    """
    draw = random.Random(seed)
    entries = [entry for entry in ALONE if not entry.in_offset_order]
    view = RetainedView(
        "fraud", [view_of(entries, more=[one for one in WORDS if not one.aggregation.in_offset_order])], extras=[], join=None
    )
    times_ms = sorted(draw.sample(range(60_000), 25))
    log = [
        Happening(
            entity="a",
            time_ms=NOON_MS + at_ms,
            columns={"x": draw.choice([np.nan, draw.gauss(0, 3)]), "y": draw.gauss(5, 3), "ok": 1.0, "word": draw.choice([None, *"abc"])},
        )
        for at_ms in times_ms
    ]
    shuffled = sorted(log, key=lambda one: one.time_ms + draw.randrange(LATENESS_MS))
    words = last_words(view, log), last_words(view, shuffled)
    inexact = [feature.aggregation.name not in EXACT for feature in view.views[0].features]
    for time_ms, vector in words[0].items():
        other = words[1][time_ms]
        assert bits(vector[None, np.logical_not(inexact)]) == bits(other[None, np.logical_not(inexact)])
        np.testing.assert_allclose(vector[inexact], other[inexact], rtol=1e-9, atol=1e-9)


EXACT = {"count", "rate", "min", "max", "distinct", "quantile", "mode", "top_k", "last", "seconds_since_last", "first"}
assert {entry.name for entry in CATALOGUE} > EXACT


def last_words(view: RetainedView, log: Sequence[Happening]) -> dict[int, np.ndarray]:
    """By event time, what was told of an event last."""
    states = ResidentStates(views=view.views, retained=[view], read=lambda _, __: {})
    states.start(TopicPartition(TOPIC, 0), {one.fp: 0 for one in states.kept}, NO_WATERMARK_MS, empty=True)
    found = states.fold(batch_of(log, range(len(log))))
    words = {one.time_ms: found.values[number] for number, one in enumerate(log)}
    corrected = found.corrected.get("fraud")
    if corrected is not None:
        words.update(zip(corrected.event_times_ms.tolist(), corrected.values, strict=True))
    return words
