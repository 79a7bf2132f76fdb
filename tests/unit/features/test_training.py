from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.features.reader import StateReader
from headrace.features.training import HistoryFold, Questions, event_vectors
from headrace.types import NO_WATERMARK_MS, TopicPartition
from tests.laws.readings import EVERYTHING, SMALL, logs
from tests.unit.features.folding import TOPIC, Folded, batch_of, bits, offsets_of
from tests.unit.features.naive import Happening

PIPELINE = hr.Pipeline("p", views=[EVERYTHING, SMALL], event_features=["x", hr.col("y").abs()], predictions="predictions.v1")


@given(logs(), st.integers(0, 25))
def test_frame_is_what_was_served(happenings: list[Happening], cut: int) -> None:
    """Row i of a training frame is, bit for bit, the vector that was served for event i, then the event's own features."""
    offsets = offsets_of(happenings)
    batches = [batch_of(happenings[part], offsets[part]) for part in (slice(0, cut), slice(cut, None)) if happenings[part]]
    frame = event_vectors(PIPELINE, batches)
    served = Folded([EVERYTHING, SMALL], happenings, range(1, len(happenings)))
    own = np.array([[one.columns["x"], abs(float(one.columns["y"] or 0.0))] for one in happenings])
    assert bits(frame.values) == bits(np.column_stack((served.values, own)))
    assert frame.names == PIPELINE.feature_names
    assert frame.late.tolist() == served.late.tolist()
    assert frame.entities == [one.entity for one in happenings]
    assert frame.event_times_ms.tolist() == [one.time_ms for one in happenings]
    assert list(zip(frame.partitions.tolist(), frame.offsets.tolist(), strict=True)) == [
        (one.partition, offset) for one, offset in zip(happenings, offsets, strict=True)
    ]


@given(logs(), st.integers(1, 4), st.integers(1, 7))
def test_entities_may_be_folded_apart(happenings: list[Happening], groups: int, length: int) -> None:
    """Dealt out by partition and entity, with the watermark that each of them found, events give the vectors and late marks of the log."""
    offsets = offsets_of(happenings)
    batch = batch_of(happenings, offsets)
    expected, were_late = HistoryFold(PIPELINE.views).fold(batch)
    found_ms = np.full(len(happenings), NO_WATERMARK_MS)
    for place, one in enumerate(happenings):
        before = [other.time_ms for other in happenings[:place] if other.partition == one.partition]
        found_ms[place] = max(before, default=NO_WATERMARK_MS)
    values, late = np.empty_like(expected), np.empty_like(were_late)
    for group in range(groups):
        mine = [place for place, one in enumerate(happenings) if zlib.crc32(f"{one.partition} {one.entity}".encode()) % groups == group]
        fold = HistoryFold(PIPELINE.views)
        for begin in range(0, len(mine), length):
            some = mine[begin : begin + length]
            part = batch_of([happenings[place] for place in some], [offsets[place] for place in some])
            values[some], late[some] = fold.fold_apart(part, found_ms[some])
    assert bits(values) == bits(expected)
    assert late.tolist() == were_late.tolist()


def test_empty_log() -> None:
    """A log without events gives a frame without rows."""
    frame = event_vectors(PIPELINE, [])
    assert len(frame) == 0
    assert frame.values.shape == (0, len(PIPELINE.feature_names))


def asked(happenings: list[Happening], entity: str, partition: int, as_of_ms: int) -> tuple[list[float], bool]:
    """What a look-up finds in the states packed just before the partition's first event that lies after an instant; whether it was seen."""
    before: list[Happening] = []
    for one in happenings:
        if one.partition == partition and one.time_ms > as_of_ms:
            break
        if one.partition == partition:
            before.append(one)
    views = (EVERYTHING, SMALL)
    if not before:
        return [value for view in views for value in StateReader(view).vectors([None], as_of_ms)[0].tolist()], False
    folded = Folded(views, before)
    seen = any(one.entity == entity and not late for one, late in zip(before, folded.late.tolist(), strict=True))
    packed = [folded.store.states.get((TopicPartition(TOPIC, partition), view.fp), {}).get(entity.encode()) for view in views]
    found = [StateReader(view).vectors([one], as_of_ms)[0].tolist() for view, one in zip(views, packed, strict=True)]
    return [value for values in found for value in values], seen


QUESTIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(-5_000, 120_000)), min_size=1, max_size=12)


@given(logs(), st.integers(0, 25), QUESTIONS)
def test_answers_know_what_was_known_then(happenings: list[Happening], cut: int, wanted: list[tuple[int, int]]) -> None:
    """An answer is, bit for bit, what a look-up finds when event time has come so far, in any order of events, in any cut."""
    first_ms = min(one.time_ms for one in happenings)
    questions = Questions(
        partitions=np.array([which // 3 for which, _ in wanted], dtype=np.int32),
        entities=["abc"[which % 3] for which, _ in wanted],
        times_ms=np.array([first_ms + after for _, after in wanted], dtype=np.int64),
    )
    offsets = offsets_of(happenings)
    history = HistoryFold(PIPELINE.views, questions)
    for part in (slice(0, cut), slice(cut, None)):
        if happenings[part]:
            history.fold(batch_of(happenings[part], offsets[part]))
    answers = history.answers()
    expected = [
        asked(happenings, entity, int(partition), int(as_of_ms))
        for entity, partition, as_of_ms in zip(questions.entities, questions.partitions, questions.times_ms, strict=True)
    ]
    assert bits(answers.values) == bits(np.array([values for values, _ in expected]))
    assert answers.known.tolist() == [known for _, known in expected]


@given(logs(), st.integers(0, 25), QUESTIONS)
def test_asking_changes_nothing(happenings: list[Happening], cut: int, wanted: list[tuple[int, int]]) -> None:
    """The vectors of events are the same bits, whatever is asked in between."""
    first_ms = min(one.time_ms for one in happenings)
    questions = Questions(
        partitions=np.array([which // 3 for which, _ in wanted], dtype=np.int32),
        entities=["abc"[which % 3] for which, _ in wanted],
        times_ms=np.array([first_ms + after for _, after in wanted], dtype=np.int64),
    )
    offsets = offsets_of(happenings)
    quiet, busy = HistoryFold(PIPELINE.views), HistoryFold(PIPELINE.views, questions)
    for part in (slice(0, cut), slice(cut, None)):
        if happenings[part]:
            batch = batch_of(happenings[part], offsets[part])
            assert bits(quiet.fold(batch)[0]) == bits(busy.fold(batch)[0])


@given(logs(), st.integers(0, 25), st.sampled_from([500, 7_000, 60_000]))
def test_a_grid_is_the_answers_to_all_its_instants(happenings: list[Happening], cut: int, step_ms: int) -> None:
    """Each row of a grid is the answer for its entity and instant, and whoever has something in a window has a row."""
    offsets = offsets_of(happenings)
    batches = [batch_of(happenings[part], offsets[part]) for part in (slice(0, cut), slice(cut, None)) if happenings[part]]
    history = HistoryFold(PIPELINE.views)
    rows = [row for batch in batches for row in history.fold_on_grid(batch, step_ms)] + list(history.last_on_grid(step_ms))
    found = [(row.partition, row.as_of_ms, *one) for row in rows for one in zip(row.entities, map(str, row.values.tolist()), strict=True)]
    wanted = []
    for partition in (0, 1):
        times = [one.time_ms for one in happenings if one.partition == partition]
        instants = range(-(-times[0] // step_ms) * step_ms, max(times) + 1, step_ms) if times else ()
        wanted += [(partition, as_of_ms, entity) for as_of_ms in instants for entity in "abc"]
    asking = HistoryFold(
        PIPELINE.views,
        Questions(
            partitions=np.array([partition for partition, _, _ in wanted], dtype=np.int32),
            entities=[entity for _, _, entity in wanted],
            times_ms=np.array([as_of_ms for _, as_of_ms, _ in wanted], dtype=np.int64),
        ),
    )
    for batch in batches:
        asking.fold(batch)
    answers = asking.answers().values.tolist()
    nobody = Questions(partitions=np.zeros(1, np.int32), entities=["a"], times_ms=np.zeros(1, np.int64))
    nothing = str(HistoryFold(PIPELINE.views, nobody).answers().values[0].tolist())
    expected = {(*one, str(values)) for one, values in zip(wanted, answers, strict=True)}
    assert len(found) == len(set(found))
    assert set(found) <= expected
    assert {one for one in expected if one[3] != nothing} <= set(found)
