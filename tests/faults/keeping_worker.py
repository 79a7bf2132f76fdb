"""A worker that keeps its producer although a request of it may still be on its way: `python -m tests.faults.keeping_worker - <slot>`.

It is the worker of `headrace run worker` without the guard against the late end of a transaction: what the guard is for must then happen.
"""

from __future__ import annotations

import sys

from headrace import log
from headrace.apps.worker import Worker
from headrace.assembly import Ports
from headrace.cli.definitions import load_app
from headrace.clock import SystemClock
from headrace.features.redis_store import RedisStore
from headrace.publish.kafka_sink import KafkaTransactionalSink
from headrace.settings import load


class KeepingSink(KafkaTransactionalSink):
    """A sink that never takes its producer for worn."""

    def begin(self) -> None:
        """Begin, whatever happened to the connection before."""
        self._worn = False
        super().begin()


class KeepingWorker(Worker):
    """A worker with that sink."""

    def _ports(self, store: RedisStore) -> Ports:
        real = super()._ports(store)
        assert isinstance(real.sink, KafkaTransactionalSink)
        real.sink.__class__ = KeepingSink
        return real


def main(_: str, slot: str) -> None:
    """Run until SIGTERM."""
    settings = load().settings
    settings = settings.model_copy(update={"worker": settings.worker.model_copy(update={"slot": slot})})
    log.set_up()
    KeepingWorker(load_app("started:app"), settings, clock=SystemClock(), say=log.logger("worker", slot=slot).info).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
