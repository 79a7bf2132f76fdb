"""Artifacts beside the online store: `hr:{<app>}:artifact:<sha256>` holds the bytes of one.

A model may have 100 MB, and the server does one thing at a time. So bytes go in pieces: into a key of their own that ends by itself where
its writer died, which is renamed when all are there; and out again by ranges. Nobody waits for more than a piece, and nobody sees half of
one. Limit: whoever flushes the server takes the artifacts with the states; states come back from the log, artifacts from whoever registers
the files again, so where that is too little, keep them in a folder or an object store (`models.artifacts`).
"""

from __future__ import annotations

import secrets
from functools import partial

from headrace.features.redis_connection import Conversation, RedisServer, packed
from headrace.predict.artifacts import is_name, sha256_of, undamaged

PIECE_BYTES = 4 * 1_048_576
ASIDE_S = 3_600
"""How long pieces may lie where their writer died."""


class RedisArtifacts:
    """The artifacts of one app."""

    def __init__(self, server: RedisServer, app: str) -> None:
        """`app` is the app's name, which has neither dots nor braces."""
        self._server, self._tag = server, app.encode()

    def put(self, content: bytes) -> str:
        """Keep bytes."""
        sha256 = sha256_of(content)
        aside = self._key(f"{sha256}.{secrets.token_hex(8)}")
        self._server.converse(self._tag, partial(_write, content=content, aside=aside, key=self._key(sha256)))
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes of that sha256."""
        content = self._server.converse(self._tag, partial(_read, key=self._key(sha256))) if is_name(sha256) else None
        return undamaged(sha256, content, f"Redis at {self._server.address}")

    def has(self, sha256: str) -> bool:
        """Whether there is something under that sha256."""
        return is_name(sha256) and bool(
            self._server.converse(self._tag, partial(Conversation.one, command=packed(b"EXISTS", self._key(sha256))))
        )

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _key(self, name: str) -> bytes:
        return b"hr:{%b}:artifact:%b" % (self._tag, name.encode())


def _write(conversation: Conversation, *, content: bytes, aside: bytes, key: bytes) -> None:
    conversation.one(packed(b"SET", aside, content[:PIECE_BYTES], b"EX", b"%d" % ASIDE_S))
    for start in range(PIECE_BYTES, len(content), PIECE_BYTES):
        conversation.one(packed(b"APPEND", aside, content[start : start + PIECE_BYTES]))
    conversation.transaction(2, [packed(b"PERSIST", aside), packed(b"RENAME", aside, key)])


def _read(conversation: Conversation, *, key: bytes) -> bytes | None:
    """All pieces; where it was mended meanwhile its bytes do not fit together, and whoever checks them says so."""
    length, there = conversation.ask(packed(b"STRLEN", key), packed(b"EXISTS", key))
    if not there:
        return None
    return b"".join(
        conversation.one(packed(b"GETRANGE", key, b"%d" % start, b"%d" % (start + PIECE_BYTES - 1)))
        for start in range(0, length, PIECE_BYTES)
    )
