"""Where a key lands: murmur2, as Kafka's Java clients, librdkafka's `murmur2_random` and aiokafka compute it (pure).

The same key must land in the same partition whoever produced it: look-ups find the partition of an entity this way, and predictions
keep the order of their key. Hashing in pure Python costs 2 to 4 us a key, so hashes of recent keys are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

_MASK = 0xFFFFFFFF
_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C
_POSITIVE = 0x7FFFFFFF


def murmur2(key: bytes) -> int:
    """The 32-bit murmur2 hash of a key, unsigned, with Kafka's seed."""
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = (int.from_bytes(key[at : at + 4], "little") * _MULTIPLIER) & _MASK
        k = ((k ^ (k >> 24)) * _MULTIPLIER) & _MASK
        h = ((h * _MULTIPLIER) & _MASK) ^ k
    if whole != length:
        h = ((h ^ int.from_bytes(key[whole:], "little")) * _MULTIPLIER) & _MASK
    h = ((h ^ (h >> 13)) * _MULTIPLIER) & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key in a topic of so many partitions."""
    return (murmur2(key) & _POSITIVE) % partitions


class Partitioner:
    """Partitions of many keys; remembers the hashes of up to `remembered` keys, then forgets them all at once."""

    def __init__(self, *, remembered: int = 200_000) -> None:
        self._remembered = remembered
        self._hashes: dict[bytes, int] = {}

    def partitions(self, keys: Sequence[bytes], partitions: int) -> list[int]:
        """The partition of each key in a topic of so many partitions."""
        return [found % partitions for found in self.hashes(keys)]

    def hashes(self, keys: Sequence[bytes]) -> list[int]:
        """The hash of each key, from which its partition follows in a topic of any number of partitions."""
        hashes = self._hashes
        if len(hashes) > self._remembered:
            hashes.clear()
        for key in keys:
            if key not in hashes:
                hashes[key] = murmur2(key) & _POSITIVE
        return [hashes[key] for key in keys]
