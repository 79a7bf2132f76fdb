"""The words that declare features: `hr.mean("amount", over=["1h", "24h"])`. Each makes a `Declaration` of one entry of the catalogue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from headrace.duration import duration_ms, duration_text
from headrace.errors import DefinitionError
from headrace.expression import Expression, col
from headrace.features.aggregation import BY_NAME, NO_OPTIONS, Declaration, Options, WrittenWindow

Duration = str | int
Windows = Duration | Sequence[Duration]

MOST_SYMBOLS = 64
"""A vocabulary holds at most so many values."""
MOST_BACK = 100
"""How many events back a lag can look."""
MOST_EXACT = 4_096
"""So many distinct values can be counted exactly."""
LEAST_ERROR, MOST_ERROR, MOST_SIZE = 0.001, 0.5, 1e30
"""How fine and how coarse a quantile can be, and how large its values."""
HALF_LIVES = 32
"""The default horizon of what decays: an event counts 2**-32 by then."""


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


def var(
    value: str | Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """The population variance of `value`: the square of `std`, computed the same way."""
    return _declare("var", value, over, where, empty, pane)


def rate(*, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None) -> Declaration:
    """Events a second: how many there are in the window, divided by its length (the pane it is rounded back by left out)."""
    return _declare("rate", None, over, where, empty, pane)


def z_score(
    value: str | Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """How many standard deviations `value` of the scored event lies above the mean of the window, which includes it."""
    return _declare("z_score", value, over, where, empty, pane)


def first(
    value: str | Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """The `value` of the oldest event of the window that has it."""
    return _declare("first", value, over, where, empty, pane)


def distinct(
    value: str | Expression,
    *,
    over: Windows,
    exact: int = 256,
    where: Expression | None = None,
    empty: float | None = None,
    pane: Duration | None = None,
) -> Declaration:
    """How many different values, texts or numbers. Exact up to `exact`; beyond, the smallest `exact` + 1 hashes tell how many there are,
    with a standard error of about 1 / sqrt(exact - 1) (Z. Bar-Yossef et al., "Counting Distinct Elements in a Data Stream", 2002).
    """
    if type(exact) is not int or not 1 <= exact <= MOST_EXACT:
        raise DefinitionError(f"hr.distinct: exact={exact!r} must be a whole number from 1 to {MOST_EXACT}")
    return _declare("distinct", value, over, where, empty, pane, options=Options(exact=exact))


def quantile(
    value: str | Expression,
    q: float,
    *,
    over: Windows,
    error: float = 0.01,
    smallest: float = 1e-6,
    largest: float = 1e12,
    where: Expression | None = None,
    empty: float | None = None,
    pane: Duration | None = None,
) -> Declaration:
    """The value at rank floor(q * (n - 1)) of the n in the window, in order: q=0.5 is the median.

    Off by at most a share of `error` of it, whatever the values are: bins of equal relative width are counted (C. Masson, J. E. Rim, H. K.
    Lee, "DDSketch", PVLDB 12(12), 2019). What is closer to zero than `smallest` counts as zero, what is beyond `largest` as `largest`.
    """
    if not 0.0 <= q <= 1.0:
        raise DefinitionError(f"hr.quantile: q={q!r} must be from 0 to 1; 0.5 is the median")
    if not LEAST_ERROR <= error <= MOST_ERROR:
        raise DefinitionError(f"hr.quantile: error={error!r} must be from {LEAST_ERROR} to {MOST_ERROR}")
    if not 1 / MOST_SIZE <= smallest < largest <= MOST_SIZE:
        raise DefinitionError(f"hr.quantile: smallest={smallest!r} must lie below largest={largest!r}, neither beyond {MOST_SIZE:g}")
    word = "p" + f"{100 * q:.6f}".rstrip("0").rstrip(".").replace(".", "_")
    options = Options(q=float(q), error=float(error), smallest=float(smallest), largest=float(largest))
    return _declare("quantile", value, over, where, empty, pane, options=options, word=word)


def mode(
    value: str | Expression,
    vocabulary: Sequence[str | float],
    *,
    over: Windows,
    where: Expression | None = None,
    empty: float | None = None,
    pane: Duration | None = None,
) -> Declaration:
    """The most frequent value, as its place in `vocabulary` from 0 on; len(vocabulary) stands for all values that are not in it."""
    return _declare("mode", value, over, where, empty, pane, options=Options(vocabulary=_symbols("mode", vocabulary), rank=1))


def top_k(
    value: str | Expression,
    k: int,
    vocabulary: Sequence[str | float],
    *,
    over: Windows,
    where: Expression | None = None,
    empty: float | None = None,
    pane: Duration | None = None,
) -> Declaration:
    """The `k` most frequent values, the most frequent first, as `mode` gives one: features `top1_...` to `top<k>_...`."""
    symbols = _symbols("top_k", vocabulary)
    if type(k) is not int or not 1 <= k <= len(symbols) + 1:
        raise DefinitionError(f"hr.top_k: k={k!r} must be a whole number from 1 to {len(symbols) + 1}, all of the vocabulary and other")
    return replace(_declare("top_k", value, over, where, empty, pane, options=Options(vocabulary=symbols)), k=k)


def decayed_count(
    *,
    half_life: Windows,
    horizon: Duration | None = None,
    where: Expression | None = None,
    empty: float | None = None,
    pane: Duration | None = None,
) -> Declaration:
    """The number of events, each counting 2**(-age / half_life); one older than `horizon` (32 half-lives) does not count at all."""
    return _decayed("decayed_count", None, half_life, horizon, where, empty, pane)


def decayed_sum(
    value: str | Expression,
    *,
    half_life: Windows,
    horizon: Duration | None = None,
    where: Expression | None = None,
    empty: float | None = None,
    pane: Duration | None = None,
) -> Declaration:
    """The sum of `value`, each counting 2**(-age / half_life)."""
    return _decayed("decayed_sum", value, half_life, horizon, where, empty, pane)


def decayed_mean(
    value: str | Expression,
    *,
    half_life: Windows,
    horizon: Duration | None = None,
    where: Expression | None = None,
    empty: float | None = None,
    pane: Duration | None = None,
) -> Declaration:
    """The mean of `value`, each weighing 2**(-age / half_life)."""
    return _decayed("decayed_mean", value, half_life, horizon, where, empty, pane)


def streak(
    condition: Expression, *, over: Windows, where: Expression | None = None, empty: float | None = None, pane: Duration | None = None
) -> Declaration:
    """How many events in a row, up to the newest, for which `condition` holds; those for which it is unknown are passed over."""
    return _declare("streak", condition, over, where, empty, pane)


def lag(
    value: str | Expression, n: int = 1, *, over: Windows | None = None, where: Expression | None = None, empty: float | None = None
) -> Declaration:
    """The `value` n events before the newest that has it, in the order of offsets; an event out of order is ignored.

    When an event is scored it is the newest itself, so n=1 is the one before. `over` defaults to the view's longest window and is exact.
    """
    if type(n) is not int or not 1 <= n <= MOST_BACK:
        raise DefinitionError(f"hr.lag: n={n!r} must be a whole number from 1 to {MOST_BACK}")
    return _declare("lag", value, over, where, empty, None, options=Options(n=n), word=f"lag{n}")


def change(
    value: str | Expression, *, over: Windows | None = None, where: Expression | None = None, empty: float | None = None
) -> Declaration:
    """The `value` of the newest event minus that of the one before, in the order of offsets; an event out of order is ignored."""
    return _declare("change", value, over, where, empty, None)


def ratio(left: str, right: str, *, name: str | None = None, empty: float | None = None) -> Declaration:
    """One feature of the view divided by another, by their names; absent where either is, or where it is divided by zero."""
    return _derived("ratio", left, right, name or f"{left}_over_{right}", empty)


def difference(left: str, right: str, *, name: str | None = None, empty: float | None = None) -> Declaration:
    """One feature of the view minus another, by their names; absent where either is."""
    return _derived("difference", left, right, name or f"{left}_minus_{right}", empty)


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


def _decayed(  # noqa: PLR0917 - as `_declare`
    word: str,
    value: str | Expression | None,
    half_life: Windows,
    horizon: Duration | None,
    where: Expression | None,
    empty: float | None,
    pane: Duration | None,
) -> Declaration:
    """One declaration: windows are named by their half-life and are as long as the horizon."""
    of = f"hr.{word}"
    lives = (half_life,) if isinstance(half_life, (str, int)) else tuple(half_life)
    if not lives:
        raise DefinitionError(f'{of}: half_life=[] holds none; write for example half_life="6h"')
    if horizon is not None and len(lives) > 1:
        raise DefinitionError(f"{of}: horizon= is for one half-life; write a line for each of {', '.join(map(str, lives))}")
    named = [_written(life, of=of) for life in lives]
    windows = [
        WrittenWindow(text=one.text, length_ms=HALF_LIVES * one.length_ms if horizon is None else duration_ms(horizon, of=f"{of}: horizon"))
        for one in named
    ]
    found = _declare(word, value, [window.length_ms for window in windows], where, empty, pane)
    return replace(found, windows=tuple(windows), half_lives_ms=tuple(one.length_ms for one in named))


def _derived(word: str, left: str, right: str, name: str, empty: float | None) -> Declaration:
    if not name.isidentifier():
        raise DefinitionError(f"hr.{word}: name={name!r} must be letters, digits and underscores, beginning with a letter")
    return _declare(word, None, (), None, empty, None, options=Options(left=left, right=right), word=name)


def _symbols(word: str, vocabulary: Sequence[str | float]) -> tuple[str | float, ...]:
    """The values of a vocabulary, all texts or all numbers, each once."""
    of = f"hr.{word}"
    if isinstance(vocabulary, str) or not 1 <= len(vocabulary) <= MOST_SYMBOLS:
        raise DefinitionError(f"{of}: vocabulary={vocabulary!r} must be a list of 1 to {MOST_SYMBOLS} values")
    texts = [isinstance(one, str) for one in vocabulary]
    if any(texts) != all(texts) or len(set(vocabulary)) < len(vocabulary):
        raise DefinitionError(f"{of}: vocabulary={vocabulary!r} must hold different values, all of them texts or all of them numbers")
    return tuple(one if isinstance(one, str) else float(one) for one in vocabulary)


def _declare(
    name: str,
    value: str | Expression | None,
    over: Windows | None,
    where: Expression | None,
    empty: float | None,
    pane: Duration | None,
    *,
    options: Options = NO_OPTIONS,
    word: str = "",
) -> Declaration:
    of, entry = f"hr.{name}", BY_NAME[name]
    if over is None:
        windows: tuple[WrittenWindow, ...] = ()
    else:
        spans = (over,) if isinstance(over, (str, int)) else tuple(over)
        if not spans and entry.of != "features":
            raise DefinitionError(f'{of}: over=[] holds no window; write for example over="3h"')
        windows = tuple(_written(span, of=of) for span in spans)
    if empty is not None and math.isinf(empty):
        raise DefinitionError(f"{of}: empty={empty} is no value a model can take; give a finite number")
    return Declaration(
        aggregation=entry,
        value=col(value) if isinstance(value, str) else value,
        windows=windows,
        where=where,
        empty=entry.empty if empty is None else float(empty),
        pane_ms=None if pane is None else duration_ms(pane, of=f"{of}: pane"),
        options=options,
        word=word,
    )


def _written(window: Duration, *, of: str) -> WrittenWindow:
    length_ms = duration_ms(window, of=f"{of}: over")
    return WrittenWindow(text=window.strip() if isinstance(window, str) else duration_text(length_ms), length_ms=length_ms)
