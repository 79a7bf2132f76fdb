"""A sink that is opened anew whenever the last one may hold something nobody knows of.

A new producer fences every older one with our id and aborts what it left pending: that is how anything indefinite becomes definite.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import TransientError
from headrace.publish.record_sink import RecordSink

RETRY_MS = 500


class FreshSink:
    """Opens a sink when it must be, with a pause between attempts."""

    def __init__(self, sink: RecordSink, now_ms: Callable[[], int], say: Callable[..., None]) -> None:
        self.sink = sink
        self._now_ms = now_ms
        self._say = say
        self._open = False
        self._retry_at_ms = 0

    def ready(self) -> bool:
        """Whether there is a usable producer; tries to open one where there is none."""
        if not self._open and self._now_ms() >= self._retry_at_ms:
            try:
                self.sink.open()
                self._open = True
            except TransientError as away:
                self._retry_at_ms = self._now_ms() + RETRY_MS
                self._say("producer waits", reason=str(away))
        return self._open

    def throw_away(self) -> None:
        """The producer may hold something: never use it again."""
        self._open = False
