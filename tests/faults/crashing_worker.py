"""A worker whose decoder ends the process with a memory fault at a certain text: `python -m tests.faults.crashing_worker - <slot>`.

It is the worker of `headrace run worker`; the fault is a real one, in native code, so nothing of Python runs after it.
"""

from __future__ import annotations

import ctypes
import sys
from unittest.mock import patch

from headrace import log
from headrace.apps.worker import build
from headrace.cli.definitions import load_app
from headrace.decode.decoder import Decoded, Decoder
from headrace.settings import load
from headrace.types import RecordBatch

POISON = b'"note": "poison"'


def main(_: str, slot: str) -> None:
    """Run until SIGTERM, or a record with the text."""
    settings = load().settings
    settings = settings.model_copy(update={"worker": settings.worker.model_copy(update={"slot": slot})})
    log.set_up()
    decode = Decoder.decode

    def decoded(self: Decoder, records: RecordBatch) -> Decoded:
        if any(value is not None and POISON in value for value in records.values):
            ctypes.string_at(0)
        return decode(self, records)

    with patch.object(Decoder, "decode", decoded):
        build(load_app("started:app"), settings, say=log.logger("worker", slot=slot).info).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
