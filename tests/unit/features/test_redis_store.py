from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np
import pytest

from headrace.errors import StoreRefused, TransientError
from headrace.features.redis_store import _judge, _scripts, _tag, _write
from headrace.types import StateChunk, TopicPartition, ViewWrite

GOOD = {"redis_version": "7.0.15", "maxmemory_policy": "noeviction", "aof_enabled": "1", "loading": "0", "role": "master"}


def test_a_good_server_passes() -> None:
    """Redis 7.0 and newer pass, and so does Valkey, which calls itself 7.2.4."""
    for version in ("7.0.0", "7.2.4", "8.4", "10.0.1"):
        assert _judge(GOOD | {"redis_version": version}, "mill:6379") == []


@pytest.mark.parametrize("version", ["6.2.14", "5.0", "", "unknown"])
def test_an_old_server_is_refused(version: str) -> None:
    """What is older than 7.0, or does not say, is refused with what is needed."""
    with pytest.raises(StoreRefused, match=r"needs 7\.0 or newer"):
        _judge(GOOD | {"redis_version": version}, "mill:6379")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-lfu"])
def test_a_server_that_evicts_is_refused(policy: str) -> None:
    """Every other policy is refused by name, with the command that mends it."""
    with pytest.raises(StoreRefused, match=rf"{policy}.*CONFIG SET maxmemory-policy noeviction"):
        _judge(GOOD | {"maxmemory_policy": policy}, "mill:6379")


def test_what_is_not_told_is_not_assumed() -> None:
    """A server that does not tell its policy is not trusted with state."""
    told = {name: value for name, value in GOOD.items() if name != "maxmemory_policy"}
    with pytest.raises(StoreRefused, match="not told"):
        _judge(told, "mill:6379")


@pytest.mark.parametrize("told", [{"loading": "1"}, {"role": "slave"}])
def test_what_passes_by_itself_is_waited_for(told: dict[str, str]) -> None:
    """Loading and failover are transient."""
    with pytest.raises(TransientError):
        _judge(GOOD | told, "mill:6379")


def test_a_server_without_append_only_file_is_a_warning() -> None:
    """The warning is a line that names the command."""
    (warning,) = _judge(GOOD | {"aof_enabled": "0"}, "mill:6379")
    assert "CONFIG SET appendonly yes" in warning


def test_scripts_are_loaded_by_name() -> None:
    """The file holds exactly the scripts that are used, each with the digest of its own text."""
    scripts = _scripts()
    assert set(scripts) == {"adopt", "claim", "note", "reset"}
    whole = resources.files("headrace.features").joinpath("redis_store.lua").read_bytes()
    for digest, text in scripts.values():
        assert text in whole
        assert hashlib.sha1(text, usedforsecurity=False).hexdigest().encode() == digest


@pytest.mark.parametrize(
    ("app", "topic", "tag"),
    [
        ("delays", "flights.departures.v1", b"delays.flights.departures.v1.7"),
        ("a.b", "c", b"a%2Eb.c.7"),
        ("a", "b.c", b"a.b.c.7"),
        ("a{b}", "c%}", b"a%7Bb%7D.c%25%7D.7"),
    ],
)
def test_a_hash_tag_can_be_read_in_one_way(app: str, topic: str, tag: bytes) -> None:
    """Neither braces nor dots let two partitions share a tag, and no name ends it early."""
    assert _tag(app, TopicPartition(topic, 7)) == tag


def test_a_write_is_the_commands_redis_reads() -> None:
    """States, deletions and the new offset of a view are one HSET, one HDEL and one HSET, byte for byte."""
    chunk = StateChunk(keys=[b"k1", b"k22"], buffer=np.frombuffer(b"abcde", dtype=np.uint8), bounds=np.array([0, 3, 5]))
    write = ViewWrite(view="v", start=0, end=12, chunks=[chunk], deletions=[b"d"])
    assert [bytes(command) for command in _write(b"t", write, -7)] == [
        b"*6\r\n$4\r\nHSET\r\n$10\r\nhr:{t}:v:s\r\n$2\r\nk1\r\n$3\r\nabc\r\n$3\r\nk22\r\n$2\r\nde\r\n",
        b"*3\r\n$4\r\nHDEL\r\n$10\r\nhr:{t}:v:s\r\n$1\r\nd\r\n",
        b"*6\r\n$4\r\nHSET\r\n$10\r\nhr:{t}:v:m\r\n$3\r\noff\r\n$2\r\n12\r\n$2\r\nwm\r\n$2\r\n-7\r\n",
    ]


def test_only_the_last_of_a_key_is_sent() -> None:
    """A key that a later chunk or a deletion overwrites is not sent; blocks hold 1,000 fields at most."""
    keys = [b"%d" % number for number in range(1_500)]
    states = StateChunk(keys=keys, buffer=np.zeros(1_500, dtype=np.uint8), bounds=np.arange(1_501))
    write = ViewWrite(view="v", start=0, end=1, chunks=[states, states, states], deletions=keys[:400])
    commands = [bytes(command) for command in _write(b"t", write, 0)]
    assert [command.partition(b"\r\n")[0] for command in commands] == [b"*2002", b"*202", b"*402", b"*6"]
