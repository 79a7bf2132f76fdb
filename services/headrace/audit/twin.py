"""The stupid twin of the fold: for every event it looks at all events of the entity again. Slow, and obviously right.

`plainly` asks the mathematics: it collects what a window may see and hands it to `math.fsum` and friends. It also says how far off the
fold may be: not at all where a feature counts or chooses, 1e-9 of the size of the numbers where it adds, the declared error of a quantile.
An estimated number of distinct values is a function of the set of values alone, so it has no error here.

Nothing of the kernel, of its lanes or of its sketches is used. `chosen` tells what counts or chooses; tests take it for their bit-exact
twin, too. Limit: what would be infinite is not judged (`off` is infinite).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from headrace.features.view import Feature

Value = float | str | None
CLOSE = 1e-9
_LEAST_SPREAD = 1e-6
"""Where a deviation is a smaller share of the numbers than this it is nothing but rounding, and what is divided by it can be anything."""


class Given(NamedTuple):
    """An event of an entity, and what it gives to a feature; None: nothing."""

    time_ms: int
    value: Value


class Taken(NamedTuple):
    """An event that gives a feature something."""

    time_ms: int
    given: float | str
    in_order: bool
    """Whether it was the newest of its entity when it came."""


class Answer(NamedTuple):
    """A feature's value, NaN where it has none, and how far off the fold may be."""

    value: float
    off: float = 0.0


UNKNOWN = Answer(math.nan, math.inf)


def plainly(
    feature: Feature, before: Sequence[Given], after: Sequence[Given], scored: Value, as_of_ms: int, *, more_panes: int = 0
) -> Answer:
    """The feature as of an event: `before` and `after` are what its entity had been given in offset order, without and with the event;
    `scored` is what the event gives. `more_panes`: let the window reach so many panes further back.
    """
    if feature.aggregation.of == "newest":
        return Answer(newest(feature, before, as_of_ms))
    kind, name = feature.aggregation.of, feature.aggregation.name
    try:
        if kind == "moments" or name == "quantile":
            oldest_ms = _oldest_ms(feature, as_of_ms, more_panes)
            numbers = [float(value) for time_ms, value in after if value is not None and time_ms >= oldest_ms]
            found = _moments(feature, numbers, scored) if kind == "moments" else _quantile(feature, numbers)
        else:
            visible = taken(feature, after, as_of_ms, more_panes)
            if kind != "decay":
                return Answer(chosen(feature, visible, as_of_ms))
            found = _decayed(feature, visible, as_of_ms)
    except OverflowError:
        return UNKNOWN
    return UNKNOWN if math.isinf(found.value) else found


def derived(feature: Feature, left: Answer, right: Answer) -> Answer:
    """A ratio or difference of two features of the same vector."""
    difference = feature.aggregation.name == "difference"
    if math.isinf(left.off) or math.isinf(right.off):
        return UNKNOWN
    if math.isnan(left.value) or math.isnan(right.value):
        return Answer(feature.empty)
    if difference:
        return Answer(left.value - right.value, left.off + right.off + CLOSE * max(abs(left.value), abs(right.value)))
    if abs(right.value) <= right.off:
        return Answer(feature.empty) if right.off == 0.0 else UNKNOWN
    ratio = left.value / right.value
    return Answer(ratio, (left.off + abs(ratio) * right.off) / (abs(right.value) - right.off) + CLOSE * abs(ratio))


def taken(feature: Feature, after: Sequence[Given], as_of_ms: int, more_panes: int = 0) -> list[Taken]:
    """Everything that gives the feature something, as far as the panes of its window reach; all of it for one without panes."""
    oldest_ms = _oldest_ms(feature, as_of_ms, more_panes) if feature.aggregation.paned else None
    newest_ms, found = None, []
    for time_ms, value in after:
        in_order = newest_ms is None or time_ms >= newest_ms
        if in_order:
            newest_ms = time_ms
        if value is not None and (oldest_ms is None or time_ms >= oldest_ms):
            found.append(Taken(time_ms, value, in_order))
    return found


def _oldest_ms(feature: Feature, as_of_ms: int, more_panes: int) -> int:
    """Where the oldest pane of the window begins."""
    return (as_of_ms // feature.pane_ms - feature.window_ms // feature.pane_ms - more_panes) * feature.pane_ms


def newest(feature: Feature, before: Sequence[Given], as_of_ms: int) -> float:
    """The newest event before the scored one that gives the feature something; of two at one time the later one."""
    found: Given | None = None
    for one in before:
        if one.value is not None and (found is None or one.time_ms >= found.time_ms):
            found = one
    if found is None or found.value is None or found.time_ms <= as_of_ms - feature.window_ms:
        return feature.empty
    return float(found.value) if feature.aggregation.name == "last" else (as_of_ms - found.time_ms) / 1000.0


def _moments(feature: Feature, numbers: Sequence[float], scored: Value) -> Answer:
    name = feature.aggregation.name
    if not numbers:
        return Answer(feature.empty)
    if name == "z_score":
        return _z_score(feature, numbers, scored)
    total, close = math.fsum(numbers), CLOSE * max(map(abs, numbers))
    mean = total / len(numbers)
    deviation = _deviation(numbers, mean)
    return {
        "count": Answer(float(len(numbers))),
        "rate": Answer(len(numbers) / (feature.window_ms / 1000)),
        "min": Answer(min(numbers)),
        "max": Answer(max(numbers)),
        "sum": Answer(total, CLOSE * math.fsum(map(abs, numbers))),
        "mean": Answer(mean, close),
        "share": Answer(mean, close),
        "std": Answer(deviation, close),
        "var": Answer(deviation * deviation, close * (2.0 * deviation + close)),
    }[name]


def _deviation(numbers: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((number - mean) * (number - mean) for number in numbers) / len(numbers))


def _z_score(feature: Feature, numbers: Sequence[float], scored: Value) -> Answer:
    if scored is None:
        return Answer(feature.empty)
    largest, mean = max(map(abs, numbers)), math.fsum(numbers) / len(numbers)
    deviation = _deviation(numbers, mean)
    if not deviation > _LEAST_SPREAD * largest:
        return UNKNOWN
    distance = (float(scored) - mean) / deviation
    return Answer(distance, 2.0 * CLOSE * largest * (1.0 + abs(distance)) / deviation)


def _decayed(feature: Feature, visible: Sequence[Taken], as_of_ms: int) -> Answer:
    if not visible:
        return Answer(feature.empty)
    life_ms = feature.options.half_life_ms
    weights = [2.0 ** ((one.time_ms - as_of_ms) / life_ms) for one in visible]
    weighted = [weight * float(one.given) for weight, one in zip(weights, visible, strict=True)]
    if feature.aggregation.name == "decayed_count":
        return Answer(math.fsum(weights), CLOSE * math.fsum(weights))
    if feature.aggregation.name == "decayed_sum":
        return Answer(math.fsum(weighted), CLOSE * math.fsum(map(abs, weighted)))
    if not math.fsum(weights):
        return UNKNOWN
    return Answer(math.fsum(weighted) / math.fsum(weights), CLOSE * max(abs(float(one.given)) for one in visible))


def _quantile(feature: Feature, numbers: Sequence[float]) -> Answer:
    if not numbers:
        return Answer(feature.empty)
    values, declared = sorted(numbers), feature.options
    value = max(-declared.largest, min(declared.largest, values[math.floor(declared.q * (len(values) - 1))]))
    return Answer(value, max(declared.error * abs(value), declared.smallest) * (1 + 1e-12))


# ------------------------------------------------------------------------------------------------- what counts or chooses


def chosen(feature: Feature, visible: Sequence[Taken], as_of_ms: int) -> float:
    """The value of a feature that has no rounding, of what was `taken`."""
    kind = feature.aggregation.of
    if kind in {"recent", "run"}:
        visible = [one for one in visible if one.in_order]
    if kind == "recent":
        return _recent(feature, visible, as_of_ms)
    if not visible:
        return feature.empty
    return {"oldest": _oldest, "run": _run, "hashes": _distinct, "bins": _frequent}[kind](feature, visible)


def _oldest(_: Feature, visible: Sequence[Taken]) -> float:
    return float(min(visible, key=lambda one: one.time_ms).given)


def _run(_: Feature, visible: Sequence[Taken]) -> float:
    broken = [place for place, one in enumerate(visible) if not one.given]
    return float(len(visible) - (broken[-1] + 1 if broken else 0))


def _recent(feature: Feature, found: Sequence[Taken], as_of_ms: int) -> float:
    back = max(feature.options.n, 1)
    if len(found) <= back or found[-1 - back].time_ms <= as_of_ms - feature.window_ms:
        return feature.empty
    value = float(found[-1 - back].given)
    return value if feature.aggregation.name == "lag" else float(found[-1].given) - value


def _distinct(feature: Feature, visible: Sequence[Taken]) -> float:
    values = {one.given for one in visible}
    exact = feature.options.exact
    if len(values) <= exact:
        return float(len(values))
    hashes = sorted(map(_hash_of, values))
    return exact * 2.0**53 / (hashes[exact] + 1.0)


def _hash_of(value: float | str) -> float:
    if isinstance(value, str):
        return float(int.from_bytes(hashlib.sha256(value.encode(errors="surrogatepass")).digest()[:8], "big") >> 11)
    mask = 2**64 - 1
    mixed = (int.from_bytes(struct.pack("<d", value + 0.0), "little") + 0x9E3779B97F4A7C15) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return float((mixed ^ (mixed >> 31)) >> 11)


def _frequent(feature: Feature, visible: Sequence[Taken]) -> float:
    vocabulary, rank = feature.options.vocabulary, feature.options.rank
    places = Counter(vocabulary.index(one.given) if one.given in vocabulary else len(vocabulary) for one in visible)
    order = sorted(places, key=lambda place: (-places[place], place))
    return float(order[rank - 1]) if rank <= len(order) else feature.empty
