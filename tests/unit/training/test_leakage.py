from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import headrace as hr
from headrace.decode.table_rows import records_of
from headrace.errors import DefinitionError
from headrace.features.training import HistoryFold
from headrace.testing import Driver, check_no_leakage
from headrace.training.history import TableHistory
from headrace.training.leakage import Build, LeakageFound
from headrace.types import Bools, EventBatch, Float64s, RecordBatch
from tests.unit.training import shop

DISPUTED = hr.col("disputed") > 0


def table() -> pa.Table:
    """Payments with the answer beside them: a third is disputed, the more the larger."""
    rows = shop.rows(400)
    draw = np.random.default_rng(3)
    for row in rows:
        row["disputed"] = float(row["amount"] > 8 and draw.random() < 0.7)
    return shop.table(rows)


def test_definitions_that_know_nothing_pass() -> None:
    """An honest app has no leaks: not on a table with labels, not on a log with late events."""
    check_no_leakage(shop.app, table(), labels=DISPUTED)
    check_no_leakage(shop.app, pl.DataFrame(table()), labels=DISPUTED)
    driver = shop.driven()
    with pytest.raises(LeakageFound, match="older than the lateness allows") as found:
        check_no_leakage(shop.app, hr.Topics.of(driver.log))
    assert {leak.kind for leak in found.value.leaks} == {"time"}
    check_no_leakage(shop.app, hr.Topics.of(shop.driven(disorder=False).log))
    with pytest.raises(DefinitionError, match="give the app"):
        check_no_leakage(shop.fraud, hr.Topics.of(driver.log))


def telling(feature: hr.Expression) -> hr.App:
    """The same app, whose contract has the answer as a field too, read by an event feature."""

    class Told(hr.Event):
        id: str
        card: str
        at: hr.EventTime
        amount: float
        disputed: float

    source = hr.Source("payments.v1", Told, key="card", time="at", lateness="10m")
    view = hr.FeatureView("spending", entity="card", source=source, features=[hr.count(over="1h"), hr.sum("amount", over="1h")])
    return hr.App("told", pipelines=[hr.Pipeline("p", views=[view], event_features=["amount", feature], predictions="p.v1")])


def test_a_label_that_is_an_event_feature_is_named() -> None:
    """The answer among the event features is found by its name, and when it hides under another name by what it tells."""
    leaky = telling((hr.col("disputed") * 3).alias("severity"))
    with pytest.raises(LeakageFound) as found:
        check_no_leakage(leaky, table(), labels=DISPUTED)
    assert [leak.kind for leak in found.value.leaks] == ["label"] * 3
    assert all("severity" in leak.says for leak in found.value.leaks)
    renamed = table().append_column("answer", table()["disputed"])
    with pytest.raises(LeakageFound, match=r"severity alone tells the label \(100.00%\)"):
        check_no_leakage(leaky, renamed, labels=hr.col("answer") > 0)


def looking_ahead(events: pa.Table) -> pa.Table:
    """Each row as of an hour after its event."""
    frame = events.to_pandas()
    at = pd.DataFrame({"card": frame["card"], "as_of": frame["at"] + 3_600_000})
    return hr.training_frame(shop.app, events=events, at=at).features


def joined_by_entity(events: pa.Table) -> pd.DataFrame:
    """The mean of all payments of a card, those to come included."""
    frame = events.to_pandas()
    return pd.DataFrame({"mean_amount": frame.groupby("card")["amount"].transform("mean"), "at": frame["at"]})


def scaled(events: pa.Table) -> pd.DataFrame:
    """The right features, scaled by what the whole year says."""
    found = hr.training_frame(shop.app, events=events).features.to_pandas()
    return (found - found.mean()) / found.std()


def by_row(events: pa.Table) -> pd.DataFrame:
    """The number of payments of a card in the rows above, whenever they were."""
    return pd.DataFrame({"seen": events.to_pandas().groupby("card").cumcount()})


def by_answer(events: pa.Table) -> pd.DataFrame:
    """The disputes of the card so far, this one among them."""
    frame = events.to_pandas()
    return pd.DataFrame({"disputes": frame.groupby("card")["disputed"].cumsum(), "age": frame["at"] - frame["at"].min()})


@pytest.mark.parametrize(
    ("build", "kind"),
    [(looking_ahead, "future"), (joined_by_entity, "future"), (scaled, "future"), (by_row, "time"), (by_answer, "label")],
)
def test_frames_that_know_too_much_are_caught(build: Build, kind: str) -> None:
    """Looking ahead, whole-history means and scales, order instead of time, and answers of the row itself: each is named by its kind."""
    with pytest.raises(LeakageFound) as found:
        check_no_leakage(shop.app, table(), labels=DISPUTED, build=build)
    assert {leak.kind for leak in found.value.leaks} == {kind}


def test_shuffled_event_times_of_a_log_are_noticed() -> None:
    """A log whose event times were dealt out anew is mostly late, and said to be."""
    rows = shop.rows(200)
    times = [row["at"] for row in rows]
    order = np.random.default_rng(1).permutation(len(rows))
    driver = Driver(shop.app, models={"fraud": shop.Counting()}, partitions=1, now_ms=shop.START_MS)
    for row, place in zip(rows, order.tolist(), strict=True):
        driver.send("payments.v1", None, timestamp_ms=times[-1], **{**row, "at": times[place]})
    with pytest.raises(LeakageFound, match=r"9\d% of the events are older than the lateness allows"):
        check_no_leakage(shop.app, hr.Topics.of(driver.log))


def at_the_end_of_the_batch(fold: HistoryFold, events: EventBatch) -> tuple[Float64s, Bools]:
    """A fold that takes all events first and reads afterwards: as of each event's time, from states that have seen what came later."""
    laid = fold._laid(events)
    fold._table.fold(laid.events)
    values, _ = fold._table.fold(fold._nothing(laid.events.rows, laid.events.times_ms))
    return values, laid.late


def newest_first(history: TableHistory, begin: int) -> RecordBatch:
    """A reader that gives a table from its end to its beginning."""
    places = history._order[::-1][begin:]
    columns = {name: [values[place] for place in places.tolist()] for name, values in history._columns.items()}
    return records_of(history._source, columns, np.zeros(len(places), dtype=np.int32), places)


@pytest.mark.parametrize(
    ("broken", "name", "mutant"), [(HistoryFold, "fold", at_the_end_of_the_batch), (TableHistory, "_records", newest_first)]
)
def test_a_frame_of_ours_that_looked_ahead_would_be_caught(broken: type, name: str, mutant: object) -> None:
    """Were the fold to read after taking more, or the reader to give events newest first, the check would say so."""
    with patch.object(broken, name, mutant), pytest.raises(LeakageFound) as found:
        check_no_leakage(shop.app, table())
    assert "future" in {leak.kind for leak in found.value.leaks}
