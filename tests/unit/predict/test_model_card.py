"""Model cards and the words that a file keeps: there and back, refused where wrong, read safely where damaged."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict.agreement import agreement_in
from headrace.predict.lineage import lineage_in
from headrace.predict.model_card import ModelCard, card_in, markdown
from tests.unit.predict.small_models import signature

CARD = ModelCard(
    owner="Ann",
    contact="ann@example.org",
    use="Late arrivals of departures from New York; not for cargo.",
    training="Flights of January to June 2013.",
    metrics={"brier": 0.09, "AUC": 0.905},
    limits="Airlines\nthat began | later.",
)


def test_a_card_goes_into_a_file_and_back() -> None:
    """What is written is read again, with metrics by name, and twice the same text."""
    assert card_in(CARD.entries()) == CARD
    assert list(CARD.metrics) == ["AUC", "brier"]
    assert ModelCard.from_plain(CARD.as_plain()).entries() == CARD.entries()
    assert card_in({}) is None


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({}, "owner is missing"),
        ({"owner": " "}, "owner is empty"),
        ({"owner": "Ann", "use": 5}, "use is int; write a text"),
        ({"owner": "Ann", "metrics": [1]}, "metrics is list; write for example"),
        ({"owner": "Ann", "metrics": {"AUC": "0.9"}}, "metric 'AUC' is '0.9'; write a finite number"),
        ({"owner": "Ann", "metrics": {"AUC": float("nan")}}, "metric 'AUC' is nan; write a finite number"),
        ({"owner": "Ann", "metrics": {"AUC": True}}, "metric 'AUC' is True"),
        ({"owner": "Ann", "author": "Bob"}, "ModelCard has no field 'author'; it has owner, contact, use, training, metrics, limits"),
    ],
)
def test_a_wrong_field_is_named(plain: dict[str, Any], said: str) -> None:
    """A card that says nothing of its owner, or something of the wrong kind, is refused by field."""
    with pytest.raises(DefinitionError, match=said):
        ModelCard.from_plain(plain)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"owner": 5}', '{"owner": "Ann", "metrics": {"AUC": NaN}}'])
def test_a_damaged_entry_is_told(text: str) -> None:
    """What stands in a file in the place of a card, a lineage or an agreement and is none is an error that says what to do."""
    with pytest.raises(SignatureMismatch, match="stamp it again"):
        card_in({"headrace.card": text})
    with pytest.raises(SignatureMismatch, match="stamp it again"):
        agreement_in({"headrace.agreement": text})
    if not text.startswith('{"'):
        with pytest.raises(SignatureMismatch, match="stamp it again"):
            lineage_in({"headrace.lineage": text})


def test_a_card_is_read_as_markdown() -> None:
    """Every field that was written has its heading; a text keeps its lines, a cell and a heading stay on theirs."""
    told = markdown(signature(name="late", version="2|x"), CARD)
    assert told.startswith("# late, version 2\\|x\n\nOwner: Ann (ann@example.org)\n\n## Use\n\nLate arrivals")
    assert "## Limits\n\nAirlines\nthat began | later.\n" in told
    assert "| metric | value |\n| --- | ---: |\n| AUC | 0.905 |\n| brier | 0.09 |" in told
    assert "## Trained on" not in told
    bare = markdown(signature(), ModelCard(owner="Ann"))
    assert [line for line in bare.splitlines() if line.startswith("## ")] == ["## What it takes and gives"]


def test_a_lineage_of_any_form_is_told() -> None:
    """A frame's lineage is told by its parts, whatever else is kept as it stands."""
    offsets = {"pay|ments": {"10": [5, 9], "2": [0, 7]}}
    told = markdown(signature(), None, {"rows": 12_345, "hash": "ab12", "recipe": "m:f", "offsets": offsets})
    for line in ("- 12,345 rows", "- content `ab12`", "- recipe `m:f`", "- pay\\|ments, offsets by partition: 2: 0 to 7, 10: 5 to 9"):
        assert line in told.splitlines()
    assert '- {"from": "an archive"}' in markdown(signature(), None, {"from": "an archive"}).splitlines()
