r"""A file of states: what `headrace state snapshot` writes and `headrace state restore` reads.

    "headrace state 1\\n"                          the magic words, with the version of this format
    frame*                                         length (4 bytes), then so many bytes of zlib, in which the first byte is the kind
        H   {app, headrace, made_at}               once
        B   {topic, partition, topic_id, views}    a partition begins; views: [fingerprint, name]
        S   a page of states of one view           later pages over earlier ones; a state of length -1 is none
        E   {heads, pages}                         it ends; where each view stands: [offset, watermark]
        Z   {partitions}                           the end
    SHA-256 of everything before

Written as a stream into a name of its own, which becomes the wanted one when all is on the disk. A reader hashes the whole file before it
believes any of it, so what was cut or changed is refused, and what is not finished has no name. Memory holds one page.
The version counts up when this changes, or what a packed state looks like (`LAYOUT` in redis_store.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from headrace.errors import SnapshotRefused
from headrace.types import TopicPartition, ViewHead, watermark_of, watermark_text

MAGIC = b"headrace state 1\n"
_ANY_VERSION = b"headrace state "
_DIGEST_BYTES = 32
_LEVEL = 1  # zlib: states are dense, higher levels cost much and gain little
_CHUNK = 1 << 20
_NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A partition in a file, and where its pages begin."""

    partition: TopicPartition
    topic_id: str
    views: Mapping[str, str]
    """The names of its views by fingerprint."""
    heads: Mapping[str, ViewHead]
    pages: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some states of one view; None: there is none (any more)."""

    view: str
    keys: list[bytes]
    states: list[bytes | None]


class SnapshotWriter:
    """Writes a file. Whoever leaves it without `finish` leaves nothing."""

    def __init__(self, path: Path, *, app: str, headrace: str, made_at: str) -> None:
        self._path, self._partial = path, path.with_name(f"{path.name}.partial")
        self._file: BinaryIO = self._partial.open("wb")
        self._hash = hashlib.sha256()
        self._kept = (0, self._hash.copy())
        self._views: dict[str, int] = {}
        self.partitions = self.pages = 0
        self._write(MAGIC)
        self._frame(b"H", _json({"app": app, "headrace": headrace, "made_at": made_at}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove what is not finished."""
        if not self._file.closed:
            self._file.close()
            self._partial.unlink()

    def begin(self, partition: TopicPartition, topic_id: str, views: Mapping[str, str]) -> None:
        """A partition begins. `views`: the names of its views by fingerprint."""
        self._kept = (self._file.tell(), self._hash.copy())
        self._views = {view: number for number, view in enumerate(views)}
        self.pages = 0
        self._frame(b"B", _json({**partition._asdict(), "topic_id": topic_id, "views": list(views.items())}))

    def states(self, view: str, keys: Sequence[bytes], states: Sequence[bytes | None]) -> None:
        """A page of states; a later one counts, None deletes."""
        if not keys:
            return
        lengths = [len(key) for key in keys], [_NONE if state is None else len(state) for state in states]
        held = [state for state in states if state is not None]
        self._frame(
            b"S",
            struct.pack(">HI", self._views[view], len(keys)),
            *(np.array(column, dtype=">i4").tobytes() for column in lengths),
            *keys,
            *held,
        )
        self.pages += 1

    def end(self, heads: Mapping[str, ViewHead]) -> None:
        """The partition ends; here is where its views stand."""
        found = {
            view: [head.offset, None if head.watermark_ms is None else watermark_text(head.watermark_ms)] for view, head in heads.items()
        }
        self._frame(b"E", _json({"heads": found, "pages": self.pages}))
        self.partitions += 1

    def undo(self) -> None:
        """Take back the partition that was begun."""
        at, self._hash = self._kept[0], self._kept[1].copy()
        self._file.seek(at)
        self._file.truncate()

    def finish(self) -> int:
        """Everything is there: give the file its name; tells its size."""
        self._frame(b"Z", _json({"partitions": self.partitions}))
        self._file.write(self._hash.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._partial.replace(self._path)
        return size

    def _frame(self, kind: bytes, *pieces: bytes) -> None:
        packed = zlib.compress(b"".join((kind, *pieces)), _LEVEL)
        self._write(struct.pack(">I", len(packed)) + packed)

    def _write(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._file.write(piece)


class SnapshotFile:
    """A file that is whole. Raises `SnapshotRefused` for any other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = _opened(path)
        try:
            self._believe()
            self.app, self.made_at, self.parts = self._index()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def pages(self, part: Part) -> Iterator[Page]:
        """The states of a partition, in the order they are to be taken."""
        views = list(part.views)
        self._file.seek(part.at)
        for _ in range(part.pages):
            yield _page(views, self._frame()[1])

    def _believe(self) -> None:
        """Compare the hash of the whole file with the one it ends with."""
        found = self._file.read(len(MAGIC))
        if found != MAGIC:
            if found.startswith(_ANY_VERSION) and found.endswith(b"\n"):
                raise SnapshotRefused(
                    f"{self._path} was written by another version of headrace ({found!r}, this one reads {MAGIC!r}): restore it with that "
                    "version, or have the state folded again: `headrace state rebuild`"
                )
            raise SnapshotRefused(f"{self._path} is no file of states: `headrace state snapshot` writes those")
        size = self._path.stat().st_size
        digest, left = hashlib.sha256(found), size - len(MAGIC) - _DIGEST_BYTES
        while left > 0 and (piece := self._file.read(min(left, _CHUNK))):
            digest.update(piece)
            left -= len(piece)
        if left or self._file.read() != digest.digest():
            raise SnapshotRefused(
                f"{self._path} is damaged: it was cut or changed after it was written, so nothing of it is used; take an older file, or "
                "have the state folded again: `headrace state rebuild`"
            )

    def _index(self) -> tuple[str, str, list[Part]]:
        """What the file is about, without its states."""
        self._file.seek(len(MAGIC))
        header = json.loads(self._frame()[1])
        parts: list[Part] = []
        begun: dict[str, Any] = {}
        at = 0
        while True:
            kind, content = self._frame()
            if kind == b"B":
                begun, at = json.loads(content), self._file.tell()
            elif kind == b"E":
                parts.append(_part(begun, json.loads(content), at))
            elif kind == b"Z":
                return header["app"], header["made_at"], parts

    def _frame(self) -> tuple[bytes, bytes]:
        (length,) = struct.unpack(">I", self._file.read(4))
        content = zlib.decompress(self._file.read(length))
        return content[:1], content[1:]


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SnapshotRefused(f"{path} cannot be read: {error.strerror}") from error


def _part(begun: Mapping[str, Any], ended: Mapping[str, Any], at: int) -> Part:
    return Part(
        partition=TopicPartition(begun["topic"], begun["partition"]),
        topic_id=begun["topic_id"],
        views=dict(begun["views"]),
        heads={
            view: ViewHead(offset=offset, watermark_ms=None if watermark is None else watermark_of(watermark))
            for view, (offset, watermark) in ended["heads"].items()
        },
        pages=ended["pages"],
        at=at,
    )


def _page(views: Sequence[str], content: bytes) -> Page:
    """A page from its bytes."""
    number, count = struct.unpack_from(">HI", content)
    key_lengths, state_lengths = np.frombuffer(content, dtype=">i4", count=2 * count, offset=6).reshape(2, count).tolist()
    at = 6 + 8 * count
    keys: list[bytes] = []
    states: list[bytes | None] = []
    for length in key_lengths:
        keys.append(content[at : at + length])
        at += length
    for length in state_lengths:
        states.append(None if length == _NONE else content[at : at + length])
        at += max(length, 0)
    return Page(view=views[number], keys=keys, states=states)


def _json(found: object) -> bytes:
    return json.dumps(found).encode()
