"""What a scenario changes in events, and what it refuses to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import Field

import headrace as hr
from headrace.errors import DefinitionError
from headrace.expression import Column
from headrace.source import ContractField, contract_of
from headrace.training.changed_inputs import assignments, breaches, changed_inputs
from headrace.types import EventBatch, RecordBatch
from tests.unit import boarding
from tests.unit.training import shop


def batch(**columns: Sequence[object]) -> EventBatch:
    """Events of the shop with these columns; texts as objects."""
    count = len(next(iter(columns.values())))
    kinds = shop.payments.kinds
    found: dict[str, Any] = {
        name: np.array(values, dtype=object if kinds[name] == "text" else np.float64) for name, values in columns.items()
    }
    records = RecordBatch(
        topic="payments.v1",
        partitions=np.zeros(count, dtype=np.int32),
        offsets=np.arange(count),
        timestamps_ms=np.zeros(count, dtype=np.int64),
        keys=[b"card"] * count,
        values=[b""] * count,
        headers=[None] * count,
    )
    return EventBatch(
        records=records, rows=np.arange(count), entities=["card"] * count, event_times_ms=np.zeros(count, dtype=np.int64), columns=found
    )


def listed(columns: Mapping[str, Column]) -> dict[str, list[object]]:
    """Columns as lists; absent is None."""
    return {
        name: [None if isinstance(one, float) and math.isnan(one) else one for one in values.tolist()] for name, values in columns.items()
    }


def test_fields_change_at_once_and_inside_only() -> None:
    """Each expression reads the event as it was; a dropped field has no value; what lies outside is left alone, and so is the batch."""
    events = batch(amount=[1.0, 2.0, 3.0], pieces=[10.0, math.nan, 30.0], online=[1.0, 0.0, 1.0], shop=["books", None, "food"])
    change = changed_inputs(shop.fraud, inputs={"amount": "pieces / 10", "pieces": hr.col("amount"), "online": False}, drop_inputs=["shop"])
    inside = np.array([True, True, False])
    found, _ = change.applied(events, inside)
    assert listed(found.columns) == {
        "amount": [1.0, None, 3.0],
        "pieces": [1.0, 2.0, 30.0],
        "online": [0.0, 0.0, 1.0],
        "shop": [None, None, "food"],
    }
    assert listed(events.columns)["amount"] == [1.0, 2.0, 3.0]
    assert change.applied(events, ~inside & inside) == (events, {})
    assert change.words() == [
        "amount = (pieces / 10)",
        "pieces = amount",
        "online = False",
        "shop missing in every event",
    ]


def test_a_text_may_be_set_to_another() -> None:
    """A constant text, or another field that is text."""
    events = batch(shop=["books", None])
    assert listed(changed_inputs(shop.fraud, inputs={"shop": "'food'"}).applied(events, np.ones(2, dtype=np.bool_))[0].columns) == {
        "shop": ["food", "food"]
    }


def test_what_the_contract_forbids_is_counted() -> None:
    """A required field without a value, a part of a whole piece: by field, of the events that were changed."""
    events = batch(amount=[1.0, 2.0, 3.0], pieces=[1.0, 2.0, math.nan])
    change = changed_inputs(shop.fraud, inputs={"pieces": "pieces / 2"}, drop_inputs=["amount"])
    assert change.applied(events, np.array([True, True, True]))[1] == {"amount": 3, "pieces": 1}
    assert change.applied(events, np.array([False, False, True]))[1] == {"amount": 1}


class Bounded(hr.Event):
    """A contract with everything that can forbid a value."""

    whole: int = Field(ge=0, lt=10)
    number: float | None = Field(default=None, gt=0, le=1)
    word: str = Field(min_length=2, max_length=3, pattern="^a")
    instant: hr.EventTime


@pytest.mark.parametrize(
    ("name", "values", "forbidden"),
    [
        ("whole", [-1.0, 0.0, 9.0, 10.0, 0.5, math.nan], [True, False, False, True, True, True]),
        ("number", [0.0, 0.5, 1.0, 1.5, math.nan], [True, False, False, True, False]),
        ("word", ["a", "ab", "abc", "abcd", "ba", None], [True, False, False, True, True, True]),
        ("word", ["ab", "ab"], [False, False]),
        ("instant", [5.0, 5.5], [False, True]),
    ],
)
def test_every_bound_of_a_contract(name: str, values: list[object], forbidden: list[bool]) -> None:
    """Bounds, lengths, patterns, whole numbers, and absence where it is not allowed."""
    field = next(one for one in contract_of(Bounded) if one.name == name)
    column = np.array(values, dtype=object if name == "word" else np.float64)
    assert breaches(field, column).tolist() == forbidden


def test_choices_are_a_bound() -> None:
    """A text that is not on the closed list is forbidden."""
    field = ContractField(name="x", kind="text", choices=("a", "b"), optional=True)
    assert breaches(field, np.array(["a", "c", None], dtype=object)).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"inputs": {"amout": "1"}}, r"has no field 'amout'; is it 'amount'\?"),
        ({"drop_inputs": ["colour"]}, "has no field 'colour'; it has id, card, at"),
        ({"inputs": {"at": "at + 1"}}, "'at' is the event time of an event, which a scenario leaves as it is"),
        ({"inputs": {"card": "'x'"}}, "'card' is .* of an event, which a scenario leaves as it is"),
        ({"drop_inputs": ["id"]}, "'id' is what outcomes are joined by of an event"),
        ({"inputs": {"amount": "amuont + 1"}}, "amount: the event has no field 'amuont'"),
        ({"inputs": {"amount": "amount +"}}, "amount: 'amount \\+' is no expression"),
        ({"inputs": {"amount": "shop"}}, "amount = shop is a text, and the field is a number"),
        ({"inputs": {"online": "1"}}, r"online = 1 is a number, and the field is a condition \(or True, or False\)"),
        ({"inputs": {"shop": "amount"}}, "shop = amount is a number, and the field is a text"),
        ({"inputs": {"amount": math.nan}}, "amount: the event has no field 'nan'"),
        ({"inputs": {"amount": 1}, "drop_inputs": ["amount"]}, "'amount' is both set and dropped"),
        ({"empty_features": ["count_1d"]}, r"there is neither a feature nor a view 'count_1d'; is it 'count_1h'\?"),
    ],
)
def test_what_cannot_be_changed(wanted: dict[str, Any], says: str) -> None:
    """The field or feature is named, and why, and what there is."""
    with pytest.raises(DefinitionError, match=f"^scenario of Pipeline\\('fraud'\\).*{says}"):
        changed_inputs(shop.fraud, **wanted)


def test_entities_of_later_stages_and_of_look_ups_stay() -> None:
    """They decide where an event is kept, or whom it asks."""
    (pipeline,) = boarding.app.pipelines
    with pytest.raises(DefinitionError, match="'origin' is an entity of an event"):
        changed_inputs(pipeline, inputs={"origin": "'JFK'"})


def test_a_field_that_no_feature_reads_is_refused() -> None:
    """A change of it would be no change, and the way to say so is to name those that are read."""
    lonely = hr.Pipeline("lonely", source=shop.payments, event_features=["amount"], predictions="lonely.v1")
    with pytest.raises(DefinitionError, match="no feature reads 'pieces', so nothing would change; they read amount"):
        changed_inputs(lonely, drop_inputs=["pieces"])


def test_features_are_named_whole_in_part_or_by_their_view() -> None:
    """All that are meant are emptied, in the order of the vector."""
    whole = shop.fraud.feature_names
    assert changed_inputs(shop.fraud, empty_features=["books", "spending.count_1h", "last_amount"]).empties == (
        "spending.count_1h",
        "spending.last_amount",
        "books",
    )
    assert changed_inputs(shop.fraud, empty_features=["spending"]).empties == tuple(name for name in whole if name.startswith("spending."))


def test_assignments_as_they_are_written() -> None:
    """The first = parts field and expression; a comparison is none, and a field is set once."""
    assert assignments(["a=b + 1", " c = (d == 2) "], where="--set") == {"a": "b + 1", "c": "(d == 2)"}
    for text in ("a", "a==b", "=b", "a =", "1a=2"):
        with pytest.raises(DefinitionError, match=r"^--set: .* names no field to set; write FIELD=EXPRESSION"):
            assignments([text], where="--set")
    with pytest.raises(DefinitionError, match="'a' is set twice"):
        assignments(["a=1", "a=2"], where="--set")
