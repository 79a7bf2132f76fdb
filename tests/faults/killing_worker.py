"""A worker that kills itself with -9 before or after the n-th time it does something.

    python -m tests.faults.killing_worker "after commit 3" <slot>

With a fourth word, `stop`, it freezes there instead, until somebody wakes it up.

It is the worker of `headrace run worker`, its ports wrapped. A death inside a transaction waits until the broker has the records: else
there would be nothing to hide from readers.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from typing import Any

from headrace import log
from headrace.apps.worker import Worker
from headrace.assembly import Ports
from headrace.cli.definitions import load_app
from headrace.clock import SystemClock
from headrace.features.redis_store import RedisStore
from headrace.publish.kafka_sink import KafkaAtLeastOnceSink, KafkaTransactionalSink
from headrace.settings import load
from headrace.types import OutRecords

STEPS = ("claim", "read", "begin", "produce", "offsets", "commit", "apply")
FLUSH_S = 5.0


class Killer:
    """Counts down to the death of this process."""

    def __init__(self, when: str, step: str, count: int, *, stop: bool = False) -> None:
        self._moment, self._left = (when, step), count
        self._signal = signal.SIGSTOP if stop else signal.SIGKILL

    def at(self, when: str, step: str, producer: Any = None) -> None:
        """Die here, if this is the place."""
        if (when, step) != self._moment:
            return
        self._left -= 1
        if not self._left:
            if producer is not None:
                producer.flush(FLUSH_S)
            os.kill(os.getpid(), self._signal)


class Wrapped:
    """Something whose methods are steps; everything else goes through."""

    def __init__(self, inner: Any, killer: Killer, steps: dict[str, str]) -> None:
        self._inner, self._killer, self._steps = inner, killer, steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        step = self._steps.get(name)
        if step is None:
            return found
        producer = self._inner if hasattr(self._inner, "flush") else None

        def call(*arguments: Any, **named: Any) -> Any:
            self._killer.at("before", step, producer)
            answer = found(*arguments, **named)
            self._killer.at("after", step, producer)
            return answer

        return call


class KillingSink:
    """A sink whose producer is wrapped, whenever there is a new one."""

    def __init__(self, inner: KafkaTransactionalSink, killer: Killer) -> None:
        self._inner, self._killer = inner, killer

    def open(self) -> None:
        """Open, then wrap."""
        self._inner.open()
        self._wrap()

    def begin(self) -> None:
        """The step begin."""
        self._killer.at("before", "begin")
        self._inner.begin()
        self._wrap()
        self._killer.at("after", "begin")

    def send(self, records: OutRecords) -> None:
        """The step produce."""
        self._killer.at("before", "produce")
        self._inner.send(records)
        self._killer.at("after", "produce", self._wrap())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _wrap(self) -> Any:
        outbox = self._inner._outbox
        assert outbox is not None
        if not isinstance(outbox.producer, Wrapped):
            steps = {"send_offsets_to_transaction": "offsets", "commit_transaction": "commit"}
            outbox.producer = Wrapped(outbox.producer, self._killer, steps)  # type: ignore[assignment]
        return outbox.producer


class KillingWorker(Worker):
    """A worker whose ports are wrapped."""

    killer: Killer

    def _ports(self, store: RedisStore) -> Ports:
        real = super()._ports(store)
        if isinstance(real.sink, KafkaAtLeastOnceSink):  # its records are delivered when the offsets' turn comes
            real.sink._commit_offsets = Wrapped(real.source, self.killer, {"commit": "offsets"}).commit
            return real
        assert isinstance(real.sink, KafkaTransactionalSink)
        steps = {step: step for step in ("claim", "read", "apply")}
        wrapped = Wrapped(store, self.killer, steps)
        return replace(real, sink=KillingSink(real.sink, self.killer), store=wrapped)


def main(death: str, slot: str) -> None:
    """Run until the death."""
    settings = load().settings
    settings = settings.model_copy(update={"worker": settings.worker.model_copy(update={"slot": slot})})
    log.set_up()
    when, step, count, *how = death.split()
    worker = KillingWorker(load_app("started:app"), settings, clock=SystemClock(), say=log.logger("worker", slot=slot).info)
    worker.killer = Killer(when, step, int(count), stop=how == ["stop"])
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
