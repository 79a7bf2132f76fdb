"""The states of a verification's own fold: in memory while they are few, in a file of their own when they are many.

It answers `ResidentStates` as the online store answers a worker, with nobody to agree with. SQLite keeps it, so that memory does not grow
with the number of entities; what is read and written costs some microseconds a state, and only beyond what fits in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from headrace.types import PartitionWrite, StatesPage, TopicPartition

_PAGE = 1_000
_CACHE_KB = 32_000


class Shelf:
    """Packed states by partition, view and entity. For one thread."""

    def __init__(self, views: Mapping[str, Sequence[str]]) -> None:
        """`views`: the fingerprints of the views of each source topic."""
        self._views = views
        self._folder = TemporaryDirectory(prefix="headrace-verify-")
        self._file = sqlite3.connect(Path(self._folder.name) / "states", isolation_level=None)
        for line in ("journal_mode = off", "synchronous = off", f"cache_size = -{_CACHE_KB}", "locking_mode = exclusive"):
            self._file.execute(f"PRAGMA {line}")
        self._file.execute(
            "CREATE TABLE states (topic TEXT, number INTEGER, view TEXT, entity BLOB, state BLOB,"
            " PRIMARY KEY (topic, number, view, entity)) WITHOUT ROWID"
        )

    def read(self, partition: TopicPartition, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes | None]]:
        """The states of entities in all views of the partition's source; None where there is none."""
        return {view: self.states(partition, view, keys) for view in self._views[partition.topic]}

    def states(self, partition: TopicPartition, view: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The same of one view."""
        found: dict[bytes, bytes] = {}
        for begin in range(0, len(keys), _PAGE):
            some = keys[begin : begin + _PAGE]
            marks = ",".join("?" * len(some))
            question = f"SELECT entity, state FROM states WHERE topic = ? AND number = ? AND view = ? AND entity IN ({marks})"  # noqa: S608
            found.update(self._file.execute(question, (*partition, view, *some)).fetchall())
        return [found.get(key) for key in keys]

    def scan(self, _partition: TopicPartition, _view: str, _cursor: int) -> StatesPage:
        """Nothing to sweep: what is left of a state that no window sees is equal to none."""
        return StatesPage(cursor=0, keys=[], states=[])

    def apply(self, writes: Iterable[PartitionWrite]) -> None:
        """Take what a fold has packed."""
        self._file.execute("BEGIN")
        for write in writes:
            for view in write.views:
                for chunk in view.chunks:
                    content, bounds = chunk.buffer.tobytes(), chunk.bounds.tolist()
                    rows = (
                        (*write.partition, view.view, key, content[bounds[place] : bounds[place + 1]])
                        for place, key in enumerate(chunk.keys)
                    )
                    self._file.executemany("INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)", rows)
                gone = ((*write.partition, view.view, key) for key in view.deletions)
                self._file.executemany("DELETE FROM states WHERE topic = ? AND number = ? AND view = ? AND entity = ?", gone)
        self._file.execute("COMMIT")

    def pages(self, partition: TopicPartition, view: str) -> Iterator[list[tuple[bytes, bytes]]]:
        """All entities of a view in a partition, in order, a page at a time."""
        after = b""
        question = "SELECT entity, state FROM states WHERE topic = ? AND number = ? AND view = ? AND entity > ? ORDER BY entity LIMIT ?"
        while page := self._file.execute(question, (*partition, view, after, _PAGE)).fetchall():
            yield page
            after = page[-1][0]

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._folder.cleanup()
