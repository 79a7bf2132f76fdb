"""The gate: whether a model may be registered for a pipeline. Every refusal has a code, the first difference and the fix.

A file is examined in a process of its own, below limits of memory, CPU and time, with an empty folder to work in and almost nothing in its
environment. The order:

    size; one whole ONNX file; no tensor outside its bytes; domains; operators; nesting       it lies there
    onnx.checker; loads; signature against the pipeline; input by count, dtype, width, free batch axis; output
    ordinary rows answered; golden rows within tolerance; hostile rows survived; a row alone as among others
    time and memory; the last real events, the champion's scores beside                       it answers

A process that dies is a refusal too, with a code that says of what. `gate_codes.table_text()` lists all codes.

Limits: what a deployment asks of a model is in `GateLimits`. The gate judges one file at a time; it does not know other versions. Times are
those of the machine it runs on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from headrace.errors import DefinitionError
from headrace.predict import onnx_file
from headrace.predict.gate_codes import Code, Refusal, refusal
from headrace.predict.gate_limits import BENCH_LIMITS, BENCH_SIZES, DEFAULT_LIMITS, GateLimits
from headrace.predict.gate_request import CHAMPION_STEP, Request
from headrace.predict.signature import METADATA_KEY, Scored, Signature, feed_of
from headrace.types import Float64s

__all__ = ["Code", "GateLimits", "Refusal", "Verdict", "examine", "measure"]

CHILD: Sequence[str] = (sys.executable, "-P", "-m", "headrace.predict.gate_child")
_SERVICES = Path(__file__).resolve().parents[2]
_PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_LAST_WORDS_BYTES = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate found; without refusals the model may be registered."""

    refusals: tuple[Refusal, ...]
    """Why not: the first difference, as what comes behind it was not looked at any more."""
    report: dict[str, Any]
    """What was measured on the way, as plain JSON: file, signature, ordinary, golden, hostile, one_missing, row_alone, latency, memory,
    rehearsal, and notes of what an engineer should know and nothing was refused for."""

    @property
    def passed(self) -> bool:
        """Whether the model may be registered."""
        return not self.refusals

    @property
    def signature(self) -> Signature | None:
        """The signature that was found to fit; None where the examination did not come so far."""
        found = self.report.get("signature")
        return None if found is None else Signature.from_metadata({METADATA_KEY: json.dumps(found)})


def examine(
    content: bytes,
    pipeline: Scored,
    *,
    rehearsal: Float64s | None = None,
    champion: bytes | None = None,
    limits: GateLimits = DEFAULT_LIMITS,
) -> Verdict:
    """Examine a model's bytes for a pipeline; `rehearsal` are feature vectors of real events, `champion` the bytes that score them now.

    Whatever the bytes do is a refusal, never an exception. Raises `DefinitionError` where the package `onnx` is missing, or where
    the vectors are not of the pipeline's features.
    """
    return _asked(content, pipeline, limits, rehearsal=rehearsal, champion=champion)


def measure(
    content: bytes,
    pipeline: Scored,
    *,
    rehearsal: Float64s | None = None,
    sizes: Sequence[int] = BENCH_SIZES,
    limits: GateLimits = BENCH_LIMITS,
) -> Verdict:
    """What a model costs a row in batches of these sizes, the smallest first, and in memory: `latency` and `memory` of the report.

    It is refused where it may not be loaded, does not fit the pipeline or does not answer; never for its costs. Raises as `examine` does.
    """
    return _asked(content, pipeline, limits, rehearsal=rehearsal, sizes=tuple(sizes))


def _asked(
    content: bytes,
    pipeline: Scored,
    limits: GateLimits,
    *,
    rehearsal: Float64s | None,
    champion: bytes | None = None,
    sizes: tuple[int, ...] = (),
) -> Verdict:
    if not onnx_file.installed():
        raise DefinitionError(onnx_file.NEEDS_ONNX)
    feed = feed_of(pipeline)
    if rehearsal is not None and (rehearsal.ndim != 2 or rehearsal.shape[1] != len(feed.features)):  # noqa: PLR2004 - rows and features
        said = f"rehearsal has shape {list(rehearsal.shape)}, pipeline {feed.name!r} has {len(feed.features)} features"
        raise DefinitionError(f"{said}: give [rows, features]")
    if len(content) > limits.file_bytes:
        found = refusal(Code.TOO_LARGE, f"the file has {len(content):,} bytes, allowed are {limits.file_bytes:,}")
        return Verdict(refusals=(found,), report={"bytes": len(content)})
    ended = _run(Request(content=content, feed=feed, limits=limits, rehearsal=rehearsal, champion=champion, sizes=sizes))
    return _judged(ended, limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """How the process ended, and what it told before."""

    status: int | None
    """Its exit status, minus the signal that ended it; None: it was ended at the deadline."""
    step: str = "starting"
    verdict: dict[str, Any] | None = None
    last_words: str = ""


def _run(request: Request) -> _Ended:
    """Files stand between the two processes, so neither waits for the other to read, and what is told has a largest size."""
    with (
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as told,
        tempfile.TemporaryFile() as said,
        tempfile.TemporaryDirectory(prefix="headrace-gate-") as folder,
    ):
        request.write(asked)
        asked.seek(0)
        child = subprocess.Popen(  # noqa: S603 - our own program, named in CHILD
            CHILD, stdin=asked, stdout=told, stderr=said, cwd=folder, env=_environment(), start_new_session=True
        )
        try:
            status: int | None = child.wait(request.limits.wall_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        return _ended(status, told, said)


def _ended(status: int | None, told: BinaryIO, said: BinaryIO) -> _Ended:
    told.seek(0)
    step, verdict = "starting", None
    for line in told:
        try:
            one = json.loads(line)
        except ValueError:
            break  # it died while it wrote
        step, verdict = one.get("step", step), one.get("verdict", verdict)
    said.seek(max(said.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES, 0))
    return _Ended(status=status, step=step, verdict=verdict, last_words=said.read().decode(errors="replace").strip())


def _judged(ended: _Ended, limits: GateLimits) -> Verdict:
    report: dict[str, Any] = {} if ended.verdict is None else ended.verdict["report"]
    if ended.status == 0 and ended.verdict is not None:
        found = ended.verdict["refusal"]
        given = () if found is None else (Refusal(code=Code(found["code"]), said=found["said"], fix=found["fix"]),)
        return Verdict(refusals=given, report=report)
    death = _death(ended, limits)
    if ended.step == CHAMPION_STEP:
        report["notes"].append(f"the champion could not be scored beside it: {death.said}")
        return Verdict(refusals=(), report=report)
    return Verdict(refusals=(death,), report={**report, "died": ended.step})


def _death(ended: _Ended, limits: GateLimits) -> Refusal:
    when = f"while {ended.step}"
    if ended.status is None:
        return refusal(Code.DEADLINE, f"{when} it was ended at the deadline of {limits.wall_s:g} s")
    if ended.status == -signal.SIGXCPU:
        return refusal(Code.CPU_LIMIT, f"{when} it had used up its {limits.cpu_s} s of CPU time")
    if any(words in ended.last_words for words in ("bad_alloc", "MemoryError", "Failed to allocate memory")):
        return refusal(Code.MEMORY_LIMIT, f"{when} no memory was left of {limits.address_bytes:,} bytes")
    last = ended.last_words.rpartition("\n")[2]
    if ended.status < 0:
        name = signal.Signals(-ended.status).name
        hint = ", as the kernel does where memory is short" if ended.status == -signal.SIGKILL else ""
        return refusal(Code.CRASHED, f"{when} the process died of {name}{hint}{f': {last}' if last else ''}")
    return refusal(Code.CRASHED, f"{when} the process ended with status {ended.status}{f': {last}' if last else ''}")


def _environment() -> dict[str, str]:
    """What the process may know of ours: nothing secret, and our own source in front of any other."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    path = os.pathsep.join([str(_SERVICES), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
