"""The algebra of features: every aggregation once; the words that declare them are in `words.py`.

What an aggregation is finished from is kept in *lanes*, of which there are kinds; features of the same kind, value, filter and window share
one. `moments` keeps count, sum, M2 (the sum of squared distances from the mean), min and max per pane; `newest` is a single cell, the time
and value of the newest event before the scored one; the others stand in `sequence.py` and `sketch.py`.

A new aggregation is one entry in `CATALOGUE`, its word, and its line where its kind is finished. Codes travel in fingerprints: they are
never given to another aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from headrace.expression import Expression

FOLD_VERSION = 1
"""Part of every fingerprint: raised by whoever changes what the fold computes."""

COUNT, SUM, MEAN, MIN, MAX, STD, LAST, SECONDS_SINCE_LAST, VAR, RATE, Z_SCORE = range(11)
"""What `kernel.fold` finishes; share is the mean of a condition."""
FIRST, STREAK, DECAYED_COUNT, DECAYED_SUM, DECAYED_MEAN, LAG, CHANGE, QUANTILE, TOP, DISTINCT = range(11, 21)
"""What `other_lanes.fold` finishes."""
RATIO, DIFFERENCE = range(21, 23)
"""What `derived.py` computes of other features."""

NEEDS_SUM, NEEDS_SQUARES, NEEDS_MIN, NEEDS_MAX = 1, 2, 4, 8
"""What a lane of moments computes and packs beside the count, which it always has; squares come with the sum."""

MOMENTS, OLDEST, RUN, DECAY, RECENT, BINS, HASHES = range(7)
"""The kinds of lanes."""

Kind = Literal["moments", "newest", "oldest", "run", "decay", "recent", "bins", "hashes", "features"]
"""What an aggregation is finished from: a kind of lane, the cell of the newest event, or other features."""
KINDS: Mapping[str, int] = {
    "moments": MOMENTS, "oldest": OLDEST, "run": RUN, "decay": DECAY, "recent": RECENT, "bins": BINS, "hashes": HASHES
}  # fmt: skip
_WITHOUT_PANES = {"newest", "recent", "features"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """An entry of the catalogue."""

    name: str
    code: int
    takes: Literal["nothing", "number", "condition", "anything", "features"]
    of: Kind = "moments"
    needs: int = 0
    empty: float = math.nan
    says: str
    """One line of documentation; `{value}`, `{window}` and the names of options stand for what is declared."""
    promises: str = ""
    """What is approximate about it, and how far, or which order of events it follows."""

    @property
    def paned(self) -> bool:
        """Whether its window is made of panes; if not, it is exact."""
        return self.of not in _WITHOUT_PANES

    @property
    def in_offset_order(self) -> bool:
        """Whether it ignores an event that is older than the newest of its entity."""
        return self.promises == _IN_OFFSET_ORDER


_IN_OFFSET_ORDER = "follows the order of offsets: an event older than the newest of its entity is ignored"

CATALOGUE = (
    Aggregation(name="count", code=COUNT, takes="nothing", empty=0.0, says="number of events in {window}"),
    Aggregation(name="sum", code=SUM, takes="number", needs=NEEDS_SUM, empty=0.0, says="sum of {value} in {window}"),
    Aggregation(name="mean", code=MEAN, takes="number", needs=NEEDS_SUM, says="mean of {value} in {window}"),
    Aggregation(name="min", code=MIN, takes="number", needs=NEEDS_MIN, says="smallest {value} in {window}"),
    Aggregation(name="max", code=MAX, takes="number", needs=NEEDS_MAX, says="largest {value} in {window}"),
    Aggregation(
        name="std",
        code=STD,
        takes="number",
        needs=NEEDS_SUM | NEEDS_SQUARES,
        says="population standard deviation of {value} in {window} (0 for a single event)",
    ),
    Aggregation(
        name="var",
        code=VAR,
        takes="number",
        needs=NEEDS_SUM | NEEDS_SQUARES,
        says="population variance of {value} in {window} (0 for a single event)",
    ),
    Aggregation(name="share", code=MEAN, takes="condition", needs=NEEDS_SUM, says="share of events with {value} in {window}"),
    Aggregation(name="rate", code=RATE, takes="nothing", empty=0.0, says="events a second in {window}"),
    Aggregation(
        name="z_score",
        code=Z_SCORE,
        takes="number",
        needs=NEEDS_SUM | NEEDS_SQUARES,
        says="how many standard deviations {value} of the scored event lies above its mean in {window}, absent where they are all equal",
        promises="absent in a look-up, which scores no event",
    ),
    Aggregation(
        name="last", code=LAST, takes="number", of="newest", says="{value} of the newest event before this one, absent if not in {window}"
    ),
    Aggregation(
        name="seconds_since_last",
        code=SECONDS_SINCE_LAST,
        takes="nothing",
        of="newest",
        says="seconds since the newest event before this one, absent if not in {window}",
    ),
    Aggregation(
        name="first", code=FIRST, takes="number", of="oldest", says="{value} of the oldest event in {window}, of two at one time the first"
    ),
    Aggregation(
        name="streak",
        code=STREAK,
        takes="condition",
        of="run",
        empty=0.0,
        says="how many events in {window} up to the newest have {value} without a break",
        promises=_IN_OFFSET_ORDER,
    ),
    Aggregation(
        name="decayed_count",
        code=DECAYED_COUNT,
        takes="nothing",
        of="decay",
        empty=0.0,
        says="number of events, each counting half as much every {half_life_ms}, in {window}",
    ),
    Aggregation(
        name="decayed_sum",
        code=DECAYED_SUM,
        takes="number",
        of="decay",
        needs=NEEDS_SUM,
        empty=0.0,
        says="sum of {value}, each counting half as much every {half_life_ms}, in {window}",
    ),
    Aggregation(
        name="decayed_mean",
        code=DECAYED_MEAN,
        takes="number",
        of="decay",
        needs=NEEDS_SUM,
        says="mean of {value}, each weighing half as much every {half_life_ms}, in {window}",
    ),
    Aggregation(
        name="lag",
        code=LAG,
        takes="number",
        of="recent",
        says="{value} {n} event(s) before the newest, absent if not in {window}",
        promises=_IN_OFFSET_ORDER,
    ),
    Aggregation(
        name="change",
        code=CHANGE,
        takes="number",
        of="recent",
        says="{value} of the newest event minus that of the one before, absent if not both are in {window}",
        promises=_IN_OFFSET_ORDER,
    ),
    Aggregation(
        name="quantile",
        code=QUANTILE,
        takes="number",
        of="bins",
        says="the value below which a share of {q} of all {value} in {window} lies",
        promises="off by at most a share of {error} of the value at rank floor(q (n - 1)), or {smallest} where that is more; "
        "values beyond {largest} count as it",
    ),
    Aggregation(
        name="mode",
        code=TOP,
        takes="anything",
        of="bins",
        says="the most frequent {value} in {window}, as its place in {vocabulary} (of equals the first; one more stands for all others)",
    ),
    Aggregation(
        name="top_k",
        code=TOP,
        takes="anything",
        of="bins",
        says="the {value} that is number {rank} by frequency in {window}, as its place in {vocabulary} (one more stands for all others)",
    ),
    Aggregation(
        name="distinct",
        code=DISTINCT,
        takes="anything",
        of="hashes",
        empty=0.0,
        says="number of different {value} in {window}",
        promises="exact up to {exact}; beyond, estimated with a standard error of about 1 / sqrt({exact} - 1)",
    ),
    Aggregation(name="ratio", code=RATIO, takes="features", of="features", says="{left} divided by {right}"),
    Aggregation(name="difference", code=DIFFERENCE, takes="features", of="features", says="{left} minus {right}"),
)
"""Every aggregation there is; laws and oracle tests run over this list."""

BY_NAME = {aggregation.name: aggregation for aggregation in CATALOGUE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What else is declared of an aggregation; each uses its own."""

    n: int = 0
    """How many events back a lag looks."""
    q: float = 0.0
    """Which quantile."""
    error: float = 0.0
    """The largest relative error of a quantile, between values of these sizes."""
    smallest: float = 0.0
    largest: float = 0.0
    exact: int = 0
    """Up to how many distinct values are counted exactly."""
    vocabulary: tuple[str | float, ...] = ()
    rank: int = 0
    """Which of the most frequent values: 1 is the most frequent."""
    half_life_ms: int = 0
    left: str = ""
    right: str = ""
    """The features a derived one is made of."""

    def declared(self) -> dict[str, int | float | str | tuple[str | float, ...]]:
        """Those that are used."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenWindow:
    """A window as it was written (feature names repeat it) and in milliseconds."""

    text: str
    length_ms: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Declaration:
    """One aggregation over any number of windows, as an engineer writes it; a feature view makes its features from it."""

    aggregation: Aggregation
    value: Expression | None
    windows: tuple[WrittenWindow, ...]
    """Empty: the view's longest."""
    where: Expression | None
    empty: float
    pane_ms: int | None
    options: Options = NO_OPTIONS
    word: str = ""
    """What its name begins with, where that is not the aggregation: `p95`, `lag2`; the whole name of a derived feature."""
    half_lives_ms: tuple[int, ...] = ()
    """Of what decays, one for each window."""
    k: int = 1
    """How many features over a window: those of rank 1 to k."""

    def variants(self) -> list[tuple[str, Options]]:
        """The name, without the window, and options of each feature it makes over a window: one, but as many as `k` for `top_k`."""
        if self.aggregation.name != "top_k":
            return [(self.name(), self.options)]
        ranks = range(1, self.k + 1)
        return [(replace(self, word=f"top{rank}").name(), replace(self.options, rank=rank)) for rank in ranks]

    def name(self) -> str:
        """Its generated name, without the window: `mean_dep_delay_where_is_night`."""
        parts = [self.word or self.aggregation.name]
        if self.value is not None:
            parts.append(self.value.name())
        if self.where is not None:
            parts.extend(("where", self.where.name()))
        return "_".join(parts)
