"""A small topic of an app that is kept for ever and read on whenever asked: its facts (what is true of its log and no function of it), and
the commands to its registry. One partition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.consume.record_reader import RecordFeed, RecordReader
from headrace.errors import BrokerRefused, TransientError, UnstableOffsets
from headrace.types import TopicPartition

LOOKS = 100
"""How often nothing may come, a tenth of a second each."""


class Facts:
    """The values of such a topic, from its start. One thread at a time."""

    def __init__(self, topic: str, open_reader: Callable[[], RecordReader], written_end: Callable[[TopicPartition], int]) -> None:
        """`written_end` is the end of a partition, pending transactions included: what stands below it may be committed already, although
        the broker of this topic has not heard so yet.
        """
        self._partition = TopicPartition(topic, 0)
        self._open, self._written_end = open_reader, written_end
        self._reader: RecordReader | None = None
        self.records: list[tuple[int, bytes | None]] = []
        """Offset and value of all that was read."""
        self.start = 0
        """The oldest offset that was kept when it was read last."""
        self._end = self._given = 0

    def __call__(self) -> Sequence[bytes | None]:
        """All of them. Raises `UnstableOffsets` while a transaction that wrote facts is pending, `TransientError`, `BrokerRefused`."""
        self._reader = self._reader or self._open()
        if not self._reader.partitions(self._partition.topic):
            return []
        end = self._written_end(self._partition)
        if end > self._end:
            log = self._reader.log_range(self._partition)
            if log.end < end:
                raise UnstableOffsets(f"{self._partition.topic}: a pending transaction has written to it")
            self.start = log.start
            self._end = max(self._end, log.start)
            self._read(self._reader, end)
            self._end = end
        return [value for _, value in self.records]

    def news(self) -> list[tuple[int, bytes | None]]:
        """Offset and value of those that came since it was asked last. Raises as a call does."""
        self()
        begun, self._given = self._given, len(self.records)
        return self.records[begun:]

    def _read(self, reader: RecordReader, end: int) -> None:
        """Take everything up to an end. Raises `TransientError` where the beginning is deleted meanwhile: then it is read from there on."""
        try:
            self._take(reader.feed({self._partition: self._end}, {self._partition: end}))
        except BrokerRefused as refused:
            if reader.log_range(self._partition).start <= self._end:
                raise
            raise TransientError(f"{self._partition.topic}: its beginning was deleted while it was read") from refused

    def _take(self, feed: RecordFeed) -> None:
        """Take everything; a leader that goes away meanwhile is not waited for."""
        empty = 0
        try:
            while feed.left:
                found = feed.take()
                empty = 0 if found else empty + 1
                if empty > LOOKS:
                    raise TransientError(f"{self._partition.topic}: nothing comes, although there is more")
                for batch in found:
                    self.records += zip(batch.offsets.tolist(), batch.values, strict=True)
                    self._end = int(batch.offsets[-1]) + 1
        finally:
            feed.close()

    def close(self) -> None:
        """Close the connections."""
        if self._reader is not None:
            self._reader.close()
