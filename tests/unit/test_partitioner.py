"""Where keys land."""

from __future__ import annotations

import pytest

from headrace.partitioner import Partitioner, murmur2, partition_of

# Signed hashes as Kafka's own test (UtilsTest) expects them of its Java client.
JAVA = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "signed"), JAVA)
def test_murmur2_gives_what_the_java_client_gives(key: bytes, signed: int) -> None:
    """The hash equals the Java client's, for every remainder of the length."""
    assert murmur2(key) == signed % (1 << 32)


def test_many_keys_land_where_each_lands_alone() -> None:
    """Remembered hashes change nothing, also after they were all forgotten."""
    keys = [b"key-%d" % (number % 70) for number in range(500)]
    partitioner = Partitioner(remembered=50)
    for partitions in (1, 7, 12):
        assert partitioner.partitions(keys, partitions) == [partition_of(key, partitions) for key in keys]
