"""The control topic of an app, read on and folded; and cut, so that it does not grow for ever.

A snapshot is written when many records stand behind the last one. It holds only if nobody wrote between (`predict/registry.py`), so it is
read back like any other record; only then is what stands before it deleted. Whoever dies in between leaves a snapshot and a long log, and
the next one deletes. Whoever writes between makes the snapshot one that nobody takes, and the next one writes another.

Limit: a topic whose beginning was deleted by somebody else is found out where it is read from its start, not by whoever follows it.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.consume.facts import Facts
from headrace.errors import BrokerRefused, RegistryRefused
from headrace.predict.registry import Registry

MOST_RECORDS = 1_000
"""How many records may stand behind the last snapshot."""


class ControlLog:
    """The registry as of the stable end of the control topic. One thread at a time."""

    def __init__(self, topic: str, records: Facts) -> None:
        self._topic, self._records = topic, records
        self._registry = Registry()
        self._first: int | None = None
        """Where the log began."""
        self._whole = True
        """Whether its beginning is there."""
        self._behind = 0
        """How many records stand behind the last snapshot, or the beginning."""

    def read(self) -> Registry:
        """Read on. Raises `TransientError`, `UnstableOffsets` while somebody's command is not decided, `RegistryRefused` for a topic
        whose beginning is lost.
        """
        for offset, value in self._records.news():
            self._behind += 1
            self._registry.take(offset, value)
            snapshot = self._registry.snapshot_at == offset
            if snapshot:
                self._behind = 0
            if self._first is None:
                self._first, self._whole = self._records.start, self._records.start == 0 or snapshot
        if self._first is None and self._records.start > 0:
            self._first, self._whole = self._records.start, False
        if not self._whole:
            raise RegistryRefused(
                f"{self._topic} begins at offset {self._first}, and no snapshot stands there: its beginning was deleted, and with it what "
                "models there are. Set retention.ms=-1 on it; then, with the workers ended, delete the topic, make it again with "
                "`headrace apply` and register the models again"
            )
        return self._registry

    def cut(self, write: Callable[[bytes], None], delete_before: Callable[[int], None], now_ms: int) -> str | None:
        """Keep the log short: write a snapshot where it has grown, delete what stands before the last one that holds.

        Answers what could not be done, which is no harm but to the length of the log; None where all is well.
        """
        if self._behind > MOST_RECORDS:
            write(self._registry.snapshot(now_ms))
            self.read()
        behind = self._registry.snapshot_at
        if behind is None or self._first is None or behind <= self._first:
            return None
        try:
            delete_before(behind)
        except BrokerRefused as refused:
            return f"{self._topic} cannot be cut before offset {behind} ({refused}): give whoever moves models the right Delete on it"
        self._first = behind
        return None

    def close(self) -> None:
        """Close the connections."""
        self._records.close()
