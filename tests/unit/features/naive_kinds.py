"""The twins of what cannot be told from moments: each takes everything a window may see, from scratch for every event.

`plainly` asks the mathematics; `exactly` asks for the bits, in the order the fold promises. What only counts has no rounding, so one serves
both; a quantile and a large number of distinct values are estimates, whose bounds `plainly` gives instead.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import unwrap

from headrace.features.sequence import power_of_two
from headrace.features.view import Feature


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An event that gives a feature something."""

    time_ms: int
    given: float | str
    in_order: bool
    """Whether it was the newest of its entity when it came."""


def plainly(feature: Feature, visible: Sequence[Taken], every: Sequence[Taken], as_of_ms: int) -> tuple[float, float]:
    """The value by the book, and how far off the fold may be. `visible`: what the panes of the window hold; `every`: all there is."""
    kind = feature.aggregation.of
    if kind == "decay":
        life_ms = feature.options.half_life_ms
        weights = [2.0 ** ((one.time_ms - as_of_ms) / life_ms) for one in visible]
        weighted = [weight * float(one.given) for weight, one in zip(weights, visible, strict=True)]
        if not visible:
            return feature.empty, 0.0
        found = {
            "decayed_count": math.fsum(weights),
            "decayed_sum": math.fsum(weighted),
            "decayed_mean": math.fsum(weighted) / math.fsum(weights),
        }[feature.aggregation.name]
        scale = (
            math.fsum(map(abs, weighted)) if feature.aggregation.name == "decayed_sum" else max(abs(float(one.given)) for one in visible)
        )
        return found, 1e-9 * scale
    if feature.aggregation.name == "quantile" and visible:
        values = sorted(float(one.given) for one in visible)
        declared = feature.options
        value = max(-declared.largest, min(declared.largest, values[math.floor(declared.q * (len(values) - 1))]))
        return value, max(declared.error * abs(value), declared.smallest) * (1 + 1e-12)
    return exactly(feature, visible, every, as_of_ms), 0.0


def exactly(feature: Feature, visible: Sequence[Taken], every: Sequence[Taken], as_of_ms: int) -> float:
    """The value to the bit."""
    kind = feature.aggregation.of
    if kind == "recent":
        return _recent(feature, [one for one in every if one.in_order], as_of_ms)
    if kind == "run":
        visible = [one for one in visible if one.in_order]
    if not visible:
        return feature.empty
    return {
        "oldest": _oldest,
        "run": _run,
        "decay": lambda feature, visible: _decayed(feature, visible, as_of_ms),
        "hashes": _distinct,
        "bins": _frequent if feature.options.rank else _quantile,
    }[kind](feature, visible)


def _oldest(_: Feature, visible: Sequence[Taken]) -> float:
    return float(min(visible, key=lambda one: one.time_ms).given)


def _run(_: Feature, visible: Sequence[Taken]) -> float:
    broken = [place for place, one in enumerate(visible) if not one.given]
    return float(len(visible) - (broken[-1] + 1 if broken else 0))


def _recent(feature: Feature, taken: Sequence[Taken], as_of_ms: int) -> float:
    back = max(feature.options.n, 1)
    if len(taken) <= back or taken[-1 - back].time_ms <= as_of_ms - feature.window_ms:
        return feature.empty
    value = float(taken[-1 - back].given)
    return value if feature.aggregation.name == "lag" else float(taken[-1].given) - value


def _decayed(feature: Feature, visible: Sequence[Taken], as_of_ms: int) -> float:
    power: Callable[[float], float] = unwrap(power_of_two)
    life_ms = float(feature.options.half_life_ms)
    panes: dict[int, tuple[float, float]] = {}
    for one in visible:
        pane = one.time_ms // feature.pane_ms
        weight = power((one.time_ms - pane * feature.pane_ms) / life_ms)
        total, weights = panes.get(pane, (None, None))
        more = float(one.given) * weight
        panes[pane] = (more, weight) if total is None or weights is None else (total + more, weights + weight)
    total = weights = at = None
    for pane, (more, weight) in sorted(panes.items()):
        if total is None or weights is None or at is None:
            total, weights = more, weight
        else:
            kept = power((at - pane) * feature.pane_ms / life_ms)
            total, weights = total * kept + more, weights * kept + weight
        at = pane
    assert total is not None
    assert weights is not None
    assert at is not None
    kept = power((at * feature.pane_ms - as_of_ms) / life_ms)
    return {"decayed_count": weights * kept, "decayed_sum": total * kept, "decayed_mean": total / weights}[feature.aggregation.name]


def _distinct(feature: Feature, visible: Sequence[Taken]) -> float:
    values = {one.given for one in visible}
    exact = feature.options.exact
    if len(values) <= exact:
        return float(len(values))
    hashes = sorted(map(_hash_of, values))
    return exact * 2.0**53 / (hashes[exact] + 1.0)


def _hash_of(value: float | str) -> float:
    if isinstance(value, str):
        return float(int.from_bytes(hashlib.sha256(value.encode()).digest()[:8], "big") >> 11)
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


def _quantile(feature: Feature, visible: Sequence[Taken]) -> float:
    parts = math.ceil((1 / feature.options.error - 1) / 2)
    values = sorted(_bin(float(one.given), parts, feature) for one in visible)
    sign, power, part = values[math.floor(feature.options.q * (len(values) - 1))]
    if sign == 0:
        return 0.0
    low, high = 1.0 + (sign * part) / parts, 1.0 + (sign * part + 1) / parts
    return sign * math.ldexp(2.0 * low * high / (low + high), sign * power)


def _bin(value: float, parts: int, feature: Feature) -> tuple[int, int, int]:
    """Sign, power of two and part of the bin, those of negative values the other way round, so that they sort as the values do."""
    if abs(value) < feature.options.smallest:
        return 0, 0, 0
    fraction, exponent = math.frexp(min(abs(value), feature.options.largest))
    sign = 1 if value > 0 else -1
    return sign, sign * (exponent - 1), sign * math.floor((2 * fraction - 1) * parts)
