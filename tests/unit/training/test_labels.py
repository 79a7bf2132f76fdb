from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.errors import DefinitionError
from headrace.training.labels import KnownOutcomes, LabelTally, ids_of, join
from tests.unit.training import shop

WITHIN_MS = 100


def naive(outcomes: list[tuple[str, int, float]], rows: list[tuple[str, int]]) -> list[tuple[str, float]]:
    """Why, and what, by looking at everything."""
    found = []
    for own, time_ms in rows:
        mine = sorted([(when, place, value) for place, (name, when, value) in enumerate(outcomes) if name == own])
        after = [(when, value) for when, _, value in mine if when >= time_ms]
        if not mine:
            found.append(("none", np.nan))
        elif not after:
            found.append(("before", np.nan))
        elif after[0][0] - time_ms > WITHIN_MS:
            found.append(("too_late", np.nan))
        else:
            found.append(("unknown" if np.isnan(after[0][1]) else "labelled", after[0][1]))
    return found


IDS, TIMES = st.sampled_from("abcd"), st.integers(0, 300)


@given(
    st.lists(st.tuples(IDS, TIMES, st.sampled_from([0.0, 1.0, float("nan")])), max_size=12),
    st.lists(st.tuples(IDS, TIMES), max_size=12),
)
def test_the_first_outcome_in_time_is_the_label(outcomes: list[tuple[str, int, float]], rows: list[tuple[str, int]]) -> None:
    """Each row gets the first outcome of its id that came with or after it and within the time, and is counted by what became of it."""
    known = KnownOutcomes(
        ids=pa.array([name for name, _, _ in outcomes], pa.string()),
        times_ms=np.array([when for _, when, _ in outcomes], dtype=np.int64),
        values=np.array([value for _, _, value in outcomes], dtype=np.float64),
    )
    labels, why = join(known, [name for name, _ in rows], np.array([when for _, when in rows], dtype=np.int64), WITHIN_MS)
    tally = LabelTally.of(why)
    expected = naive(outcomes, rows)
    np.testing.assert_array_equal(labels, [value for _, value in expected])
    verdicts = [verdict for verdict, _ in expected]
    assert tally.counts() == {name: verdicts.count(name) for name in tally.counts()}
    assert tally.labelled + tally.missing == len(rows)


def test_absent_ids_meet_nobody_and_ids_may_be_numbers() -> None:
    """A row or an outcome without an id is joined to nothing; whole numbers and floats are the same ids, texts are others."""
    known = KnownOutcomes(ids=ids_of([1, None, 2]), times_ms=np.array([5, 5, 5]), values=np.array([1.0, 1.0, 0.0]))
    labels, why = join(known, [2.0, float("nan"), 1.0, None], np.zeros(4, dtype=np.int64), WITHIN_MS)
    tally = LabelTally.of(why)
    np.testing.assert_array_equal(labels, [0.0, np.nan, 1.0, np.nan])
    assert (tally.labelled, tally.none) == (2, 2)
    with pytest.raises(DefinitionError, match="ids of outcomes are int64, those of events string"):
        join(known, ["1"], np.zeros(1, dtype=np.int64), WITHIN_MS)


def outcomes(rows: list[dict[str, Any]], *, after_ms: int = 1_000) -> list[dict[str, Any]]:
    """Every second payment is disputed, one in five never heard of again, one in seven too late."""
    return [
        {
            "id": row["id"],
            "known_at": row["at"] + (7_200_000 if place % 7 == 3 else after_ms),
            "disputed": row["amount"] if place % 2 else 0.0,
        }
        for place, row in enumerate(rows)
        if place % 5 != 1
    ]


def expected_labels(rows: list[dict[str, Any]]) -> list[float | None]:
    """What that comes to."""
    return [None if place % 5 == 1 or place % 7 == 3 else float(place % 2) for place in range(len(rows))]


def test_outcomes_of_a_table_and_of_a_topic_give_the_same_labels() -> None:
    """Labels come from a table or from the topic of outcomes; a later one than declared is none; the frame says how many are missing."""
    rows = shop.rows(140)
    known = outcomes(rows)
    driver = hr.testing.Driver(shop.app, models={"fraud": shop.Counting()}, partitions=1, now_ms=shop.START_MS)
    driver.log.create_topic("chargebacks.v1", 2)
    for row in rows:
        driver.send("payments.v1", **row)
    for one in [*known, {"id": "p1", "known_at": "soon", "disputed": 1.0}]:
        driver.log.append("chargebacks.v1", None, b"any", json.dumps(one).encode())
    topics = hr.Topics.of(driver.log)
    from_table = hr.training_frame(shop.app, events=shop.table(rows), labels=pa.Table.from_pylist(known))
    from_topic = hr.training_frame(shop.app, events=topics, labels=topics)
    assert from_table.table["_label"].to_pylist() == expected_labels(rows)
    assert from_topic.table["_label"].to_pylist() == expected_labels(rows)
    missing = expected_labels(rows).count(None)
    assert from_topic.lineage["offsets"].keys() == {"payments.v1", "chargebacks.v1"}
    assert from_table.lineage["labels"] == from_topic.lineage["labels"]
    assert len(rows) - from_table.lineage["labels"]["labelled"] == missing
    assert f"{missing} without label" in from_table._repr_html_()
    assert set(from_table.names) == set(shop.fraud.feature_names)


def test_the_time_of_an_outcome_can_be_named() -> None:
    """Where a table has its times in another column, that is named; without any the frame is refused."""
    rows = shop.rows(140)
    known = pa.Table.from_pylist(outcomes(rows)).rename_columns(["id", "heard", "disputed"])
    frame = hr.training_frame(shop.app, events=shop.table(rows), labels=known, label_time="heard")
    assert frame.table["_label"].to_pylist() == expected_labels(rows)
    with pytest.raises(DefinitionError, match="no column 'known_at' for the time of an outcome"):
        hr.training_frame(shop.app, events=shop.table(rows), labels=known)
    timeless = hr.Outcomes("c.v1", Timeless, join="id", value=hr.col("disputed") > 0, within="1h")
    pipeline = hr.Pipeline("p", views=[shop.spending], predictions="p.v1", outcomes=timeless)
    with pytest.raises(DefinitionError, match="label_time="):
        hr.training_frame(pipeline, events=shop.table(rows), labels=known)
    assert hr.training_frame(pipeline, events=shop.table(rows), labels=known, label_time="heard").labels[0] == 0.0


class Timeless(hr.Event):
    """An outcome of which the contract does not say when."""

    id: str
    disputed: float


def test_a_column_of_the_events_can_be_the_label() -> None:
    """An expression over the events' own table is the label, row by row, unless a feature reads it."""
    rows = shop.rows(50)
    for place, row in enumerate(rows):
        row["disputed"] = None if place % 9 == 4 else float(place % 3)
    shuffled = [rows[place] for place in np.random.default_rng(2).permutation(len(rows))]
    frame = hr.training_frame(shop.app, events=shop.table(shuffled), labels=hr.col("disputed") > 1)
    assert frame.table["_label"].to_pylist() == [None if row["disputed"] is None else float(row["disputed"] > 1) for row in shuffled]
    with pytest.raises(DefinitionError, match=r"'amount' is read by the feature .*the answer"):
        hr.training_frame(shop.app, events=shop.table(rows), labels=hr.col("amount") > 1)
    with pytest.raises(DefinitionError, match="no column 'answer'"):
        hr.training_frame(shop.app, events=shop.table(rows), labels=hr.col("answer") > 1)


def test_answers_to_questions_have_labels_too() -> None:
    """A table that asks and carries the id of an outcome gets it, if it came within the time after the instant."""
    rows = shop.rows(140)
    at = pa.Table.from_pylist([{"card": row["card"], "as_of": row["at"] + 500, "id": row["id"]} for row in rows])
    known = pa.Table.from_pylist(outcomes(rows))
    frame = hr.training_frame(shop.app, events=shop.table(rows), labels=known, at=at)
    assert frame.table["_label"].to_pylist() == expected_labels(rows)
    with pytest.raises(DefinitionError, match="no column 'id', by which outcomes are joined"):
        hr.training_frame(shop.app, events=shop.table(rows), labels=known, at=at.drop_columns(["id"]))
