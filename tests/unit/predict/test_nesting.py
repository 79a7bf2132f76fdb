"""What calls of functions come to, counted and not tried."""

from __future__ import annotations

from math import inf

import pytest

from headrace.predict.nesting import Name, unrolled


def named(**counts: int) -> dict[Name, int]:
    """Names of one domain and how often each stands there."""
    return {("mine", name): count for name, count in counts.items()}


@pytest.mark.parametrize(
    ("body", "functions", "expected"),
    [
        (named(add=3), {}, (0, 3)),
        (named(add=1, f=2), {"f": named(add=5)}, (1, 11)),
        (named(f=1), {"f": named(g=2, add=1), "g": named(add=3)}, (2, 7)),
        (named(add=1), {"f": named(f=1)}, (inf, inf)),
        (named(f=1), {"f": named(g=1), "g": named(h=1), "h": named(g=1)}, (inf, inf)),
        (named(f=1, g=1), {"f": named(h=1), "g": named(h=1), "h": named(add=2)}, (2, 4)),
        (named(f0=1), {f"f{place}": named(**{f"f{place + 1}": 10}) for place in range(10)}, (10, 10**10)),
        (named(f0=1), {f"f{place}": named(**{f"f{place + 1}": 10**6}) for place in range(100)}, (100, float(1 << 62))),
        (named(add=1), {"f": {}}, (1, 1)),
    ],
)
def test_depth_and_size_of_calls(body: dict[Name, int], functions: dict[str, dict[Name, int]], expected: tuple[float, float]) -> None:
    """Depth is that of the longest chain, size is that of the body with all calls replaced, circles have none, and no number overflows."""
    assert unrolled(body, {("mine", name): inside for name, inside in functions.items()}) == expected
