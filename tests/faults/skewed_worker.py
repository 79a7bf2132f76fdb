"""A worker on a machine whose clock is wrong, by what a file says at the moment: `python -m tests.faults.skewed_worker <file> <slot>`.

It is the worker of `headrace run worker` with another wall clock; the file holds milliseconds. Not the clock of the whole process: a
library that fakes that (libfaketime 0.9.10) makes `time.sleep` of Python 3.11 fail, unless it moves the monotonic clock too, as no machine
does. Limit: librdkafka goes on asking the machine, and the log's own times are right. All else in headrace asks the `Clock` it is handed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headrace import log
from headrace.apps.worker import build
from headrace.cli.definitions import load_app
from headrace.clock import SystemClock
from headrace.settings import load


class SkewedClock(SystemClock):
    """The machine's, wrong by what the file says."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now_ms(self) -> int:
        """What the wall clock of such a machine shows."""
        return super().now_ms() + int(self._file.read_text(encoding="ascii"))


def set_wrong(file: Path, by_ms: int) -> None:
    """Set such a clock, in one step."""
    new = file.with_suffix(".new")
    new.write_text(str(by_ms), encoding="ascii")
    new.rename(file)


def main(file: str, slot: str) -> None:
    """Run until SIGTERM."""
    settings = load().settings
    settings = settings.model_copy(update={"worker": settings.worker.model_copy(update={"slot": slot})})
    log.set_up()
    build(load_app("started:app"), settings, clock=SkewedClock(Path(file)), say=log.logger("worker", slot=slot).info).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
