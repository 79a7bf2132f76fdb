"""What the engine answered, read from its topics as any `read_committed` reader reads them.

Every prediction and dead letter is led back to its source record by the coordinates it carries, so a flight without answer, one with two,
and an answer to nothing are found one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from headrace.demo.feed import PLANTED, Feed
from headrace.memory_log import MemoryLog
from headrace.publish.records import Prediction, decode_prediction
from headrace.types import Float64s, Headers, TopicPartition

PORTION = 16_384


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What the records of the source topic led to."""

    scores: Float64s
    """By row of the departure; NaN where it has no prediction."""
    features: Float64s
    """[departures, names asked for], as they were published."""
    versions: NDArray[np.str_]
    """By row of the departure, the version that scored it; "" where it has no prediction."""
    by_version: Counter[str]
    """Predictions of each version."""
    predictions: int
    late: int
    """Predictions marked late."""
    dead_letters: Counter[str]
    """By reason."""
    planted: Mapping[str, Counter[str]]
    """What became of the planted records: by kind, the reasons, or "predicted"."""
    unanswered: int
    """Source records with neither prediction nor dead letter."""
    answered_twice: int
    """Source records with more than one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shadowed:
    """What shadows scored."""

    scores: Float64s
    """By row of the departure; NaN where no shadow scored it."""
    by_version: Counter[str]


class Reader:
    """Reads the topics of one pipeline in memory."""

    def __init__(self, log: MemoryLog, feed: Feed, *, predictions: str, shadow: str | None, dead_letters: str) -> None:
        """`shadow` is where the scores of shadows go, if anywhere."""
        self._log, self._feed = log, feed
        self._predictions, self._shadow, self._dead_letters = predictions, shadow, dead_letters

    def oldest(self) -> tuple[int, Prediction, bytes]:
        """The prediction of the earliest departure so far: row, prediction, the record's value."""
        return min((one for partition in self._partitions(self._predictions) for one in self._some(partition, 0, 1)), key=_row)

    def newest(self, count: int) -> list[tuple[int, Prediction, bytes]]:
        """The predictions of the newest few departures, oldest first. Reads little."""
        found: list[tuple[int, Prediction, bytes]] = []
        for partition in self._partitions(self._predictions):
            found += self._some(partition, max(0, self._log.stable_end(partition) - 2 * count), 2 * count)
        return sorted(found, key=_row)[-count:]

    def shadowed(self, departures: int) -> Shadowed:
        """The scores of shadows, of which there is one at a time, led back to their source records."""
        scores, by_version = np.full(departures, np.nan), Counter[str]()
        for value, _ in () if self._shadow is None else self._read(self._shadow):
            prediction = decode_prediction(value or b"")
            number, offset = _source_of(prediction)
            by_version[prediction.model.version] += 1
            row = self._feed.rows[number][offset]
            if row != PLANTED:
                scores[row] = prediction.score
        return Shadowed(scores=scores, by_version=by_version)

    def answers(self, departures: int, names: Sequence[str]) -> Answers:
        """Everything there is, led back to its source records, with the published features of these names."""
        feed = self._feed
        scores, features = np.full(departures, np.nan), np.full((departures, len(names)), np.nan)
        seen = [[0] * len(rows) for rows in feed.rows]
        planted: dict[str, Counter[str]] = {kind: Counter() for kind in feed.kinds.values()}
        versions, by_version = [""] * departures, Counter[str]()
        of_names = itemgetter(*names)
        predictions = late = 0
        for value, _ in self._read(self._predictions):
            prediction = decode_prediction(value or b"")
            number, offset = _source_of(prediction)
            row = feed.rows[number][offset]
            seen[number][offset] += 1
            predictions += 1
            late += prediction.late
            by_version[prediction.model.version] += 1
            if row == PLANTED:
                planted[feed.kinds[number, offset]]["predicted"] += 1
            else:
                scores[row], versions[row] = prediction.score, prediction.model.version
                if isinstance(prediction.features, dict):
                    features[row] = of_names(prediction.features)
        dead_letters: Counter[str] = Counter()
        for _, headers in self._read(self._dead_letters):
            said = {name: (text or b"").decode() for name, text in headers or ()}
            reason, number, offset = said["headrace-reason"], int(said["__streams.errors.partition"]), int(said["__streams.errors.offset"])
            seen[number][offset] += 1
            dead_letters[reason] += 1
            if (number, offset) in feed.kinds:
                planted[feed.kinds[number, offset]][reason] += 1
        times = Counter(count for partition in seen for count in partition)
        return Answers(
            scores=scores,
            features=features,
            versions=np.array(versions),
            by_version=by_version,
            predictions=predictions,
            late=late,
            dead_letters=dead_letters,
            planted=planted,
            unanswered=times.pop(0, 0),
            answered_twice=sum(times.values()) - times[1],
        )

    def _some(self, partition: TopicPartition, position: int, limit: int) -> list[tuple[int, Prediction, bytes]]:
        answer = self._log.fetch(partition, position, limit)
        values = [value or b"" for value in answer[0][3]] if answer is not None else []
        predictions = [(decode_prediction(value), value) for value in values]
        places = [(_source_of(prediction), prediction, value) for prediction, value in predictions]
        return [(self._feed.rows[number][offset], prediction, value) for (number, offset), prediction, value in places]

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self._log.topics()[topic])]

    def _read(self, topic: str) -> Iterator[tuple[bytes | None, Headers | None]]:
        """Values and headers of all committed records of a topic."""
        for partition in self._partitions(topic):
            position, end = 0, self._log.stable_end(partition)
            while position < end:
                answer = self._log.fetch(partition, position, PORTION)
                if answer is None:
                    break
                (_, _, _, values, headers), position = answer
                yield from zip(values, headers, strict=True)


def _source_of(prediction: Prediction) -> tuple[int, int]:
    """Partition and offset of the source record, from the prediction's id: topic-partition-offset-model."""
    _, number, offset, _ = prediction.id.rsplit("-", 3)
    return int(number), int(offset)


def _row(found: tuple[int, Prediction, bytes]) -> int:
    return found[0]
