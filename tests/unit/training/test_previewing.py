"""What `headrace.preview` shows, and that it shows what a training frame holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.errors import DefinitionError
from tests.unit.training import shop

ROWS = shop.rows(400)
NO_FEATURES: Any = ["count"]


@pytest.fixture
def outcomes() -> pa.Table:
    """Outcomes of all payments, one second behind them."""
    found = [{"id": row["id"], "known_at": row["at"] + 1_000, "disputed": float(row["amount"] > 10)} for row in ROWS]
    return pa.Table.from_pylist(found)


def columns(table: pa.Table, names: list[str]) -> list[list[int]]:
    """The values of columns as bits."""
    return shop.bits(np.column_stack([table[name].to_numpy() for name in names]))


def test_values_are_those_of_the_training_frame(outcomes: pa.Table) -> None:
    """There is one fold: the preview of a pipeline has the values, names and outcomes of its training frame."""
    found = hr.preview(shop.app, events=shop.table(ROWS), outcome=outcomes)
    frame = hr.training_frame(shop.app, events=shop.table(ROWS), labels=outcomes)
    assert [one.name for one in found.features] == list(frame.names)
    assert columns(found.frame, list(frame.names)) == shop.bits(frame.values)
    assert found.training.hash == frame.hash
    (amount,) = [one.distribution for one in found.features if one.name == "amount"]
    assert amount.outcome is not None
    assert (amount.outcome.measure, amount.outcome.value, amount.outcome.rows) == ("AUC", 1.0, 400)


@pytest.mark.parametrize("given", ["table", "parquet", "pandas"])
def test_a_view_alone(given: str, tmp_path: Path) -> None:
    """A view needs no pipeline; its events come as a path or any table, as for a training frame."""
    table = shop.table(ROWS)
    pq.write_table(table, tmp_path / "payments.parquet")
    events: Any = {"table": table, "parquet": tmp_path / "payments.parquet", "pandas": pd.DataFrame(ROWS)}[given]
    found = hr.preview(shop.spending, events=events)
    frame = hr.training_frame(shop.app, events=table)
    names = [f"spending.{name}" for name in shop.spending.feature_names]
    assert [one.name for one in found.features] == names
    assert columns(found.frame, names) == columns(frame.table, names)
    assert [one.unit for one in found.features][:3] == ["events", "events", "EUR"]


def test_a_feature_alone_and_one_that_is_in_no_view_yet() -> None:
    """A feature of a view is shown as it is there; a new one needs to know of which events, or beside which view, it is."""
    events = shop.table(ROWS)
    place = shop.spending.feature_names.index("mean_amount_1h")
    one = hr.preview(shop.spending.features[place], events=events, of=shop.spending)
    new = hr.preview(hr.mean("amount", over="1h"), events=events, of=shop.payments)
    beside = hr.preview([hr.mean("amount", over="1h"), hr.count(over="2h")], events=events, of=shop.spending)
    assert [found.name for found in one.features] == ["spending.mean_amount_1h"]
    assert [found.name for found in beside.features] == ["preview.mean_amount_1h", "preview.count_2h"]
    expected = columns(one.frame, ["spending.mean_amount_1h"])
    assert columns(new.frame, ["preview.mean_amount_1h"]) == expected
    assert columns(beside.frame, ["preview.mean_amount_1h"]) == expected


def test_a_pipeline_without_views() -> None:
    """Where nothing is kept, the fields of the events are previewed, with their units."""
    bare = hr.Pipeline("bare", source=shop.payments, event_features=["amount", "pieces"], predictions="bare.v1")
    found = hr.preview(bare, events=shop.table(ROWS))
    assert [(one.name, one.unit) for one in found.features] == [("amount", "EUR"), ("pieces", "")]
    assert found.features[0].distribution.most == max(row["amount"] for row in ROWS)


def test_outcomes_of_a_view(outcomes: pa.Table) -> None:
    """An expression over a column of the events needs nobody; a table is joined as the named pipeline says."""
    table = shop.table(ROWS).append_column("fraud", pa.array([float(row["amount"] > 30) for row in ROWS]))
    by_column = hr.preview(shop.spending, events=table, outcome=hr.col("fraud") > 0)
    by_table = hr.preview(shop.spending, events=table, outcome=outcomes, of=shop.fraud)
    assert "outcome: (fraud > 0), known of 400" in str(by_column)
    assert "of chargebacks.v1, known of 400" in str(by_table)
    with pytest.raises(DefinitionError, match=r"nobody says how these outcomes are joined: by of=<pipeline>"):
        hr.preview(shop.spending, events=table, outcome=outcomes)


def test_only_some_features_and_events() -> None:
    """`features` names features, by their whole or short name, or views; `limit` keeps the oldest events, whatever order they come in."""
    table = shop.table(ROWS)
    found = hr.preview(shop.app, events=table.take(list(range(399, -1, -1))), features=["count_1h", "books"], limit=50)
    assert [one.name for one in found.features] == ["spending.count_1h", "books"]
    assert len(found.frame) == 50
    first = hr.preview(shop.app, events=table.slice(0, 50), features=["spending.count_1h"])
    assert sorted(columns(found.frame, ["spending.count_1h"])) == sorted(columns(first.frame, ["spending.count_1h"]))
    assert len(hr.preview(shop.app, events=table, features=["spending"]).features) == len(shop.spending.features)


def test_topics() -> None:
    """Topics are previewed by their app, whose facts say what no fold takes."""
    topics = hr.Topics.of(shop.driven().log)
    found = hr.preview(shop.app, events=topics, features=["spending"])
    assert shop.bits(found.training.values) == shop.bits(hr.training_frame(shop.app, events=topics).values)
    assert "left out: 6 CONTRACT, 6 MALFORMED" in str(found)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda events: hr.preview(shop.spending.features[0], events=events), "say whose feature 'count_1h' is"),
        (lambda events: hr.preview(hr.count(over="1h"), events=events), "say which events these features are of"),
        (lambda events: hr.preview(NO_FEATURES, events=events, of=shop.payments), "preview takes an app, a pipeline, a view"),
        (lambda events: hr.preview(shop.app, events=events, features=["nothing"]), "neither a feature nor a view 'nothing'"),
        (lambda events: hr.preview(shop.app, events=events, limit=0), "keeps no event"),
        (lambda _: hr.preview(shop.spending, events=hr.Topics.of(shop.driven(9).log)), "judged by the facts of their app"),
        (lambda _: hr.preview(shop.app, events=hr.Topics.of(shop.driven(9).log), limit=5), "topics are read whole"),
    ],
)
def test_what_cannot_be_previewed_is_told(wrong: Any, text: str) -> None:
    """Each mistake names what is missing and how to write it."""
    with pytest.raises(DefinitionError, match=re.escape(text)):
        wrong(shop.table(shop.rows(9)))


def test_the_text_is_a_table(outcomes: pa.Table) -> None:
    """In a terminal: a heading, then a line a feature in columns, with a small histogram."""
    found = hr.preview(shop.app, events=shop.table(ROWS), outcome=outcomes)
    assert repr(found) == str(found)
    heading, outcome, empty, head, *lines = str(found).splitlines()
    assert heading.startswith("fraud: 11 features of 400 events; definition ")
    assert outcome.startswith("outcome: (disputed > 0) of chargebacks.v1, known of 400, 0.")
    assert empty == ""
    assert head.split()[:4] == ["feature", "absent", "mean", "least"]
    assert head.split()[-2:] == ["AUC", "pearson"]
    assert len(lines) == 11
    assert {len(re.findall(r"[▁▂▃▄▅▆▇█]", line)) > 0 for line in lines} == {True}
    last = next(line for line in lines if line.startswith("spending.last_amount"))
    assert re.search(r"spending\.last_amount +\d+\.\d %", last)


def test_the_page_needs_nothing_else(outcomes: pa.Table) -> None:
    """In a notebook: one well-formed piece of HTML with inline histograms, no colours that need a white page, no scripts, no addresses."""
    found = hr.preview(shop.app, events=shop.table(ROWS), outcome=outcomes)
    page = found._repr_html_()
    tree = ET.fromstring(page)  # noqa: S314 - our own
    assert len(tree.findall(".//svg")) == 11
    assert not tree.findall(".//script")
    assert "http" not in page
    assert set(re.findall(r"(?:color|background|fill)[:=]\"?([^;\"]+)", page)) == {"inherit", "transparent", "currentColor", "#4a90d9"}
    assert "p399" not in page
    assert len(found.examples) == 3
    assert list(found.examples[0]) == found.frame.column_names


def test_texts_are_escaped() -> None:
    """Whatever stands in the events is text in the page."""
    rows = [row | {"card": "<script>alert(1)</script>"} for row in shop.rows(5)]
    page = hr.preview(shop.spending, events=shop.table(rows))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("shown", [shop.spending, shop.fraud, shop.app, shop.spending.features[0]])
def test_definitions_show_themselves(shown: Any) -> None:
    """A view, pipeline, app or feature is a table in a notebook: kind, window, unit, meaning, value when empty, fingerprint."""
    page = shown._repr_html_()
    tree = ET.fromstring(page)  # noqa: S314 - our own
    cells = ["".join(cell.itertext()) for cell in tree.findall(".//td")]
    assert {"count_1h", "count", "1h", "0"} <= set(cells)
    if shown is not shop.spending.features[0]:
        assert {"EUR", "absent", shop.spending.fp} <= set(cells)
    if isinstance(shown, hr.Pipeline | hr.App):
        assert {"books", "event"} <= set(cells)
        assert shop.fraud.fingerprint[:16] in page
