"""The algebra of features: every aggregation once, and the words that declare them.

There are two shapes. An aggregation over *panes* is finished from what a merge of panes yields: count, sum, M2 (the sum of squared
distances from the mean), min and max of the values taken. An aggregation of the *newest* event is finished from a single cell, the time
and value of the newest event before the one that is scored.

A new aggregation is one entry in `CATALOGUE`, its word below, and its line in `kernel.finish`. Codes travel in the numba cache and in
fingerprints: they are never given to another aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headrace.duration import duration_ms, duration_text
from headrace.errors import DefinitionError
from headrace.expression import Expression, col

FOLD_VERSION = 1
"""Part of every fingerprint: raised by whoever changes what the fold computes."""

COUNT, SUM, MEAN, MIN, MAX, STD, LAST, SECONDS_SINCE_LAST = range(8)
"""What `kernel.finish` does; share is the mean of a condition."""

NEEDS_SUM, NEEDS_SQUARES, NEEDS_MIN, NEEDS_MAX = 1, 2, 4, 8
"""What a lane computes and packs beside the count, which it always has; squares come with the sum."""

Duration = str | int
Windows = Duration | Sequence[Duration]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """An entry of the catalogue."""

    name: str
    code: int
    takes: Literal["nothing", "number", "condition"]
    of: Literal["panes", "newest"] = "panes"
    needs: int = 0
    empty: float = math.nan
    says: str
    """One line of documentation; `{value}` and `{window}` stand for what is declared."""


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
    Aggregation(name="share", code=MEAN, takes="condition", needs=NEEDS_SUM, says="share of events with {value} in {window}"),
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
)
"""Every aggregation there is; laws and oracle tests run over this list."""

_BY_NAME = {aggregation.name: aggregation for aggregation in CATALOGUE}


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

    def name(self) -> str:
        """Its generated name, without the window: `mean_dep_delay_where_is_night`."""
        parts = [self.aggregation.name]
        if self.value is not None:
            parts.append(self.value.name())
        if self.where is not None:
            parts.extend(("where", self.where.name()))
        return "_".join(parts)


def count(*, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None) -> Declaration:
    """How many events; with `where=`, of those for which it holds. 0 when there are none."""
    return _declare("count", None, over, where, empty, pane)


def sum(
    value: str | Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """The sum of `value` over the events that have one; 0 when there are none."""
    return _declare("sum", value, over, where, empty, pane)


def mean(
    value: str | Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """The mean of `value` over the events that have one."""
    return _declare("mean", value, over, where, empty, pane)


def min(
    value: str | Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """The smallest `value`."""
    return _declare("min", value, over, where, empty, pane)


def max(
    value: str | Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """The largest `value`."""
    return _declare("max", value, over, where, empty, pane)


def std(
    value: str | Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """The population standard deviation of `value` (divided by n, not n - 1): 0 for one event.

    From counts, sums and M2, merged pairwise: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances", 1979.
    """
    return _declare("std", value, over, where, empty, pane)


def share(
    condition: Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """The share of events for which `condition` holds, among those for which it is known."""
    return _declare("share", condition, over, where, empty, pane)


def last(
    value: str | Expression, *, over: Windows | None = None, where: Expression | None = None, empty: float | None = None
) -> Declaration:
    """The `value` of the newest event before the scored one that has it (by event time, then by offset).

    `over` defaults to the view's longest window; it is exact here, as no panes are involved.
    """
    return _declare("last", value, over, where, empty, None)


def seconds_since_last(*, over: Windows | None = None, where: Expression | None = None, empty: float | None = None) -> Declaration:
    """The seconds from the newest event before the scored one to the as-of time; `over` defaults to the view's longest window."""
    return _declare("seconds_since_last", None, over, where, empty, None)


def _declare(
    word: str,
    value: str | Expression | None,
    over: Windows | None,
    where: Expression | None,
    empty: float | None,
    pane: Duration | None,
) -> Declaration:
    of = f"hr.{word}"
    if over is None:
        windows: tuple[WrittenWindow, ...] = ()
    else:
        spans = (over,) if isinstance(over, (str, int)) else tuple(over)
        if not spans:
            raise DefinitionError(f'{of}: over=[] holds no window; write for example over="3h"')
        windows = tuple(_written(span, of=of) for span in spans)
    if empty is not None and math.isinf(empty):
        raise DefinitionError(f"{of}: empty={empty} is no value a model can take; give a finite number")
    entry = _BY_NAME[word]
    return Declaration(
        aggregation=entry,
        value=col(value) if isinstance(value, str) else value,
        windows=windows,
        where=where,
        empty=entry.empty if empty is None else float(empty),
        pane_ms=None if pane is None else duration_ms(pane, of=f"{of}: pane"),
    )


def _written(window: Duration, *, of: str) -> WrittenWindow:
    length_ms = duration_ms(window, of=f"{of}: over")
    return WrittenWindow(text=window.strip() if isinstance(window, str) else duration_text(length_ms), length_ms=length_ms)
