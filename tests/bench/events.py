"""The events: 200 bytes of JSON each, the cards drawn evenly, 10 ms of event time apart; the same for the same seed."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate

ENTITIES = 20_000
BYTES = 200
FIRST_MS = 1_700_000_000_000
"""Long ago: a broker refuses timestamps of tomorrow."""
STEP_MS = 10
SEED = 7

_TEXT = (
    '{"event_id":"%016x","entity_id":"%s","ts":%d,"amount":%.2f,"kind":"purchase","merchant":"m%05d",'
    '"country":"PL","device":"ios-%03d","ok":true'
)


def event(number: int, card: str, time_ms: int, amount: float, merchant: int) -> bytes:
    """One event, filled up to its size."""
    text = _TEXT % (number, card, time_ms, amount, merchant, number * 7 % 311)
    return f'{text},"pad":"{"x" * max(0, BYTES - len(text) - 10)}"}}'.encode()


def card(number: int) -> str:
    """The key of a card."""
    return f"u{number:06d}"


def events(
    count: int, entities: int = ENTITIES, *, zipf: float | None = None, step_ms: int = STEP_MS
) -> Iterator[tuple[bytes, bytes, int]]:
    """Key, value and time of so many events; `zipf`: the cards are drawn by Zipf's law with this exponent instead of evenly."""
    draw = random.Random(SEED)
    weights = None if zipf is None else list(accumulate(1.0 / rank**zipf for rank in range(1, entities + 1)))
    for number in range(count):
        name = card(draw.randrange(entities) if weights is None else bisect(weights, draw.random() * weights[-1]))
        time_ms = FIRST_MS + number * step_ms
        yield name.encode(), event(number, name, time_ms, draw.expovariate(1 / 50), draw.randrange(500)), time_ms
