"""T51: events with bytes changed at random."""

from __future__ import annotations

import random

from headrace.decode.decoder import Decoder
from headrace.types import Reason
from tests.unit.decode.contracts import DEPARTURES, NOW_MS, batch, event
from tests.unit.decode.verdict import verdict

ORIGINALS = [
    event(),
    event(carrier=None, stops=None, note="grüezi", nested={"a": [1, 2, {"b": None}]}),
    event(dep_delay=-1e-7, seats=2**53 + 1, text='\\u00e9\n"quoted"'),
]
TELLING = b'{}[]",:\\u0123456789.eE+-tfn \x00\x1f\x7f\x80\xc3\xff'


def mutant(pick: random.Random) -> bytes:
    """An event with a letter or digit made another, or with up to four bytes changed without any regard for what they are."""
    value = bytearray(pick.choice(ORIGINALS))
    if pick.random() < 0.4:
        at = pick.choice([at for at, byte in enumerate(value) if chr(byte).isalnum()])
        value[at] = pick.choice(b"0123456789" if chr(value[at]).isdigit() else b"ABEJLRWabcdeflnrstu")
        return bytes(value)
    for _ in range(pick.randint(1, 4)):
        at = pick.randrange(len(value))
        byte = pick.choice(TELLING) if pick.random() < 0.5 else pick.randrange(256)
        match pick.randrange(6):
            case 0:
                value[at] = byte
            case 1:
                value.insert(at, byte)
            case 2:
                del value[at]
            case 3:
                other = pick.randrange(len(value))
                value[at], value[other] = value[other], value[at]
            case 4:
                value[at:at] = value[at : at + pick.randint(1, 30)]
            case _:
                del value[at : at + pick.randint(1, 8)]
    return bytes(value)


def test_every_mutated_event_has_one_result_for_the_right_reason() -> None:
    """T51: 10,000 mutants, decoded in batches, are each an event or a dead letter, for the reason the reference gives."""
    pick = random.Random(51)
    values = [mutant(pick) for _ in range(10_000)]
    decoder = Decoder(DEPARTURES)
    seen: dict[Reason | None, int] = {}
    for start in range(0, len(values), 500):
        part = values[start : start + 500]
        result = decoder.decode(batch(part))
        found: dict[int, Reason | None] = dict.fromkeys(result.events.rows.tolist())
        assert all(letter.row not in found for letter in result.refused)
        found.update({letter.row: letter.reason for letter in result.refused})
        assert len(result.events) + len(result.refused) == len(part)
        for row, value in enumerate(part):
            assert found[row] == verdict(DEPARTURES, b"EWR", value, NOW_MS), value
            seen[found[row]] = seen.get(found[row], 0) + 1
    assert min(seen.get(reason, 0) for reason in (None, Reason.MALFORMED, Reason.CONTRACT, Reason.BAD_KEY)) > 100, seen
