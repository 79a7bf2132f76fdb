"""The path of an event on one screen: decode, features, then predict and encode, or pass it on to the next stage.

A batch of records goes in, in offset order; what comes out is nothing but values: records to publish, dead letters, packed states.
Nothing here talks to the outside world, save that states missing in memory are read from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headrace.crashes import ERROR
from headrace.decode.hop_decoder import Decode, HopDecoder
from headrace.errors import FatalError
from headrace.features.resident import ResidentStates
from headrace.publish.dead_letter import DeadLetters, RefusedShare
from headrace.publish.hop_writer import HopWriter
from headrace.scorer import Scorer
from headrace.source import Source
from headrace.timeline import Timeline
from headrace.types import DeadLetter, EventBatch, FeatureVectors, OutRecords, Reason, RecordBatch, Tally


class SourcePath:
    """Everything that happens to the records of one source or hop."""

    def __init__(
        self,
        *,
        source: Source,
        decoder: Decode,
        states: ResidentStates,
        scorers: Sequence[Scorer],
        hops: Sequence[HopWriter],
        model: str | None,
        dead_letters: DeadLetters,
        share: RefusedShare,
        now_ms: Callable[[], int],
    ) -> None:
        """`model` is named in what is refused here, where other pipelines may have a result for the same record of the source."""
        self.source, self.states, self.scorers, self.hops = source, states, scorers, hops
        self.partitions = 0
        """How many partitions the topic has."""
        self._model, self._decoder, self._share, self._now_ms = model, decoder, share, now_ms
        self.dead_letters = dead_letters

    def replay(self, batch: RecordBatch, timeline: Timeline) -> None:
        """Fold records whose predictions are already committed."""
        self.states.fold(self._decoder.decode(batch).events)
        timeline.mark("replay")

    def score(self, batch: RecordBatch, timeline: Timeline) -> tuple[list[OutRecords], Tally]:
        """Exactly one prediction, record of a hop, or dead letter per record and model."""
        decoded = self._decoder.decode(batch)
        timeline.mark("decode")
        events = decoded.events
        _insist_on_our_definitions(events)
        vectors = with_carried(events, self.states.fold(events))
        timeline.mark("features")
        tally = Tally(
            topic=batch.topic,
            timestamps_ms=batch.timestamps_ms,
            events=len(events),
            late=int(vectors.late.sum()),
            unknown_fields=decoded.unknown_fields,
        )
        tally.refused.extend(replace(letter, model=self._model) for letter in (*decoded.refused, *decoded.unreadable))
        outputs: list[OutRecords] = []
        for hop in self.hops if len(events) else ():
            outputs.append(hop.write(events, vectors, self.partitions))
            tally.passed_on[hop.hop.topic] = len(events)
            timeline.mark("encode")
        for scorer in self.scorers if len(events) else ():
            name = scorer.pipeline.name
            found = scorer.score(events, vectors, self._now_ms(), timeline)
            tally.looked_up.update(found.looked_up)
            tally.scored[scorer.casting.model_name(name)] = sum(map(len, found.published))
            tally.shadowed[name] = sum(map(len, found.shadowed))
            tally.answered.update({(name, version): counts for version, counts in found.answered.items()})
            tally.refused.extend(found.refused)
            outputs += found.published + found.shadowed
            corrected = vectors.corrected.get(name)
            if corrected is not None:
                corrections = scorer.correct(events, corrected, self._now_ms())
                tally.corrected[name] = sum(map(len, corrections))
                outputs += corrections
                timeline.mark("encode")
        if tally.refused:
            outputs.extend(self._letters(batch, events.sent, tally.refused, {letter.row for letter in decoded.unreadable}))
        self._share.observe(len(batch), [letter for letter in tally.refused if letter.role in {None, "champion"}])
        return outputs, tally

    def refuse(self, batch: RecordBatch) -> tuple[list[OutRecords], Tally]:
        """A dead letter for each of these records, which end the process: nothing of them is looked at."""
        refused = [
            DeadLetter(row=row, reason=Reason.CRASH_LOOP, stage="crashes", error=ERROR, model=self._model) for row in range(len(batch))
        ]
        sent, untold = batch, set[int]()
        if isinstance(self._decoder, HopDecoder):
            sent, readable = self._decoder.sent(batch)
            untold = set(np.flatnonzero(~readable).tolist())
        tally = Tally(topic=batch.topic, timestamps_ms=batch.timestamps_ms, refused=refused)
        return self._letters(batch, sent, refused, untold), tally

    def sent(self, batch: RecordBatch) -> RecordBatch:
        """The records as they stand in the source's topic."""
        return self._decoder.sent(batch)[0] if isinstance(self._decoder, HopDecoder) else batch

    def made_otherwise(self, batch: RecordBatch) -> NDArray[np.bool_]:
        """Which records bring features that other definitions made, so that they can be folded and not scored."""
        if isinstance(self._decoder, HopDecoder):
            return self._decoder.made_otherwise(batch)
        return np.zeros(len(batch), dtype=np.bool_)

    def _letters(self, batch: RecordBatch, sent: RecordBatch, refused: Sequence[DeadLetter], untold: set[int]) -> list[OutRecords]:
        """Dead letters as the source's records; those of which that cannot be told, as the records they are."""
        told = [letter for letter in refused if letter.row not in untold]
        rest = [letter for letter in refused if letter.row in untold]
        return [self.dead_letters.encode(records, letters) for records, letters in ((sent, told), (batch, rest)) if letters]


def _insist_on_our_definitions(events: EventBatch) -> None:
    """Raises `FatalError` for features that came along and were made by other definitions."""
    if events.carried is None or events.carried.ours.all():
        return
    records, row = events.records, events.rows[np.argmin(events.carried.ours)]
    raise FatalError(
        f"{records.topic}-{records.partitions[row]} offset {records.offsets[row]} brings features that other definitions made: "
        "end all workers, finish what is on the hops with `headrace run worker --drain` under the definitions from before, then start the "
        "new ones"
    )


def with_carried(events: EventBatch, vectors: FeatureVectors) -> FeatureVectors:
    """The features of a stage behind those that came with its events."""
    if events.carried is None:
        return vectors
    return replace(vectors, values=np.hstack((events.carried.values, vectors.values)))
