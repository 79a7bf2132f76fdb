"""The twins of what cannot be told from moments, to the bit: each takes everything a window may see, from scratch for every event, in the
order the fold promises.

What only counts or chooses has no rounding and is told by the twin of the audit (`headrace.audit.twin`), which knows the mathematics of
the others as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import unwrap

from headrace.audit.twin import Taken, chosen
from headrace.features.sequence import power_of_two
from headrace.features.view import Feature


def exactly(feature: Feature, visible: Sequence[Taken], as_of_ms: int) -> float:
    """The value to the bit, of what was taken."""
    if feature.aggregation.of == "decay":
        return _decayed(feature, visible, as_of_ms) if visible else feature.empty
    if feature.aggregation.name == "quantile":
        return _quantile(feature, visible) if visible else feature.empty
    return chosen(feature, visible, as_of_ms)


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
