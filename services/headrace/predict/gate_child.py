"""The process that examines one file: `python -m headrace.predict.gate_child`, started by `gate.examine`, never by hand.

Everything that touches the bytes of a model happens here, below limits that the process sets for itself before it looks at them: address
space, CPU time, the size and number of files, no core. It reads a `Request` from its standard input and writes lines of JSON to its
standard output: {"step": ...} before each step, so that it is known what it died of, and {"verdict": ...}, of which the last one counts.

Imports are kept few: onnx, onnxruntime and numpy, and of ours what scores; a quarter of a second of CPU.

Limits: the limits are those of one process that runs as its user; they hold what a file makes libraries do, not code that somebody managed
to run inside them. macOS does not enforce the limit of the address space.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from headrace.predict import gate_costs, gate_file, gate_scores, onnx_model
from headrace.predict.gate_codes import Code, Refusal, Refused, refusal
from headrace.predict.gate_examination import Examination
from headrace.predict.gate_limits import GateLimits
from headrace.predict.gate_request import CHAMPION_STEP, Request

STEPS: tuple[tuple[str, Callable[[Examination], None]], ...] = (
    ("reading the file", gate_file.read),
    ("checking it with onnx.checker", gate_file.check),
    ("loading it", gate_file.load),
    ("reading the rows it carries", gate_scores.rows),
    ("scoring ordinary rows", gate_scores.call),
    ("scoring its golden rows", gate_scores.golden),
    ("scoring hostile rows", gate_scores.hostile),
    ("scoring rows alone and among others", gate_scores.alone),
    ("taking its time and memory", gate_costs.costs),
    ("rehearsing real events", gate_scores.rehearse),
)
"""What is done, in order; the first step that refuses ends it."""
MEASURING = (*STEPS[:5], ("taking its time and memory", gate_costs.measure))
"""The same where only its costs are asked for: what proves that it may be called at all, and no more."""
OUTPUT_BYTES, OPEN_FILES = 16 << 20, 64


def examine_here(request: Request, told: Callable[[dict[str, object]], None]) -> None:
    """Walk the steps in this process, which a hostile file may end, and tell steps and verdict as plain JSON."""
    examination = Examination(request)
    examination.report.update(sha256=hashlib.sha256(request.content).hexdigest(), bytes=len(request.content), notes=examination.notes)
    refused = None
    for name, step in MEASURING if request.sizes else STEPS:
        told({"step": name})
        refused = _taken(step, examination, name)
        if refused is not None:
            break
    told(_verdict(refused, examination))
    if refused is None and request.champion is not None:
        told({"step": CHAMPION_STEP})
        gate_scores.champion(examination)
        told(_verdict(None, examination))


def _taken(step: Callable[[Examination], None], examination: Examination, name: str) -> Refusal | None:
    try:
        step(examination)
    except Refused as refused:
        return refused.refusal
    except MemoryError:
        return refusal(Code.MEMORY_LIMIT, f"{name}: no memory was left of {examination.limits.address_bytes:,} bytes")
    except onnx_model.Unusable as error:
        return refusal(Code.OUTPUT_SHAPE, f"{name}: {error}")
    except onnx_model.FAILURES as error:
        code = Code.MEMORY_LIMIT if onnx_model.out_of_memory(error) else Code.CALL
        return refusal(code, f"{name}: {onnx_model.without_values(error)}")
    except Exception as error:  # noqa: BLE001 - a file the gate cannot judge is refused, whatever it did to the gate
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return refusal(Code.UNEXPECTED, f"{name}: {type(error).__name__} in {where}")
    return None


def _verdict(refused: Refusal | None, examination: Examination) -> dict[str, object]:
    told = None if refused is None else {"code": refused.code, "said": refused.said, "fix": refused.fix}
    return {"verdict": {"refusal": told, "report": examination.report}}


def _limit(limits: GateLimits) -> None:
    """From here on nothing but less. The second of CPU between the limits is for the signal to end the process before the kernel does."""
    cpu_s = int(time.process_time()) + 1 + limits.cpu_s
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_FSIZE, OUTPUT_BYTES, OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        (resource.RLIMIT_AS, limits.address_bytes, limits.address_bytes),
    ):
        with contextlib.suppress(ValueError, OSError):  # a lower one was set from outside, or the system has none of this kind
            resource.setrlimit(kind, (soft, hard))


def main() -> None:
    """Examine what stands on standard input. Libraries that print do not reach the verdict: they are given the standard error."""
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def told(line: dict[str, object]) -> None:
        os.write(output, json.dumps(line, allow_nan=False).encode() + b"\n")

    request = Request.read(sys.stdin.buffer)
    _limit(request.limits)
    examine_here(request, told)


if __name__ == "__main__":
    main()
