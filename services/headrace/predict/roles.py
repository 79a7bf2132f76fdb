"""Who scores an event, and whose score is published as the pipeline's (pure).

    champion     answers for every entity that no challenger answers for; published
    challenger   answers in the champion's place for a share of the entities; published. There the champion is scored as a shadow, so
                 both have scores for the same events
    shadow       scored on the same vector, published apart, to `<predictions>.shadow`

A challenger's entities are drawn by a hash of pipeline, version and entity key: the same ones on every worker, after every restart, and of
a share that grows the old ones stay in.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.types import Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The live versions of a pipeline, by role."""

    champion: str | None = None
    challenger: str | None = None
    share: float = 0.0
    """The share of entities that the challenger answers for, 0 to 1."""
    shadows: tuple[str, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        """All of them, the champion first."""
        return tuple(one for one in (self.champion, self.challenger, *self.shadows) if one is not None)


def challenged(pipeline: str, version: str, share: float, entities: Sequence[str]) -> Bools:
    """For each entity key whether the challenger answers for it."""
    salt = zlib.crc32(f"{pipeline}\0{version}\0".encode())
    hashes = np.fromiter((zlib.crc32(entity.encode(), salt) for entity in entities), dtype=np.uint64, count=len(entities))
    # A CRC is linear, so keys that count up leave patterns; the finalizer of SplitMix64 (Steele, Lea, Flood 2014) takes them out.
    hashes += np.uint64(0x9E3779B97F4A7C15)
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    drawn: Bools = (hashes >> np.uint64(11)).astype(np.float64) / float(1 << 53) < share
    return drawn
