"""What functions of a file come to once each call is replaced by what it calls, as a runtime does when it loads them (pure).

A few lines can stand for more nodes than any memory holds: ten functions that call the next one ten times each are ten thousand million
nodes. So it is counted here, and not tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

Name = tuple[str, str]
"""Domain and name of an operator or function."""


def unrolled(body: Mapping[Name, int], functions: Mapping[Name, Mapping[Name, int]]) -> tuple[float, float]:
    """How deep functions call one another, and how many nodes `body` has with all calls replaced; both infinite where one calls itself.

    `body` and each function say how many nodes of which name they have. Functions whose callees are all known are taken away, layer by
    layer; what stays calls itself.
    """
    left = {function: {callee for callee in inside if callee in functions} for function, inside in functions.items()}
    callers: dict[Name, list[Name]] = {}
    for function, callees in left.items():
        for callee in callees:
            callers.setdefault(callee, []).append(function)
    sizes: dict[Name, int] = {}
    layer = [function for function, callees in left.items() if not callees]
    deep = 0
    while layer:
        deep += 1
        above = []
        for function in layer:
            sizes[function] = _size(functions[function], sizes)
            for caller in callers.get(function, ()):
                left[caller].discard(function)
                if not left[caller]:
                    above.append(caller)
        layer = above
    if len(sizes) < len(functions):
        return inf, inf
    return deep, float(min(_size(body, sizes), 1 << 62))


def _size(inside: Mapping[Name, int], sizes: Mapping[Name, int]) -> int:
    return sum(times * sizes.get(name, 1) for name, times in inside.items())
