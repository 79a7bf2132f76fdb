"""The control topic in memory, as operators write to it."""

from __future__ import annotations

from headrace.errors import TransientError
from headrace.memory_log.log import Fate, Hook, MemoryLog, go_on
from headrace.types import TopicPartition


class MemoryControl:
    """Writes commands to the registry of an app, and cuts their topic."""

    def __init__(self, log: MemoryLog, topic: str, *, pause: Hook = go_on) -> None:
        self._log, self._topic, self._hook = log, topic, pause

    def write(self, key: bytes | None, value: bytes) -> None:
        """Put a record at the end."""
        fate = self._hook("control") or Fate.GO
        if fate is not Fate.LOST_REQUEST:
            self._log.append(self._topic, 0, key, value)
        if fate is not Fate.GO:
            raise TransientError("no answer to what was sent")

    def delete_before(self, offset: int) -> None:
        """Delete the records below an offset."""
        self._hook("cut")
        self._log.delete_before(TopicPartition(self._topic, 0), offset)
