from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from headrace.errors import SnapshotRefused
from headrace.features.snapshot_file import MAGIC, SnapshotFile, SnapshotWriter
from headrace.types import TopicPartition, ViewHead

P0, P1 = TopicPartition("payments.v1", 0), TopicPartition("payments.v1", 1)
V, W = "0123456789abcdef", "fedcba9876543210"


def written(path: Path, pages: int = 3) -> Path:
    """A file of two partitions, the second of which was begun twice."""
    with SnapshotWriter(path, app="cards", headrace="1.2.3", made_at="2026-01-31T12:00:00+00:00") as writer:
        writer.begin(P0, "id-1", {V: "spending", W: "habits"})
        for number in range(pages):
            writer.states(V, [b"a", b"key %d" % number], [b"state %d" % number, b""])
        writer.states(W, [b"b", b"c"], [None, bytes(range(256))])
        writer.states(W, [], [])
        writer.end({V: ViewHead(offset=70, watermark_ms=-5), W: ViewHead(offset=71, watermark_ms=None)})
        writer.begin(P1, "id-1", {V: "spending"})
        writer.states(V, [b"nobody"], [b"wrong"])
        writer.undo()
        writer.begin(P1, "id-1", {V: "spending"})
        writer.end({V: ViewHead(offset=0, watermark_ms=None)})
        assert not path.exists()
        assert writer.finish() == path.stat().st_size
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """App, time, partitions, views, heads and every page come back in order; what was taken back does not."""
    path = written(tmp_path / "state")
    with SnapshotFile(path) as file:
        assert (file.app, file.made_at) == ("cards", "2026-01-31T12:00:00+00:00")
        first, second = file.parts
        assert (first.partition, first.topic_id, first.views) == (P0, "id-1", {V: "spending", W: "habits"})
        assert first.heads == {V: ViewHead(offset=70, watermark_ms=-5), W: ViewHead(offset=71, watermark_ms=None)}
        pages = [(page.view, page.keys, page.states) for page in file.pages(first)]
        assert pages[:3] == [(V, [b"a", b"key %d" % number], [b"state %d" % number, b""]) for number in range(3)]
        assert pages[3:] == [(W, [b"b", b"c"], [None, bytes(range(256))])]
        assert (second.partition, list(file.pages(second))) == (P1, [])
        assert len(list(file.pages(first))) == 4
    assert [found.name for found in tmp_path.iterdir()] == ["state"]


def test_a_file_that_is_not_finished_does_not_exist(tmp_path: Path) -> None:
    """Whoever stops in the middle leaves nothing, and an older file of that name as it was."""
    path = written(tmp_path / "state")
    before = path.read_bytes()
    with SnapshotWriter(path, app="other", headrace="1", made_at="") as writer:
        writer.begin(P0, "id", {V: "spending"})
    assert [found.name for found in tmp_path.iterdir()] == ["state"]
    assert path.read_bytes() == before


def places(rng: random.Random, length: int) -> list[int]:
    """All places near the ends of a file, and some between."""
    return [*range(30), *rng.sample(range(30, length - 40), 40), *range(length - 40, length)]


def test_a_file_that_was_cut_is_refused(tmp_path: Path, seed: int) -> None:
    """However much of the end is missing, nothing is believed."""
    whole = written(tmp_path / "state").read_bytes()
    cut = tmp_path / "cut"
    for length in places(random.Random(seed), len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(SnapshotRefused, match=r"is damaged|is no file of states"):
            SnapshotFile(cut)
    cut.write_bytes(whole + b"\n")
    with pytest.raises(SnapshotRefused, match="is damaged"):
        SnapshotFile(cut)


def test_a_file_with_one_changed_byte_is_refused(tmp_path: Path, seed: int) -> None:
    """Whichever byte it is, the file is refused and the text says what to do."""
    rng = random.Random(seed)
    whole = written(tmp_path / "state").read_bytes()
    changed = tmp_path / "changed"
    for place in places(rng, len(whole)):
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ rng.randrange(1, 256)]) + whole[place + 1 :])
        with pytest.raises(SnapshotRefused, match="headrace state"):
            SnapshotFile(changed)


def test_another_version_is_named(tmp_path: Path) -> None:
    """A file of another format says so, and is not called damaged."""
    path = tmp_path / "state"
    path.write_bytes(MAGIC.replace(b"1", b"2") + struct.pack(">I", 9))
    with pytest.raises(SnapshotRefused, match="another version of headrace"):
        SnapshotFile(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A path without a file is an error of one line."""
    with pytest.raises(SnapshotRefused, match=r"nothing cannot be read: No such file"):
        SnapshotFile(tmp_path / "nothing")
