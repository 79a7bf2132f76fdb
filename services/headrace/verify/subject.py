"""What a verification looks at: the ports through which topics, group and store are asked, on Kafka and Redis or in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.consume.record_reader import RecordReader
from headrace.features.state_store import StateStore
from headrace.types import Position, TopicPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A deployment of an app."""

    reader: Callable[[], RecordReader]
    """A new reader that sees what a `read_committed` reader sees."""
    written_end: Callable[[TopicPartition], int]
    """The end of a partition, pending transactions included."""
    committed: Callable[[TopicPartition], Position | None]
    """The stable position of the app's group; raises `TransientError` while a transaction holds it."""
    topic_id: Callable[[str], str]
    """The id of a topic, which changes when it is made again under its name."""
    store: StateStore | None
    """None: the state is not checked."""
    now_ms: Callable[[], int]
    """A clock that never goes back."""
    pause: Callable[[int], None]
    """Let so many milliseconds pass."""
