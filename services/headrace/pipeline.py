"""The path of an event on one screen: decode, features, predict, encode.

A batch of records goes in, in offset order; what comes out is nothing but values: records to publish, dead letters, packed states.
Nothing here talks to the outside world, save that states missing in memory are read from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.crashes import ERROR
from headrace.decode.decoder import Decoder
from headrace.features.resident import ResidentStates
from headrace.publish.dead_letter import DeadLetters, RefusedShare
from headrace.scorer import Scorer
from headrace.source import Source
from headrace.timeline import Timeline
from headrace.types import DeadLetter, OutRecords, Reason, RecordBatch, Tally


class SourcePath:
    """Everything that happens to the records of one source topic."""

    def __init__(
        self,
        *,
        source: Source,
        decoder: Decoder,
        states: ResidentStates,
        scorers: Sequence[Scorer],
        dead_letters: DeadLetters,
        share: RefusedShare,
        now_ms: Callable[[], int],
    ) -> None:
        self.source, self.states, self.scorers = source, states, scorers
        self._decoder, self._dead_letters, self._share, self._now_ms = decoder, dead_letters, share, now_ms

    def replay(self, batch: RecordBatch, timeline: Timeline) -> None:
        """Fold records whose predictions are already committed."""
        self.states.fold(self._decoder.decode(batch).events)
        timeline.mark("replay")

    def score(self, batch: RecordBatch, timeline: Timeline) -> tuple[list[OutRecords], Tally]:
        """Exactly one prediction or dead letter per record and model."""
        decoded = self._decoder.decode(batch)
        timeline.mark("decode")
        vectors = self.states.fold(decoded.events)
        timeline.mark("features")
        tally = Tally(
            topic=batch.topic,
            timestamps_ms=batch.timestamps_ms,
            events=len(decoded.events),
            late=int(vectors.late.sum()),
            unknown_fields=decoded.unknown_fields,
        )
        tally.refused.extend(decoded.refused)
        outputs: list[OutRecords] = []
        for scorer in self.scorers if len(decoded.events) else ():
            predictions, refused = scorer.score(decoded.events, vectors, self._now_ms(), timeline)
            tally.scored[scorer.model.name] = len(predictions)
            tally.refused.extend(refused)
            outputs.append(predictions)
        if tally.refused:
            outputs.append(self._dead_letters.encode(batch, tally.refused))
        self._share.observe(len(batch), tally.refused)
        return outputs, tally

    def refuse(self, batch: RecordBatch) -> tuple[list[OutRecords], Tally]:
        """A dead letter for each of these records, which end the process: nothing of them is looked at."""
        refused = [DeadLetter(row=row, reason=Reason.CRASH_LOOP, stage="crashes", error=ERROR) for row in range(len(batch))]
        tally = Tally(topic=batch.topic, timestamps_ms=batch.timestamps_ms, refused=refused)
        return [self._dead_letters.encode(batch, refused)], tally
