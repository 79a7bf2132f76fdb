"""A worker that never hears how many of its commits ended: `python -m tests.faults.lossy_worker "<seed> <count>" <slot>`.

Of its first 2 * count commits half are not carried out and half are, in a drawn order; each time the client says that there was no answer.
It is the worker of `headrace run worker`, its producer wrapped.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from headrace import log
from headrace.apps.worker import Worker
from headrace.assembly import Ports
from headrace.cli.definitions import load_app
from headrace.clock import SystemClock
from headrace.features.redis_store import RedisStore
from headrace.publish.kafka_sink import KafkaTransactionalSink
from headrace.settings import load

FLUSH_S = 5.0


class LossyProducer:
    """A producer whose commits may get no answer."""

    def __init__(self, inner: Any, carried_out: list[bool]) -> None:
        self._inner, self._carried_out = inner, carried_out

    def commit_transaction(self) -> None:
        """Commit, or not, and never say."""
        if not self._carried_out:
            self._inner.commit_transaction()
            return
        if self._carried_out.pop():
            self._inner.commit_transaction()
        else:
            self._inner.flush(FLUSH_S)  # else there would be nothing to hide from readers
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the answer was lost"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class LossySink:
    """A sink whose producer is wrapped, whenever there is a new one."""

    def __init__(self, inner: KafkaTransactionalSink, carried_out: list[bool]) -> None:
        self._inner, self._carried_out = inner, carried_out

    def begin(self) -> None:
        """Begin, then wrap: a new producer may have been made."""
        self._inner.begin()
        outbox = self._inner._outbox
        assert outbox is not None
        if not isinstance(outbox.producer, LossyProducer):
            outbox.producer = LossyProducer(outbox.producer, self._carried_out)  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class LossyWorker(Worker):
    """A worker whose sink is wrapped."""

    carried_out: list[bool]

    def _ports(self, store: RedisStore) -> Ports:
        real = super()._ports(store)
        assert isinstance(real.sink, KafkaTransactionalSink)
        return replace(real, sink=LossySink(real.sink, self.carried_out))


def main(draw: str, slot: str) -> None:
    """Run until SIGTERM."""
    seed, count = map(int, draw.split())
    settings = load().settings
    settings = settings.model_copy(update={"worker": settings.worker.model_copy(update={"slot": slot})})
    log.set_up()
    worker = LossyWorker(load_app("started:app"), settings, clock=SystemClock(), say=log.logger("worker", slot=slot).info)
    worker.carried_out = [True, False] * count
    random.Random(seed).shuffle(worker.carried_out)
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
