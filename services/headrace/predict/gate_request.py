"""What the gate hands to the process that examines, as a file: plain values in front, bytes as they are behind.

Its parts, in order:

    4 bytes    length of the head, big-endian
    head       JSON: the limits, what the pipeline feeds its model with, sizes to measure, the lengths of what follows
    model      the bytes to examine
    champion   the bytes of the champion, or none
    rehearsal  float64 [rows, features], or none

Lengths are in the head, so nothing is searched for in bytes that come from anywhere.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np

from headrace.predict.gate_limits import GateLimits
from headrace.predict.signature import Feed, ViewVersion
from headrace.types import Float64s

CHAMPION_STEP = "scoring the champion beside it"
"""The step that comes when there is a verdict already: no fault of the candidate's can be found there."""

_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A file to examine, and all that is needed for it."""

    content: bytes
    feed: Feed
    limits: GateLimits
    rehearsal: Float64s | None = None
    """Feature vectors of real events, float64 [rows, features]."""
    champion: bytes | None = None
    sizes: tuple[int, ...] = ()
    """Where there are any: only what batches of these sizes cost is asked for."""

    def write(self, file: BinaryIO) -> None:
        """Write it so that `read` gives it back."""
        rehearsal = None if self.rehearsal is None else np.ascontiguousarray(self.rehearsal, dtype=np.float64)
        head = {
            "limits": asdict(self.limits),
            "feed": asdict(self.feed),
            "sizes": self.sizes,
            "content": len(self.content),
            "champion": None if self.champion is None else len(self.champion),
            "rehearsal": None if rehearsal is None else len(rehearsal),
        }
        text = json.dumps(head).encode()
        file.write(len(text).to_bytes(_LENGTH_BYTES, "big"))
        file.writelines((text, self.content, self.champion or b"", b"" if rehearsal is None else rehearsal.tobytes()))

    @classmethod
    def read(cls, file: BinaryIO) -> Request:
        """What `write` wrote."""
        head = json.loads(file.read(int.from_bytes(file.read(_LENGTH_BYTES), "big")))
        feed, limits = head["feed"], head["limits"]
        views = tuple(ViewVersion(**view) for view in feed["views"])
        content = file.read(head["content"])
        champion = None if head["champion"] is None else file.read(head["champion"])
        rehearsal = None
        if head["rehearsal"] is not None:
            rehearsal = np.frombuffer(file.read(), dtype=np.float64).reshape(head["rehearsal"], len(feed["features"]))
        return cls(
            content=content,
            feed=Feed(name=feed["name"], features=tuple(feed["features"]), views=views, event_features=feed["event_features"]),
            limits=GateLimits(**{**limits, "domains": tuple(limits["domains"]), "operators": tuple(limits["operators"])}),
            rehearsal=rehearsal,
            champion=champion,
            sizes=tuple(head["sizes"]),
        )
