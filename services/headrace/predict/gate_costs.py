"""The gate's last step but the rehearsal: what a model costs in time and memory; and the same for `headrace model bench`, judging nothing.

Judged is the least time of several calls, which says what the machine can do; the median, which also says how busy it was, is reported
beside it. Memory is what the resident set grew by, at its peak. Limit: systems without /proc tell no memory, so none is judged there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from headrace.predict import onnx_model
from headrace.predict.attached_rows import Rows
from headrace.predict.gate_codes import Code
from headrace.predict.gate_examination import Examination
from headrace.predict.gate_limits import BATCH, LARGE_BATCH
from headrace.predict.onnx_model import OnnxModel

CALLS, FEWEST_CALLS, SPENT_NS = 50, 3, 200_000_000
"""Up to so many calls of a size, fewer once they took so long, but never less than these."""
MOST_EXPECTED_US = 2_000_000
"""A large batch that would take longer is left out."""

_STATUS, _PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def costs(examination: Examination) -> None:
    """It answers a row and a batch in the time allowed, and takes no more memory than allowed."""
    limits = examination.limits
    for size, least in _latencies(examination, (1, BATCH, LARGE_BATCH)):
        if size == 1 and least > limits.call_us:
            raise examination.refuse(Code.TOO_SLOW, f"a call for one row takes {least:,.0f} us, allowed are {limits.call_us:,.0f}")
        if size == BATCH and least / size > limits.row_us:
            said = f"a row takes {least / size:,.0f} us in a batch of {size}, allowed are {limits.row_us:,.0f}"
            raise examination.refuse(Code.TOO_SLOW, said)
    grown, allowed = _memory(examination), limits.model_bytes
    if grown is not None and grown > allowed:
        said = f"loading it and scoring {LARGE_BATCH:,} rows took {grown:,} bytes, allowed are {allowed:,}"
        raise examination.refuse(Code.TOO_MUCH_MEMORY, said)


def measure(examination: Examination) -> None:
    """What it costs at the sizes that are asked for; nothing is too much."""
    for _ in _latencies(examination, examination.request.sizes):
        pass
    _memory(examination)


def answered(model: OnnxModel, rows: Rows) -> Rows:
    """Those of the rows for which it does not raise."""
    raised = {row for row, said in model.score(rows.astype(np.float64)).refused if said.startswith(onnx_model.RAISED)}
    return rows[[row not in raised for row in range(len(rows))]]


def resident_bytes() -> int | None:
    """The memory this process has in use; None where the system does not say."""
    return _told("VmRSS")


def forget_peak() -> None:
    """The peak of memory counts from now on, where the system can do that."""
    try:
        _PEAK.write_bytes(b"5")
    except OSError:
        return


def _latencies(examination: Examination, sizes: Sequence[int]) -> Iterator[tuple[int, float]]:
    """The least time of a call of each size, in microseconds, reported on the way; one that would take seconds is left out."""
    rows = answered(examination.model, examination.ordinary)
    times: dict[str, dict[str, float] | None] = {}
    examination.report["latency"] = times
    row_us = 0.0
    for size in sizes:
        if size * row_us > MOST_EXPECTED_US:
            times[str(size)] = None
            examination.notes.append(f"a batch of {size:,} rows was left out: it would take seconds")
            continue
        found = _timed(examination.model, np.resize(rows, (size, rows.shape[1])))
        times[str(size)] = found
        row_us = found["row_us"] if size > 1 else 0.0  # a call has a price of its own, which says nothing of many rows
        yield size, found["least_us"]


def _memory(examination: Examination) -> int | None:
    """By how much memory grew at its peak, reported; None where the system does not say."""
    peak, before = _told("VmHWM"), examination.before_bytes
    if peak is None or before is None:
        examination.report["memory"] = None
        examination.notes.append("this system tells no memory, so its use was not judged")
        return None
    now = resident_bytes() or peak
    grown = max(peak - before, 0)
    examination.report["memory"] = {"held_bytes": max(now - before, 0), "peak_bytes": grown}
    return grown


def _timed(model: OnnxModel, rows: Rows) -> dict[str, float]:
    took: list[int] = []
    model.answer(rows)
    while len(took) < FEWEST_CALLS or (len(took) < CALLS and sum(took) < SPENT_NS):
        start = time.perf_counter_ns()
        model.answer(rows)
        took.append(time.perf_counter_ns() - start)
    least, median = min(took) / 1_000, float(np.median(took)) / 1_000
    return {"calls": len(took), "least_us": least, "median_us": median, "row_us": least / len(rows)}


def _told(field: str) -> int | None:
    try:
        text = _STATUS.read_text(encoding="ascii")
    except OSError:
        return None
    lines = [line.split() for line in text.splitlines()]
    return next((int(line[1]) * 1024 for line in lines if line and line[0] == f"{field}:"), None)
