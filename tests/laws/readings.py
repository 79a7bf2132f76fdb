"""What the laws are tried on: a view with every aggregation of the catalogue in every shape, and logs of every kind of disorder.

Nothing here names an aggregation: what is added to the catalogue is tried from then on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import strategies as st

import headrace as hr
from headrace.duration import duration_ms
from headrace.features.aggregation import CATALOGUE, Aggregation, Declaration
from headrace.features.view import FeatureView
from tests.unit.features.folding import TOPIC
from tests.unit.features.naive import Happening

LATENESS_MS = 10_000


class Reading(hr.Event):
    """An event with an absent number, an absent text and a number that is always there."""

    sensor: str
    at_ms: hr.EventTime
    x: float | None = None
    y: float
    ok: bool | None = None
    word: str | None = None


SOURCE = hr.Source(TOPIC, Reading, key="sensor", time="at_ms", lateness=LATENESS_MS, historical=True)


ALONE = [entry for entry in CATALOGUE if entry.of != "features"]
"""All but what is made of other features."""


def declared(
    entry: Aggregation,
    *,
    over: str | Sequence[str],
    number: str = "x",
    where: hr.Expression | None = None,
    empty: float | None = None,
    pane: str | None = None,
) -> Declaration:
    """A declaration of any entry of the catalogue."""
    given: dict[str, object] = {"where": where, "empty": empty}
    windows = [over] if isinstance(over, str) else over
    if entry.of == "decay":
        given["horizon"] = windows[-1]
        given["half_life"] = f"{duration_ms(windows[-1], of=entry.name) // 9}ms"
    else:
        given["over"] = windows
    if entry.paned:
        given["pane"] = pane
    word = getattr(hr, entry.name)
    value = {"nothing": (), "condition": (hr.col(number) > 0.5,)}.get(entry.takes, (number,))
    found = word(*value, *EXTRA.get(entry.name, ()), **given)
    assert isinstance(found, Declaration)
    return found


EXTRA: dict[str, tuple[object, ...]] = {
    "quantile": (0.5,),
    "mode": ([0.5, 0.1, 1.0],),
    "top_k": (1, [0.75, -3.0]),
    "lag": (2,),
}
"""What an entry must be told beside its value."""


def view_of(entries: Sequence[Aggregation], name: str = "readings", more: Sequence[Declaration] = ()) -> FeatureView:
    """Entries over short and long windows, coarse and fine panes, with and without filters and values for empty windows."""
    return FeatureView(
        name,
        entity="sensor",
        source=SOURCE,
        features=[
            declaration
            for entry in entries
            for declaration in (
                declared(entry, over=["3s", "1m"]),
                declared(entry, over="20s", number="y", pane="5s", empty=-1.0),
                declared(entry, over="30s", number="y", where=(hr.col("word") == "a") | (hr.col("x") > 0), pane="30s"),
            )
        ]
        + list(more),
    )


WORDS = [
    hr.distinct("word", over=["3s", "1m"]),
    hr.distinct("x", over="1m", exact=2, pane="20s", where=hr.col("y") > 0),
    hr.mode("word", ["b", "c"], over="20s"),
    hr.top_k("y", 2, [0.7, 0.0], over="1m"),
    hr.quantile("y", 1.0, over="1m", error=0.2),
    hr.quantile("x", 0.1, over="1m", smallest=0.15, largest=1000.0),
    hr.lag("y"),
]
EVERYTHING = view_of(ALONE, more=WORDS)
SKETCHES = {"bins", "hashes"}
PARTS = [
    view_of([entry for entry in ALONE if entry.of in {"moments", "newest"}], "moments"),
    view_of([entry for entry in ALONE if entry.of not in {"moments", "newest", *SKETCHES}], "sequence"),
    view_of([entry for entry in ALONE if entry.of in SKETCHES], "sketches", more=WORDS),
]
"""The same in three parts, for laws that look at many logs."""
SMALL = FeatureView(
    "small",
    entity="sensor",
    source=SOURCE,
    features=[hr.count(over="4s", pane="4s"), hr.last(hr.col("x") / hr.col("y"), over="2s", empty=7)],
)

_STEPS = st.sampled_from([0, 0, 1, 250, 499, 500, 1_000, 2_999, 3_000, 5_000, 17_000, 61_000])
_BACK = st.sampled_from([0, 0, 0, 0, 1, 500, 3_000, LATENESS_MS - 1, LATENESS_MS, LATENESS_MS + 1, 70_000])
_NUMBERS = st.sampled_from([math.nan, 0.0, -0.0, 0.1, 0.2, 0.5, 1.0, -3.0, 1e9, 1e9 + 1, -1e-9])
_ALWAYS = st.sampled_from([0.0, -0.0, 0.1, 0.7, 1.0, -3.0, 12345.678])
_TRUTHS = st.sampled_from([math.nan, 0.0, 1.0])
_WORDS = st.sampled_from([None, "a", "b"])
_EVENTS = st.tuples(st.integers(0, 3), _STEPS, _BACK, _NUMBERS, _ALWAYS, _TRUTHS, _WORDS)
_FIRST_MS = 1_700_000_000_000


@st.composite
def logs(draw: st.DrawFn, *, most: int = 25) -> list[Happening]:
    """A log of up to `most` events: two partitions, equal times, pane edges, out of order, just late, absent values."""
    time_ms, happenings = _FIRST_MS, []
    for entity, step, back, x, y, ok, word in draw(st.lists(_EVENTS, min_size=1, max_size=most)):
        time_ms += step
        columns: dict[str, float | str | None] = {"x": x, "y": y, "ok": ok, "word": word}
        happenings.append(Happening(entity="abc"[entity % 3], time_ms=time_ms - back, partition=entity // 3, columns=columns))
    return happenings


@st.composite
def cuts_of(draw: st.DrawFn, length: int) -> list[int]:
    """Places to cut a log of that length into batches, at times everywhere."""
    if draw(st.booleans()):
        return list(range(1, length))
    return sorted(draw(st.lists(st.integers(0, length), max_size=4)))
