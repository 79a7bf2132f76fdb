"""The program that is fuzzed: `python -m tests.fuzz.decode_target BUG CORPUS [options of libFuzzer]`, ended by libFuzzer.

`BUG` is `decodes`, which is none, or the mistake that is planted to see that it is found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import atheris

with atheris.instrument_imports(include=["headrace.decode"]):
    from headrace.decode.decoder import Decoded, Decoder
from headrace.types import Reason, RecordBatch
from tests.fuzz.oracle import MAX_VALUE_BYTES, Decode, check
from tests.fuzz.records import taken_apart
from tests.unit.decode.contracts import DEPARTURES


def raises(decode: Decode, records: RecordBatch) -> Decoded:
    """A decoder that breaks at bytes that no seed holds."""
    for value in records.values:
        if value is not None and not value.isascii():
            raise ZeroDivisionError("a byte that nobody thought of")
    return decode(records)


def loses(decode: Decode, records: RecordBatch) -> Decoded:
    """A decoder that says nothing about a wrong key."""
    found = decode(records)
    return replace(found, refused=[letter for letter in found.refused if letter.reason is not Reason.BAD_KEY])


def repeats(decode: Decode, records: RecordBatch) -> Decoded:
    """A decoder that refuses a broken envelope twice."""
    found = decode(records)
    return replace(found, refused=[letter for letter in found.refused for _ in range(1 + (letter.reason is Reason.ENVELOPE))])


def mistakes(decode: Decode, records: RecordBatch) -> Decoded:
    """A decoder that takes an event without one of its fields for text that is no JSON."""
    found = decode(records)
    mistaken = [
        replace(letter, reason=Reason.MALFORMED) if "missing required field" in letter.error else letter for letter in found.refused
    ]
    return replace(found, refused=mistaken)


def decodes(decode: Decode, records: RecordBatch) -> Decoded:
    """The decoder as it is."""
    return decode(records)


BUGS: dict[str, Callable[[Decode, RecordBatch], Decoded]] = {one.__name__: one for one in (decodes, raises, loses, repeats, mistakes)}


def main() -> None:
    """Fuzz until told to stop, or until something is wrong."""
    bug = BUGS[sys.argv[1]]
    decoder = Decoder(DEPARTURES, max_value_bytes=MAX_VALUE_BYTES)

    def decode(records: RecordBatch) -> Decoded:
        return bug(decoder.decode, records)

    def try_one(fuzzed: bytes) -> None:
        check(decode, taken_apart(fuzzed))

    atheris.Setup([sys.argv[0], *sys.argv[2:]], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
