"""Refused records: kept whole on the app's dead-letter topic, and a limit to how many may be refused.

A dead letter is the original record, byte for byte: key, value, timestamp and headers, in their order. Behind the original headers stand
ours (`records.DeadLetterHeaders`); Kafka readers take the last header of a name, so a record refused again shows its last refusal.
Where the whole record is larger than the dead-letter topic takes, its value becomes a pointer (`records.DeadLetterPointer`) and the
header `headrace-pointer` says so; where even key and headers do not fit, they are left out too and the pointer describes them.

Limits: the topic must take what fits (`max.message.bytes` of the topic and `message.max.bytes` of the producer at least the limit given
here), else a large dead letter ends the worker with `BrokerRefused`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from functools import cache
from importlib import metadata

from headrace.errors import TooManyRefused
from headrace.publish.records import LOOKED_UP, DeadLetterPointer, encode, kept_of
from headrace.types import DeadLetter, Headers, OutRecords, RecordBatch

MAX_RECORD_BYTES = 1_000_000
"""What goes through without any setting: `message.max.bytes` of librdkafka; a topic takes 1,048,588."""

LEAST_RECORD_BYTES = 10_000
"""What the topic must take at least: our headers and a pointer that describes value and key."""

MAX_ERROR_CHARACTERS = 1_000
ATTEMPTS = "headrace-attempts"

BATCH_BYTES, HEADER_BYTES = 100, 10
"""What framing adds at most: to a record, with its batch around it; to each header."""


class DeadLetters:
    """Writes the dead letters of one app. Keeps nothing."""

    def __init__(self, app: str, topic: str, *, version: str | None = None, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        """`version` is that of headrace, None for the one installed; `max_record_bytes` what the topic takes of one record in all.

        Raises `ValueError` for a limit that not even a pointer keeps.
        """
        if max_record_bytes < LEAST_RECORD_BYTES:
            raise ValueError(f"{topic}: a dead letter may take {LEAST_RECORD_BYTES} bytes; {max_record_bytes} are too few")
        self.topic = topic
        self._max_record_bytes = max_record_bytes
        self._app = ("headrace-app", app.encode())
        self._version = ("headrace-version", (version or installed_version()).encode())

    def encode(self, records: RecordBatch, refused: Sequence[DeadLetter]) -> OutRecords:
        """One dead letter per refusal, in the order given; a record refused by two models gives two."""
        written = OutRecords(topic=self.topic, keys=[], values=[], headers=[], timestamps_ms=[])
        for letter in refused:
            key, value, original = records.keys[letter.row], records.values[letter.row], records.headers[letter.row] or []
            headers = [*original, *self._headers(records, letter, original)]
            if record_bytes(key, value, headers) > self._max_record_bytes:
                key, value, headers = self._pointed(records, letter, headers)
            written.keys.append(key)
            written.values.append(value)
            written.headers.append(headers)
            written.timestamps_ms.append(int(records.timestamps_ms[letter.row]))
        return written

    def _headers(self, records: RecordBatch, letter: DeadLetter, original: Headers) -> Headers:
        """Ours: who refused what, why, and how often by now."""
        reason, row = letter.reason.value, letter.row
        headers: Headers = [
            ("__streams.errors.exception", f"headrace.Reason.{reason}".encode()),
            ("__streams.errors.message", letter.error[:MAX_ERROR_CHARACTERS].encode()),
            ("__streams.errors.topic", records.topic.encode()),
            ("__streams.errors.partition", b"%d" % int(records.partitions[row])),
            ("__streams.errors.offset", b"%d" % int(records.offsets[row])),
            ("headrace-reason", reason.encode()),
            ("headrace-stage", letter.stage.encode()),
            self._app,
            self._version,
            (ATTEMPTS, b"%d" % (attempts(original) + 1)),
        ]
        if letter.model is not None:
            headers.append(("headrace-model", letter.model.encode()))
        if letter.looked_up is not None:  # a model may refuse because of it, and nobody could tell without knowing what it was
            headers.append((LOOKED_UP, letter.looked_up))
        return headers

    def _pointed(self, records: RecordBatch, letter: DeadLetter, headers: Headers) -> tuple[bytes | None, bytes, Headers]:
        """Key, value and headers of a dead letter that does not fit: first the value is left out, then everything."""
        row, key = letter.row, records.keys[letter.row]
        original = len(records.headers[row] or ())
        pointer = DeadLetterPointer(
            topic=records.topic,
            partition=int(records.partitions[row]),
            offset=int(records.offsets[row]),
            timestamp=int(records.timestamps_ms[row]),
            value=kept_of(records.values[row]),
        )
        value, headers = encode(pointer), [*headers, ("headrace-pointer", b"1")]
        if record_bytes(key, value, headers) <= self._max_record_bytes:
            return key, value, headers
        alone = DeadLetterPointer(
            topic=pointer.topic,
            partition=pointer.partition,
            offset=pointer.offset,
            timestamp=pointer.timestamp,
            value=pointer.value,
            key=kept_of(key),
            headers=original,
        )
        return None, encode(alone), headers[original:]


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """An upper bound of what a record takes on its topic, uncompressed and alone in its batch."""
    content = sum(HEADER_BYTES + len(name.encode()) + len(text or b"") for name, text in headers)
    return BATCH_BYTES + len(key or b"") + len(value or b"") + content


@cache
def installed_version() -> str:
    """The version of headrace that runs; `unknown` where it runs from its source folder without being installed."""
    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:
        return "unknown"


def attempts(headers: Headers) -> int:
    """How often a record was refused before: the last of its `headrace-attempts` headers; 0 where that is absent or no number."""
    texts = [text or b"" for name, text in headers if name == ATTEMPTS]
    return int(texts[-1]) if texts and texts[-1].isdigit() and len(texts[-1]) <= len("999") else 0


class RefusedShare:
    """Stops a worker that refuses more than a share of its records: the fault is likely ours then, and more dead letters help nobody.

    Judged at every refusal over the last `window` records, so the verdict does not depend on how records are cut into batches. While fewer
    were seen, the missing ones count as accepted. A `limit` of 1 switches it off.
    """

    def __init__(self, limit: float, window: int, *, app: str = "<app>") -> None:
        """`limit` is a share from 0 to 1; `app` names the app in the error's text. Raises `ValueError`."""
        if not 0 <= limit <= 1 or window < 1:
            raise ValueError(f"the limit of refused records must be a share from 0 to 1 of at least one record, not {limit} of {window}")
        self._limit, self._window, self._app = limit, window, app
        self._seen = 0
        self._refused: deque[tuple[int, DeadLetter]] = deque()

    def observe(self, records: int, refused: Sequence[DeadLetter]) -> None:
        """Take the next batch; a record that several models refused counts once. Raises `TooManyRefused`."""
        by_row = {letter.row: letter for letter in sorted(refused, key=lambda letter: letter.row)}
        for row, letter in by_row.items():
            number = self._seen + row
            self._refused.append((number, letter))
            while self._refused[0][0] <= number - self._window:
                self._refused.popleft()
            if len(self._refused) > self._limit * self._window:
                self._stop()
        self._seen += records

    def _stop(self) -> None:
        """Say what is refused most and what to look at."""
        ((most, count),) = Counter(letter.reason for _, letter in self._refused).most_common(1)
        example = next(letter.error for _, letter in reversed(self._refused) if letter.reason is most)
        raise TooManyRefused(
            f"{len(self._refused)} of the last {self._window} records were refused, more than the limit of {self._limit:.1%};"
            f" most often {most.value} ({count} times), the last of them: {example}."
            f" Look at them with: headrace dead-letters list --app {self._app}"
        )
