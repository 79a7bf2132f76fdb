from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import DefinitionError
from headrace.expression import Expression, Kind, category, col, hashed, mapped
from headrace.expression.category import hash_of

KINDS: dict[str, Kind] = {"word": "text", "x": "number"}


def asked(expression: Expression, texts: Sequence[str | None]) -> list[float | None]:
    """What an expression over `word` gives; absent as None."""
    found = expression.evaluate({"word": np.array(texts, dtype=object)})
    return [None if math.isnan(one) else one for one in found.tolist()]


def test_mapping() -> None:
    """A text becomes its declared number, others `other`, none `absent`; both are absent unless they were declared."""
    words = ["AA", "UA", "ZZ", None]
    assert asked(mapped("word", {"AA": 0, "UA": 1.5}, other=-1, absent=-2), words) == [0.0, 1.5, -1.0, -2.0]
    assert asked(mapped(col("word"), {"AA": 0}), words) == [0.0, None, None, None]


def test_mapping_of_whole_numbers() -> None:
    """A whole number is mapped as a text is."""
    found = mapped("x", {1: 10, 2: 20}, other=0, absent=-1)
    assert found.evaluate({"x": np.array([1.0, 2.0, 2.5, math.nan])}).tolist() == [10.0, 20.0, 0.0, -1.0]
    assert found.kind(KINDS, where="here") == "number"
    with pytest.raises(DefinitionError, match="needs text, but is given number"):
        mapped("x", {"AA": 1}).kind(KINDS, where="here")
    with pytest.raises(DefinitionError, match="needs numbers, but is given text"):
        mapped("word", {1: 1}).kind(KINDS, where="here")


def test_mappings_have_one_form() -> None:
    """The order in which a mapping was written decides nothing; every number in it does."""
    form = mapped("word", {"UA": 1, "AA": 0}, other=-1).canonical()
    assert form == {
        "op": "mapped",
        "of": [{"field": "word"}],
        "with": {"to": [["AA", 0.0], ["UA", 1.0]], "other": -1.0, "absent": None},
    }
    assert mapped("word", {"AA": 0.0, "UA": 1}, other=-1.0).canonical() == form
    others = [
        mapped("word", {"AA": 0, "UA": 2}, other=-1),
        mapped("word", {"AA": 0, "UA": 1}),
        mapped("word", {"AA": 0, "UA": 1}, absent=-1),
    ]
    assert all(other.canonical() != form for other in others)


@given(st.lists(st.none() | st.text(), max_size=30), st.integers(2, 1_000), st.integers(0, 29))
def test_hash(texts: list[str | None], buckets: int, cut: int) -> None:
    """A bucket is a function of the text alone, whatever was hashed before and however the batch was cut."""
    found = asked(hashed("word", buckets=buckets, absent=-1), texts)
    plain = [-1.0 if text is None else float(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % buckets) for text in texts]
    assert found == plain
    again = hashed("word", buckets=buckets, absent=-1)
    assert asked(again, texts[:cut]) + asked(again, texts[cut:]) == found


def test_hash_is_for_ever() -> None:
    """These texts keep these hashes: if this fails, models see other buckets than they learned from."""
    assert [f"{hash_of(text):x}" for text in ("", "AA", "Zürich", "x" * 1_000)] == [
        "e3b0c44298fc1c14",
        "58bb119c35513a45",
        "4251685e06cab635",
        "44f8354494a5ba03",
    ]


def test_hash_spreads() -> None:
    """Ten thousand names fall into 64 buckets about evenly."""
    counts = Counter(asked(hashed("word", buckets=64), [f"N{number}" for number in range(10_000)]))
    assert len(counts) == 64
    assert max(counts.values()) < 1.5 * 10_000 / 64


def test_hash_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is bounded, and long texts are not remembered."""
    monkeypatch.setattr(category, "REMEMBERED", 10)
    buckets = category.Buckets(count=8, absent=math.nan)
    for number in range(40):
        buckets.apply(np.array([f"N{number}", "x" * 10_000], dtype=object))
    assert len(buckets._seen) <= 11
    assert max(map(len, buckets._seen)) < 10


def test_how_they_are_written() -> None:
    """Both name their field and say what was declared, long mappings in short."""
    assert repr(mapped("word", {"AA": 0, "UA": 1.5}, other=-1)) == "mapped(word, {'AA': 0, 'UA': 1.5}, other=-1, absent=None)"
    assert repr(mapped("word", {f"{at}": at for at in range(9)})).startswith(
        "mapped(word, {'0': 0, '1': 1, '2': 2, ... 9 in all}, other=None"
    )
    assert repr(hashed("word", buckets=64)) == "hashed(word, buckets=64)"
    assert repr(hashed("word", buckets=64, absent=-1)) == "hashed(word, buckets=64, absent=-1)"
    assert (mapped("word", {"AA": 0}).name(), hashed("word", buckets=8).name()) == ("mapped_word", "hashed_word")
    assert hashed("word", buckets=8).canonical() == {
        "op": "hashed",
        "of": [{"field": "word"}],
        "with": {"hash": "sha256-64", "buckets": 8, "absent": None},
    }


@pytest.mark.parametrize("mapping", [{}, {"AA": 0, 1: 1}, {1.5: 1}, {True: 1}, {None: 1}])
def test_refused_mappings(mapping: dict[Any, float]) -> None:
    """A mapping lists at least one value, all texts or all whole numbers."""
    with pytest.raises(DefinitionError, match=r"hr.mapped\('word', ...\): list at least one value"):
        mapped("word", mapping)


def test_refused_numbers() -> None:
    """What stands for a text is a finite number; buckets are at least two."""
    for wrong in (math.nan, math.inf, "1", None):
        with pytest.raises(DefinitionError, match="is no finite number"):
            mapped("word", {"AA": wrong})  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="other: nan is no finite number"):
        mapped("word", {"AA": 1}, other=math.nan)
    with pytest.raises(DefinitionError, match="absent: inf is no finite number"):
        hashed("word", buckets=4, absent=math.inf)
    for count in (1, 0, 2.0, True, 1 << 40):
        with pytest.raises(DefinitionError, match="must be a whole number from 2 to"):
            hashed("word", buckets=count)  # type: ignore[arg-type]
